"""_stream.py: many predictions over one WebSocket that comes back by itself, with asyncio. _sync.py has it for threads."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import ssl as _ssl
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

import websockets.asyncio.client as _ws
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, PayloadTooBig, WebSocketException
from websockets.typing import Subprotocol

from ._http import refusal
from ._types import ClosedError, DroppedError, Error, InferdError, LostError, Result, Session, SessionError, Stats, arrays, backoff, request_values, target

log = logging.getLogger("inferd")

SUBPROTOCOL = Subprotocol("inferd.v1.json")
HELLO_TIMEOUT = 15.0
FAREWELL = 2.0
MEDIA = 3  # the kind of a binary frame that carries a file or samples
MAX_ID = 128
MAX_CREDITS = 1 << 20
UNKNOWN_SESSION = 4002

# Close codes that end a stream, for the next connection would end the same way.
FINAL = {
    1003: "the appliance does not take this kind of frame",
    1007: "the appliance did not find UTF-8",
    1008: "the appliance's policy forbids it",
    1009: "a request is over the appliance's limit (stream.max_frame)",
    4000: "the appliance did not understand several frames",
    4001: "more requests were sent than there were credits",
    4003: "a result was acknowledged that was never sent",
    4004: "another connection has taken the session over; each process needs a session of its own",
}


class _Final(InferdError):
    """Ends the stream."""


@dataclasses.dataclass(eq=False)
class _Call:
    """One request that was not answered yet."""

    id: str
    head: dict[str, Any]
    values: str | bytes = ""
    deadline: float = 0.0
    durable: bool = False
    retry: bool = False
    droppable: bool = False
    began: float = 0.0
    tries: int = 0
    out: bool = False  # it is at the appliance, as far as is known
    accepted: bool = False  # and on its disk
    old: bool = False  # its connection was lost
    job: str = ""

    def frame(self, left: float) -> str | bytes:
        """A text frame with the values in it, or a binary one with a file behind a header: kind, zero, the header's length, the header, padded."""
        head = dict(self.head)
        if self.deadline:
            head["deadline_ms"] = max(1, int(left * 1000))
        text = json.dumps(head)
        if isinstance(self.values, str):
            return text[:-1] + ", " + self.values[1:]
        header = text.encode()
        header += b" " * (-(len(header) + 4) % 8)
        return struct.pack("<BBH", MEDIA, 0, len(header)) + header + self.values


