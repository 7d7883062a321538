"""Sources and steps that fail midway, sources that do not end, disks that are full: nothing of them stays."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import Engine, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, Refused, StorageFailed, Storages
from sa_attachments.places import MARKER
from sa_attachments.processing import MaxSize
from sa_attachments.storages.local import LocalStorage
from sa_attachments.storages.memory import MemoryStorage
from tests.scenarios.models import Doc
from tests.scenarios.world import World
from tests.storages.conftest import mount, tiny_disk

__all__ = ["mount", "tiny_disk"]

on = pytest.mark.parametrize
everywhere = on("world", ["sqlite", "postgres", "aiosqlite", "asyncpg"], indirect=True)

MANY = 1000
"""More chunks than anybody reads before a limit of theirs is reached."""


class Broken(Exception):
    """What a source or a step of a user's raises."""


def pieces(raises: type[BaseException] = Broken) -> Iterator[bytes]:
    yield b"first " * 10_000
    yield b"second"
    raise raises("midway")


async def later_pieces() -> AsyncIterator[bytes]:
    for piece in (b"first " * 10_000, b"second"):
        yield piece
    raise Broken("midway")


class BrokenFile:
    """A binary file, seekable or not, whose second read fails."""

    def __init__(self, seekable: bool) -> None:
        self._seekable = seekable
        self._reads = 0

    def seekable(self) -> bool:
        return self._seekable

    def seek(self, offset: int, whence: int = 0) -> int:
        self._reads = 0
        return 0

    def tell(self) -> int:
        return 0

    def read(self, size: int = -1) -> bytes:
        self._reads += 1
        if self._reads > 1:
            raise Broken("midway")
        return b"x" * min(size if size > 0 else 10, 1000)


SOURCES: dict[str, Callable[[], Any]] = {
    "iterator": pieces,
    "file": lambda: BrokenFile(seekable=True),
    "pipe": lambda: BrokenFile(seekable=False),
}


@everywhere
@on("source", SOURCES)
def test_a_source_that_fails_midway_undoes_the_others_of_its_flush(world: World, source: str) -> None:
    with world.session() as session:
        session.add(Doc(file=b"one", scan=SOURCES[source](), pages=[b"two", b"three"]))
        with pytest.raises(Broken, match="midway"):
            session.flush()
        session.rollback()
        session.add(Doc(file=b"four"))
        session.commit()
        assert session.scalar(select(func.count()).select_from(Doc)) == 1
    world.check(b"four", swept=world.sweep().ok)


@everywhere
def test_an_iterator_that_failed_is_not_stored_in_half_by_a_second_try(world: World) -> None:
    """A generator that raised looks like an empty one."""
    with world.session() as session:
        doc = Doc(file=pieces())
        session.add(doc)
        with pytest.raises(Broken):
            session.flush()
        with pytest.raises(ValueError, match="fresh source"):
            session.flush()
        doc.file = b"whole"  # type: ignore[assignment]
        session.commit()
    world.check(b"whole", swept=world.sweep().ok)


@on("world", ["aiosqlite", "asyncpg"], indirect=True)
def test_an_async_iterator_that_fails_midway_undoes_the_others_of_its_flush(world: World) -> None:
    with world.session() as session:
        session.add(Doc(file=b"one", scan=later_pieces(), pages=[b"two"]))
        with pytest.raises(Broken, match="midway"):
            session.flush()
        session.rollback()
        session.add(Doc(file=b"four"))
        session.commit()
    world.check(b"four", swept=world.sweep().ok)


# Steps of a user's own


def step_that_fails(attachment: Attachment) -> None:
    if attachment.read().startswith(b"fail"):
        raise Broken("in a step")


def step_that_says_no(attachment: Attachment) -> None:
    if attachment.read().startswith(b"no"):
        raise ValueError("not this one")


class Application:
    """Models of its own, with limits; ``files`` are in ``storage``."""

    def __init__(self, storage: Any) -> None:
        self.files = Storages(storage)

        class Base(DeclarativeBase):
            pass

        class Limited(Base):
            __tablename__ = "limited"
            id: Mapped[int] = mapped_column(primary_key=True)
            file: Mapped[Attachment | None] = mapped_column(AttachmentType(self.files, steps=[MaxSize(100_000)]))
            checked: Mapped[Attachment | None] = mapped_column(
                AttachmentType(self.files, steps=[step_that_fails, step_that_says_no])
            )
            plain: Mapped[Attachment | None] = mapped_column(AttachmentType(self.files))

        self.Base, self.Limited = Base, Limited


class Endless:
    """Counts how much of it was read."""

    def __init__(self) -> None:
        self.read_so_far = 0

    def __iter__(self) -> Iterator[bytes]:
        for _ in range(MANY):
            self.read_so_far += 10_000
            yield b"x" * 10_000

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in iter(self):
            yield piece


def keys_of(storage: MemoryStorage) -> list[str]:
    return [key for key, _ in storage.keys("0")]  # the marker comes before


