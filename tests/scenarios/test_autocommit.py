"""Connections that commit by themselves after each statement are refused, before anything is stored.

Hole 7: the condemning of an old file would be committed although its row's UPDATE then fails. However it was switched
on, the session goes on working after the refusal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, delete, insert, update
from sqlalchemy.orm import Session

from sa_attachments import NoTransaction

from .models import Doc
from .world import World

on = pytest.mark.parametrize
OpenEngine = Callable[..., Engine]


def seed(world: World) -> int:
    """A committed document."""
    with world.session() as session:
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        return doc.id


@contextmanager
def refused(world: World) -> Iterator[None]:
    with world.nothing_stored(), pytest.raises(NoTransaction, match=r"Doc\.(file|scan|pages)"):
        yield


def autocommitting(world: World, how: str, open_engine: OpenEngine) -> Engine:
    """An engine of the world's database; for ``connection option`` it is the world's own."""
    match how:
        case "execution option":
            return world.engine.execution_options(isolation_level="AUTOCOMMIT")
        case "engine option":
            if world.is_async or world.name == "sqlite-memory":
                pytest.skip("needs a second engine")
            return open_engine(world.engine.url, isolation_level="AUTOCOMMIT")
        case "driver":
            if world.is_async or world.name.startswith("sqlite"):
                pytest.skip("sqlite3 has its own test, asyncpg no such option")
            return open_engine(world.engine.url, connect_args={"autocommit": True})
    return world.engine


HOW = ["execution option", "engine option", "connection option", "driver"]
WAYS: dict[str, Callable[[Session, int], object]] = {
    "insert": lambda session, key: session.add(Doc(file=b"new")),
    "update": lambda session, key: setattr(session.get_one(Doc, key), "file", b"new"),
    "set to None": lambda session, key: setattr(session.get_one(Doc, key), "file", None),
    "delete": lambda session, key: session.delete(session.get_one(Doc, key)),
    "bulk insert": lambda session, key: session.execute(insert(Doc), [{"file": b"new"}]),
    "bulk update": lambda session, key: session.execute(update(Doc).values(file=b"new")),
    "bulk delete": lambda session, key: session.execute(delete(Doc)),
}


@on("way", WAYS)
@on("how", HOW)
@on("world", ["sqlite", "sqlite-memory", "postgres", "mariadb", "asyncpg"], indirect=True)
def test_it_is_refused_before_anything_is_stored(world: World, how: str, way: str, open_engine: OpenEngine) -> None:
    """Hole 7."""
    key = seed(world)
    with Session(autocommitting(world, how, open_engine)) as session:
        if how == "connection option":
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        with refused(world):
            WAYS[way](session, key)
            session.flush()
    world.check(b"old")


@on("how", HOW)
@on("world", ["sqlite", "postgres", "mariadb", "aiosqlite", "asyncpg"], indirect=True)
def test_it_is_refused_again_and_again(world: World, how: str, open_engine: OpenEngine) -> None:
    """What was found out about the database must not hide it the second time."""
    with Session(autocommitting(world, how, open_engine)) as session:
        for _ in range(3):
            if how == "connection option":
                session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
            session.add(Doc(file=b"one"))
            with refused(world):
                session.commit()
            session.rollback()
    world.check()


def test_the_session_can_be_used_afterwards(world: World) -> None:
    """An exception before the flush's first statement leaves the transaction as it was."""
    with world.session() as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        doc = Doc(title="one", file=b"one")
        session.add(doc)
        with refused(world):
            session.flush()
        session.rollback()
        session.add(doc)
        session.commit()
    world.check(b"one")


@on("world", ["sqlite", "postgres"], indirect=True)
def test_rows_without_files_are_not_refused(world: World) -> None:
    with Session(world.engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        session.add(Doc(title="no files"))
        session.commit()
        assert session.query(Doc).count() == 1


@on("world", ["sqlite"], indirect=True)
def test_sqlite3_without_begin_is_refused(world: World, open_engine: OpenEngine) -> None:
    """Hole 7: ``isolation_level=None`` without the events that send BEGIN."""
    engine = open_engine(world.engine.url, legacy=True, connect_args={"isolation_level": None})
    with Session(engine) as session:
        session.add(Doc(file=b"one"))
        with world.nothing_stored(), pytest.raises(NoTransaction, match="emit BEGIN"):
            session.flush()
    world.check()
