from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

import pytest
from sqlalchemy.util import await_only, greenlet_spawn

from sa_attachments.flights import Flights


def run_all(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)


def test_what_is_asked_at_the_same_time_is_done_once() -> None:
    flights, done, found = Flights(), [], []

    def job() -> int:
        done.append(1)
        time.sleep(0.2)
        return 42

    run_all([threading.Thread(target=lambda: found.append(flights.share("a", job))) for _ in range(5)])
    assert (done, found) == ([1], [42] * 5)
    assert flights.share("a", job) == 42
    assert done == [1, 1]  # what is over is not remembered


def test_other_things_do_not_wait() -> None:
    flights, reached = Flights(), threading.Barrier(2, timeout=5)
    run_all([threading.Thread(target=flights.share, args=(name, reached.wait)) for name in "ab"])
    assert not reached.broken


def test_errors_are_everybodys() -> None:
    flights, errors = Flights(), []

    def job() -> None:
        time.sleep(0.2)
        raise ValueError("no")

    def ask() -> None:
        try:
            flights.share("a", job)
        except ValueError as error:
            errors.append(str(error))

    run_all([threading.Thread(target=ask) for _ in range(3)])
    assert errors == ["no"] * 3


async def test_who_would_block_the_one_that_is_at_it_does_it_himself() -> None:
    """A template that asks in the thread of the event loop, while a coroutine has asked for the same."""
    flights, begun = Flights(), asyncio.Event()

    async def long() -> str:
        begun.set()
        await asyncio.sleep(0.1)
        return "coroutine"

    first = asyncio.create_task(greenlet_spawn(flights.share, "a", lambda: await_only(long())))
    await begun.wait()
    second = asyncio.create_task(greenlet_spawn(flights.share, "a", lambda: "waits for the first"))
    await asyncio.sleep(0.01)
    assert flights.share("a", lambda: "template") == "template"
    assert [await first, await second] == ["coroutine"] * 2


def test_an_interrupted_one_is_done_by_who_waited() -> None:
    flights, begun, found = Flights(), threading.Event(), []

    def interrupted() -> int:
        begun.set()
        time.sleep(0.2)
        raise KeyboardInterrupt

    def first() -> None:
        with pytest.raises(KeyboardInterrupt):
            flights.share("a", interrupted)

    def second() -> None:
        begun.wait()
        found.append(flights.share("a", lambda: 42))

    run_all([threading.Thread(target=first), threading.Thread(target=second)])
    assert found == [42]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_does_not_wait_for_threads_of_its_parent() -> None:
    flights, begun, over = Flights(), threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        over.wait()

    thread = threading.Thread(target=flights.share, args=("a", job))
    thread.start()
    begun.wait()
    pid = os.fork()
    if pid == 0:
        os._exit(flights.share("a", lambda: 7))
    deadline = time.monotonic() + 5
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    over.set()
    thread.join()
    if ended[0] == 0:
        os.kill(pid, signal.SIGKILL)
        ended = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(ended[1]) == 7