@on("engine", ["sqlite", "postgres"], indirect=True)
def test_a_source_longer_than_the_limit_is_not_read_to_its_end(engine: Engine) -> None:
    storage = MemoryStorage()
    application = Application(storage)
    application.Base.metadata.create_all(engine)
    endless = Endless()
    with Session(engine) as session:
        session.add(application.Limited(file=iter(endless), plain=b"beside it"))
        with pytest.raises(Refused, match=r"Limited\.file") as caught:
            session.flush()
        assert caught.value.limit == 100_000
        assert endless.read_so_far <= 500_000, "stopped early"
        session.rollback()
        session.add(application.Limited(file=b"short"))
        session.commit()
    assert application.files.settled(20)
    application.files.sweep(engine)
    assert len(keys_of(storage)) == 1


async def test_an_async_source_longer_than_the_limit_is_not_read_to_its_end(async_engine: AsyncEngine) -> None:
    storage = MemoryStorage()
    application = Application(storage)
    async with async_engine.begin() as connection:
        await connection.run_sync(application.Base.metadata.create_all)
    endless = Endless()

    async def chunks() -> AsyncIterator[bytes]:
        async for piece in endless.__aiter__():
            yield piece

    async with AsyncSession(async_engine) as session:
        session.add(application.Limited(file=chunks(), plain=b"beside it"))
        with pytest.raises(Refused, match=r"Limited\.file"):
            await session.flush()
        assert endless.read_so_far <= 500_000, "stopped early"
        await session.rollback()
        session.add(application.Limited(file=b"short"))
        await session.commit()
    await application.files.asettled()
    assert len(keys_of(storage)) == 1


@on("engine", ["sqlite", "postgres"], indirect=True)
@on(("data", "error"), [(b"fail", Broken), (b"no", Refused)])
def test_a_step_that_raises_undoes_the_others_of_its_flush(engine: Engine, data: bytes, error: type[Exception]) -> None:
    storage = MemoryStorage()
    application = Application(storage)
    application.Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([application.Limited(plain=b"one"), application.Limited(checked=data, plain=b"two")])
        with pytest.raises(error):
            session.flush()
        session.rollback()
        session.add(application.Limited(checked=b"fine", plain=b"three"))
        session.commit()
    assert application.files.settled(20)
    application.files.sweep(engine)
    assert len(keys_of(storage)) == 2


# Full disks


@pytest.fixture
def full(tiny_disk: Path) -> Application:
    return Application(LocalStorage(tiny_disk / "files"))


def left_on(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and path.name != MARKER]


@on("engine", ["sqlite", "postgres"], indirect=True)
def test_a_full_disk_undoes_the_others_of_its_flush(engine: Engine, full: Application, tiny_disk: Path) -> None:
    full.Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(full.Limited(plain=b"s" * 1000))
        session.commit()
        before = left_on(tiny_disk)
        session.add_all([full.Limited(plain=b"x" * 200_000) for _ in range(8)])
        with pytest.raises(StorageFailed, match="No space left") as caught:
            session.flush()
        assert (caught.value.storage, caught.value.operation) == ("default", "put")
        session.rollback()
        assert full.files.settled(20)
        full.files.sweep(engine)
        assert left_on(tiny_disk) == before
        session.add(full.Limited(plain=b"y" * 200_000))
        session.commit()
    assert len(left_on(tiny_disk)) == 2


async def test_a_full_disk_under_asyncio(async_engine: AsyncEngine, full: Application, tiny_disk: Path) -> None:
    async with async_engine.begin() as connection:
        await connection.run_sync(full.Base.metadata.create_all)
    async with AsyncSession(async_engine) as session:
        session.add_all([full.Limited(plain=b"x" * 200_000) for _ in range(8)])
        with pytest.raises(StorageFailed, match="No space left"):
            await session.commit()
        await session.rollback()
        await full.files.asettled()
        await full.files.asweep(async_engine)
        assert left_on(tiny_disk) == []
        session.add(full.Limited(plain=b"y" * 200_000))
        await session.commit()
    assert len(left_on(tiny_disk)) == 1


def test_a_full_disk_can_still_be_cleaned(open_engine: Callable[..., Engine], mount: Any, tmp_path: Path) -> None:
    """Deleting needs no space, even where the database has none left of its own: then it waits for the sweep."""
    disk = mount("-t", "tmpfs", "-o", "size=2m", "tmpfs")
    application = Application(LocalStorage(disk / "files"))
    engine = open_engine(f"sqlite:///{disk}/test.db")
    application.Base.metadata.create_all(engine)
    with Session(engine) as session, ExitStack() as fillers:
        session.add(application.Limited(plain=b"x" * 200_000))
        session.flush()
        filler = fillers.enter_context((disk / "filler").open("wb", buffering=0))
        with pytest.raises(OSError, match="No space left"):
            _fill(filler)
        session.rollback()
        (disk / "filler").unlink()
    assert application.files.settled(20)
    application.files.sweep(engine, grace=timedelta(0), stranger_retain=timedelta(0))
    engine.dispose()
    assert left_on(disk / "files") == []


def _fill(file: Any) -> NoReturn:
    while True:
        file.write(b"f" * 4096)
