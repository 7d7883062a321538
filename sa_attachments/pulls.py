"""Pulls: what worker threads take out of asynchronous sources, which are read on their own event loop.

>>> async def chunk(): return b"ab"
>>> async def main():
...     pulls = Pulls(asyncio.get_running_loop())
...     return await asyncio.to_thread(pulls.take, chunk())
>>> asyncio.run(main())
b'ab'
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from contextvars import ContextVar
from threading import Lock
from typing import Any, TypeVar

from .errors import BadConfiguration

T = TypeVar("T")

pulls: ContextVar[Pulls] = ContextVar("pulls")
"""In a worker thread of an asyncio application: by what async sources are read."""


def running_loop() -> asyncio.AbstractEventLoop:
    """BadConfiguration where there is none, as under trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise BadConfiguration(
            "no event loop of asyncio runs here: under trio, have a thread do what is not asynchronous, as "
            "await trio.to_thread.run_sync(attachment.read)"
        ) from None


class Pulls:
    """Those for one coroutine that waits for its worker threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = Lock()
        self._waiting: set[Future[Any]] = set()
        self._stopped = False

    def take(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """In another thread than the loop's, what a coroutine returns. CancelledError when it was stopped."""
        with self._lock:
            try:
                self.check()
            except CancelledError:
                coroutine.close()
                raise
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
            self._waiting.add(future)
        try:
            return future.result()
        finally:
            with self._lock:
                self._waiting.discard(future)

    def check(self) -> None:
        """CancelledError when it was stopped."""
        if self._stopped:
            raise CancelledError

    def stop(self) -> None:
        """Nobody wants any more: a source that never gives anything, as a client that fell silent, must not be waited
        for.
        """
        with self._lock:
            self._stopped = True
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()
