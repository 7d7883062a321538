"""Several databases in one session: each has a ledger of its own, and one may commit while the other does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pymysql
import pytest
from sqlalchemy import Engine, ForeignKey, delete, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.util import greenlet_spawn

from sa_attachments import Attachment, AttachmentType, AttachmentWarning
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty
from tests import engines

from .models import Doc, Note, files
from .world import World

on = pytest.mark.parametrize


class Two(DeclarativeBase):
    pass


class Left(Two):
    __tablename__ = "lefts"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, "left"))


class Target(Two):
    __tablename__ = "targets"
    id: Mapped[int] = mapped_column(primary_key=True)


class Right(Two):
    __tablename__ = "rights"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(unique=True)
    target_id: Mapped[int | None] = mapped_column(ForeignKey("targets.id", deferrable=True, initially="DEFERRED"))
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, "right"))


class Pair:
    """Two worlds, and sessions that know both."""

    def __init__(self, left: World, right: World) -> None:
        self.left, self.right = left, right
        for name, world in (("left", left), ("right", right)):
            world.storages = {name: Faulty(MemoryStorage(parallel=2))}
            world.create(Two.metadata)

    def session(self) -> Session:
        binds = {Left: self.left.engine, Right: self.right.engine, Target: self.right.engine}
        return Session(binds=binds, expire_on_commit=False)

    def seed(self) -> tuple[int, int]:
        with self.session() as session:
            left, right = Left(file=b"old left"), Right(file=b"old right")
            session.add_all([left, right])
            session.commit()
            return left.id, right.id

    def check(self, left: list[bytes], right: list[bytes]) -> None:
        self.left.check(*left)
        self.right.check(*right)


@pytest.fixture(params=["sqlite and sqlite", "sqlite and postgres", "postgres and sqlite"])
def pair(request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]) -> Iterator[Pair]:
    def world(name: str, path: Path) -> World:
        url = f"sqlite:///{path}" if name == "sqlite" else request.getfixturevalue("postgres_url")
        return World(name, open_engine(url), open_engine(url))

    first, second = request.param.split(" and ")
    made = Pair(world(first, tmp_path / "left.db"), world(second, tmp_path / "right.db"))
    with files.override({**made.left.storages, **made.right.storages}):
        yield made


@on("end", ["commit", "rollback", "close"])
def test_both_end_alike(pair: Pair, end: str) -> None:
    left, right = pair.seed()
    with pair.session() as session:
        session.get_one(Left, left).file = b"new left"
        session.get_one(Right, right).file = b"new right"
        session.add_all([Left(file=b"more left"), Right(file=b"more right")])
        session.flush()
        getattr(session, end)()
    if end == "commit":
        pair.check([b"new left", b"more left"], [b"new right", b"more right"])
    else:
        pair.check([b"old left"], [b"old right"])


@on("end", ["commit", "rollback", "close"])
async def test_both_end_alike_under_asyncio(
    tmp_path: Path, postgres_url: URL, open_engine: Callable[..., Engine], end: str
) -> None:
    one = engines.open_async_engine(f"sqlite+aiosqlite:///{tmp_path}/left.db")
    two = engines.open_async_engine(engines.with_driver(postgres_url, "asyncpg"))
    left = World("aiosqlite", one.sync_engine, open_engine(f"sqlite:///{tmp_path}/left.db"))
    right = World("asyncpg", two.sync_engine, open_engine(postgres_url))
    pair = Pair(left, right)
    binds = {Left: one, Right: two, Target: two}
    with files.override({**left.storages, **right.storages}):
        async with AsyncSession(binds=binds, expire_on_commit=False) as session:
            first, second = Left(file=b"left"), Right(file=b"right")
            session.add_all([first, second])
            await session.commit()
            first.file, second.file = second.file, first.file
            savepoint = await session.begin_nested()
            session.add_all([Left(file=b"more"), Right(file=b"more")])
            await session.flush()
            await savepoint.rollback()
            await getattr(session, end)()
        swapped = end == "commit"
        await greenlet_spawn(pair.check, [b"right" if swapped else b"left"], [b"left" if swapped else b"right"])
    await one.dispose()
    await two.dispose()


@on("end", ["commit", "rollback"])
def test_savepoints_are_in_both(pair: Pair, end: str) -> None:
    left, right = pair.seed()
    with pair.session() as session:
        session.add_all([Left(), Right()])
        session.flush()
        savepoint = session.begin_nested()
        session.get_one(Left, left).file = b"new left"
        session.get_one(Right, right).file = b"new right"
        session.flush()
        getattr(savepoint, end)()
        session.commit()
    word = b"new" if end == "commit" else b"old"
    pair.check([word + b" left"], [word + b" right"])


def test_a_flush_that_fails_in_one_cleans_both(pair: Pair) -> None:
    left, right = pair.seed()
    with pair.session() as session:
        session.get_one(Left, left).file = b"new left"
        session.get_one(Right, right).name = "taken"
        session.flush()
        session.add_all([Left(file=b"more left"), Right(name="taken", file=b"more right")])
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
    pair.check([b"old left"], [b"old right"])


@pytest.mark.filterwarnings("ignore:transaction already deassociated")
@on("end", ["rollback", "close"])
@on("attempt", range(4))
def test_one_commits_and_the_other_refuses(pair: Pair, end: str, attempt: int) -> None:
    """The session hears of a rollback. Chance says which of the two is committed first: each ledger is asked."""
    left, right = pair.seed()
    with pair.session() as session:
        session.get_one(Left, left).file = b"new left"
        doomed = session.get_one(Right, right)
        doomed.file, doomed.target_id = b"new right", 404
        session.flush()
        with pytest.raises(IntegrityError):
            session.commit()
        getattr(session, end)()
    pair.left.settle()
    (named,) = pair.left.named()
    pair.check([pair.left.stored()["left", named["key"]]], [b"old right"])


def test_a_file_that_goes_to_the_other_database_is_copied(pair: Pair) -> None:
    """Two ledgers can't agree on a move."""
    left, right = pair.seed()
    with pair.session() as session:
        source = session.get_one(Left, left)
        session.get_one(Right, right).file = source.file
        source.file = None
        session.commit()
    pair.check([], [b"old left"])


