"""Crowd: threads that do something at the same time, and whose errors are the test's.

>>> together(lambda: None, lambda: 1 / 0)
Traceback (most recent call last):
ZeroDivisionError: division by zero
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

PATIENCE = 60
"""Seconds after which a thread that does not end is one that hangs."""


@contextmanager
def beside(job: Callable[[], object], patience: float = PATIENCE) -> Iterator[None]:
    """Run a job while the block runs, and wait for it."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join(patience)
    assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


@contextmanager
def meanwhile(job: Callable[[], object]) -> Iterator[None]:
    """Run a job again and again, as long as the block lasts; at least once."""
    stop = threading.Event()

    def repeat() -> None:
        while True:
            job()
            if stop.is_set():
                return

    with beside(repeat):
        try:
            yield
        finally:
            stop.set()


def together(*jobs: Callable[[], object], patience: float = PATIENCE) -> None:
    """Run all jobs at the same time, and wait for them."""
    with ExitStack() as running:
        for job in jobs:
            running.enter_context(beside(job, patience))
