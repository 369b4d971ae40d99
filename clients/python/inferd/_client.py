"""_client.py: one appliance and its jobs, blocking (Client) and with asyncio (AsyncClient)."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl as _ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from ._http import HTTP
from ._stream import AsyncStream
from ._sync import Stream
from ._types import Error, Job, Result, Session, arrays, backoff, request_values, target

LONG_POLL = 30
T = TypeVar("T")


class _Jobs:
    """What the two clients share: each method is one call of HTTP.ask, or several."""

    def __init__(self, base: str, *, token: str | None = None, headers: Mapping[str, str] | None = None, ssl: _ssl.SSLContext | None = None, attempts: int = 0,
                 min_backoff: float = 0.1, max_backoff: float = 10.0, max_answer: int = 256 << 20):
        """base is http://host:8501, or https:// with an ssl context of your own or the system's authorities. token is shown to an appliance that asks
        for one: read it from a file or a secret store, not from the command line; no error has it. headers go with each request and handshake. A question is tried until it is answered, its timeout ends, or
        attempts are used up (0: no limit)."""
        if token:
            if any(c.isspace() for c in token.strip()):
                raise ValueError("the token is not one word, as `inferd token add` prints it")
            headers = {**(headers or {}), "Authorization": "Bearer " + token.strip()}
        self._http = HTTP(base, headers, ssl, attempts, min_backoff, max_backoff, max_answer)

    def _submit(self, stop: threading.Event | None, timeout: float | None, model: str, instances: Any, inputs: Any, body: bytes | None, signature: str | None, version: int | None,
                label: str | None, key: str | None, priority: str | None, expires: float | None, max_attempts: int | None, ordering_key: str | None) -> Job:
        target(model, version, label)
        if body is None:
            members = request_values(instances, inputs)
            if signature:
                members["signature_name"] = signature
            body = json.dumps(members).encode()
        elif instances is not None or inputs is not None:
            raise ValueError("body is the whole request; give either it or instances or inputs")
        headers = {"Content-Type": "application/json", "Idempotency-Key": key or secrets.token_urlsafe(16)}
        for name, value in (("X-Inferd-Priority", priority), ("X-Inferd-Expires", expires and max(1, round(expires))), ("X-Inferd-Max-Attempts", max_attempts), ("X-Inferd-Ordering-Key", ordering_key)):
            if value:
                headers[name] = str(value)
        path = f"/v1/models/{quote(model, safe='')}"
        if version is not None:
            path += f"/versions/{version}"
        elif label is not None:
            path += f"/labels/{quote(label, safe='')}"
        status, text = self._http.ask("POST", path + ":submit", headers, body, timeout=timeout, stop=stop)
        return Job.read(text, existed=status == 200)

    def _job(self, stop: threading.Event | None, timeout: float | None, method: str, path: str) -> Job:
        return Job.read(self._http.ask(method, "/v1/jobs/" + path, timeout=timeout, stop=stop)[1])

    def _wait(self, stop: threading.Event | None, timeout: float | None, id: str) -> Job:
        end = None if timeout is None else time.monotonic() + timeout
        stop, n = stop or threading.Event(), 0
        while True:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"job {id} is not over after {timeout:g} s")
            asked = time.monotonic()
            job = self._job(stop, left, "GET", f"{quote(id, safe='')}?wait={LONG_POLL if left is None else max(1, min(LONG_POLL, int(left)))}")
            if job.over:
                return job
            n = 0 if time.monotonic() - asked > 0.5 else n + 1
            if n and stop.wait(backoff(n - 1, 0, self._http.least, self._http.most)):  # it did not wait: do not turn that into a spin
                return job

    def _result(self, stop: threading.Event | None, timeout: float | None, id: str) -> Result:
        end = None if timeout is None else time.monotonic() + timeout
        job = self._wait(stop, timeout, id)
        left = None if end is None else max(0.001, end - time.monotonic())
        # A job's own error has a status too, and is final; only a refusal that says when to come again is of the moment.
        text = self._http.ask("GET", f"/v1/jobs/{quote(id, safe='')}/result", timeout=left, stop=stop, temporary=lambda e: e.temporary and e.retry_after > 0)[1]
        got = json.loads(text)
        return Result(id=id, job=id, version=job.version, predictions=arrays(got["predictions"]) if "predictions" in got else None, outputs=arrays(got["outputs"]) if "outputs" in got else None)

    def _forget(self, stop: threading.Event | None, timeout: float | None, id: str) -> None:
        try:
            self._http.ask("DELETE", f"/v1/jobs/{quote(id, safe='')}", timeout=timeout, stop=stop)
        except Error as e:
            if e.status != 404:  # gone already: the word of it was lost
                raise

    def _stream_options(self, session: Session | None, buffer: int, waiting: int, ping: float) -> dict[str, Any]:
        h = self._http
        host = f"[{h.host}]" if ":" in h.host else h.host
        url = f"{'wss' if h.scheme == 'https' else 'ws'}://{host}{f':{h.port}' if h.port else ''}{h.path}/v1/stream"
        return dict(url=url, session=session, buffer=buffer, waiting=waiting, ping=ping, headers=h.headers, ssl=h.ssl, attempts=h.attempts,
                    min_backoff=h.least, max_backoff=h.most, max_answer=h.max_answer)


class Client(_Jobs):
    """One appliance. Any thread may use it; it holds no connection."""

    def submit(self, model: str, *, instances: Any = None, inputs: Any = None, body: bytes | None = None, signature: str | None = None, version: int | None = None, label: str | None = None,
               key: str | None = None, priority: str | None = None, expires: float | None = None, max_attempts: int | None = None, ordering_key: str | None = None,
               timeout: float | None = None) -> Job:
        """Hands a request over. When it returns, the job is on the appliance's disk and will have a result.

        It tries again while the appliance cannot be reached, is full or busy, under one key (made up when none is given), so that it is one job
        however often it was sent. body is predict's JSON as it is, in place of instances or inputs. Jobs of one ordering_key run in order.
        """
        return self._submit(None, timeout, model, instances, inputs, body, signature, version, label, key, priority, expires, max_attempts, ordering_key)

    def job(self, id: str, *, timeout: float | None = None) -> Job:
        """Looks a job up."""
        return self._job(None, timeout, "GET", quote(id, safe=""))

    def wait(self, id: str, *, timeout: float | None = None) -> Job:
        """Returns once the job is over, well or not. It survives restarts of the appliance."""
        return self._wait(None, timeout, id)

    def result(self, id: str, *, timeout: float | None = None) -> Result:
        """Waits for the job and returns its answer; a job that ended otherwise is an Error. It stays with the appliance until forget."""
        return self._result(None, timeout, id)

    def cancel(self, id: str, *, timeout: float | None = None) -> Job:
        """Ends a job that has no result yet; the state says whether it came in time."""
        return self._job(None, timeout, "POST", quote(id, safe="") + ":cancel")

    def retry(self, id: str, *, timeout: float | None = None) -> Job:
        """Queues a job that failed, died, expired or was cancelled once more."""
        return self._job(None, timeout, "POST", quote(id, safe="") + ":retry")

    def forget(self, id: str, *, timeout: float | None = None) -> None:
        """Acknowledges a job that is over: the appliance drops it and its result."""
        self._forget(None, timeout, id)

    def stream(self, *, session: Session | None = None, buffer: int = 256, waiting: int = 1, ping: float = 10.0) -> Stream:
        """Opens a stream; see Stream."""
        return Stream(**self._stream_options(session, buffer, waiting, ping))


class AsyncClient(_Jobs):
    """One appliance, with asyncio. Its questions run in threads, and end when their task is cancelled."""

    async def _run(self, call: Callable[..., T], *args: Any) -> T:
        stop = threading.Event()
        try:
            return await asyncio.to_thread(call, stop, *args)
        except asyncio.CancelledError:
            stop.set()
            raise

    async def submit(self, model: str, *, instances: Any = None, inputs: Any = None, body: bytes | None = None, signature: str | None = None, version: int | None = None, label: str | None = None,
                     key: str | None = None, priority: str | None = None, expires: float | None = None, max_attempts: int | None = None, ordering_key: str | None = None,
                     timeout: float | None = None) -> Job:
        """As Client.submit."""
        return await self._run(self._submit, timeout, model, instances, inputs, body, signature, version, label, key, priority, expires, max_attempts, ordering_key)

    async def job(self, id: str, *, timeout: float | None = None) -> Job:
        """As Client.job."""
        return await self._run(self._job, timeout, "GET", quote(id, safe=""))

    async def wait(self, id: str, *, timeout: float | None = None) -> Job:
        """As Client.wait."""
        return await self._run(self._wait, timeout, id)

    async def result(self, id: str, *, timeout: float | None = None) -> Result:
        """As Client.result."""
        return await self._run(self._result, timeout, id)

    async def cancel(self, id: str, *, timeout: float | None = None) -> Job:
        """As Client.cancel."""
        return await self._run(self._job, timeout, "POST", quote(id, safe="") + ":cancel")

    async def retry(self, id: str, *, timeout: float | None = None) -> Job:
        """As Client.retry."""
        return await self._run(self._job, timeout, "POST", quote(id, safe="") + ":retry")

    async def forget(self, id: str, *, timeout: float | None = None) -> None:
        """As Client.forget."""
        await self._run(self._forget, timeout, id)

    def stream(self, *, session: Session | None = None, buffer: int = 256, waiting: int = 1, ping: float = 10.0) -> AsyncStream:
        """Opens a stream; see AsyncStream."""
        return AsyncStream(**self._stream_options(session, buffer, waiting, ping))
