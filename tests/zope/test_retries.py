"""Serialization failures, provoked on PostgreSQL: retried transactions leave no file of the failed attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zope.sqlalchemy
from sqlalchemy import Engine, func, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from transaction import TransactionManager

from tests.engines import with_driver
from tests.scenarios.models import Doc, files
from tests.scenarios.world import World

from .test_sessions import RollsBack

on = pytest.mark.parametrize


@pytest.fixture(params=["psycopg", "psycopg2"])
def world(request: pytest.FixtureRequest, postgres_url: URL, open_engine: Callable[..., Engine]) -> Iterator[World]:
    url = with_driver(postgres_url, request.param)
    made = World("postgres", open_engine(url, isolation_level="SERIALIZABLE"), open_engine(postgres_url))
    with files.override(made.storages):
        with Session(made.engine) as session:
            session.add(Doc(id=1, title="0", file=b"first"))
            session.commit()
        yield made


class Work:
    """What is attempted: two failures, then nobody is in the way. Each attempt stores a file of its own."""

    def __init__(self, world: World, when: str) -> None:
        self.world = world
        self.when = when
        self.attempts = 0

    def __call__(self, session: Session) -> None:
        self.attempts += 1
        data = b"attempt %d" % self.attempts
        meddles = self.attempts < 3
        if self.when == "flush":
            doc = session.get_one(Doc, 1)
            session.add(Doc(id=2, file=b"second"))
            session.flush()
            if meddles:
                with Session(self.world.engine) as other:
                    other.get_one(Doc, 1).title = f"other {self.attempts}"
                    other.commit()
            doc.file = data  # could not serialize access due to concurrent update
            session.flush()
        else:
            total = session.scalar(select(func.count()).select_from(Doc).where(Doc.title == "0"))
            session.add(Doc(id=2, file=b"second"))
            session.add(Doc(id=3, title=f"total {total}", file=data))
            session.flush()
            if meddles:
                with Session(self.world.engine) as other:  # it reads what this one wrote, and writes what it read
                    other.scalar(select(func.count()).select_from(Doc).where(Doc.id >= 2))
                    other.get_one(Doc, 1).title = f"other {self.attempts}"
                    other.commit()

    def check(self) -> None:
        assert self.attempts == 3
        assert self.world.puts == 1 + 2 * 3
        first = [] if self.when == "flush" else [b"first"]
        self.world.check(*first, b"second", b"attempt 3")


@on("when", ["flush", "commit"])
@on("keep_session", [False, True], ids=["closed", "kept"])
def test_attempts_of_the_transaction_manager(world: World, when: str, keep_session: bool) -> None:
    manager, work = TransactionManager(), Work(world, when)
    session = Session(world.engine)
    zope.sqlalchemy.register(session, transaction_manager=manager, keep_session=keep_session)
    rolls_back = RollsBack(session)
    if keep_session:
        manager.registerSynch(rolls_back)
    for attempt in manager.attempts(5):
        with attempt:
            work(session)
    session.close()
    work.check()


@on("when", ["flush", "commit"])
def test_run_of_the_transaction_manager(world: World, when: str) -> None:
    manager, work = TransactionManager(), Work(world, when)
    session = Session(world.engine)
    zope.sqlalchemy.register(session, transaction_manager=manager)

    def function() -> None:
        work(session)

    manager.run(function, 5)
    work.check()


@on("when", ["flush", "commit"])
@on("how", ["a new session", "the same session"])
def test_a_plain_loop(world: World, when: str, how: str) -> None:
    work = Work(world, when)
    session = Session(world.engine)
    for _ in range(5):
        if how == "a new session":
            session = Session(world.engine)
        try:
            work(session)
            session.commit()
        except DBAPIError as error:
            origin: Any = error.orig
            assert (getattr(origin, "sqlstate", None) or origin.pgcode) == "40001"
            session.rollback()
        else:
            break
    session.close()
    work.check()
