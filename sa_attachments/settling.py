"""Settling: when and where the cleaning after a transaction runs, so that no commit, rollback or close waits for it
for long.

On a server, a worker thread does it, or under asyncio a task; the committing thread waits for it no longer than the
budget, and the end of a process or a loop not at all. Where the application would miss the connection that this takes,
a sweep does it. On SQLite, which has one writer, the committing thread does the short work in the database itself: a
thread that writes beside the application's would make its statements fail. Only what the storage does runs in the
worker there, within the budget: what would have had to wait is left to ``settled``, or to a sweep; and the lines of
purged files wait for the next transaction that settles, or for ``settled``.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import sys
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Engine, Pool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import greenlet_spawn

from .frames import Frame, Work
from .home import Home
from .offload import Tasks, Worker, aside, in_greenlet, run, within
from .patience import Busy, raise_unless_held
from .places import Places
from .pools import is_scarce, is_shared_and_busy
from .recovery import Purged, Purger, discard
from .scope import Scope
from .storage import Storage

log = logging.getLogger("sa_attachments")

MOST = 5
"""Seconds that the end of an override waits for cleaning."""


class Settler:
    """Settles for one ``Storages``."""

    def __init__(self, files: Home, places: Places, budget: timedelta) -> None:
        self._files = files
        self._places = places
        self._budget = budget.total_seconds()
        self._worker = Worker()
        self._tasks = Tasks()
        self._engines: WeakSet[Engine] = WeakSet()
        self._rests: WeakKeyDictionary[Pool, dict[tuple[Any, Any], _Rest]] = WeakKeyDictionary()
        """By pool, as many short-lived engines may share one: ``Engine.execution_options`` makes them."""

    def settle(self, frame: Frame) -> None:
        """Clean up what an ended transaction left, for these files. Raises nothing."""
        if sys.is_finalizing():
            return  # Nothing may be waited for: Python 3.11 takes a new thread, and never starts it.
        deadline = monotonic() + (0 if self._worker.is_here() else self._budget)
        try:
            loose = [file for files, file in frame.loose if files is self._files]
            if loose:
                resolve = self._files.resolver()
                within(self._worker.submit(lambda: discard(resolve, loose)), deadline - monotonic())
            for scope, work in frame.works.items():
                if scope.files is self._files and work:
                    self._settle(scope, work, frame.marked, deadline)
        except Exception:
            log.warning("cleaning after a transaction failed, the next sweep does it", exc_info=True)

    def idle(self, timeout: float | None = None) -> bool:
        """Wait until there is nothing left to do, or only what others keep from being done; False after ``timeout``
        seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        self._worker.idle(timeout)
        self._finish(deadline)
        return self._worker.idle(_until(deadline))

    async def aidle(self) -> None:
        """``idle`` for asyncio. Whoever stops waiting leaves no thread that the end of the loop would wait for."""
        await self._tasks.idle()
        await asyncio.wrap_future(self._worker.last())
        await greenlet_spawn(self._finish, None)

    def _settle(self, scope: Scope, work: Work, marked: bool, deadline: float) -> None:
        dialect = scope.engine.dialect
        if dialect.is_async and not in_greenlet():
            return  # A garbage-collected AsyncSession: nobody may use its connections here.
        if dialect.name == "sqlite":
            purger = Purger(scope, self._places, lambda job: self._waited(deadline, job))
            self._engines.add(scope.engine)
            rest = self._rests.setdefault(scope.engine.pool, {}).setdefault(scope.tables, _Rest())
            left = functools.partial(rest.works.append, (work, marked, purger.resolve))
            quietly(lambda: purger.settle(work, marked, rest.purged), left)
        elif dialect.is_async:
            purger = Purger(scope, self._places, aside, pool=scope.engine.pool)
            self._tasks.run(lambda: quietly(lambda: _beside(purger, work, marked)), deadline - monotonic())
        else:
            purger = Purger(scope, self._places, run, pool=scope.engine.pool)
            job = self._worker.submit(lambda: quietly(lambda: _beside(purger, work, marked)))
            within(job, deadline - monotonic())

    def _finish(self, deadline: float | None) -> None:
        """On SQLite, do what is left."""
        for engine in list(self._engines):
            usable = (in_greenlet() or not engine.dialect.is_async) and not is_shared_and_busy(engine)
            for (ledger, schemas), rest in list(self._rests.get(engine.pool, {}).items()):
                scope = Scope(self._files, ledger, engine, schemas)
                purger = Purger(scope, self._places, lambda job: self._waited(deadline, job))
                if usable and not quietly(functools.partial(rest.finish, purger)):
                    rest.forget()  # The database is gone, perhaps; if it is not, a sweep does it.

    def _waited(self, deadline: float | None, job: Callable[[], Any]) -> Any:
        future = self._worker.submit(job)
        if future is None or not within(future, _until(deadline)):
            raise Busy("the storage takes its time")
        return future.result()


def _until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0, deadline - monotonic())


class _Rest:
    """What is left to do in one ledger on SQLite."""

    def __init__(self) -> None:
        self.purged: Purged = deque()
        self.works: deque[tuple[Work, bool, Callable[[str], Storage]]] = deque(maxlen=1000)
        """What would have had to wait, and where its files are; no purger, which would hold the engine."""

    def finish(self, purger: Purger) -> None:
        """Do it. What has to wait again stays."""
        while self.works:
            work, marked, purger.resolve = first = self.works.popleft()
            try:
                purger.settle(work, marked, self.purged)
            except BaseException:
                self.works.appendleft(first)
                raise
        if self.purged:
            purger.forget(self.purged)

    def forget(self) -> None:
        """Leave it to a sweep."""
        self.works.clear()
        self.purged.clear()


class Override(AbstractContextManager[None]):
    """Stand-ins for storages, and the wait for the cleaning in them before they go; see ``Storages.override``."""

    def __init__(self, settler: Settler, inside: AbstractContextManager[None]) -> None:
        self._settler = settler
        self._inside = inside

    def __enter__(self) -> None:
        self._inside.__enter__()

    def __exit__(self, *error: Any) -> None:
        try:
            self._settler.idle(MOST)
        finally:
            self._inside.__exit__(*error)

    async def __aenter__(self) -> None:
        self._inside.__enter__()

    async def __aexit__(self, *error: Any) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(MOST):
                    await self._settler.aidle()
        finally:
            self._inside.__exit__(*error)


def _beside(purger: Purger, work: Work, marked: bool) -> None:
    """Clean up while the application works on with other connections."""
    if is_scarce(purger.scope.engine):
        raise Busy("the application may need this connection")
    purger.settle(work, marked)


def quietly(cleaning: Callable[[], object], left: Callable[[], object] = lambda: None) -> bool:
    """Cleaning never hurts. Whether it worked, or would have to wait only, which is told by ``left``."""
    try:
        try:
            cleaning()
        except (Busy, DBAPIError) as error:
            raise_unless_held(error)  # by an owner in flight, or prepared
            left()
            log.debug("cleaning would have to wait, the next sweep does it")
    except Exception:
        log.warning("cleaning after a transaction failed, the next sweep does it", exc_info=True)
        return False
    return True
