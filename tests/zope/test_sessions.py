"""Sessions that zope.sqlalchemy manages, as an application has them: nothing is to be done for their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import transaction
import zope.sqlalchemy
from sqlalchemy import Engine, event, select, text, update
from sqlalchemy.exc import IntegrityError, PendingRollbackError
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from transaction import TransactionManager
from transaction.interfaces import DoomedTransaction

from sa_attachments import StorageFailed
from tests.scenarios.models import Doc, files
from tests.scenarios.world import World

from .participants import BEFORE, PARTICIPANTS, Fails

on = pytest.mark.parametrize
KEEPS = on("keep_session", [False, True], ids=["closed", "kept"])


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]) -> Iterator[World]:
    if request.param == "postgres":
        url: Any = request.getfixturevalue("postgres_url")
    else:
        url = f"sqlite+pysqlite:///{tmp_path}/test.db"
    made = World(request.param, open_engine(url), open_engine(url))
    with files.override(made.storages):
        yield made


@pytest.fixture
def manager() -> Iterator[TransactionManager]:
    made = TransactionManager()
    yield made
    made.abort()


@pytest.fixture
def open_session(world: World, manager: TransactionManager) -> Iterator[Callable[..., Session]]:
    opened: list[Session] = []

    def open_(*, keep_session: bool = False, **options: Any) -> Session:
        session = Session(world.engine)
        zope.sqlalchemy.register(session, transaction_manager=manager, keep_session=keep_session, **options)
        opened.append(session)
        return session

    yield open_
    for session in opened:
        session.close()


def _recipe() -> Any:
    """The class RollsBack of docs/zope.md."""
    page = (Path(__file__).parents[2] / "docs" / "zope.md").read_text()
    found = re.search(r"```python\n(  class RollsBack:.*?)\n\n\n  rolls_back = ", page, re.DOTALL)
    assert found
    defined: dict[str, Any] = {}
    exec(dedent(found[1]), defined)
    return defined["RollsBack"]


RollsBack = _recipe()


# Commit and abort


@KEEPS
def test_a_commit_keeps_the_files(
    world: World, manager: TransactionManager, open_session: Callable[..., Session], keep_session: bool
) -> None:
    session = open_session(keep_session=keep_session)
    session.add(Doc(id=1, file=b"one", pages=[b"two"]))
    manager.commit()
    world.check(b"one", b"two")
    session.get_one(Doc, 1).file = b"three"
    manager.commit()
    world.check(b"three", b"two")
    session.delete(session.get_one(Doc, 1))
    manager.commit()
    world.check()


def test_an_abort_removes_them(world: World, manager: TransactionManager, open_session: Callable[..., Session]) -> None:
    session = open_session()
    session.add(Doc(file=b"one"))
    session.flush()
    assert len(world.stored()) == 1
    manager.abort()
    world.check()


def test_the_sessions_of_threads(world: World) -> None:
    """As web applications have them: a scoped session, registered once, and the thread's own manager."""
    sessions = scoped_session(sessionmaker(world.engine))
    zope.sqlalchemy.register(sessions)
    with transaction.manager:
        sessions.add(Doc(id=1, file=b"one"))
    world.check(b"one")
    transaction.begin()
    sessions.get_one(Doc, 1).file = b"two"
    sessions.flush()
    transaction.abort()
    world.check(b"one")
    sessions.remove()


@KEEPS
def test_a_doomed_transaction(
    world: World, manager: TransactionManager, open_session: Callable[..., Session], keep_session: bool
) -> None:
    session = open_session(keep_session=keep_session)
    session.add(Doc(file=b"one"))
    session.flush()
    manager.doom()
    with pytest.raises(DoomedTransaction):
        manager.commit()
    manager.abort()
    session.close()
    world.check()


