"""Cleaning after a transaction, with every kind of pool, and on no other ledger than that of the transaction."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any
from weakref import ref

import pytest
from sqlalchemy import Engine, create_engine, delete, event, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, SingletonThreadPool, StaticPool

from sa_attachments import Attachment, AttachmentType, LedgerMissing, Storages
from sa_attachments.places import MARKER
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty

from .models import Base, Doc, files
from .world import World

on = pytest.mark.parametrize
OpenEngine = Callable[..., Engine]

POOLS: dict[str, dict[str, Any]] = {
    "one": {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 1},
    "unlimited": {"poolclass": QueuePool, "pool_size": 0},
    "null": {"poolclass": NullPool},
    "static": {"poolclass": StaticPool},
    "singleton": {"poolclass": SingletonThreadPool},
    "assertion": {"poolclass": AssertionPool},
    "hasty": {"poolclass": QueuePool, "pool_size": 1, "max_overflow": 0, "pool_timeout": 0},
}
SWEPT = ("static", "assertion", "hasty")
"""Those that have no connection for a worker: on a server, a sweep cleans."""


@on("pool", POOLS)
@on("world", ["sqlite", "sqlite-legacy", "postgres", "mariadb"], indirect=True)
def test_pools(world: World, pool: str, open_engine: OpenEngine) -> None:
    engine = open_engine(world.engine.url, legacy=world.name == "sqlite-legacy", **POOLS[pool])
    with Session(engine) as session:
        doc = Doc(file=b"old", pages=[b"page"])
        session.add(doc)
        session.commit()
        doc.file = b"new"
        session.commit()
        session.add(Doc(file=b"undone"))
        session.flush()
        session.rollback()
        doc.pages = []
        session.commit()
    world.settle()
    if pool in SWEPT and engine.dialect.name != "sqlite":
        assert len(world.stored()) > 1
        world.sweep()
    world.check(b"new", swept=True)


@on("pool", ["static", "singleton"])
def test_in_memory(tmp_path: Path, pool: str, open_engine: OpenEngine) -> None:
    options = {"connect_args": {"check_same_thread": False}} if pool == "static" else {}
    engine = open_engine("sqlite://", **POOLS[pool], **options)
    world = World(pool, engine, engine)
    with files.override(world.storages):
        with world.session() as session:
            doc = Doc(file=b"old")
            session.add(doc)
            session.commit()
            doc.file = b"new"
            session.commit()
            session.add(Doc(file=b"undone"))
            session.flush()
        world.check(b"new")


def test_an_engine_that_nobody_uses_any_more_is_freed(tmp_path: Path) -> None:
    """One per tenant, perhaps."""
    engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    Base.metadata.create_all(engine)
    with files.override(Faulty(MemoryStorage())), Session(engine) as session:
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        doc.file = b"new"
        session.commit()
        assert files.settled(20)
    engine.dispose()
    engine = ref(engine)  # type: ignore[assignment]
    del session, doc
    gc.collect()
    assert engine() is None  # type: ignore[operator]


@on("world", ["sqlite", "sqlite-memory", "postgres"], indirect=True)
def test_an_engine_with_options_for_each_request(world: World) -> None:
    for data in (b"one", b"two", b"three"):
        with Session(world.engine.execution_options(request=data)) as session:
            doc = session.get(Doc, 1) or Doc(id=1)
            doc.file = data
            session.add(doc)
            session.commit()
    world.settle()
    marks = [call.verb for call in world.storage.calls if MARKER in call.args or [MARKER] in call.args]
    assert marks == ["open", "put", "open"]  # at the first put and the first delete only
    world.sweep()  # the last line of what was purged on SQLite waits for the next transaction, or for this
    world.check(b"three", swept=True)


@on("pool", ["static", "singleton"])
def test_the_transaction_of_another_session_on_the_same_connection_is_left_alone(
    pool: str, open_engine: OpenEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Hole 18: settling would commit what the other session has not committed. It does not even try."""
    engine = open_engine("sqlite://", **POOLS[pool])
    world = World(pool, engine, engine)
    with files.override(world.storages), world.session() as first, world.session() as second:
        doc = Doc(file=b"old")
        first.add(doc)
        first.commit()

        @event.listens_for(first, "after_commit")
        def begin(session: Session) -> None:
            second.add(Doc(title="of the second"))
            second.flush()

        doc.file = b"new"
        first.commit()
        assert caplog.records == []
        second.rollback()
        event.remove(first, "after_commit", begin)
        assert first.scalar(select(Doc.id).where(Doc.title == "of the second")) is None
        first.close()
        world.sweep()
        world.check(b"new", swept=True)


