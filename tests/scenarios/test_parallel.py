"""How many files of one flush are stored at a time: as many as each storage says, in all storages at once."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool

from sa_attachments import Attachment, AttachmentType, StorageFailed, Storages
from sa_attachments.key import is_key
from sa_attachments.storages.memory import MemoryStorage

on = pytest.mark.parametrize


class Crowd:
    """Counts those who are inside at the same time. They wait until as many as are due are there, then stay a moment
    for those who should not come.
    """

    def __init__(self, due: int = 1) -> None:
        self.inside = self.most = 0
        self._due = due
        self._change = threading.Condition()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._change:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self._change.notify_all()
            if not self._change.wait_for(lambda: self.most >= self._due, timeout=10):
                self._due = 1  # once is enough to fail
        time.sleep(0.02)
        yield
        with self._change:
            self.inside -= 1

    def wait_for(self, many: int) -> bool:
        with self._change:
            return self._change.wait_for(lambda: self.most >= many, timeout=10)


class Counting(MemoryStorage):
    def __init__(self, parallel: int, everywhere: Crowd) -> None:
        super().__init__(parallel=parallel)
        self.here, self.everywhere = Crowd(), everywhere

    def put(self, key: str, *arguments: Any, **options: Any) -> None:
        crowds = (self.everywhere, self.here) if is_key(key) else ()  # else the mark of the place
        with ExitStack() as stack:
            for crowd in crowds:
                stack.enter_context(crowd())
            super().put(key, *arguments, **options)


class Works:
    """A step that has the processors work."""

    keeps_busy = True

    def __init__(self, due: int) -> None:
        self.crowd = Crowd(due)

    def __call__(self, attachment: Attachment, /) -> None:
        with self.crowd():
            pass


class Site:
    """Storages ``default`` and ``other``, and a model with a file in each; ``due`` files are put at a time."""

    def __init__(self, default: int, other: int, due: int = 1, step: Works | None = None) -> None:
        self.everywhere = Crowd(due)
        self.default, self.other = Counting(default, self.everywhere), Counting(other, self.everywhere)
        files = Storages({"default": self.default, "other": self.other})

        class Base(DeclarativeBase): ...

        class Doc(Base):
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True)
            file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, steps=[step] if step else []))
            scan: Mapped[Attachment | None] = mapped_column(AttachmentType(files, "other"))

        self.docs: Callable[..., Any] = Doc
        self.create: Callable[[Any], None] = Base.metadata.create_all

    def flush(self, many: int = 10, **values: Any) -> None:
        self.add([self.docs(**values) for _ in range(many)])

    def add(self, docs: Iterable[Any]) -> None:
        engine: Engine = create_engine("sqlite://")
        self.create(engine)
        with Session(engine) as session:
            session.add_all(docs)
            session.commit()

    async def aflush(self, many: int = 10, **values: Any) -> None:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
        async with engine.begin() as connection:
            await connection.run_sync(self.create)
        async with AsyncSession(engine) as session:
            session.add_all([self.docs(**values) for _ in range(many)])
            await session.commit()
        await engine.dispose()


@on("parallel", [1, 2, 4])
def test_as_many_as_the_storage_says(parallel: int) -> None:
    site = Site(parallel, 8, due=parallel)
    site.flush(file=b"x")
    assert site.default.here.most == parallel


@on(("default", "other"), [(1, 4), (4, 1), (2, 3), (1, 1)])
@on("kind", ["sync", "async"])
async def test_each_storage_as_many_as_it_says_and_all_at_once(kind: str, default: int, other: int) -> None:
    site = Site(default, other, due=default + other)
    if kind == "sync":
        site.flush(file=b"x", scan=b"y")
    else:
        await site.aflush(file=b"x", scan=b"y")
    assert (site.default.here.most, site.other.here.most) == (default, other)
    assert site.everywhere.most == default + other


@on("kind", ["sync", "async"])
async def test_steps_keep_all_processors_busy_though_the_storage_takes_one_at_a_time(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    step = Works(due=4)
    site = Site(1, 1, step=step)
    if kind == "sync":
        site.flush(file=b"x")
    else:
        await site.aflush(file=b"x")
    assert (step.crowd.most, site.default.here.most) == (4, 1)


def test_an_error_is_raised_when_the_other_storages_have_ended_too() -> None:
    site = Site(1, 4, due=4)
    put = site.default.put

    def fail(key: str, *arguments: Any, **options: Any) -> None:
        if is_key(key):  # not that of the place
            assert site.everywhere.wait_for(4)
            raise OSError("disk full")
        put(key, *arguments, **options)

    site.default.put = fail  # type: ignore[method-assign]
    with pytest.raises(StorageFailed, match="disk full"):
        site.flush(file=b"x", scan=b"y")
    assert (site.everywhere.most, site.everywhere.inside) == (4, 0)


@on("parallel", [1, 2])
def test_after_one_that_failed_none_is_begun(parallel: int) -> None:
    """What is stored now would be deleted at once."""
    site = Site(parallel, 1)
    read: list[int] = []

    def chunks(number: int) -> Iterator[bytes]:
        read.append(number)
        if number == 3:
            raise OSError("the client is gone")
        yield b"x"

    uploads = [Attachment.upload(chunks(number)) for number in range(50)]
    with pytest.raises(OSError, match="the client is gone"):
        site.add(site.docs(file=upload) for upload in uploads)
    assert 3 in read
    assert len(read) < 10


def test_after_one_that_was_interrupted_none_is_begun_in_other_storages_either() -> None:
    """Whoever wants the process to end does not wait for uploads that would be deleted."""
    site = Site(1, 1)
    begun, read = threading.Event(), []

    def interrupted() -> Iterator[bytes]:
        assert begun.wait(30)
        raise KeyboardInterrupt
        yield b""

    def chunks(number: int) -> Iterator[bytes]:
        read.append(number)
        begun.set()
        time.sleep(0.01)
        yield b"x"

    docs = [site.docs(scan=Attachment.upload(chunks(number))) for number in range(200)]
    with pytest.raises(KeyboardInterrupt):
        site.add([site.docs(file=Attachment.upload(interrupted())), *docs])
    assert 0 < len(read) < 100


class Slow(io.BytesIO):
    """A file that takes its time, and gives a byte at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        time.sleep(0.005)
        return super().read(1)


@on("kind", ["sync", "async"])
@on("given", ["an upload twice", "a file twice", "an upload that can be read once, twice"])
async def test_who_reads_one_position_takes_turns_though_he_stores_elsewhere(kind: str, given: str) -> None:
    site = Site(4, 4)
    file = Slow(b"0123456789")
    first = Attachment.upload(iter([b"01234", b"56789"]) if "once" in given else file)
    values = {"file": first, "scan": Attachment.upload(file) if given == "a file twice" else first}
    if kind == "sync":
        site.flush(1, **values)
    else:
        await site.aflush(1, **values)
    for storage in (site.default, site.other):
        stored = dict(storage.keys())
        assert [storage.open(key).read() for key in stored] == [b"0123456789"]