@KEEPS
def test_a_storage_that_fails_in_the_commit(
    world: World, manager: TransactionManager, open_session: Callable[..., Session], keep_session: bool
) -> None:
    session = open_session(keep_session=keep_session)
    session.add(Doc(id=1, file=b"old"))
    manager.commit()
    session.get_one(Doc, 1).file = b"new"
    world.storage.fail("put", on=1)
    with pytest.raises(StorageFailed):
        manager.commit()
    manager.abort()
    session.rollback()
    world.check(b"old")


# What counts as a change


@KEEPS
@on("marked", [False, True])
def test_raw_statements_are_committed_if_the_session_is_marked(
    world: World, manager: TransactionManager, open_session: Callable[..., Session], keep_session: bool, marked: bool
) -> None:
    session = open_session(keep_session=keep_session)
    session.add_all([Doc(id=1, file=b"one"), Doc(id=2, file=b"two")])
    manager.commit()
    file = session.get_one(Doc, 1).file
    assert file is not None
    files.drop(file, session.connection(), Doc.file)
    session.execute(text("UPDATE docs SET file = NULL WHERE id = 1"))
    if marked:
        zope.sqlalchemy.mark_changed(session, manager, keep_session)
    manager.commit()
    session.rollback()
    world.check(b"two") if marked else world.check(b"one", b"two")


def test_statements_of_the_orm_mark_it_themselves(
    world: World, manager: TransactionManager, open_session: Callable[..., Session]
) -> None:
    session = open_session()
    session.add(Doc(id=1, file=b"one"))
    manager.commit()
    session.execute(update(Doc).values(file=b"two"))
    manager.commit()
    world.check(b"two")


@on("initial_state", ["active", "changed"])
def test_reading_changes_nothing(
    world: World, manager: TransactionManager, open_session: Callable[..., Session], initial_state: str
) -> None:
    session = open_session(initial_state=initial_state)
    session.add(Doc(id=1, file=b"one"))
    manager.commit()
    assert session.scalars(select(Doc)).one().file.read() == b"one"  # type: ignore[union-attr]
    manager.commit()
    world.check(b"one")


# Savepoints


@KEEPS
def test_savepoints(
    world: World, manager: TransactionManager, open_session: Callable[..., Session], keep_session: bool
) -> None:
    session = open_session(keep_session=keep_session)
    session.add_all([Doc(id=1, file=b"one"), Doc(id=2, file=b"two")])
    manager.commit()
    session.get_one(Doc, 1).file = b"three"
    session.flush()
    outer = manager.savepoint()
    session.get_one(Doc, 1).file = b"void"
    session.delete(session.get_one(Doc, 2))
    session.flush()
    inner = manager.savepoint()
    session.add(Doc(id=3, file=b"void too"))
    session.flush()
    inner.rollback()
    outer.rollback()
    session.add(Doc(id=4, file=b"four"))
    manager.commit()
    world.check(b"two", b"three", b"four")


def test_a_savepoint_that_is_older_than_the_first_use_of_the_session(
    world: World, manager: TransactionManager, open_session: Callable[..., Session]
) -> None:
    session = open_session()
    savepoint = manager.savepoint()
    session.add(Doc(file=b"void"))
    session.flush()
    savepoint.rollback()
    session.add(Doc(file=b"one"))
    manager.commit()
    world.check(b"one")


@on("world", ["sqlite"], indirect=True)
def test_where_the_url_names_no_driver_zope_knows_no_savepoints_for_sqlite(
    world: World, manager: TransactionManager, open_engine: Callable[..., Engine]
) -> None:
    plain = world.engine.url.set(drivername="sqlite")
    with Session(open_engine(plain)) as session:
        zope.sqlalchemy.register(session, transaction_manager=manager)
        session.add(Doc(file=b"one"))
        session.flush()
        with pytest.raises(TypeError, match="Savepoints unsupported"):
            manager.savepoint()
        manager.abort()
    world.check()


# keep_session=True: zope.sqlalchemy 4.1 does not roll back


