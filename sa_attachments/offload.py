"""Offloading: storage I/O in worker threads, several jobs at a time, without blocking the event loop of an asyncio
application.

Inside SQLAlchemy's greenlet the calling coroutine awaits; elsewhere the calling thread waits:

>>> [outcome.value for outcome in gather([lambda: 1, lambda: 2], parallel=2)]
[1, 2]

A cancelled coroutine still waits for the jobs that run, so that whoever called knows what became of them; but not for
what they wait for on its loop, nor for those that run ``aside``. So does an interrupted thread. What has not begun by
then is not done.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy.util import await_only, concurrency, greenlet_spawn

from .pulls import Pulls, pulls, running_loop

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What a job came to: its value, or its error."""

    value: T | None = None
    error: BaseException | None = None


def in_greenlet() -> bool:
    """Whether this code runs under SQLAlchemy's asyncio; it can't where greenlet is not installed."""
    try:
        return concurrency.in_greenlet()
    except (ImportError, ValueError):  # SQLAlchemy 2.1, 2.0
        return False


def gather(jobs: Sequence[Callable[[], T]], parallel: int) -> list[Outcome[T]]:
    """Run all jobs, at most ``parallel`` at a time, and wait for all of them; nothing is raised but what cancels or
    interrupts the caller.
    """
    if in_greenlet():
        return await_only(_gathered(jobs, parallel))
    shared = _Shared(jobs)
    try:
        # The system may give fewer; or none, as where the process ends, and an atexit handler commits.
        with contextlib.suppress(RuntimeError):
            for _ in range(min(parallel, len(jobs)) - 1):
                threading.Thread(target=shared.help, name="sa_attachments").start()
        shared.work()
    except BaseException:
        shared.stop()
        raise
    finally:
        shared.wait()
    return shared.results()


class _Shared(Generic[T]):
    """Jobs that several threads take one after the other until none is left: with fewer threads it takes longer."""

    def __init__(self, jobs: Sequence[Callable[[], T]]) -> None:
        self._outcomes: list[Outcome[T]] = [Outcome()] * len(jobs)
        self._left = deque((number, contextvars.copy_context(), job) for number, job in enumerate(jobs))
        self._interruption: BaseException | None = None
        self._helping: set[Any] = set()
        """A lock for each other thread that may be at work, which holds it."""

    def help(self) -> None:
        """``work`` in another thread."""
        mine = threading.Lock()
        with mine:
            self._helping.add(mine)
            try:
                self.work()
            finally:
                self._helping.remove(mine)

    def wait(self) -> None:
        """Until the other threads are done with what they began. An interruption is raised after that: who tries again
        reads the same sources. ``Thread.join`` takes a thread for ended once it was interrupted.
        """
        interruption: BaseException | None = None
        while self._helping:
            try:
                for other in list(self._helping):
                    other.acquire()
            except BaseException as error:  # noqa: BLE001 - it is raised below
                self.stop()
                interruption = error
        if interruption is not None:
            raise interruption

    def work(self) -> None:
        with contextlib.suppress(IndexError):  # none is left
            while True:
                number, context, job = self._left.popleft()
                self._outcomes[number] = outcome = context.run(_outcome, job)
                if outcome.error is not None and not isinstance(outcome.error, Exception):
                    self._interruption = outcome.error
                    self.stop()

    def stop(self) -> None:
        """No more of them are begun."""
        self._left.clear()

    def results(self) -> list[Outcome[T]]:
        """What all came to; raises what interrupted one."""
        if self._interruption is not None:
            raise self._interruption
        return self._outcomes


async def _gathered(jobs: Sequence[Callable[[], T]], parallel: int) -> list[Outcome[T]]:
    loop = running_loop()
    context = contextvars.copy_context()
    mine = Pulls(loop)
    context.run(pulls.set, mine)
    shared: _Shared[T] = context.run(_Shared, jobs)
    most = max(1, min(parallel, len(jobs)))
    pool = ThreadPoolExecutor(most, "sa_attachments")
    futures: list[asyncio.Future[None]] = []
    try:
        with contextlib.suppress(RuntimeError):
            futures.extend(loop.run_in_executor(pool, shared.work) for _ in range(most))
        if not futures:
            shared.work()
        running = asyncio.gather(*futures)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            mine.stop()
            while not running.done():
                with contextlib.suppress(asyncio.CancelledError):  # once is enough
                    await asyncio.wait(futures)
            raise
        return shared.results()
    finally:
        pool.shutdown(wait=False)


def _outcome(job: Callable[[], T]) -> Outcome[T]:
    try:
        if (mine := pulls.get(None)) is not None:
            mine.check()
        return Outcome(job())
    except BaseException as error:  # noqa: BLE001 - it is raised where the outcome is looked at
        return Outcome(error=error)


def run(job: Callable[[], Any]) -> Any:
    """Run what a storage does at once; under asyncio in a thread."""
    if not in_greenlet():
        return job()
    outcome = gather([job], 1)[0]
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


