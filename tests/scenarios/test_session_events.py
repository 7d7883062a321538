"""Session events that applications write: they refuse, forget and change what the flush was about to write."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pytest
from sqlalchemy import event, insert, inspect, update
from sqlalchemy.orm import Session, make_transient

from sa_attachments import OwnershipLost

from .models import Doc, Note
from .world import World

on = pytest.mark.parametrize


def seed(world: World, count: int = 1) -> list[int]:
    """Committed documents with the file ``old``, ``old1``, …"""
    with world.session() as session:
        docs = [Doc(file=f"old{i or ''}".encode(), title=f"title {i}") for i in range(count)]
        session.add_all(docs)
        session.commit()
        return [doc.id for doc in docs]


@contextmanager
def before_flush(session: Session, function: Callable[[], None]) -> Iterator[None]:
    """Listen after the library did."""

    def listen(*_: object) -> None:
        function()

    event.listen(session, "before_flush", listen)
    try:
        yield
    finally:
        event.remove(session, "before_flush", listen)


def refuse() -> None:
    raise ValueError("not like this")


@on("then", ["commit", "expunge", "rollback", "change", "savepoint"])
def test_a_listener_refuses_the_flush_and_the_transaction_goes_on(world: World, then: str) -> None:
    with world.session() as session:
        doc = Doc(file=b"new", title="one")
        session.add(doc)
        with before_flush(session, refuse), pytest.raises(ValueError, match="not like this"):
            session.flush()
        if then == "expunge":
            session.expunge(doc)
        elif then == "change":
            doc.file = b"other"
        elif then == "savepoint":
            with session.begin_nested():
                session.add(Note())
        if then == "rollback":
            session.rollback()
        else:
            session.commit()
    world.check(*{"expunge": [], "rollback": [], "change": [b"other"]}.get(then, [b"new"]))


def refused(session: Session) -> Doc:
    """An object whose flush a listener refused, and which is in the session no more."""
    doc = Doc(file=b"new")
    session.add(doc)
    with before_flush(session, refuse), pytest.raises(ValueError, match="not like this"):
        session.flush()
    session.expunge(doc)
    return doc


def test_after_a_refusal_no_other_statement_writes_what_the_flush_was_to_write(world: World) -> None:
    """It would name a file that is dropped with the flush."""
    with world.session() as session:
        doc = refused(session)
        with pytest.raises(OwnershipLost, match="nobody proved"):
            session.execute(insert(Doc.__table__).values(file=doc.file, pages=[]))
        session.commit()
    world.check()


@on("inner", ["commit", "rollback"])
def test_a_savepoint_comes_and_goes_after_a_refusal(world: World, inner: str) -> None:
    with world.session() as session:
        refused(session)
        nested = session.begin_nested()
        session.add(Doc(file=b"inner"))
        session.flush()
        getattr(nested, inner)()
        session.commit()
    world.check(*[b"inner"] * (inner == "commit"))


def test_a_savepoint_without_files_after_a_refusal(world: World) -> None:
    with world.session() as session:
        refused(session)
        session.begin_nested().rollback()
        session.commit()
    world.check()


@on("then", ["commit", "expire", "rollback"])
def test_a_listener_refuses_the_replacement(world: World, then: str) -> None:
    (key,) = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.file = b"new"
        with before_flush(session, refuse), pytest.raises(ValueError, match="not like this"):
            session.flush()
        if then == "expire":
            session.expire(doc)
        if then == "rollback":
            session.rollback()
        else:
            session.commit()
    world.check(b"new" if then == "commit" else b"old")


@on("how", ["expunge", "expire", "refresh", "expire file"])
@on("more", [False, True])
def test_a_listener_forgets_the_replacement(world: World, how: str, more: bool) -> None:
    key, other = seed(world, 2)
    with world.session() as session:
        doc, another = session.get_one(Doc, key), session.get_one(Doc, other)
        doc.file = b"new"
        if more:
            another.title = "changed"
            doc.title = "changed too"

        def forget() -> None:
            match how:
                case "expunge":
                    session.expunge(doc)
                case "expire":
                    session.expire(doc)
                case "refresh":
                    session.refresh(doc)
                case "expire file":
                    session.expire(doc, ["file"])

        with before_flush(session, forget):
            session.commit()
    world.check(b"old", b"old1")


@on("more", [False, True])
def test_a_listener_forgets_a_new_row(world: World, more: bool) -> None:
    with world.session() as session:
        doc = Doc(file=b"new")
        session.add_all([doc, Note()] if more else [doc])
        with before_flush(session, lambda: session.expunge(doc)):
            session.commit()
    world.check()


def test_a_listener_deletes_what_was_changed(world: World) -> None:
    (key,) = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.file = b"new"
        with before_flush(session, lambda: session.delete(doc)):
            session.commit()
    world.check()


@on("rest", ["commit", "expunge"])
def test_a_flush_of_some_objects(world: World, rest: str) -> None:
    key, other = seed(world, 2)
    with world.session() as session:
        doc, another = session.get_one(Doc, key), session.get_one(Doc, other)
        doc.file, another.file = b"new", b"new1"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It is deprecated, in some versions aloud.
            session.flush([doc])
        if rest == "expunge":
            session.expunge(another)
        session.commit()
    world.check(b"new", b"new1" if rest == "commit" else b"old1")


@on("world", ["sqlite", "postgres"], indirect=True)
@on("loaded", [True, False])
def test_a_listener_keeps_the_old_file_in_another_row(world: World, loaded: bool) -> None:
    """The history that it sees is that of the row."""
    (key,) = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        if not loaded:
            session.expire(doc)
        doc.file = b"new"

        def keep() -> None:
            (old,) = inspect(doc).attrs.file.history.deleted
            session.add(Note(file=old))

        with before_flush(session, keep):
            session.commit()
    world.check(b"old", b"new")


@on("world", ["sqlite", "postgres"], indirect=True)
@on("what", ["title", "file", "pages"])
def test_a_listener_makes_a_change_a_new_row(world: World, what: str) -> None:
    """Versions of rows, as SQLAlchemy's examples keep them: the old row stays as it was."""
    with world.session() as session:
        doc = Doc(id=1, title="old", file=b"old", pages=[b"page"])
        session.add(doc)
        session.commit()
        session.refresh(doc)
        setattr(doc, what, {"title": "other", "file": b"new", "pages": [*doc.pages, b"more"]}[what])

        def new_version() -> None:
            make_transient(doc)
            doc.id, doc.title = 2, "new"
            session.add(doc)

        with before_flush(session, new_version):
            session.commit()
    new = {"title": [b"old", b"page"], "file": [b"new", b"page"], "pages": [b"old", b"page", b"more"]}[what]
    world.check(b"old", b"page", *new)