def test_an_abort_leaves_the_transaction_of_a_kept_session_open_and_its_files_too(
    world: World, manager: TransactionManager, open_session: Callable[..., Session]
) -> None:
    session = open_session(keep_session=True)
    session.add(Doc(id=1, file=b"old"))
    manager.commit()
    session.get_one(Doc, 1).file = b"new"
    session.add(Doc(id=2, file=b"added"))
    session.flush()
    manager.abort()
    assert session.in_transaction()
    assert sorted(world.stored().values()) == [b"added", b"new", b"old"]
    session.rollback()
    world.check(b"old")


def test_what_was_aborted_in_a_kept_session_is_committed_by_the_next_commit_with_its_files(
    world: World, manager: TransactionManager, open_session: Callable[..., Session]
) -> None:
    """It is zope.sqlalchemy's doing; the files are what the rows are."""
    session = open_session(keep_session=True)
    session.add(Doc(id=1, file=b"old"))
    manager.commit()
    session.get_one(Doc, 1).file = b"new"
    session.flush()
    manager.abort()
    session.add(Doc(id=2, file=b"added"))
    manager.commit()
    world.check(b"new", b"added")


@on("phase", ["tpc_begin", "commit", "tpc_vote"])
@on("participant", PARTICIPANTS)
def test_a_kept_session_is_as_open_after_a_commit_that_somebody_else_let_fail(
    world: World,
    manager: TransactionManager,
    open_session: Callable[..., Session],
    tmp_path: Path,
    participant: str,
    phase: str,
) -> None:
    session = open_session(keep_session=True)
    session.add(Doc(id=1, file=b"old"))
    manager.commit()
    session.get_one(Doc, 1).file = b"new"
    session.flush()
    PARTICIPANTS[participant](manager, tmp_path, phase, BEFORE)
    with pytest.raises(Fails):
        manager.commit()
    with suppress(Exception):
        manager.abort()
    assert sorted(world.stored().values()) == [b"new", b"old"]
    session.rollback()
    world.check(b"old")


def test_the_recipe_rolls_a_kept_session_back(
    world: World, manager: TransactionManager, open_session: Callable[..., Session]
) -> None:
    session = open_session(keep_session=True)
    rolls_back = RollsBack(session)
    manager.registerSynch(rolls_back)
    session.add(Doc(id=1, title="taken", file=b"old"))
    manager.commit()
    doc = session.get_one(Doc, 1)
    doc.file = b"new"
    session.flush()
    manager.abort()
    world.check(b"old")
    session.add(Doc(title="taken", file=b"one"))
    with pytest.raises(IntegrityError):
        manager.commit()
    manager.abort()
    world.check(b"old")
    assert doc.title == "taken"  # zope.sqlalchemy hears of a kept session again when it asks the database
    doc.file = b"newer"
    manager.commit()
    world.check(b"newer")
    manager.unregisterSynch(rolls_back)


def test_without_it_a_kept_session_stays_in_the_failed_transaction(
    world: World, manager: TransactionManager, open_session: Callable[..., Session]
) -> None:
    session = open_session(keep_session=True)
    session.add(Doc(title="taken", file=b"old"))
    manager.commit()
    session.add(Doc(title="taken", file=b"one"))
    with pytest.raises(IntegrityError):
        manager.commit()
    manager.abort()
    with pytest.raises(PendingRollbackError):
        session.scalars(select(Doc)).all()
    session.rollback()
    world.check(b"old")


def test_no_session_that_zope_manages_has_listeners_more_than_others(world: World) -> None:
    """Files follow the session's own events; no data manager of ours is in the transaction."""
    manager = TransactionManager()
    with Session(world.engine) as session:
        zope.sqlalchemy.register(session, transaction_manager=manager)
        begun: list[object] = []
        event.listen(session, "after_begin", lambda *_: begun.append(manager.get()._resources[:]))
        session.add(Doc(file=b"one"))
        session.flush()
        assert [type(each).__name__ for each in manager.get()._resources] == ["SessionDataManager"]
        manager.abort()
    world.check()