class Quick(DeclarativeBase):
    pass


quick = Storages()


class Item(Quick):
    """In a ``Storages`` that waits no longer than usual."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment] = mapped_column(AttachmentType(quick))


@pytest.fixture
def storage() -> Iterator[Faulty]:
    storage = Faulty(MemoryStorage())
    with quick.override({"default": storage}):
        yield storage
    storage.heal()


@on("world", ["postgres", "mariadb"], indirect=True)
def test_a_commit_does_not_wait_until_a_pool_of_one_is_free(
    world: World, storage: Faulty, open_engine: OpenEngine
) -> None:
    """Hole 18: somebody waits in line for the only connection, and keeps it; the cleaning comes after."""
    engine = open_engine(world.engine.url, pool_size=1, max_overflow=0)
    Quick.metadata.create_all(engine)

    done = Event()

    def hold() -> bool:
        with engine.connect():
            return done.wait(25)

    with Session(engine) as session, ThreadPoolExecutor(1) as pool:
        item = Item(file=b"old")
        session.add(item)
        session.commit()
        item.file = b"new"
        session.flush()
        future = pool.submit(hold)
        time.sleep(0.2)
        session.commit()
        done.set()
        assert future.result(10), "it was waited for"
    assert quick.settled(10)
    assert [call.verb for call in storage.calls].count("delete") == 1
    assert len(list(storage.inner.keys())) == 1


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_a_storage_that_hangs_does_not_hold_the_commit(world: World, storage: Faulty) -> None:
    Quick.metadata.create_all(world.engine)
    with world.session() as session:
        item = Item(file=b"old")
        session.add(item)
        session.commit()
        item.file = b"new"
        session.flush()
        storage.hang("delete")
        began = time.monotonic()
        session.commit()
        assert time.monotonic() - began < 10  # what hangs does so until it is healed
        storage.heal()
    assert quick.settled(10)
    quick.sweep(world.engine, grace=timedelta(0))
    assert len(list(storage.inner.keys())) == 1


@on("world", ["postgres", "mariadb"], indirect=True)
def test_an_engine_that_was_disposed_of_gets_no_connection_back(world: World, storage: Faulty) -> None:
    """A process that disposes of it before it forks would share that one with its children."""
    Quick.metadata.create_all(world.engine)
    with world.session() as session:
        item = Item(file=b"old")
        session.add(item)
        session.commit()
        storage.hang("delete")
        item.file = b"new"
        session.commit()
    storage.wait_for_hang()
    world.engine.dispose()
    storage.release()
    assert quick.settled(10)
    pool: Any = world.engine.pool
    assert pool.checkedin() == 0
    quick.sweep(world.engine, grace=timedelta(0))
    assert len(list(storage.inner.keys())) == 1


SETTINGS = {
    "sqlite": ["PRAGMA busy_timeout", "PRAGMA synchronous"],
    "postgresql": ["SHOW lock_timeout", "SHOW synchronous_commit", "SHOW transaction_isolation"],
    "mysql": ["SELECT @@innodb_lock_wait_timeout", "SELECT @@tx_isolation"],
}


@on("world", ["sqlite", "postgres", "mariadb", "aiosqlite", "asyncpg"], indirect=True)
def test_the_connection_is_given_back_as_it_was(world: World) -> None:
    """Hole 18: short timeouts are for cleaning only."""

    def settings() -> list[Any]:
        with world.engine.connect() as connection:
            dialect = connection.dialect.name
            return [connection.scalar(text(ask)) for ask in SETTINGS.get(dialect, SETTINGS["mysql"])]

    before = settings()
    with world.session() as session:
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        doc.file = b"new"
        session.commit()
    world.check(b"new")
    assert settings() == before


def make_tenant(world: World) -> None:
    """A schema with the same tables, and a ledger of its own."""
    with world.observer.begin() as connection:
        connection.execute(text("CREATE SCHEMA tenant"))
    world.create(Base.metadata, schema="tenant")


@on("local", ["", "LOCAL "])
@on("end", ["commit", "rollback"])
@on("world", ["postgres", "asyncpg"], indirect=True)
def test_a_search_path_leads_to_another_ledger(world: World, end: str, local: str) -> None:
    """Hole 1: what the ledger of another connection's search path does not know is not dead."""
    make_tenant(world)
    with world.session() as session:
        session.add(Doc(file=b"public"))  # the place belongs to the ledger that will be asked
        session.commit()
        session.execute(text(f"SET {local}search_path TO tenant"))
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        session.execute(text(f"SET {local}search_path TO tenant"))
        doc.file = b"new"
        session.add(Doc(file=b"more"))
        session.flush()
        getattr(session, end)()
        session.connection().invalidate()  # its search path is not for others
    world.settle()
    named = {world.stored()[facts["storage"], facts["key"]] for facts in world.named()}
    assert named == {b"public", *([b"new", b"more"] if end == "commit" else [b"old"])}