@on("world", ["sqlite", "postgres"], indirect=True)
def test_a_listener_makes_a_change_a_new_row_after_the_old_one_was_deleted(world: World) -> None:
    (key,) = seed(world)
    with world.session(expire_on_commit=False) as session, world.session() as other:
        doc = session.get_one(Doc, key)
        session.commit()
        other.delete(other.get_one(Doc, key))
        other.commit()
        doc.file = b"new"

        def new_version() -> None:
            make_transient(doc)
            doc.id, doc.title = key + 1, "new"
            session.add(doc)

        with before_flush(session, new_version):
            session.commit()
    world.check(b"new")


@on("when", ["before_flush", "before_update", "after_update"])
@on("what", ["file", "none", "another row"])
def test_a_listener_executes_a_statement(world: World, when: str, what: str) -> None:
    """On the row that the flush writes too: who writes last, wins."""
    key, other = seed(world, 2)
    row, value = (other, b"hook") if what == "another row" else (key, b"hook" if what == "file" else None)

    with world.session() as session:

        def listen(*_: object) -> None:
            statement = update(Doc).where(Doc.id == row).values(file=value)
            session.execute(statement, execution_options={"synchronize_session": False})

        doc = session.get_one(Doc, key)
        doc.file = b"new"
        target = session if when == "before_flush" else Doc
        event.listen(target, when, listen)
        try:
            session.commit()
        finally:
            event.remove(target, when, listen)
    if what == "another row":
        world.check(b"new", b"hook")
    elif when == "after_update":
        world.check(b"old1", *[b"hook"] * (what == "file"))
    else:
        world.check(b"old1", b"new")


@contextmanager
def listening(target: object, name: str, function: Callable[[], None]) -> Iterator[None]:
    def listen(*_: object) -> None:
        function()

    event.listen(target, name, listen)
    try:
        yield
    finally:
        event.remove(target, name, listen)


three = on("world", ["sqlite", "postgres", "mariadb"], indirect=True)


@three
@on("when", ["before_insert", "after_insert", "after_flush"])
@on("inner", ["commit", "rollback"])
def test_a_listener_has_a_savepoint_of_its_own(world: World, when: str, inner: str) -> None:
    """It is released while the flush goes on: that is no end of the flush."""
    with world.session() as session:

        def in_savepoint() -> None:
            savepoint = session.begin_nested()
            session.execute(insert(Note).values(file=b"note"))
            getattr(savepoint, inner)()

        with listening(Session if when == "after_flush" else Doc, when, in_savepoint):
            session.add(Doc(file=b"data"))
            session.flush()
        session.commit()
    world.check(b"data", *([b"note"] if inner == "commit" else []))


@three
def test_a_listener_writes_in_a_savepoint_what_the_flush_writes_again(world: World) -> None:
    (key,) = seed(world)
    with world.session() as session:

        def in_savepoint() -> None:
            with session.begin_nested():
                session.execute(update(Doc).values(file=b"hook"), execution_options={"synchronize_session": False})

        session.get_one(Doc, key).file = b"new"
        with listening(Doc, "before_update", in_savepoint):
            session.flush()
        session.commit()
    world.check(b"new")


