"""Faulty: a storage around another one, that fails, hangs or does anything else when a test says so.

>>> from sa_attachments.storages.memory import MemoryStorage
>>> storage = Faulty(MemoryStorage()).fail("delete", error=OSError("gone fishing"))
>>> storage.delete(["a"])
Traceback (most recent call last):
OSError: gone fishing
>>> storage.heal().delete(["a"]), storage.calls
({}, [Call(verb='delete', args=(['a'],)), Call(verb='delete', args=(['a'],))])

A call that hangs goes on, and does its work, when it is released:

>>> import threading
>>> thread = threading.Thread(target=storage.hang("delete").delete, args=[["b"]])
>>> thread.start(); storage.wait_for_hang(), thread.is_alive(), storage.release(); thread.join()
(True, True, None)

It has the abilities of the storage inside, and counts their calls too.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, BinaryIO, NamedTuple, Self

from sa_attachments.storage import Readable, Stat, Storage

_VERBS = {"put", "open", "stat", "delete", "keys"}


class Call(NamedTuple):
    """One call of a verb, with its positional arguments: ``("delete", (["key"],))``."""

    verb: str
    args: tuple[Any, ...]


class Faulty:
    """See the module. ``calls`` are all calls so far, ``inner`` is the storage inside."""

    def __init__(self, inner: Storage) -> None:
        self.inner = inner
        self.parallel = inner.parallel
        self.readonly = inner.readonly
        self.calls: list[Call] = []
        self._faults: list[_Fault] = []
        self._lock = threading.Lock()
        self._hanging = threading.Semaphore(0)
        self._released = threading.Event()
        for name in dir(inner):
            ability = getattr(inner, name)
            if not name.startswith("_") and name not in _VERBS and callable(ability):
                # An attribute of the instance: isinstance with a protocol looks at nothing else.
                setattr(self, name, functools.partial(self._call, name))

    def fail(
        self, verb: str, on: int | None = None, error: Exception | type[Exception] = OSError, *, after: bool = False
    ) -> Self:
        """Raise ``error`` at the ``on``-th call of ``verb`` from now, or at every one; ``after`` its work was done."""

        def action() -> None:
            raise error

        return self.at(verb, on, action, after=after)

    def hang(self, verb: str, on: int | None = None, seconds: float | None = None, *, after: bool = False) -> Self:
        """Let the ``on``-th call of ``verb`` from now, or every one, wait for ``seconds``, or until it is released."""
        with self._lock:
            if self._released.is_set():
                self._released = threading.Event()
            released = self._released

        def action() -> None:
            self._hanging.release()
            released.wait(seconds)

        return self.at(verb, on, action, after=after)

    def at(self, verb: str, on: int | None, action: Callable[[], None], *, after: bool = False) -> Self:
        """Do ``action`` at the ``on``-th call of ``verb`` from now, or at every one. The verb ``*`` is any."""
        if verb != "*" and not hasattr(self.inner, verb):
            raise ValueError(f"{self.inner!r} has no verb {verb!r}")
        with self._lock:
            self._faults.append(_Fault(verb, on, action, after))
        return self

    def heal(self) -> Self:
        """No more faults; what hangs goes on."""
        with self._lock:
            self._faults.clear()
        self.release()
        return self

    def release(self) -> None:
        """Let all that hangs go on."""
        self._released.set()

    def wait_for_hang(self, timeout: float = 10) -> bool:
        """Wait until a call begins to hang; False after ``timeout`` seconds without one. Each one counts once."""
        return self._hanging.acquire(timeout=timeout)

    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        self._call("put", key, stream, size=size, content_type=content_type)

    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        return self._call("open", key, start, end)  # type: ignore[no-any-return]

    def stat(self, key: str) -> Stat:
        return self._call("stat", key)  # type: ignore[no-any-return]

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        return self._call("delete", keys)  # type: ignore[no-any-return]

    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        return self._call("keys", after, before)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __repr__(self) -> str:
        return f"Faulty({self.inner!r})"

    def _call(self, verb: str, *args: Any, **options: Any) -> Any:
        with self._lock:
            self.calls.append(Call(verb, args))
            due = [fault for fault in self._faults if fault.is_due(verb)]
        for fault in due:
            if not fault.after:
                fault.action()
        result = getattr(self.inner, verb)(*args, **options)
        for fault in due:
            if fault.after:
                fault.action()
        return result


class _Fault:
    def __init__(self, verb: str, on: int | None, action: Callable[[], None], after: bool) -> None:
        self.action = action
        self.after = after
        self._verb = verb
        self._on = on
        self._seen = 0

    def is_due(self, verb: str) -> bool:
        if self._verb not in (verb, "*"):
            return False
        self._seen += 1
        return self._on in (None, self._seen)
