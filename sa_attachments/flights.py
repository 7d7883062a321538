"""Flights: what several ask for at the same time is done once, and all of them get what came of it.

>>> flights = Flights()
>>> flights.share("answer", lambda: 6 * 7)
42

Threads wait for the one that is at it; coroutines inside of SQLAlchemy's greenlet do so without blocking their loop.
Who would block the thread of the one that is at it, as a template in an event loop, does it himself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

from .offload import in_greenlet, within

T = TypeVar("T")

_LOOK = 60.0
"""Seconds after which one that waits looks again."""


class Flights:
    """Those of one process; a forked child knows none of its parent's, whose threads it does not have."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, tuple[Future[Any], int]] = {}
        """By what it is: the answer to come, and the thread that it comes from."""

    def share(self, what: Hashable, job: Callable[[], T]) -> T:
        """Run ``job``, or wait for somebody else's for the same ``what``. Raises what it raised."""
        here = os.getpid(), what
        while True:
            mine: Future[T] = Future()
            flight, thread = self._flying.setdefault(here, (mine, threading.get_ident()))
            if flight is mine:
                return self._fly(here, mine, job)
            if thread == threading.get_ident() and not in_greenlet():
                return job()
            while not within(flight, _LOOK):
                pass
            error = flight.exception()
            if error is None:
                result: T = flight.result()
                return result
            if isinstance(error, Exception):
                raise error
            # Whoever was at it was interrupted or cancelled, which is no answer for others.

    def _fly(self, here: Hashable, mine: Future[T], job: Callable[[], T]) -> T:
        try:
            result = job()
        except BaseException as error:
            del self._flying[here]  # before it is told: who asks from now on, asks anew
            mine.set_exception(error)
            raise
        del self._flying[here]
        mine.set_result(result)
        return result