@three
@on("what", ["moves", "swaps"])
def test_a_listener_rolls_a_savepoint_back_while_a_file_moves(world: World, what: str) -> None:
    """SQLAlchemy forgets what it was about to write: the row that was to give the file up keeps it."""
    (key,) = seed(world)
    with world.session() as session:
        session.add(Note(id=1, file=b"note"))
        session.commit()
        doc, note = session.get_one(Doc, key), session.get_one(Note, 1)
        doc.file, note.file = note.file, doc.file if what == "swaps" else None
        with (
            listening(Note, "before_update", lambda: session.begin_nested().rollback()),
            pytest.raises(OwnershipLost, match=r"Note\.file of row \(1,\) was to give up its file to Doc\.file"),
        ):
            session.commit()
        session.rollback()
    world.check(b"old", b"note")


@three
@on("name", ["before_update", "after_update"])
@on("what", ["gives", "takes"])
@on("within", [nullcontext, Session.begin_nested])
def test_a_listener_takes_a_file_from_a_row_that_gives_it_to_another_one(
    world: World, name: str, what: str, within: Callable[[Session], AbstractContextManager[object]]
) -> None:
    """In the database the row has it still; and what the other one was given, another statement may take again."""
    one, two = seed(world, 2)
    with world.session() as session:

        def execute() -> None:
            taken = {"file": None} if what == "gives" else {"scan": None}
            row = two if what == "gives" else one
            options = {"synchronize_session": False}
            with within(session):
                session.execute(update(Doc).where(Doc.id == row).values(taken), execution_options=options)

        first, second = session.get_one(Doc, one), session.get_one(Doc, two)
        first.scan, second.file = second.file, None
        with listening(Doc, name, execute):
            session.commit()
    world.check(b"old", *([] if (what, name) == ("takes", "after_update") else [b"old1"]))


@three
@on("then", ["new key", "deleted"])
def test_the_row_that_a_listener_wrote_is_another_one_after_the_flush(world: World, then: str) -> None:
    (key,) = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)

        def execute() -> None:
            session.execute(update(Doc).values(scan=b"scan"), execution_options={"synchronize_session": False})

        if then == "new key":
            doc.id = key + 1
        else:
            session.delete(doc)
        with listening(Doc, "before_update" if then == "new key" else "before_delete", execute):
            session.flush()
        session.commit()
    world.check(*([b"old", b"scan"] if then == "new key" else []))


@three
def test_what_a_listener_wrote_after_the_flush_may_move_in_a_savepoint(world: World) -> None:
    """A later flush took it for what that one had left without a row."""
    one, two = seed(world, 2)
    with world.session() as session:

        def execute() -> None:
            session.execute(update(Doc).where(Doc.id == one).values(file=b"hook"))

        first, second = session.get_one(Doc, one), session.get_one(Doc, two)
        second.scan = b"scan"
        with listening(session, "after_flush_postexec", execute):
            session.flush()
        with session.begin_nested():
            second.file, first.file = first.file, None
        second.scan = b"new scan"
        session.commit()
    world.check(b"hook", b"new scan")


def test_a_listener_takes_a_deletion_back(world: World) -> None:
    (key,) = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        session.delete(doc)

        def take_back() -> None:
            session.add(doc)
            doc.title = "kept"

        with before_flush(session, take_back):
            session.commit()
    world.check(b"old")


@on("world", ["postgres", "mariadb"], indirect=True)  # SQLite has one writer
def test_a_hook_works_with_another_session(world: World) -> None:
    """It commits and closes, while the flush that called it goes on."""

    def log(*_: object) -> None:
        with world.session() as other:
            other.add(Note(file=b"log"))
            other.flush()
            other.rollback()

    (key,) = seed(world)
    event.listen(Doc, "before_update", log)
    try:
        with world.session() as session:
            session.get_one(Doc, key).file = b"new"
            session.commit()
    finally:
        event.remove(Doc, "before_update", log)
    world.check(b"new")


def test_a_description_is_forgotten(world: World) -> None:
    (key,) = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        assert doc.file is not None
        doc.file = doc.file.replace(filename="other")
        doc.title = "x"
        with before_flush(session, lambda: session.expire(doc, ["file"])), world.nothing_stored():
            session.commit()
    world.check(b"old")


def test_a_replacement_is_forgotten_whose_old_file_another_row_gets(world: World) -> None:
    (key,) = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        session.add(Note(file=doc.file))
        doc.file, doc.title = b"new", "x"
        with (
            before_flush(session, lambda: session.expire(doc, ["file"])),
            pytest.raises(OwnershipLost, match=r"Doc\.file of row \(1,\) was to give up its file to Note\.file"),
        ):
            session.commit()
    world.check(b"old")