class AsyncStream:
    """A stream. It connects when it is entered, and comes back by itself until it is left.

    send waits for the appliance's credits and for recv: the back-pressure. Results of durable requests come in the order of seq; give each to
    ack once it is kept. A request that is neither durable nor retry is sent at most once; a LostError is its result when the connection was lost.
    """

    def __init__(self, url: str, *, session: Session | None = None, buffer: int = 256, waiting: int = 1, ping: float = 10.0, headers: Mapping[str, str] | None = None,
                 ssl: _ssl.SSLContext | None = None, attempts: int = 0, min_backoff: float = 0.1, max_backoff: float = 10.0, max_answer: int = 256 << 20):
        """url is ws://host:8501/v1/stream; Client.stream knows it. buffer bounds the results that wait for recv, waiting the drop_oldest requests
        that wait for credit. Every ping seconds the connection is tried."""
        self._url, self._headers, self._ssl = url, dict(headers or {}), ssl
        self._buffer, self._room, self._ping, self._attempts = max(1, buffer), max(1, waiting), ping, attempts
        self._least, self._most, self._max_answer = min_backoff, max_backoff, max_answer
        s = session or Session()
        self._session, self._acked, self._received, self._next, self._note = s.id, s.acked, s.acked, s.next, s.note
        self._durable = bool(s.id)  # the session is worth resuming
        self._open: set[int] = set(s.open)
        self._calls: dict[str, _Call] = {}  # not answered yet, in the order of send
        self._unacked: deque[tuple[int, str]] = deque()
        self._queue: deque[_Call] = deque()  # of the calls, what is to be sent
        self._cancels: deque[str] = deque()
        self._results: deque[Result] = deque()
        self._online, self._credits, self._max_frame = False, 0, 0
        self._ended = self._closed = False
        self._error: InferdError | None = None
        self._stats = Stats()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        if s.id:
            for id in s.waiting:
                self._calls.setdefault(id, _Call(id, {}, durable=True, accepted=True))

    async def __aenter__(self) -> "AsyncStream":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Result]:
        """Every result, until close_send was called and everything is answered."""
        while True:
            r = await self.recv()
            if r is None:
                return
            yield r

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def send(self, model: str, *, instances: Any = None, inputs: Any = None, media: bytes | None = None, id: str | None = None, version: int | None = None, label: str | None = None, signature: str | None = None,
                   deadline: float | None = None, priority: str | None = None, durable: bool = False, ordered: bool = False, drop_oldest: bool = False, retry: bool = False,
                   lane: str | None = None, expires: float | None = None, max_attempts: int | None = None) -> str:
        """Hands a request over, and returns its id once it has a credit.

        instances or inputs are predict's, numpy arrays among them; media is a file or samples as they are, for a model whose configuration says how
        its input arrives.

        durable: to the appliance's disk before it is run; sent again until it is there, and its result comes whatever happens. ordered: answered
        after every ordered request before it. drop_oldest: does not wait for credit; what waits the longest gives way. retry: harmless to run twice.
        deadline: seconds from now. Of durable requests: those of one lane run one after another; expires: seconds after which they are not
        worth running; max_attempts. A durable request whose id is a number that the session knows as accepted is passed over.
        """
        target(model, version, label)
        if media is not None and (instances is not None or inputs is not None):
            raise ValueError("a request has one of instances, inputs and media")
        if media is not None and signature:
            raise ValueError("media is for the one signature that takes it; leave signature out")
        values = bytes(media) if media is not None else json.dumps(request_values(instances, inputs))
        if id is not None and not 1 <= len(id.encode()) <= MAX_ID:
            raise ValueError(f"the id {id[:40]!r} is not of 1 to {MAX_ID} bytes")
        if durable and drop_oldest:
            raise ValueError("a durable request is not dropped; choose durable or drop_oldest")
        if ordered and drop_oldest:
            raise ValueError("requests that may be dropped are answered in any order; choose ordered or drop_oldest")
        if not durable and (lane or expires or max_attempts):
            raise ValueError("lane, expires and max_attempts are for durable requests")
        while True:
            if self._closed or self._ended:
                raise ClosedError("the stream is closed")
            if self._error:
                raise self._error
            if self._max_frame and len(values) > self._max_frame:
                raise self._too_large(len(values))
            if len(self._results) < self._buffer and (drop_oldest or self._online and self._credits > len(self._queue)):
                break
            await self._changed.wait()
        if id is None:
            id = str(self._next)
        n = _number(id)
        if n is not None:
            if durable and n < self._next and n not in self._open:
                return id  # the appliance has it
        if id in self._calls:
            raise ValueError(f"the id {id[:40]!r} is in flight already")
        if n is not None:
            self._next = max(self._next, n + 1)
            self._open.add(n)
        head: dict[str, Any] = {"id": id, "model": model}
        for name, value in (("version", version), ("label", label), ("signature_name", signature), ("priority", priority), ("lane", lane), ("expires_ms", expires and max(1, int(expires * 1000))),
                            ("max_attempts", max_attempts), ("durable", durable), ("ordered", ordered), ("drop_oldest", drop_oldest)):
            if value or name == "version" and value is not None:
                head[name] = value
        if drop_oldest:
            droppable = [c for c in self._queue if c.droppable]
            free = max(0, self._credits - (len(self._queue) - len(droppable)))
            while len(droppable) >= self._room + free:
                oldest = droppable.pop(0)
                self._queue.remove(oldest)
                self._answer(oldest, Result(error=DroppedError("dropped for a newer input")))
        self._durable = self._durable or durable
        call = _Call(id, head, values, deadline or 0.0, durable, retry, drop_oldest, time.monotonic())
        self._calls[id] = call
        self._queue.append(call)
        self._wake()
        return id

    def _too_large(self, size: int) -> InferdError:
        return InferdError(f"a request of {size} bytes is over the appliance's limit of {self._max_frame} (stream.max_frame)")

    async def recv(self) -> Result | None:
        """The next result; None after close_send once everything was answered. Raises what ended the stream."""
        while True:
            if self._results:
                r = self._results.popleft()
                self._wake()
                return r
            if self._closed:
                raise ClosedError("the stream is closed")
            if self._ended and not self._calls:
                return None
            if self._error:
                raise self._error
            await self._changed.wait()

    def ack(self, result: Result) -> None:
        """Lets the appliance forget the result and every durable result before it."""
        if self._acked < result.seq <= self._received:
            self._acked = result.seq
            while self._unacked and self._unacked[0][0] <= result.seq:
                self._unacked.popleft()
            self._wake()

    def cancel(self, id: str) -> None:
        """Asks for a request to be given up. Its result says whether it came in time."""
        call = self._calls.get(id)
        if call is None:
            return
        if call in self._queue and not call.tries:
            self._queue.remove(call)
            self._answer(call, Result(error=Error("cancelled before it was sent", code="CANCELLED")))
            return
        self._cancels.append(id)
        self._wake()

    def close_send(self) -> None:
        """Says that nothing more will be sent. recv goes on until everything was answered."""
        self._ended = True
        self._wake()

    async def close(self) -> None:
        """Sends the last acknowledgement, if there is a connection, and ends the stream. What was accepted stays with the appliance."""
        self._closed = True
        self._wake()
        for t in self._timers:
            t.cancel()
        if self._task:
            if not self._online:
                self._task.cancel()
            try:
                await asyncio.wait_for(self._task, 2 * FAREWELL)
            except (asyncio.CancelledError, TimeoutError, asyncio.TimeoutError):
                pass
            self._task = None

    @property
    def stats(self) -> Stats:
        """What the stream did until now."""
        return dataclasses.replace(self._stats, connected=self._online)

    @property
    def session(self) -> Session:
        """What to save for another process to go on."""
        waiting = [id for _, id in self._unacked] + [c.id for c in self._calls.values() if c.accepted]
        return Session(self._session if self._durable or self._unacked else "", self._acked, self._next, sorted(self._open), waiting, self._note)

    def session_after(self, result: Result) -> Session:
        """What session will be once result is acknowledged. Save it before ack: that order loses nothing and passes nothing on twice."""
        done = {id for seq, id in self._unacked if seq <= result.seq}
        s = self.session
        return dataclasses.replace(s, acked=max(s.acked, result.seq), waiting=[id for id in s.waiting if id not in done])

    def _answer(self, call: _Call, r: Result) -> None:
        del self._calls[call.id]
        self._deliver(dataclasses.replace(r, id=call.id, job=call.job, took=time.monotonic() - call.began if call.began else 0.0))

    def _deliver(self, r: Result) -> None:
        n = _number(r.id)
        if n is not None:
            self._open.discard(n)
        if r.error is None:
            self._stats.answered += 1
        elif isinstance(r.error, DroppedError):
            self._stats.dropped += 1
        elif isinstance(r.error, LostError):
            self._stats.lost += 1
        else:
            self._stats.refused += 1
        self._results.append(r)
        self._wake()

    # The connection.

    async def _run(self) -> None:
        n = 0
        try:
            while not self._closed:
                before = self._progress()
                hint, failed = 0.0, ""
                try:
                    await self._connection()
                except _Final:
                    raise
                except (OSError, WebSocketException, InferdError, asyncio.TimeoutError, ValueError) as e:
                    failed = str(e) or type(e).__name__
                    hint = e.retry_after if isinstance(e, Error) else 0.0
                if self._closed:
                    return
                n = 0 if self._progress() != before else n
                if self._attempts and n + 1 >= self._attempts:
                    raise InferdError(f"no stream after {n + 1} tries: {failed}")
                wait = backoff(n, hint, self._least, self._most)
                log.warning("no connection to %s, trying again in %.1f s: %s", self._url, wait, failed)
                n += 1
                await asyncio.sleep(wait)
        except InferdError as e:
            self._error = e
        finally:
            self._wake()

    def _progress(self) -> int:
        s = self._stats
        return s.sent + s.again + s.answered + s.refused

    async def _connection(self) -> None:
        try:
            conn = await _ws.connect(self._url, subprotocols=[SUBPROTOCOL], additional_headers=self._headers, ssl=self._ssl, compression=None, open_timeout=10,
                                     ping_interval=self._ping, ping_timeout=2 * self._ping, close_timeout=FAREWELL, max_size=self._max_answer, max_queue=16)
        except InvalidStatus as e:
            r = e.response
            refused = refusal(r.status_code, r.headers, r.body or b"")
            if refused.temporary or r.status_code >= 500:
                raise refused from None
            where = f"nothing streams at {self._url}: it is no inferd, an older one, or its stream is off" if r.status_code == 404 or refused.message.startswith("Malformed request") else str(refused)
            raise _Final(where) from None
        except InvalidHandshake as e:
            raise InferdError(f"handshake with {self._url}: {e}") from None
        try:
            if conn.subprotocol != SUBPROTOCOL:
                raise _Final(f"{self._url} does not speak {SUBPROTOCOL}")
            hello = _read(await asyncio.wait_for(conn.recv(), HELLO_TIMEOUT)).get("hello")
            if not isinstance(hello, dict) or not hello.get("session") or not 0 <= hello.get("credits", 0) <= MAX_CREDITS:
                raise InferdError("the first frame is no greeting")
            await self._resume(conn)
            self._up(hello)
            write, read = asyncio.create_task(self._write(conn)), asyncio.create_task(self._read_all(conn))
            try:
                done, _ = await asyncio.wait((write, read), return_when=asyncio.FIRST_COMPLETED)
                if write in done and self._closed and not write.exception():
                    await asyncio.wait((read,), timeout=FAREWELL)
            finally:
                self._down()
                for t in (write, read):
                    t.cancel()
                ends = await asyncio.gather(write, read, return_exceptions=True)
            for end in reversed(ends):
                if isinstance(end, Exception):
                    raise end
        except ConnectionClosed as e:
            code = e.rcvd.code if e.rcvd else 0
            if code == UNKNOWN_SESSION:
                self._lose_session()
            elif code in FINAL:
                raise _Final(f"{FINAL[code]} (close code {code}{': ' + e.rcvd.reason if e.rcvd and e.rcvd.reason else ''})") from None
            if isinstance(e.__cause__, PayloadTooBig):
                raise _Final(f"an answer is larger than {self._max_answer} bytes (max_answer)") from None
            raise
        finally:
            await conn.close()

    async def _resume(self, conn: _ws.ClientConnection) -> None:
        if not (self._durable and self._session):
            return
        # After is what was acknowledged, not what was received: what only this process has seen must stay with the appliance.
        await conn.send(json.dumps({"resume": {"session": self._session, "after": self._acked}}))
        while True:
            m = _read(await asyncio.wait_for(conn.recv(), HELLO_TIMEOUT))
            if "resumed" in m:
                return
            if "error" in m and "id" not in m:
                raise InferdError(f"resume: {m['error']}")

    def _up(self, hello: dict[str, Any]) -> None:
        if not (self._durable and self._session):
            self._session = hello["session"]
        self._online, self._credits, self._max_frame = True, hello["credits"], hello.get("max_frame", 0)
        self._stats.connections += 1
        again = [c for c in self._calls.values() if c.out and not c.accepted]
        for c in again:
            c.out = False
        self._queue.extendleft(reversed(again))
        log.info("connected to %s", self._url)
        self._wake()

    def _down(self) -> None:
        self._online, self._credits = False, 0
        for c in list(self._calls.values()):
            c.old = c.old or c.out
            if c.out and not c.durable and not c.retry:
                self._answer(c, Result(error=LostError("the connection was lost before the answer came; the request was neither durable nor retry")))
        self._wake()

    def _lose_session(self) -> None:
        log.warning("the session is gone, beginning a new one")
        for c in list(self._calls.values()):
            if c.accepted:
                self._answer(c, Result(error=SessionError("the appliance does not know the session any more (see stream.session_retention); ask for the job by its id")))
        self._session, self._acked, self._received = "", 0, 0
        self._unacked.clear()
        self._durable = any(c.durable for c in self._calls.values())
        self._wake()

    async def _write(self, conn: _ws.ClientConnection) -> None:
        """Alone sends frames: acknowledgements and cancellations first, then requests as far as there is credit."""
        acked = 0
        while True:
            changed = self._changed
            if self._acked > acked:
                acked = self._acked
                await conn.send(json.dumps({"ack": acked}))
            elif self._closed:
                await conn.close()
                return
            elif self._cancels:
                id = self._cancels.popleft()
                if id in self._calls:
                    await conn.send(json.dumps({"cancel": id}))
            elif self._queue and self._credits > 0:
                frame = self._request(self._queue.popleft())
                if frame:
                    await conn.send(frame)
            else:
                await changed.wait()

    def _request(self, c: _Call) -> str | bytes | None:
        left = c.deadline - (time.monotonic() - c.began)
        if c.deadline and left <= 0 and not (c.durable and c.tries):  # a durable one may be there already: its result tells
            self._answer(c, Result(error=Error("the deadline passed before the request could be sent", code="DEADLINE_EXCEEDED", reason="deadline")))
            return None
        frame = c.frame(left)
        if self._max_frame and len(frame) > self._max_frame:
            self._answer(c, Result(error=self._too_large(len(frame))))
            return None
        self._credits -= 1
        c.tries += 1
        c.out = True
        if c.tries == 1:
            self._stats.sent += 1
        else:
            self._stats.again += 1
        self._wake()
        return frame

    async def _read_all(self, conn: _ws.ClientConnection) -> None:
        while True:
            m = _read(await conn.recv())
            while "id" in m and len(self._results) >= 2 * self._buffer and not self._closed:
                await self._changed.wait()
            if "id" in m:
                self._answered(m)
            elif m.get("draining"):
                log.info("the appliance is about to go")
                self._online, self._credits = False, 0  # what is not sent yet waits for the next connection
            elif "slow" in m:
                log.warning("results are not taken fast enough, the appliance will close the connection: %s", m["slow"])
            elif "error" in m:
                log.warning("the appliance refused a frame: %s", m["error"])
            elif self._online and "credits" in m:
                credits = m["credits"]
                if not isinstance(credits, int) or not 0 <= credits <= MAX_CREDITS:
                    raise InferdError(f"{credits} credits cannot be meant")
                self._credits = min(self._credits + credits, MAX_CREDITS)
                self._wake()

    def _answered(self, m: dict[str, Any]) -> None:
        id, seq = str(m["id"]), int(m.get("seq") or 0)
        call = self._calls.get(id)
        if m.get("accepted"):
            if call and call.durable:
                call.accepted, call.job = True, str(m["accepted"])
                n = _number(id)
                if n is not None:
                    self._open.discard(n)
                self._wake()
            return
        error: InferdError | None = None
        if m.get("reason") == "dropped":
            error = DroppedError(str(m.get("error")))
        elif "error" in m:
            error = Error(str(m["error"]), code=str(m.get("code", "")), reason=str(m.get("reason", "")), retry_after=float(m.get("retry_ms") or 0) / 1000)
        elif "predictions" not in m and "outputs" not in m:
            raise InferdError("an id and no answer")
        if seq and seq <= self._received:
            self._stats.twice += 1
            return
        if seq:
            self._received = seq
            self._unacked.append((seq, id))
        elif call is None or not call.out:
            return  # the answer to what was cancelled, or to an earlier try
        elif isinstance(error, Error) and error.temporary and not call.accepted and (call.durable or call.retry) and not self._closed:
            call.out = False
            self._later(call, backoff(min(call.tries - 1, 16), error.retry_after, self._least, self._most))
            return
        if call is None or call.old:
            self._stats.resumed += 1
        r = Result(id=id, version=int(m.get("version") or 0), seq=seq, error=error)
        if error is None:
            r = dataclasses.replace(r, predictions=arrays(m["predictions"]) if "predictions" in m else None, outputs=arrays(m["outputs"]) if "outputs" in m else None)
        if call is None:
            self._deliver(r)
            return
        if call in self._queue:
            self._queue.remove(call)  # it was about to be sent again
        self._answer(call, r)

    def _later(self, call: _Call, wait: float) -> None:
        """Sends call again when the appliance can have it."""
        def due() -> None:
            self._timers.discard(timer)
            if self._calls.get(call.id) is call:
                self._queue.append(call)
                self._wake()
        timer = asyncio.get_running_loop().call_later(wait, due)
        self._timers.add(timer)


def _read(text: str | bytes) -> dict[str, Any]:
    if not isinstance(text, str):
        raise InferdError("a binary frame, which was not asked for")
    try:
        m = json.loads(text)
    except ValueError as e:
        raise InferdError(f"the appliance's frame {text[:100]!r}: {e}") from None
    if not isinstance(m, dict):
        raise InferdError(f"the appliance's frame {text[:100]!r} is no object")
    return m


def _number(id: str) -> int | None:
    """The id as the number that it is, if it is one as the stream makes them."""
    return int(id) if id.isdecimal() and id.isascii() and len(id) < 19 and str(int(id)) == id else None
