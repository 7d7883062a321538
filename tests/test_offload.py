"""Jobs in worker threads: in parallel, in order where that is promised, and never lost count of."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import ref

import pytest
from greenlet import greenlet
from sqlalchemy.util import await_only, greenlet_spawn

from sa_attachments.offload import Outcome, Tasks, Worker, aside, gather, in_greenlet, within
from sa_attachments.pulls import pulls

on = pytest.mark.parametrize
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def fails() -> int:
    raise OSError("disk full")


# Gathering


@on("parallel", [1, 2, 8])
def test_outcomes_are_in_the_order_of_the_jobs(parallel: int) -> None:
    def job(number: int) -> int:
        time.sleep(0.01 * (3 - number))
        return number

    outcomes = gather([lambda n=n: job(n) for n in range(4)], parallel)  # type: ignore[misc]
    assert outcomes == [Outcome(n) for n in range(4)]


@on("parallel", [1, 4])
def test_all_jobs_are_waited_for_though_one_fails(parallel: int) -> None:
    done: list[int] = []

    def slow() -> int:
        time.sleep(0.05)
        done.append(1)
        return 1

    first, second, third = gather([fails, slow, slow], parallel)
    assert isinstance(first.error, OSError)
    assert (second, third, done) == (Outcome(1), Outcome(1), [1, 1])


async def test_nothing_to_do() -> None:
    assert gather([], 8) == []
    assert await greenlet_spawn(gather, [], 8) == []


@on("parallel", [1, 2, 3])
def test_no_more_run_at_a_time_than_asked_for(parallel: int) -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def job() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    gather([job] * 7, parallel)
    assert most == parallel


def test_one_job_runs_in_the_calling_thread() -> None:
    assert gather([threading.get_ident], 8) == [Outcome(threading.get_ident())]
    assert gather([threading.get_ident] * 2, 1) == [Outcome(threading.get_ident())] * 2


@on("jobs", [1, 2])
@on("parallel", [1, 2])
def test_jobs_see_the_context_variables_of_the_caller(jobs: int, parallel: int) -> None:
    """Steps may ask whose request this is; one file or two must make no difference."""
    token = tenant.set("acme")
    try:
        assert [outcome.value for outcome in gather([tenant.get] * jobs, parallel)] == ["acme"] * jobs
    finally:
        tenant.reset(token)


@on("jobs", [1, 2])
async def test_jobs_see_them_under_asyncio_too_and_the_loop(jobs: int) -> None:
    token = tenant.set("acme")
    outcomes = await greenlet_spawn(gather, [lambda: (tenant.get(), pulls.get().loop)] * jobs, 2)
    tenant.reset(token)
    assert outcomes == [Outcome(("acme", asyncio.get_running_loop()))] * jobs


async def test_under_asyncio_the_loop_stays_free_and_jobs_run_at_the_same_time() -> None:
    both, ticked = threading.Barrier(2, timeout=30), threading.Event()

    async def tick() -> None:
        for _ in range(20):
            await asyncio.sleep(0.001)
        ticked.set()

    def job() -> bool:
        both.wait()  # one after the other, it would break
        return ticked.wait(30)

    ticker = asyncio.create_task(tick())
    outcomes = await greenlet_spawn(gather, [job, fails, job], 3)
    await ticker
    assert [type(outcome.error) for outcome in outcomes] == [type(None), OSError, type(None)]
    assert [outcomes[number].value for number in (0, 2)] == [True, True]


async def test_a_cancelled_caller_waits_for_the_jobs_that_run() -> None:
    done: list[int] = []
    begun = threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(0.1)
        done.append(1)

    task = asyncio.create_task(greenlet_spawn(gather, [slow, slow], 2))  # type: ignore[arg-type]
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1, 1]


@pytest.fixture
def few_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Call it, and so many threads can be started from then on."""
    start, left = threading.Thread.start, [1 << 30]

    def started(thread: threading.Thread) -> None:
        if left[0] <= 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", started)
    yield lambda number: left.__setitem__(0, number)
    monkeypatch.undo()