@on("end", ["commit", "rollback"])
@on("savepoint", [False, True])
@on("world", ["postgres", "asyncpg"], indirect=True)
def test_two_search_paths_in_one_transaction(world: World, savepoint: bool, end: str) -> None:
    """The second ledger, which cleaning asks, knows nothing of what is in the first one."""
    make_tenant(world)
    with world.session() as session:
        session.add(Doc(file=b"public"))  # the place belongs to the ledger that will be asked
        session.commit()
        session.execute(text("SET LOCAL search_path TO tenant"))
        with session.begin_nested() if savepoint else nullcontext():
            session.add(Doc(file=b"theirs"))
            session.flush()
        session.execute(text("SET LOCAL search_path TO public"))
        session.add(Doc(file=b"mine"))
        session.flush()
        getattr(session, end)()
    world.settle()
    stored = set(world.stored().values())
    assert stored >= {b"public", b"theirs", b"mine"} if end == "commit" else stored >= {b"public"}


@on("world", ["postgres", "asyncpg"], indirect=True)
def test_a_sweep_on_another_search_path_takes_nothing_for_a_stranger(world: World) -> None:
    """Hole 1: the ledgers of two schemas are two owners, and one place has one owner."""
    make_tenant(world)
    with world.session() as session:
        session.execute(text("SET LOCAL search_path TO tenant"))
        session.add(Doc(file=b"one"))
        session.commit()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        world.sweep()
        report = world.sweep()
    assert report["default"].problem is not None
    world.check(b"one")


WAYS: dict[str, Callable[[Session], object]] = {
    "flush": lambda session: (session.add(Doc(file=b"one")), session.flush()),
    "delete": lambda session: (session.delete(session.scalars(select(Doc)).one()), session.flush()),
    "bulk insert": lambda session: session.execute(insert(Doc), [{"file": b"one"}]),
    "bulk delete": lambda session: session.execute(delete(Doc)),
}


@on("way", WAYS)
def test_without_a_ledger_nothing_is_stored(world: World, way: str) -> None:
    with world.session() as session:
        session.add(Doc(title="there"))
        session.commit()
    ledger = Base.metadata.tables["attachment_ledger"]
    ledger.drop(world.observer)
    with world.session() as session:
        with world.nothing_stored(), pytest.raises(LedgerMissing, match=r"attachment_ledger.*create_all"):
            WAYS[way](session)
        session.rollback()
        session.close()
        ledger.create(world.observer)
        session.add(Doc(file=b"one"))
        session.commit()
    world.check(b"one")


def test_a_ledger_that_went_away_says_so(world: World) -> None:
    """It was there when this process looked first."""
    ledger = Base.metadata.tables["attachment_ledger"]
    with world.session() as session:
        session.add(Doc(file=b"one"))
        session.commit()
        session.delete(session.scalars(select(Doc)).one())
        session.commit()
        session.close()
        world.settle()
        ledger.drop(world.observer)
        session.add(Doc(file=b"two"))
        with pytest.raises(LedgerMissing):
            session.commit()
        session.rollback()
        session.close()
        ledger.create(world.observer)
    world.check()
