"""Prepared transactions that are decided later, by whomever; what is decided becomes of their files, and of nothing
else.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace as replaced
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, delete, event, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.orm import Session

from sa_attachments import Attachment
from sa_attachments.queries import CONDEMNED
from tests import engines
from tests.scenarios.models import Doc, Note, files
from tests.scenarios.test_retention import Kept
from tests.scenarios.world import World

from .undecided import Undecided

on = pytest.mark.parametrize
END = on("end", ["COMMIT", "ROLLBACK"])
databases = on("world", ["postgres", "mariadb"], indirect=True)
postgres = on("world", ["postgres"], indirect=True)

Work = Callable[[Session], None]


@pytest.fixture
def undecided(world: World) -> Iterator[Undecided]:
    found = Undecided(world.engine, world.observer)
    yield found
    found.forget()


@pytest.fixture
def complaints() -> None:
    """For tests of connections that can't be used any more."""


@pytest.fixture(autouse=True)
def no_complaint(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """Cleaning that meets a prepared transaction waits for another time, which is nothing to be warned of."""
    with caplog.at_level(logging.WARNING, "sa_attachments"):
        yield
    if "complaints" not in request.fixturenames:
        assert [each.getMessage() for each in caplog.get_records("call") if each.name == "sa_attachments"] == []


def seed(world: World) -> None:
    with Session(world.engine) as session:
        session.add(Doc(id=1, file=b"old", scan=b"scan", pages=[b"1", b"2"]))
        session.add(Doc(id=2, file=b"other", notes=[Note(file=b"note")]))
        session.commit()


def replace(session: Session) -> None:
    session.get_one(Doc, 1).file = b"new"
    session.add(Doc(id=3, file=b"added"))


def remove(session: Session) -> None:
    session.delete(session.get_one(Doc, 2))


def change_list(session: Session) -> None:
    doc = session.get_one(Doc, 1)
    doc.pages = [b"3", doc.pages[1]]


def move(session: Session) -> None:
    one, two = session.get_one(Doc, 1), session.get_one(Doc, 2)
    one.file, two.file = two.file, one.file
    two.scan, one.scan = one.scan, None


def in_savepoints(session: Session) -> None:
    with session.begin_nested():
        session.get_one(Doc, 1).file = b"new"
    savepoint = session.begin_nested()
    session.get_one(Doc, 2).file = b"void"
    session.flush()
    savepoint.rollback()


def bulk(session: Session) -> None:
    session.execute(update(Doc).where(Doc.id == 1).values(file=Attachment.upload(b"new")))
    session.execute(delete(Note))


OLD = [b"old", b"scan", b"1", b"2", b"other", b"note"]
WORK: dict[str, tuple[Work, list[bytes]]] = {
    "replace": (replace, [b"new", b"scan", b"1", b"2", b"other", b"note", b"added"]),
    "remove": (remove, [b"old", b"scan", b"1", b"2"]),
    "list": (change_list, [b"old", b"scan", b"3", b"2", b"other", b"note"]),
    "move": (move, OLD),
    "savepoints": (in_savepoints, [b"new", b"scan", b"1", b"2", b"other", b"note"]),
    "bulk": (bulk, [b"new", b"scan", b"1", b"2", b"other"]),
}


def crash(session: Session) -> None:
    """The session is gone, as with its process: nobody settles."""
    session.info.clear()
    lose(session)


def lose(session: Session) -> None:
    """The connection is gone, and the session takes it for a rollback: it settles."""
    session.invalidate()


def sweeps(world: World, passed_over: int | None, void: int = 0) -> None:
    """Sweeps meet a prepared transaction: they don't wait for it, and leave alone what it may yet own."""
    time.sleep(0.01)
    for strangers in (void, 0):
        began = time.monotonic()
        report = files.sweep(world.engine, grace=timedelta(0), stranger_retain=timedelta(0))
        # A lock is waited for 50 ms on PostgreSQL, and not at all on MariaDB: once for each file in flight.
        assert time.monotonic() - began < 10
        assert (report["default"].strangers, report["default"].purged) == (strangers, strangers)
        assert report["default"].skipped == passed_over or passed_over is None


# One transaction


@END
@pytest.mark.sampled("work")
@on("leave", [crash, lose])
@on("work", WORK)
@databases
def test_decided_later(world: World, undecided: Undecided, work: str, leave: Callable[..., None], end: str) -> None:
    seed(world)
    act, after = WORK[work]
    session = world.session()
    act(session)
    session.prepare()
    before = world.stored()
    leave(session)
    world.settle()
    sweeps(world, None, void=list(before.values()).count(b"void"))
    # Both outcomes find their files.
    assert sorted(world.stored().values()) == sorted([data for data in before.values() if data != b"void"])
    assert set(after) | set(OLD) <= set(world.stored().values())
    (name,) = undecided.names()
    undecided.decide(name, end)
    world.sweep()
    world.check(*(after if end == "COMMIT" else OLD), swept=True)


@databases
def test_a_sweep_does_not_wait_long_for_each_of_many_files(world: World, undecided: Undecided) -> None:
    session = world.session()
    session.add(Doc(pages=[b"%d" % number for number in range(4)]))
    session.prepare()
    crash(session)
    sweeps(world, 4)
    undecided.decide(undecided.names()[0], "ROLLBACK")
    world.sweep()
    world.check(swept=True)


@END
@databases
def test_decided_by_another_process(world: World, undecided: Undecided, end: str) -> None:
    seed(world)
    session = world.session()
    replace(session)
    session.prepare()
    crash(session)
    sweeps(world, 2)
    undecided.decide_elsewhere(end)
    world.sweep()
    world.check(*(WORK["replace"][1] if end == "COMMIT" else OLD), swept=True)


@END
@databases
def test_a_session_that_is_garbage_collected(world: World, undecided: Undecided, end: str) -> None:
    """Its connection can't be used again, and the pool throws it away."""
    seed(world)
    session = world.session()
    replace(session)
    session.prepare()
    del session
    gc.collect()
    world.settle()
    for name in undecided.names():  # XA's are rolled back by the driver's rollback
        undecided.decide(name, end)
        world.sweep()
        world.check(*(WORK["replace"][1] if end == "COMMIT" else OLD), swept=True)


@END
@databases
def test_what_is_retained(world: World, undecided: Undecided, end: str) -> None:
    world.create(Kept.metadata)
    with Session(world.engine) as session:
        session.add(Kept(id=1, file=b"old"))
        session.commit()
    with world.session() as session:
        session.get_one(Kept, (1, "a")).file = b"new"
        session.prepare()
        crash(session)
    undecided.decide(undecided.names()[0], end)
    world.sweep()
    if end == "COMMIT":
        assert sorted(world.stored().values()) == [b"new", b"old"]
        assert sorted(world.ledger().values()) == [CONDEMNED, "owned"]
        with world.session() as session:
            assert files.restore(session, Kept.file, (1, "a")).read() == b"old"
            session.rollback()
    else:
        world.check(b"old", swept=True)


@END
@databases
def test_a_given_path_stays_until_somebody_commits(
    world: World, undecided: Undecided, end: str, tmp_path: Path
) -> None:
    """Who recovers does not know of it: it stays even then, which loses nothing."""
    path = tmp_path / "given"
    path.write_bytes(b"data")
    session = world.session()
    session.add(Doc(file=Attachment.upload(path, move=True)))
    session.prepare()
    lose(session)
    world.settle()
    assert path.exists()
    undecided.decide(undecided.names()[0], end)
    world.sweep()
    world.check(*([b"data"] if end == "COMMIT" else []), swept=True)
    assert path.exists()


@END
@databases
def test_verify_does_not_mend_what_is_undecided(
    world: World, undecided: Undecided, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed(world)
    session = world.session()
    replace(session)
    remove(session)
    session.prepare()
    crash(session)
    report = files.verify(world.observer, repair=True, checksums=True)
    assert report.counts == {}
    monkeypatch.setattr(files, "times", replaced(files.times, grace=timedelta(0)))
    report = files.verify(world.observer, repair=True)
    assert (report.counts, [each.repaired for each in report.findings]) == ({"stranger": 2}, [False] * 2)
    assert set(world.stored().values()) == {*OLD, b"new", b"added"}
    undecided.decide(undecided.names()[0], end)
    world.sweep()
    world.check(*([b"new", b"scan", b"1", b"2", b"added"] if end == "COMMIT" else OLD), swept=True)


@END
@databases
def test_others_go_on_beside_it(world: World, undecided: Undecided, end: str) -> None:
    """Commits, rollbacks and their cleaning, in the same tables and storage."""
    seed(world)
    session = world.session()
    session.get_one(Doc, 1).file = b"new"
    session.prepare()
    crash(session)
    for _ in range(2):
        with world.session() as other:
            other.get_one(Doc, 2).file = b"other, later"
            other.commit()
            other.get_one(Doc, 2).file = b"void"
            other.flush()
            other.rollback()
    world.settle()
    assert set(world.stored().values()) == {*OLD, b"new", b"other, later"} - {b"other"}
    undecided.decide(undecided.names()[0], end)
    world.sweep()
    first = b"new" if end == "COMMIT" else b"old"
    world.check(first, b"scan", b"1", b"2", b"other, later", b"note", swept=True)


# Refused, and not heard


@on("work", ["replace", "bulk"])
@postgres
@pytest.mark.usefixtures("complaints")
def test_a_deferred_constraint_refuses_to_be_prepared(world: World, work: str) -> None:
    seed(world)
    with world.observer.begin() as connection:
        connection.execute(text("CREATE TABLE refers (id INT REFERENCES docs (id) DEFERRABLE INITIALLY DEFERRED)"))
    with world.session() as session:
        WORK[work][0](session)
        session.execute(text("INSERT INTO refers VALUES (404)"))
        with pytest.raises((IntegrityError, ProgrammingError)):  # psycopg 3 raises what the rollback after it raised
            session.commit()
    world.sweep()
    world.check(*OLD, swept=True)


@postgres
@pytest.mark.usefixtures("complaints")
def test_a_transaction_that_failed_is_not_prepared(world: World) -> None:
    """PostgreSQL answers PREPARE with a rollback, which no driver notices; the second phase finds nothing."""
    seed(world)
    with world.session() as session:
        replace(session)
        session.flush()
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1/0"))
        with pytest.raises(ProgrammingError, match="does not exist"):
            session.commit()
    # The drivers take their connection for being in two phases from then on, and SQLAlchemy gives it back to the pool.
    world.engine.dispose()
    world.sweep()
    world.check(*OLD, swept=True)


@on("lost", ["do_prepare_twophase", "do_commit_twophase", "do_rollback_twophase"])
@END
@databases
@pytest.mark.usefixtures("complaints")
def test_an_answer_that_gets_lost(world: World, undecided: Undecided, lost: str, end: str) -> None:
    seed(world)
    dialect: Any = world.engine.dialect
    plain = getattr(dialect, lost)

    def call(*arguments: Any, **options: Any) -> None:
        setattr(dialect, lost, plain)
        plain(*arguments, **options)
        raise ConnectionResetError("the answer got lost")

    with world.session() as session:
        replace(session)
        session.flush()
        if lost == "do_rollback_twophase":
            session.prepare()
        setattr(dialect, lost, call)
        # On MariaDB, SQLAlchemy's own rollback of what it takes for unprepared fails.
        with pytest.raises((ConnectionResetError, DBAPIError)):
            (session.rollback if lost == "do_rollback_twophase" else session.commit)()
        lose(session)
    world.settle()
    for name in undecided.names():
        undecided.decide(name, end)
    world.sweep()
    with Session(world.observer) as session:
        committed = session.get(Doc, 3) is not None
    # Who is told of a failure rolls back what is prepared, if there is still a connection to do it.
    assert committed == (lost == "do_commit_twophase") or lost == "do_prepare_twophase"
    world.check(*(WORK["replace"][1] if committed else OLD), swept=True)


# In-process endings


@on("end", ["commit", "rollback", "close"])
@databases
def test_prepared_and_ended_by_the_session_itself(world: World, end: str) -> None:
    """The files follow at once, without a sweep."""
    seed(world)
    with world.session() as session:
        replace(session)
        session.prepare()
        getattr(session, end)()
    world.check(*(WORK["replace"][1] if end == "commit" else OLD))


@databases
def test_settling_is_not_tried_before_the_second_phase(world: World) -> None:
    """Between the phases nobody looks: there is nothing to be known yet."""
    seed(world)
    with world.session() as session:
        replace(session)
        session.prepare()
        statements: list[str] = []
        event.listen(world.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        world.settle()
        assert statements == []
        session.commit()
    world.check(*WORK["replace"][1])


@END
@on("world", ["postgres"], indirect=True)
def test_recovered_by_sqlalchemy_itself(world: World, undecided: Undecided, end: str) -> None:
    """``recover_twophase``, ``commit_prepared`` and ``rollback_prepared`` of a connection."""
    seed(world)
    session = world.session()
    replace(session)
    session.prepare()
    crash(session)
    with world.engine.connect() as connection:
        (xid,) = undecided.names()
        assert xid in connection.recover_twophase(), "beside those of other databases of the server"
        if end == "COMMIT":
            connection.commit_prepared(xid, recover=True)
        else:
            connection.rollback_prepared(xid, recover=True)
    world.sweep()
    world.check(*(WORK["replace"][1] if end == "COMMIT" else OLD), swept=True)


@on("driver", ["psycopg2"])
@END
def test_another_driver(
    postgres_url: Any, open_engine: Callable[..., Engine], driver: str, end: str, world_class: type[World]
) -> None:
    made = world_class("postgres", open_engine(engines.with_driver(postgres_url, driver)), open_engine(postgres_url))
    with files.override(made.storages):
        seed(made)
        undecided = Undecided(made.engine, made.observer)
        session = made.session()
        replace(session)
        session.prepare()
        lose(session)
        sweeps(made, 2)
        undecided.decide(undecided.names()[0], end)
        made.sweep()
        made.check(*(WORK["replace"][1] if end == "COMMIT" else OLD), swept=True)
