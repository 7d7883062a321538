"""Two sessions at work on one row at the same time, each in a thread of its own.

Hole 5: what each remembers of the row is old by the time that it writes. The second one waits for the lock of the
first, and reads what the row names then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, insert, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session, defer, make_transient_to_detached
from sqlalchemy.orm.attributes import set_committed_value
from sqlalchemy.orm.exc import StaleDataError

from sa_attachments import Attachment
from sa_attachments.references import of_class, read_locked

from .models import Doc, Note
from .world import World

on = pytest.mark.parametrize
servers = on("world", ["postgres", "mariadb"], indirect=True)


def seed(world: World, data: bytes = b"old") -> int:
    with world.session() as session:
        doc = Doc(file=data)
        session.add(doc)
        session.commit()
        return doc.id


@contextmanager
def meanwhile(job: Callable[[], Any], *, blocked: bool = True) -> Iterator[Future[Any]]:
    """Run ``job`` in a thread, beside the block; if it is to be ``blocked``, it has read a document and must be waiting
    for the block to end.
    """
    loaded = threading.Event()

    def load(*_: object) -> None:
        loaded.set()

    event.listen(Doc, "load", load)
    try:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(job)
            if blocked:
                assert loaded.wait(20)
                with pytest.raises(TimeoutError):
                    future.exception(0.3)
            yield future
            future.exception(20)
    finally:
        event.remove(Doc, "load", load)


def writes(session: Session, what: str, key: int, data: bytes) -> None:
    doc = session.get_one(Doc, key)
    match what:
        case "replace":
            doc.file = data
        case "take away":
            doc.file = None
        case "delete":
            session.delete(doc)
        case "update":
            session.execute(update(Doc).where(Doc.id == key).values(file=data))
    session.flush()


@on("second", ["commit", "rollback"])
@on("first", ["commit", "rollback"])
@servers
def test_both_replace_the_file(world: World, first: str, second: str) -> None:
    """Hole 5: neither the old file nor one of the new ones leaks, and none is deleted that is named."""
    key = seed(world)
    loaded = threading.Barrier(2)

    def job() -> None:
        with world.session() as session:
            session.get_one(Doc, key)
            loaded.wait(10)
            writes(session, "replace", key, b"second")
            getattr(session, second)()

    with world.session() as session:
        writes(session, "replace", key, b"first")
        threading.Timer(0.05, loaded.wait, [10]).start()
        with meanwhile(job) as future:
            getattr(session, first)()
        future.result()
    world.check(b"second" if second == "commit" else b"first" if first == "commit" else b"old")


@servers
def test_both_add_to_a_list_under_lock(world: World) -> None:
    """As the guide says: without the lock, the second one fails."""
    key = seed(world)

    def add(data: bytes) -> None:
        with world.session() as session:
            doc = session.get_one(Doc, key, with_for_update=True)
            doc.pages = [*doc.pages, data]
            session.commit()

    with world.session() as session, ThreadPoolExecutor(1) as pool:
        doc = session.get_one(Doc, key, with_for_update=True)
        doc.pages = [*doc.pages, b"1"]
        session.flush()
        future = pool.submit(add, b"2")
        with pytest.raises(TimeoutError):
            future.exception(0.3)
        session.commit()
        future.result(20)
    with world.session() as session:
        assert [page.read() for page in session.get_one(Doc, key).pages] == [b"1", b"2"]
    world.check(b"old", b"1", b"2")


@on("then", ["assign", "clear"])
@on("how", ["beside", "before"])
@servers
def test_a_list_does_not_take_away_what_its_session_never_saw(world: World, how: str, then: str) -> None:
    """Decision 21: who adds to what it read would delete what another one added meanwhile, and nobody would be told."""
    key = seed(world)

    def add(data: bytes) -> None:
        with world.session() as session:
            doc = session.get_one(Doc, key)
            assert len(doc.pages) == 0
            if how == "before":
                with world.session() as other:
                    other.get_one(Doc, key).pages = [b"1"]
                    other.commit()
            doc.pages = [*doc.pages, data] if then == "assign" else []
            with pytest.raises(StaleDataError, match=r"Doc\.pages.* 1 more"):
                session.commit()
            session.rollback()
            doc.pages = [*doc.pages, data]
            session.commit()

    if how == "before":
        add(b"2")
    else:
        with world.session() as session:
            doc = session.get_one(Doc, key)
            doc.pages = [*doc.pages, b"1"]
            session.flush()
            with meanwhile(partial(add, b"2")) as future:
                session.commit()
            future.result()
    with world.session() as session:
        assert [page.read() for page in session.get_one(Doc, key).pages] == [b"1", b"2"]
    world.check(b"old", b"1", b"2")


def test_a_list_that_outlived_its_transaction_takes_nothing_away(world: World) -> None:
    """As that of a session with ``expire_on_commit=False``, which asyncio wants."""
    with world.session(expire_on_commit=False) as session, world.session() as other:
        session.add(doc := Doc(pages=[b"1"]))
        session.commit()
        other.get_one(Doc, doc.id).pages = [b"2"]
        other.commit()
        doc.pages = [*doc.pages, b"3"]
        with pytest.raises(StaleDataError, match="1 more"):
            session.commit()
        session.rollback()
        doc.pages = [*doc.pages, b"3"]
        session.commit()
    world.check(b"2", b"3")


@on("world", ["sqlite"], indirect=True)
def test_a_list_that_was_never_stored_was_not_read_from_its_row(world: World) -> None:
    """As of an object that is told to be that of a row."""
    with world.session() as session:
        session.add(Doc(id=1))
        session.commit()
        make_transient_to_detached(doc := Doc(id=1))
        set_committed_value(doc, "pages", (Attachment.upload(b"1"),))
        session.expunge_all()
        session.add(doc)
        doc.pages = [b"2"]
        session.commit()
    world.check(b"2")


@on("world", ["sqlite", "postgres"], indirect=True)
def test_a_list_may_be_replaced_that_was_not_read_or_was_changed_by_its_own_session(world: World) -> None:
    with world.session() as session:
        doc = Doc(pages=[b"1", b"2"])
        session.add(doc)
        session.flush()
        doc.pages = [doc.pages[1], b"3"]  # written by this session
        session.flush()
        doc.pages = [*doc.pages, b"2"]  # the same bytes once more
        session.commit()
        key = doc.id
    with world.session() as session:
        doc = session.get_one(Doc, key, options=[defer(Doc.pages)])
        doc.pages = [b"4"]  # whatever was there
        session.commit()
    world.check(b"4")


@on("what", ["replace", "take away", "delete", "update"])
@servers
def test_the_file_moves_away_while_the_second_waits(world: World, what: str) -> None:
    """Hole 5: T1 moves A to row 2, T2 replaces on row 1 what it believes to be A."""
    key = seed(world)

    def job() -> None:
        with world.session() as session:
            writes(session, what, key, b"second")
            session.commit()

    with world.session() as session:
        doc = session.get_one(Doc, key)
        session.add(Doc(title="other", file=doc.file))
        doc.file = None
        session.flush()
        with meanwhile(job) as future:
            session.commit()
        future.result()
    world.check(b"old", *([b"second"] if what in ("replace", "update") else []))


@servers
def test_the_file_moves_while_the_first_replaces_it(world: World) -> None:
    """Hole 5, the other order: T2 moves what T1 replaced; it must not name a file that is condemned."""
    key = seed(world)

    def job() -> None:
        with world.session() as session:
            doc = session.get_one(Doc, key)
            session.add(Doc(title="other", file=doc.file))
            doc.file = None
            session.commit()

    with world.session() as session:
        writes(session, "replace", key, b"first")
        with meanwhile(job) as future:
            session.commit()
        error = future.exception()
    if error is None:
        world.check(b"old")
    else:
        assert "may not name" in str(error) or "nobody" in str(error)
        world.check(b"first")


@servers
def test_the_row_is_deleted_while_the_second_waits(world: World) -> None:
    key = seed(world)

    def job() -> None:
        with world.session() as session:
            writes(session, "replace", key, b"second")
            session.commit()

    with world.session() as session:
        writes(session, "delete", key, b"")
        with meanwhile(job) as future:
            session.commit()
        assert isinstance(future.exception(), StaleDataError)
    world.check()


@on("way", ["replace", "clear", "delete"])
@on("world", ["postgres"], indirect=True)
def test_a_row_is_deleted_and_comes_again_while_the_second_waits(world: World, way: str) -> None:
    key = seed(world)

    def job() -> None:
        with world.session() as session:
            doc = session.get_one(Doc, key)
            if way == "delete":
                session.delete(doc)
            else:
                doc.file = b"new" if way == "replace" else None
            session.commit()

    with world.session() as session:
        session.delete(session.get_one(Doc, key))
        session.flush()
        session.add(Doc(id=key, file=b"came"))
        session.flush()
        with meanwhile(job) as future:
            session.commit()
        future.result()
    world.check(*([b"new"] if way == "replace" else []))


@on("way", ["replace", "clear", "by key"])
@on("world", ["postgres"], indirect=True)
def test_a_row_comes_between_the_look_and_the_write(world: World, way: str) -> None:
    """What it named was lost from sight: it stayed, and no row named it."""
    key = seed(world)
    came: list[bool] = []

    @event.listens_for(world.engine, "before_cursor_execute")
    def insert_it(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE docs") and not came:
            came.append(True)
            with Session(world.observer) as other:
                other.add(Doc(id=key, file=b"came"))
                other.commit()

    with world.session(expire_on_commit=False) as session:
        doc = session.get_one(Doc, key)
        session.commit()
        with Session(world.observer) as other:
            other.delete(other.get_one(Doc, key))
            other.commit()
        doc.file = None if way == "clear" else b"new"
        write: Callable[[], object] = session.flush
        if way == "by key":
            session.expunge(doc)
            write = partial(session.execute, update(Doc), [{"id": key, "file": b"new"}])
        with pytest.raises(StaleDataError):
            write()
        session.rollback()
    assert came
    world.check(b"came")


@on("world", ["postgres"], indirect=True)
def test_a_row_comes_while_an_update_by_primary_key_waits_for_another(world: World) -> None:
    """PostgreSQL looks for rows before it waits for the lock of one."""
    one, two = seed(world, b"one"), 100

    def job() -> None:
        with world.session() as session:
            session.get_one(Doc, one)
            session.execute(update(Doc), [{"id": one, "file": b"new one"}, {"id": two, "file": b"new two"}])
            session.commit()

    with world.session() as session:
        session.get_one(Doc, one).title = "locked"
        session.add(Doc(id=two, file=b"two"))
        session.flush()
        with meanwhile(job) as future:
            session.commit()
        future.result()
    world.check(b"new one", b"new two")


@on("world", ["mariadb"], indirect=True)
def test_a_row_in_the_way_is_younger_than_the_snapshot(world: World) -> None:
    """What MariaDB refuses to insert, a SELECT does not see unless it locks."""
    with world.session() as session:
        session.execute(text("SELECT count(*) FROM docs")).all()
        with world.session() as other:
            other.add(Doc(title="x", file=b"first"))
            other.commit()
        session.execute(insert(Doc).prefix_with("IGNORE"), {"title": "x", "file": b"second"})
        session.commit()
    world.check(b"first")


@on("world", ["postgres"], indirect=True)
@on("returning", [False, True])
def test_an_upsert_waits_for_the_row_that_it_then_changes(world: World, returning: bool) -> None:
    """PostgreSQL inserts, finds the row of a transaction that commits only now, and changes what nobody has read."""

    def job() -> bytes | None:
        with world.session() as session:
            read.set()
            statement: Any = postgresql.insert(Doc)
            statement = statement.on_conflict_do_update(
                index_elements=["title"], set_={"file": statement.excluded.file}
            )
            if returning:
                doc = session.scalars(statement.returning(Doc), {"title": "x", "file": b"second"}).one()
                found = doc.file and doc.file.read()
            else:
                session.execute(statement, [{"title": "x", "file": b"second"}, {"title": "y", "file": b"other"}])
                found = b"second"
            session.commit()
            return found

    read = threading.Event()
    with world.session() as session:
        session.add(Doc(title="x", file=b"first"))
        session.flush()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(job)
            assert read.wait(20)
            with pytest.raises(TimeoutError):
                future.exception(0.3)
            session.commit()
            assert future.result(20) == b"second"
    world.check(b"second", *([] if returning else [b"other"]))


@on("world", ["postgres"], indirect=True)
def test_a_serialization_failure_leaves_nothing(world: World) -> None:
    """Under REPEATABLE READ the second fails, and tries again."""
    key = seed(world)
    engine = world.engine.execution_options(isolation_level="REPEATABLE READ")

    def job() -> None:
        with Session(engine) as session:
            doc = session.get_one(Doc, key)
            started.set()
            doc.file = b"second"
            with pytest.raises(OperationalError, match="could not serialize"):
                session.flush()
            session.rollback()
            doc.file = b"again"
            session.commit()

    started = threading.Event()
    with world.session() as session:
        writes(session, "replace", key, b"first")
        with meanwhile(job) as future:
            assert started.wait(10)
            session.commit()
        future.result()
    world.check(b"again")


@on("world", ["postgres"], indirect=True)
def test_a_deadlock_leaves_nothing(world: World) -> None:
    one, two = seed(world, b"one"), seed(world, b"two")

    def job() -> None:
        with world.session() as session:
            writes(session, "replace", two, b"two of second")
            locked.wait(10)
            writes(session, "replace", one, b"one of second")
            session.commit()

    locked = threading.Barrier(2)
    errors: list[BaseException | None] = []
    with world.session() as session, ThreadPoolExecutor(1) as pool:
        writes(session, "replace", one, b"one of first")
        future = pool.submit(job)
        locked.wait(10)
        try:
            writes(session, "replace", two, b"two of first")
            session.commit()
            errors.append(None)
        except OperationalError as error:
            session.rollback()
            errors.append(error)
        errors.append(future.exception(20))
    assert sum(error is None for error in errors) == 1
    winner = b"first" if errors[0] is None else b"second"
    world.check(b"one of " + winner, b"two of " + winner)


@on("world", ["mariadb"], indirect=True)
def test_a_deadlock_rolls_back_on_the_server_and_the_application_goes_on(world: World) -> None:
    """MariaDB ends the whole transaction; who catches the error and commits gets what came after it, and no error."""
    one, two = seed(world, b"one"), seed(world, b"two")
    table = Doc.__table__

    def job() -> None:
        with world.engine.begin() as connection:
            # InnoDB rolls back the one of the two that has changed less.
            connection.execute(table.insert(), [{"title": str(number), "pages": ()} for number in range(200)])
            connection.execute(table.update().where(table.c.id == two).values(title="two"))
            locked.wait(10)
            connection.execute(table.update().where(table.c.id == one).values(title="one"))

    locked = threading.Barrier(2)
    with world.session() as session, ThreadPoolExecutor(1) as pool:
        session.get_one(Doc, one).file = b"lost"
        session.flush()
        future = pool.submit(job)
        locked.wait(10)
        time.sleep(0.2)
        with pytest.raises(OperationalError, match="Deadlock"):
            session.connection().execute(table.update().where(table.c.id == two).values(title="first"))
        session.add(Doc(file=b"after"))
        session.commit()
        future.result(10)
    world.check(b"one", b"two", b"after")


@servers
def test_child_rows_can_be_inserted_while_a_file_is_replaced(world: World) -> None:
    """Hole 19: a foreign key's check must not wait for the lock on the owner's row."""
    if world.name == "mariadb":
        pytest.skip("InnoDB has no weaker lock")
    key = seed(world)

    def job() -> None:
        with world.session() as session:
            session.add(Note(doc_id=key, file=b"note"))
            session.commit()

    with world.session() as session:
        read_locked(session.connection(), of_class(Doc), [(key,)])
        with meanwhile(job, blocked=False) as future:
            future.result(5)
        writes(session, "replace", key, b"new")
        session.commit()
    world.check(b"new", b"note")


@servers
def test_many_threads_replace_a_few_files(world: World) -> None:
    """No lock is taken in an order that differs: nobody deadlocks, and each row ends with one file."""
    keys = [seed(world) for _ in range(3)]

    def job(number: int) -> None:
        with world.session() as session:
            docs = [session.get_one(Doc, key) for key in keys]
            for doc in docs if number % 2 else reversed(docs):
                doc.file = b"%d" % number
            session.commit()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(job, number) for number in range(12)]:
            future.result(60)
    world.settle()
    last = {world.stored()[facts["storage"], facts["key"]] for facts in world.named()}
    assert len(last) == 1
    world.check(*last, *last, *last)


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_one_session_is_handed_from_thread_to_thread(world: World) -> None:
    """What the flush remembers goes with the session, not with the thread."""
    session = world.session()

    def step(function: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function).result(20)

    doc = Doc(file=b"one")
    step(lambda: session.add(doc))
    step(session.flush)
    savepoint = step(session.begin_nested)
    step(lambda: setattr(doc, "file", b"two"))
    step(session.flush)
    step(savepoint.rollback)
    step(session.commit)
    step(lambda: setattr(doc, "file", b"three"))
    step(session.commit)
    step(session.close)
    world.check(b"three")


@on("world", ["sqlite", "sqlite-legacy", "postgres", "mariadb"], indirect=True)
def test_sessions_in_many_threads(world: World) -> None:
    """Each with rows of its own; commits and rollbacks at random do not meet."""

    def job(number: int) -> bytes | None:
        with world.session() as session:
            for attempt in range(50):
                try:
                    session.add(Doc(file=b"%d" % number))
                    session.flush()
                    break
                except OperationalError:  # SQLite has one writer
                    session.rollback()
                    assert attempt < 49
            session.rollback() if number % 3 == 0 else session.commit()
        return None if number % 3 == 0 else b"%d" % number

    with ThreadPoolExecutor(4) as pool:
        kept = [data for data in pool.map(job, range(16)) if data is not None]
    world.sweep()
    world.check(*kept, swept=True)


@on("what", ["take away", "delete"])
@on("world", ["sqlite", "sqlite-legacy"], indirect=True)
def test_on_sqlite_nobody_writes_between_what_a_flush_reads_and_what_it_writes(world: World, what: str) -> None:
    """The driver's BEGIN comes late: a SELECT alone is outside of the transaction. The ledger is written before it, so
    that who would give the row another file meanwhile is refused: nobody would own that one's file afterwards.
    """
    key = seed(world)
    met = []

    def replace(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith(("UPDATE docs", "DELETE FROM docs")) and not met:
            with Session(world.observer) as other:
                other.execute(text("PRAGMA busy_timeout = 0"))
                try:
                    other.get_one(Doc, key).file = b"theirs"
                    other.commit()
                except OperationalError as error:
                    met.append(str(error.orig))
                else:
                    met.append("nobody")

    event.listen(world.engine, "before_cursor_execute", replace)
    with world.session() as session:
        writes(session, what, key, b"")
        session.commit()
    world.sweep()
    world.check(swept=True)
    assert met == ["database is locked"]