def test_a_file_of_the_other_database_is_copied_and_the_copy_rolled_back(pair: Pair) -> None:
    left, right = pair.seed()
    with pair.session() as session:
        source = session.get_one(Left, left)
        session.get_one(Right, right).file = source.file
        source.file = None
        session.flush()
        session.rollback()
    pair.check([b"old left"], [b"old right"])


@on("end", ["commit", "rollback"])
def test_one_class_in_two_databases(pair: Pair, end: str) -> None:
    """A session that chooses by itself, as for tenants or shards; the storage is one place, which has one owner."""

    class Chooses(Session):
        chosen = pair.left.engine

        def get_bind(self, *args: object, **options: object) -> Engine:
            return self.chosen

    with Chooses(expire_on_commit=False) as session:
        first = Left(id=1, file=b"in the left")
        session.add(first)
        session.flush()
        session.chosen = pair.right.engine
        session.add(Left(id=2, file=b"in the right"))
        with pytest.warns(AttachmentWarning, match="belongs to another database"):
            session.flush()
        getattr(session, end)()
        pair.left.settle()
    assert [facts["storage"] for facts in pair.left.named()] == (["left"] if end == "commit" else [])
    stored = sorted(pair.left.stored().values())
    # What belongs to the owner of the place is cleaned, what does not is left alone.
    assert stored == ([b"in the left", b"in the right"] if end == "commit" else [b"in the right"])


# Two engines of one database

three = on("world", ["postgres", "mariadb"], indirect=True)


def impatient(engine: Engine) -> Engine:
    """It would wait for itself for ever."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        postgres = engine.dialect.name == "postgresql"
        cursor.execute("SET lock_timeout = 2000" if postgres else "SET innodb_lock_wait_timeout = 2")
        cursor.close()
        connection.commit()

    return engine


@pytest.fixture
def binds(world: World, open_engine: Callable[..., Engine]) -> dict[type, Engine]:
    first, second = (impatient(open_engine(world.observer.url)) for _ in range(2))
    return {Doc: first, Note: second}


@three
def test_what_moves_between_two_engines_of_one_database_is_copied(world: World, binds: dict[type, Engine]) -> None:
    with Session(binds=binds) as session:
        session.add(doc := Doc(id=1, file=b"data"))
        session.commit()
        note = Note(id=1, file=doc.file)
        session.add(note)
        doc.file = None
        session.flush()
        doc.file, note.file = note.file, None
        session.flush()
        old, doc.file = doc.file, None
        session.flush()
        note.file = old
        session.commit()
    world.check(b"data")


@three
def test_what_another_engine_stored_in_the_same_transaction_is_copied(world: World, binds: dict[type, Engine]) -> None:
    """On MariaDB who locks its line waits for it."""
    with Session(binds=binds) as session:
        session.add(doc := Doc(id=1, file=b"data"))
        session.flush()
        session.add(Note(id=1, file=doc.file))
        session.commit()
    world.check(b"data", b"data")


@three
def test_what_another_engine_keeps_for_a_while_is_copied(
    world: World, binds: dict[type, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.files, "retain", timedelta(days=1))
    with Session(binds=binds) as session:
        session.add(doc := Doc(id=1, file=b"data"))
        session.commit()
        old, doc.file = doc.file, None
        session.flush()
        session.add(Note(id=1, file=old))
        session.commit()
    world.settle()
    assert [facts["key"] == old.key for facts in world.named()] == [False]
    assert list(world.stored().values()) == [b"data", b"data"]


@three
def test_half_a_commit_of_two_engines_lets_no_two_rows_name_one_file(world: World, binds: dict[type, Engine]) -> None:
    outcomes = set()
    for _ in range(8):  # which of them commits first is random
        with Session(binds=binds) as session:
            session.execute(delete(Note))
            session.merge(Doc(id=1, file=b"data"))
            session.commit()
            doc = session.get_one(Doc, 1)
            session.add(Note(id=1, file=doc.file))
            doc.file = None
            session.flush()
            session.connection(bind_arguments={"mapper": Doc}).connection.driver_connection.close()  # type: ignore[union-attr]
            with suppress(DBAPIError, pymysql.Error):
                session.commit()
        world.settle()
        world.sweep()
        named = world.named()
        outcomes.add(len(named))
        world.check(*[b"data"] * len(named), swept=True)
    assert outcomes <= {1, 2}