class Worker:
    """One background thread that runs jobs in order, started when there is something to do and ending when for some
    ``seconds`` there was nothing: to start one takes longer than most jobs.

    Each job has a context of its own. A forked child starts with an empty queue of its own.
    """

    CAPACITY = 10_000
    """Jobs that may wait; what comes on top is left to the sweep."""

    def __init__(self, seconds: float = 1.0) -> None:
        self._seconds = seconds
        self._begin()

    def _begin(self) -> None:
        # Entered directly: an interruption in methods of a Condition could leave it closed.
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._more = threading.Condition(self._lock)
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._busy = False
        self._has_thread = False
        self._thread: int | None = None
        self._pid = os.getpid()

    def is_here(self) -> bool:
        """Whether its own thread asks, which would wait in vain for what comes after the job that it is at."""
        return self._thread == threading.get_ident()

    def submit(self, job: Callable[[], T]) -> Future[T] | None:
        """Run ``job`` later; None if too many wait already."""
        return self._submit(job, self.CAPACITY)

    def last(self) -> Future[None]:
        """Ends when all that was submitted until now has."""
        future = self._submit(lambda: None)
        assert future is not None
        return future

    def _submit(self, job: Callable[[], T], capacity: float = math.inf) -> Future[T] | None:
        future: Future[T] = Future()
        self._after_fork()
        with self._lock:
            if len(self._queue) >= capacity:
                return None
            self._queue.append((future, job))
            if not self._has_thread:
                threading.Thread(target=self._run, name="sa_attachments", daemon=True).start()
                self._has_thread = True  # afterwards: a thread that can't be started is started next time
            self._busy = True
            self._more.notify()
        return future

    def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; False if it took longer than ``timeout`` seconds."""
        self._after_fork()
        with self._lock:
            return self._idle.wait_for(lambda: not self._busy, timeout)

    def _run(self) -> None:
        # A greenlet that is called a thread, as with gevent, goes on only while the thread that started it waits for
        # something in gevent's way: it would be there for ever, and do nothing.
        seconds = 0 if _is_greenlet() else self._seconds
        self._thread = threading.get_ident()
        while True:
            with self._lock:
                if not self._queue:
                    self._busy = False
                    self._idle.notify_all()
                    # Asked again: the collector may have let a session go meanwhile, in this thread, and that submits.
                    if not (self._more.wait_for(lambda: self._queue, seconds) if seconds else self._queue):
                        self._has_thread, self._thread = False, None
                        return
                future, job = self._queue.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(contextvars.Context().run(job))
                except BaseException as error:  # noqa: BLE001 - it is raised where the future is looked at
                    future.set_exception(error)
            del future, job  # and what they hold, while it waits

    def _after_fork(self) -> None:
        if self._pid != os.getpid():
            self._begin()


def _is_greenlet() -> bool:
    """Whether this code runs in a greenlet, and not in a thread of its own."""
    greenlet = sys.modules.get("greenlet")
    return greenlet is not None and greenlet.getcurrent().parent is not None


def within(future: Future[Any] | None, seconds: float | None) -> bool:
    """Wait at most ``seconds`` for a background job, None for as long as it takes; whether it ended."""
    if future is None:
        return False
    if in_greenlet():
        waited = asyncio.wrap_future(future)
        waited.add_done_callback(_looked_at)
        return await_only(_awaited(waited, seconds))
    try:
        future.exception(seconds)
    except TimeoutError:
        return False
    return True


class Tasks:
    """Background jobs of event loops, each in a task. Some run at a time, as each may take a connection of a pool for a
    moment; the others wait for their turn, in order.
    """

    AT_A_TIME = 4
    CAPACITY = 10_000
    """Jobs that may wait in one loop; what comes on top is left to the sweep."""

    def __init__(self) -> None:
        self._loops: dict[asyncio.AbstractEventLoop, tuple[set[asyncio.Task[Any]], asyncio.Semaphore]] = {}

    def run(self, job: Callable[[], Any], seconds: float) -> None:
        """Run ``job`` in SQLAlchemy's greenlet unless too many wait already, and wait at most ``seconds`` for it."""
        # Not in this greenlet: a loop whose tasks begin at once would take it for the one that theirs return to.
        await_only(self._run(job, seconds))

    async def _run(self, job: Callable[[], Any], seconds: float) -> None:
        loop = running_loop()
        tasks, turns = self._loops.setdefault(loop, (set(), asyncio.Semaphore(self.AT_A_TIME)))
        if len(tasks) >= self.CAPACITY:
            return
        task = loop.create_task(_in_turn(turns, job))
        tasks.add(task)

        def ended(task: asyncio.Task[Any]) -> None:
            tasks.discard(task)
            if not tasks:
                del self._loops[loop]  # which may be closed now, and forgotten

        task.add_done_callback(ended)
        await _awaited(task, seconds)

    async def idle(self) -> None:
        """Wait until this loop has none left."""
        while (found := self._loops.get(running_loop())) and found[0]:
            await asyncio.wait(found[0])


async def _in_turn(turns: asyncio.Semaphore, job: Callable[[], Any]) -> None:
    async with turns:
        await greenlet_spawn(job)


def aside(job: Callable[[], T]) -> T:
    """Under asyncio, run a job that may be left undone: neither a cancelled coroutine nor the end of the process waits
    for its thread.
    """
    future = Worker(0).submit(job)
    assert future is not None
    return await_only(asyncio.wrap_future(future))


def _looked_at(future: asyncio.Future[Any]) -> None:
    """Who submitted the job asks for its error, or does not care; the event loop need not complain."""
    if not future.cancelled():
        future.exception()


async def _awaited(future: asyncio.Future[Any], seconds: float | None) -> bool:
    done, _ = await asyncio.wait([future], timeout=seconds)
    return bool(done)
