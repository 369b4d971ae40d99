"""_sync.py: the stream for threads: the one of _stream.py, in an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from ._stream import AsyncStream
from ._types import ClosedError, Result, Session, Stats

T = TypeVar("T")


class Stream:
    """A stream for threads; AsyncStream says what each method does. Use it with `with`, or call close.

    Any thread may use it: one sends while another receives.
    """

    def __init__(self, url: str, **options: Any):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="inferd-stream", daemon=True)
        self._thread.start()
        self._closed = False

        async def start() -> AsyncStream:
            return await AsyncStream(url, **options).__aenter__()
        self._s = self._do(start())

    def _do(self, what: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        if self._closed:
            what.close()
            raise ClosedError("the stream is closed")
        # The time is kept in the loop: a result that comes at the last moment is returned, not lost.
        future = asyncio.run_coroutine_threadsafe(what if timeout is None else asyncio.wait_for(what, timeout), self._loop)
        try:
            return future.result()
        except asyncio.TimeoutError:
            raise TimeoutError(f"nothing within {timeout:g} s" if timeout is not None else "timed out") from None
        except BaseException:
            future.cancel()
            raise

    async def _call(self, f: Any, *args: Any) -> Any:
        return f(*args)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Result]:
        while True:
            r = self.recv()
            if r is None:
                return
            yield r

    def send(self, model: str, *, instances: Any = None, inputs: Any = None, media: bytes | None = None, timeout: float | None = None, **options: Any) -> str:
        """As AsyncStream.send, which names the options. TimeoutError: it was not sent within timeout seconds, and will not be."""
        return self._do(self._s.send(model, instances=instances, inputs=inputs, media=media, **options), timeout)

    def recv(self, timeout: float | None = None) -> Result | None:
        """As AsyncStream.recv. TimeoutError when nothing came within timeout seconds."""
        return self._do(self._s.recv(), timeout)

    def ack(self, result: Result) -> None:
        """As AsyncStream.ack."""
        self._do(self._call(self._s.ack, result))

    def cancel(self, id: str) -> None:
        """As AsyncStream.cancel."""
        self._do(self._call(self._s.cancel, id))

    def close_send(self) -> None:
        """As AsyncStream.close_send."""
        self._do(self._call(self._s.close_send))

    @property
    def stats(self) -> Stats:
        """What the stream did until now."""
        return self._s.stats

    @property
    def session(self) -> Session:
        """What to save for another process to go on."""
        if self._closed:
            return self._s.session
        return self._do(self._call(lambda: self._s.session))

    def session_after(self, result: Result) -> Session:
        """As AsyncStream.session_after."""
        return self._do(self._call(self._s.session_after, result))

    def close(self) -> None:
        """As AsyncStream.close. It is idempotent."""
        if self._closed:
            return
        try:
            self._do(self._s.close())
        finally:
            self._closed = True
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
