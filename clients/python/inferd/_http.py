"""_http.py: one question over HTTP, asked again until it is answered, refused for good, or nobody wants to know any more."""

from __future__ import annotations

import email.utils
import http.client
import json
import ssl as _ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping

from ._types import MAX_HINT, Error, InferdError, backoff

TIMEOUT = 120.0  # of one try, a long poll included


class HTTP:
    """Asks one appliance. A connection per question: jobs are few and must not share a dead one."""

    def __init__(self, base: str, headers: Mapping[str, str] | None, ssl: _ssl.SSLContext | None, attempts: int, min_backoff: float, max_backoff: float, max_answer: int):
        if "://" not in base:
            base = "http://" + base
        u = urllib.parse.urlsplit(base)
        if u.scheme not in ("http", "https") or not u.hostname:
            raise ValueError(f"{base[:200]!r} is no address of an appliance; write http://host:8501")
        self.scheme, self.host, self.port, self.path = u.scheme, u.hostname, u.port, u.path.rstrip("/")
        self.headers, self.ssl, self.attempts = dict(headers or {}), ssl, attempts
        self.least, self.most, self.max_answer = min_backoff, max(max_backoff, min_backoff), max_answer

    def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None, *,
            timeout: float | None = None, stop: threading.Event | None = None, temporary: Callable[[Error], bool] = lambda e: e.temporary) -> tuple[int, bytes]:
        """The status and the body of an answer that is one; an Error is a refusal that stands. timeout bounds all tries together."""
        stop = stop or threading.Event()
        end = None if timeout is None else time.monotonic() + timeout
        n = 0
        while True:
            left = TIMEOUT if end is None else min(TIMEOUT, max(0.001, end - time.monotonic()))
            try:
                return self._once(method, path, headers, body, left)
            except Error as e:
                if not temporary(e):
                    raise
                failed, hint = e, e.retry_after
            except (OSError, http.client.HTTPException) as e:
                failed, hint = e, 0.0
            n += 1
            if self.attempts and n >= self.attempts:
                raise failed if isinstance(failed, InferdError) else InferdError(f"{self.host}: {failed or type(failed).__name__}") from failed
            wait = backoff(n - 1, hint, self.least, self.most)
            if end is not None and time.monotonic() + wait >= end:
                raise TimeoutError(f"no answer within {timeout:g} s; the last try: {failed}") from failed
            if stop.wait(wait):
                raise InferdError("given up") from failed

    def _once(self, method: str, path: str, headers: Mapping[str, str] | None, body: bytes | None, timeout: float) -> tuple[int, bytes]:
        if self.scheme == "https":
            c: http.client.HTTPConnection = http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.ssl)
        else:
            c = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            c.request(method, self.path + path, body, {**self.headers, **(headers or {})})
            r = c.getresponse()
            text = r.read(self.max_answer + 1)
            if len(text) > self.max_answer:
                raise InferdError(f"{method} {path}: the answer is larger than {self.max_answer} bytes (max_answer)")
            if r.status // 100 != 2:
                raise refusal(r.status, r.headers, text)
            return r.status, text
        finally:
            c.close()


def refusal(status: int, headers: Mapping[str, str], text: bytes) -> Error:
    """The error that an answer of a status above 299 stands for."""
    try:
        said = json.loads(text)
        message, code, reason = str(said["error"]), str(said.get("code", "")), str(said.get("reason", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code, reason = text[:200].decode("utf-8", "replace").strip(), "", ""
    return Error(message or http.client.responses.get(status, "no reason was given"), status=status, code=code,
                 reason=headers.get("X-Inferd-Reason") or reason, retry_after=seconds(headers.get("Retry-After") or ""))


def seconds(text: str) -> float:
    """Retry-After's two forms; what is neither is none."""
    try:
        return min(max(float(int(text)), 0.0), MAX_HINT)
    except ValueError:
        pass
    try:
        return min(max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0), MAX_HINT)
    except (ValueError, TypeError):
        return 0.0