@on(("in_loop", "given"), list(itertools.product([False, True], [0, 1, 2])))
async def test_where_the_system_gives_few_threads_jobs_wait_for_them(
    few_threads: Callable[[int], None], in_loop: bool, given: int
) -> None:
    done: list[int] = []

    def job(number: int) -> int:
        time.sleep(0.02)
        done.append(number)
        return number

    few_threads(given)
    jobs = [partial(job, number) for number in range(6)]
    outcomes = await greenlet_spawn(gather, jobs, 4) if in_loop else gather(jobs, 4)
    assert outcomes == [Outcome(number) for number in range(6)]
    assert sorted(done) == list(range(6))


@on("parallel", [1, 2])
def test_jobs_that_an_interrupted_caller_has_not_begun_never_are(parallel: int) -> None:
    main = threading.current_thread()
    assert main is threading.main_thread()
    done: list[int] = []

    def job(number: int) -> None:
        if number == 2:
            signal.pthread_kill(main.ident or 0, signal.SIGINT)
        time.sleep(0.05)
        done.append(number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # processes in the background ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            gather([partial(job, number) for number in range(50)], parallel)
    finally:
        signal.signal(signal.SIGINT, before)
    assert 1 <= len(done) < 10
    here = len(done)
    time.sleep(0.1)
    assert len(done) == here


def test_a_caller_that_is_interrupted_while_it_waits_for_the_last_jobs_waits_for_them_all_the_same() -> None:
    """Whoever tries again reads the same sources."""

    class Interruption(BaseException): ...

    main = threading.main_thread()
    interrupted, begun, back = threading.Event(), threading.Event(), threading.Event()
    done: list[str] = []

    def interrupt(*_: object) -> None:
        interrupted.set()
        raise Interruption

    def short() -> None:
        begun.wait(30)

    def long() -> None:
        begun.set()
        time.sleep(0.02)  # The caller has nothing left to do by then, and waits.
        signal.pthread_kill(main.ident or 0, signal.SIGUSR1)
        interrupted.wait(30)
        back.wait(0.05)  # which is too late
        done.append("long")

    jobs = {True: long, False: short}
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(Interruption):
            gather([lambda: jobs[threading.current_thread() is not main]()] * 2, 2)
        assert done == ["long"]
    finally:
        back.set()
        signal.signal(signal.SIGUSR1, before)


class Interruption(BaseException):
    """As SystemExit: no error that a job came to."""


@on("in_loop", [False, True])
async def test_what_interrupts_a_job_in_another_thread_interrupts_the_caller(in_loop: bool) -> None:
    """Nothing that seems to have ended without an error, and no more jobs."""
    both, caller = threading.Barrier(2, timeout=30), threading.current_thread()
    done: list[int] = []
    others: list[threading.Thread] = []

    def job(number: int) -> None:
        if number < 2:
            if threading.current_thread() is not caller:
                others.append(threading.current_thread())
            both.wait()
            if threading.current_thread() is not caller:
                raise Interruption
            others[0].join(30)
        done.append(number)

    jobs = [partial(job, number) for number in range(50)]
    with pytest.raises(Interruption):
        _ = await greenlet_spawn(gather, jobs, 2) if in_loop else gather(jobs, 2)
    assert len(done) == (0 if in_loop else 1)


@on("parallel", [1, 2])
async def test_jobs_that_a_cancelled_caller_has_not_begun_never_are(parallel: int) -> None:
    """Not those of jobs either, which are gathered in threads."""
    done: list[int] = []
    begun = threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(0.05)
        done.append(1)

    task = asyncio.create_task(greenlet_spawn(gather, [partial(gather, [slow] * 50, parallel)] * 2, parallel))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 1 <= len(done) < 20


# The worker


def test_the_worker_runs_jobs_in_order_and_ends_its_thread() -> None:
    worker, done = Worker(0), []
    futures = [worker.submit(lambda n=n: done.append(n)) for n in range(20)]  # type: ignore[misc]
    assert worker.idle(5)
    assert done == list(range(20))
    assert all(future is not None and future.done() for future in futures)
    time.sleep(0.05)
    assert "sa_attachments" not in [thread.name for thread in threading.enumerate()]
    again = worker.submit(lambda: "again")
    assert again is not None
    assert again.result(5) == "again"


def test_its_thread_waits_for_more_and_holds_nothing_meanwhile() -> None:
    worker, held = Worker(5), threading.Event()
    first = worker.submit(partial(lambda _: threading.get_ident(), held))
    assert first is not None
    ident, alive = first.result(5), ref(held)
    assert worker.idle(5)
    del first, held
    assert alive() is None
    again = worker.submit(threading.get_ident)
    assert again is not None
    assert again.result(5) == ident


@pytest.mark.parametrize("seconds", [0, 5])
def test_what_the_collector_submits_while_the_thread_ends_is_done(seconds: float) -> None:
    """A session that nobody holds may go in any thread, at any moment."""
    worker, late = Worker(seconds), []

    class Collecting(threading.Condition):
        def notify_all(self) -> None:
            super().notify_all()
            if not late:
                late.append(worker.submit(lambda: "late"))

    worker._idle = Collecting(worker._lock)
    worker.submit(lambda: None)
    assert worker.idle(5)
    assert late[0].result(5) == "late"


def test_what_is_no_thread_of_its_own_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With gevent it is a greenlet, which does not go on when the thread that started it, one of a pool, does not."""

    started: list[greenlet] = []

    class Greenlet(threading.Thread):
        def start(self) -> None:
            started.append(greenlet(self.run))

    class Impatient(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            raise AssertionError

    worker = Worker()
    worker._more = Impatient(worker._lock)
    monkeypatch.setattr("threading.Thread", Greenlet)
    for number in range(2):
        future = worker.submit(lambda number=number: number)  # type: ignore[misc]
        assert future is not None
        started.pop().switch()
        assert future.result(0) == number


def test_a_job_leaves_its_context_to_none() -> None:
    worker = Worker(5)
    worker.submit(lambda: tenant.set("acme"))
    future = worker.submit(tenant.get)
    assert future is not None
    assert future.result(5) == "nobody"


def test_a_worker_knows_its_own_thread() -> None:
    """Who settles there, as a connection of its own is given back, would wait for itself."""
    worker = Worker()
    future = worker.submit(worker.is_here)
    assert future is not None
    assert future.result(5)
    assert not worker.is_here()


def test_a_job_that_fails_stops_nobody() -> None:
    worker = Worker()
    first, second = worker.submit(fails), worker.submit(lambda: 2)
    assert first is not None
    assert second is not None
    assert isinstance(first.exception(5), OSError)
    assert second.result(5) == 2


def test_idle_gives_up_after_its_time() -> None:
    worker, release = Worker(), threading.Event()
    worker.submit(release.wait)
    assert not worker.idle(0.05)
    release.set()
    assert worker.idle(5)
    assert Worker().idle(0)


def test_what_is_too_much_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "CAPACITY", 2)
    worker, release, begun = Worker(), threading.Event(), threading.Event()
    worker.submit(lambda: (begun.set(), release.wait()))
    begun.wait()
    assert [worker.submit(lambda: None) is None for _ in range(3)] == [False, False, True]
    release.set()
    assert worker.idle(5)


def test_a_job_that_was_cancelled_while_it_waited_or_ran_stops_nobody() -> None:
    worker, release, begun = Worker(), threading.Event(), threading.Event()
    running = worker.submit(lambda: (begun.set(), release.wait()))
    waiting, last = worker.submit(fails), worker.submit(lambda: "last")
    begun.wait()
    assert running is not None
    assert waiting is not None
    assert last is not None
    running.cancel()
    waiting.cancel()
    release.set()
    assert last.result(5) == "last"
    assert worker.idle(5)


def test_a_thread_that_cannot_be_started_is_started_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            worker.submit(lambda: 1)
    second = worker.submit(lambda: 2)
    assert second is not None
    assert second.result(5) == 2
    assert worker.idle(5)


def test_a_forked_child_begins_with_an_empty_queue() -> None:
    worker, release, begun = Worker(), threading.Event(), threading.Event()
    worker.submit(lambda: (begun.set(), release.wait()))
    begun.wait()
    pid = os.fork()
    if pid == 0:
        future = worker.submit(lambda: 7) if worker.idle(1) else None
        os._exit(future.result(5) if future is not None else 1)
    _, status = os.waitpid(pid, 0)
    release.set()
    assert os.waitstatus_to_exitcode(status) == 7
    assert worker.idle(5)


# Waiting for no longer than is asked for


def test_within() -> None:
    future: Future[int] = Future()
    assert not within(None, 1)
    assert not within(future, 0.01)
    assert not within(future, 0)
    future.set_exception(OSError())
    assert within(future, 0.01)


async def test_within_under_asyncio() -> None:
    future: Future[int] = Future()
    assert not await greenlet_spawn(within, future, 0.01)
    asyncio.get_running_loop().call_later(0.02, future.set_result, 1)
    assert await greenlet_spawn(within, future, 5)
    failed: Future[int] = Future()
    failed.set_exception(OSError())
    assert await greenlet_spawn(within, failed, 5)


# Tasks


async def test_a_task_is_waited_for_as_long_as_may_be_and_goes_on() -> None:
    tasks, release, done = Tasks(), asyncio.Event(), []

    def slow() -> None:
        await_only(release.wait())
        done.append(1)

    await asyncio.wait_for(greenlet_spawn(tasks.run, slow, 0.01), 30)
    assert done == []
    release.set()
    await tasks.idle()
    assert done == [1]
    await greenlet_spawn(tasks.run, slow, 5)
    assert done == [1, 1]


async def test_tasks_begin_in_order_and_some_run_at_a_time() -> None:
    tasks, begun, running, most = Tasks(), [], 0, 0

    def job(number: int) -> None:
        nonlocal running, most
        begun.append(number)
        running += 1
        most = max(most, running)
        await_only(asyncio.sleep(0.01))
        running -= 1

    for number in range(30):
        await greenlet_spawn(tasks.run, lambda n=number: job(n), 0)
    await tasks.idle()
    assert (begun, most) == (list(range(30)), Tasks.AT_A_TIME)


async def test_tasks_begin_outside_of_the_greenlet() -> None:
    """With eager tasks, as Python 3.12 has them, they would return to the greenlet that they were begun in."""
    inside: list[bool] = []

    def begin(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        inside.append(in_greenlet())
        return asyncio.Task(coroutine, loop=loop, **options)

    tasks, done = Tasks(), []
    asyncio.get_running_loop().set_task_factory(begin)
    try:
        await greenlet_spawn(tasks.run, lambda: done.append(await_only(asyncio.sleep(0, "done"))), 5)
    finally:
        asyncio.get_running_loop().set_task_factory(None)
    assert (inside, done) == ([False], ["done"])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are not eager before Python 3.12")
async def test_eager_tasks() -> None:
    tasks, done = Tasks(), []

    def job(number: int) -> None:
        await_only(asyncio.sleep(0.01))
        done.append(number)

    def work() -> None:
        for number in range(3):
            tasks.run(lambda: job(number), 0)  # noqa: B023 - it begins at once
            await_only(asyncio.sleep(0))

    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    try:
        await greenlet_spawn(work)
        await tasks.idle()
    finally:
        asyncio.get_running_loop().set_task_factory(None)
    assert done == [0, 1, 2]


async def test_tasks_that_are_too_many_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tasks, "CAPACITY", 2)
    tasks, release, done = Tasks(), asyncio.Event(), []
    for number in range(3):
        await greenlet_spawn(tasks.run, lambda n=number: (await_only(release.wait()), done.append(n)), 0)
    release.set()
    await tasks.idle()
    assert done == [0, 1]


def test_each_loop_has_its_own_tasks() -> None:
    tasks, done = Tasks(), []

    async def use() -> None:
        for _ in range(2 * Tasks.AT_A_TIME):
            await greenlet_spawn(tasks.run, lambda: (await_only(asyncio.sleep(0.01)), done.append(1)), 0)
        await tasks.idle()

    async def leave() -> None:
        for _ in range(2 * Tasks.AT_A_TIME):
            await greenlet_spawn(tasks.run, lambda: await_only(asyncio.sleep(60)), 0)

    asyncio.run(use())
    asyncio.run(leave())
    asyncio.run(use())
    assert len(done) == 4 * Tasks.AT_A_TIME


async def test_what_runs_aside_tells_its_outcome() -> None:
    assert await greenlet_spawn(aside, threading.get_ident) != threading.get_ident()
    assert await greenlet_spawn(aside, lambda: threading.current_thread().daemon)
    with pytest.raises(OSError, match="disk full"):
        await greenlet_spawn(aside, fails)


async def test_a_cancelled_caller_does_not_wait_for_what_runs_aside() -> None:
    begun, release, done = threading.Event(), threading.Event(), threading.Event()
    task = asyncio.create_task(greenlet_spawn(aside, lambda: (begun.set(), release.wait(), done.set())))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert not done.is_set()
    release.set()
    assert await asyncio.to_thread(done.wait, 5)
