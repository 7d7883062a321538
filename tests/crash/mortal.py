"""Mortal: counts what a process asks of storages, databases and the file system, and can end it at the n-th such
step.

::

    mortal = Mortal(kill_at(17))
    engine, storage = mortal.engine(engine), mortal.storage(LocalStorage(folder))
    with mortal.system_calls():
        ...                                 # SIGKILL at the 17th step, whichever thread takes it

There is a step before and one after each verb of a storage, each request to S3 and each call of the database's
driver: statement, commit, rollback, savepoint; and one before each system call by which the local storage changes
something. What SQLite does inside of one call is SQLite's to survive.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine

from sa_attachments.storage import Storage
from sa_attachments.testing import Faulty

SYSTEM_CALLS = ["write", "fsync", "link", "unlink", "mkdir", "rmdir"]
VERBS = ["put", "open", "stat", "delete", "keys", "copy", "path", "take", "discard_unfinished"]
DRIVER_CALLS = [
    "do_execute",
    "do_executemany",
    "do_execute_no_params",
    "do_commit",
    "do_rollback",
    "do_savepoint",
    "do_rollback_to_savepoint",
    "do_release_savepoint",
    "do_prepare_twophase",
    "do_commit_twophase",
    "do_rollback_twophase",
]
"""Methods of SQLAlchemy's dialects, through which all calls of the driver go."""


def kill_at(limit: int | None) -> Callable[[int], None]:
    """Ends this process at a step, as suddenly as can be; None lets it live."""

    def reached(number: int) -> None:
        if number == limit:
            os.kill(os.getpid(), signal.SIGKILL)

    return reached


class Mortal:
    """``reached`` is told the number of each step; no other is taken meanwhile. ``steps`` are their names."""

    def __init__(self, reached: Callable[[int], None]) -> None:
        self.steps: list[str] = []
        self._reached = reached
        self._lock = threading.Lock()

    def step(self, name: str) -> None:
        """A step is reached."""
        with self._lock:
            self.steps.append(name)
            self._reached(len(self.steps))

    def engine(self, engine: Engine) -> Engine:
        """Count the calls of an engine's driver. What SQLAlchemy asks of a new database is not counted."""
        engine.connect().close()
        for name in DRIVER_CALLS:
            setattr(engine.dialect, name, self._around(name, getattr(engine.dialect, name)))
        return engine

    def storage(self, storage: Storage) -> Faulty:
        """Count the verbs of a storage."""
        faulty = Faulty(storage)
        for verb in VERBS:
            if hasattr(storage, verb):
                faulty.at(verb, None, functools.partial(self.step, f"before {verb}"))
                faulty.at(verb, None, functools.partial(self.step, f"after {verb}"), after=True)
        return faulty

    def requests(self, client: Any) -> None:
        """Count the requests of boto3's client to S3."""
        for event, when in [("before-send.s3", "before"), ("needs-retry.s3", "after")]:

            def told(event_name: str, when: str = when, **_: Any) -> None:
                self.step(f"{when} {event_name.rpartition('.')[2]}")

            client.meta.events.register(event, told)

    @contextmanager
    def system_calls(self) -> Iterator[None]:
        """Count the system calls that change files."""
        before = {name: getattr(os, name) for name in SYSTEM_CALLS}
        for name, call in before.items():
            setattr(os, name, self._around(name, call, after=False))
        try:
            yield
        finally:
            for name, call in before.items():
                setattr(os, name, call)

    def _around(self, name: str, call: Callable[..., Any], *, after: bool = True) -> Callable[..., Any]:
        @functools.wraps(call)
        def counted(*arguments: Any, **options: Any) -> Any:
            said = next((f": {each}" for each in arguments if isinstance(each, str)), "").partition("\n")[0][:60]
            self.step(f"before {name}{said}")
            result = call(*arguments, **options)
            if after:
                self.step(f"after {name}{said}")
            return result

        return counted
