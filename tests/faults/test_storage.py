"""A storage that fails or hangs, at every call: what is stored is undone, and cleaning hurts nobody."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.orm import Session

from sa_attachments import Attachment, OwnershipLost, StorageFailed
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty
from tests.scenarios.models import Doc, Note, files
from tests.scenarios.world import World

from .patience import BUDGET, SLACK, within

on = pytest.mark.parametrize
everywhere = on("world", ["sqlite", "sqlite-legacy", "postgres", "aiosqlite", "asyncpg"], indirect=True)


def tortured(*names: Any) -> list[Any]:
    """Parameters for the torture session alone."""
    return [pytest.param(name, marks=pytest.mark.torture) for name in names]


def seed(world: World, **what: Any) -> int:
    """A committed document, and with it a place that is marked and known."""
    with world.session() as session:
        doc = Doc(**what)
        session.add(doc)
        session.commit()
        key = doc.id
    world.settle()
    return key


def recover(world: World, *contents: bytes) -> None:
    """All is clean once the storage works again and was swept once."""
    world.storage.heal()
    sleep(0.01)  # what was stored in this very millisecond is too young for any sweep
    report = world.sweep()
    assert report.ok, str(report)
    world.check(*contents, swept=True)


def add_documents(session: Session) -> None:
    session.add_all([Doc(file=b"one", pages=[b"two", b"three"]), Doc(file=b"four")])


# Storing


@everywhere
@on("after", [False, True], ids=["before", "after"])
@on("nth", [1, 3, *tortured(2, 4)])
def test_a_put_that_fails_undoes_the_others_of_its_flush(world: World, nth: int, after: bool) -> None:
    seed(world, file=b"old")
    world.storage.fail("put", nth, OSError("no space"), after=after)
    with world.session() as session:
        add_documents(session)
        with pytest.raises(StorageFailed, match="no space") as caught:
            session.flush()
        assert (caught.value.storage, caught.value.operation) == ("default", "put")
        assert caught.value.key in [call.args[0] for call in world.storage.calls if call.verb == "put"]
        assert isinstance(caught.value.__cause__, OSError)
        with session.no_autoflush:
            assert session.scalar(select(func.count()).select_from(Doc)) == 1  # usable as it is
        session.commit()  # with the same objects
    world.check(b"old", b"one", b"two", b"three", b"four", swept=True)


@everywhere
def test_after_a_put_that_fails_a_rollback_leaves_nothing(world: World) -> None:
    seed(world, file=b"old")
    world.storage.fail("put", 2)
    with world.session() as session:
        session.add(Doc(file=b"early"))
        session.flush()
        add_documents(session)
        with pytest.raises(StorageFailed):
            session.commit()
        session.rollback()
        assert session.scalar(select(func.count()).select_from(Doc)) == 1
    recover(world, b"old")


@everywhere
def test_a_flush_waits_for_a_put_that_hangs_and_then_undoes_it_too(world: World) -> None:
    """What goes on in a thread after the flush failed would leave a file that nobody knows."""
    seed(world, file=b"old")
    world.storage.fail("put", 1).hang("put", 2, seconds=0.3)
    with world.session() as session:
        add_documents(session)
        with pytest.raises(StorageFailed):
            session.flush()
        session.close()
    recover(world, b"old")


@everywhere
@on("after", [False, True], ids=["before", "after"])
def test_a_copy_that_fails_undoes_the_others_of_its_flush(world: World, after: bool) -> None:
    key = seed(world, file=b"old")
    world.storage.fail("copy", error=OSError("no space"), after=after)
    with world.session() as session:
        owner = session.get_one(Doc, key)
        assert owner.file is not None
        session.add(Doc(file=owner.file, scan=b"new"))
        with pytest.raises(StorageFailed, match="copy") as caught:
            session.flush()
        assert (caught.value.storage, caught.value.operation) == ("default", "copy")
        assert caught.value.key == owner.file.key
        session.rollback()
        assert session.get_one(Doc, key).file == owner.file
    recover(world, b"old")


@everywhere
def test_a_copy_that_fails_leaves_nothing_even_if_the_transaction_is_committed(world: World) -> None:
    """The new files of the flush were owned before the copy was tried."""
    key = seed(world, file=b"old")
    world.storage.fail("copy", 1)
    with world.session() as session:
        doc = Doc(file=session.get_one(Doc, key).file, scan=b"new")
        session.add(doc)
        with pytest.raises(StorageFailed):
            session.flush()
        session.expunge(doc)
        session.commit()
    recover(world, b"old")


@everywhere
def test_a_flush_with_a_late_owner_leaves_nothing(world: World) -> None:
    """Its new files were owned before the staged one was claimed, and what the database refused ends a transaction."""
    seed(world, file=b"old")
    late = files.stage(Attachment.upload(b"late"))
    world.sweep()
    with world.session() as session:
        doc = Doc(file=b"new", scan=late)
        session.add(doc)
        with pytest.raises(OwnershipLost):
            session.flush()
        with pytest.raises(PendingRollbackError):
            session.commit()
        session.rollback()
        session.add(Doc(file=b"other"))
        session.commit()
    recover(world, b"old", b"other")


@everywhere
def test_a_bulk_statement_whose_copies_fail_changes_nothing(world: World) -> None:
    seed(world, file=b"one")
    seed(world, file=b"two")
    world.storage.fail("copy").fail("put", 2)
    with world.session() as session:
        with pytest.raises(StorageFailed):
            session.execute(update(Doc).values(file=Attachment.upload(b"all")))
        session.commit()
    recover(world, b"one", b"two")


@everywhere
def test_a_place_that_can_t_be_marked_takes_no_files(world: World) -> None:
    world.storage.fail("put", 1)
    with world.session() as session, world.nothing_stored():
        session.add(Doc(file=b"one"))
        with pytest.raises(StorageFailed, match="mark its place") as caught:
            session.flush()
        assert caught.value.storage == "default"
    with world.session() as session:
        session.add(Doc(file=b"two"))
        session.commit()
    recover(world, b"two")


@everywhere
def test_reading_tells_which_storage_failed(world: World) -> None:
    key = seed(world, file=b"old")
    with world.session() as session:
        attachment = session.get_one(Doc, key).file
        assert attachment is not None
        world.storage.fail("open", error=TimeoutError("no answer"))
        with pytest.raises(StorageFailed, match="no answer") as caught:
            attachment.read()
        assert (caught.value.storage, caught.value.key) == ("default", attachment.key)
        assert attachment.size == 3


# Cleaning

Change = Callable[[Session, Doc], None]


def replace(session: Session, doc: Doc) -> None:
    doc.file = b"new"  # type: ignore[assignment]


def remove(session: Session, doc: Doc) -> None:
    session.delete(doc)


def add(session: Session, doc: Doc) -> None:
    session.add(Doc(file=b"new"))


def undo(session: Session, doc: Doc) -> None:
    savepoint = session.begin_nested()
    doc.file = b"new"  # type: ignore[assignment]
    session.flush()
    savepoint.rollback()


ENDS: dict[str, tuple[Change, Callable[[Session], None], Sequence[bytes]]] = {
    "replace-commit": (replace, Session.commit, [b"new"]),
    "remove-commit": (remove, Session.commit, []),
    "undo-commit": (undo, Session.commit, [b"old"]),
    "add-rollback": (add, Session.rollback, [b"old"]),
    "add-close": (add, Session.close, [b"old"]),
    "replace-reset": (replace, Session.reset, [b"old"]),
    "replace-invalidate": (replace, Session.invalidate, [b"old"]),
}

FAULTS: dict[str, Callable[[Faulty], Faulty]] = {
    "delete-fails": lambda storage: storage.fail("delete"),
    "delete-fails-after": lambda storage: storage.fail("delete", after=True),
    "delete-hangs": lambda storage: storage.hang("delete"),
    "delete-hangs-after": lambda storage: storage.hang("delete", after=True),
    "open-fails": lambda storage: storage.fail("open"),
    "open-hangs": lambda storage: storage.hang("open"),
    "all-fail": lambda storage: storage.fail("*"),
    "all-hang": lambda storage: storage.hang("*"),
}


@pytest.mark.sampled("world")
@on("world", ["sqlite", "postgres", "asyncpg", "sqlite-legacy", "aiosqlite"], indirect=True)
@on("end", ENDS)
@on(
    "fault",
    [
        "delete-fails",
        "delete-hangs",
        "open-hangs",
        "all-fail",
        *tortured("delete-fails-after", "delete-hangs-after", "open-fails", "all-hang"),
    ],
)
def test_no_end_of_a_transaction_raises_or_waits_for_cleaning(world: World, fault: str, end: str) -> None:
    change, finish, contents = ENDS[end]
    key = seed(world, file=b"old")
    files.places._known.clear()  # as in a new process, which has still to find out whose place it is
    with world.session() as session:
        change(session, session.get_one(Doc, key))
        session.flush()
        FAULTS[fault](world.storage)
        with within():
            finish(session)
        assert session.scalar(select(func.count()).select_from(Doc)) == len(contents)
        with within():
            session.close()
    recover(world, *contents)


@pytest.mark.sampled("world")
@everywhere
@on("end", ENDS)
def test_the_end_of_a_transaction_takes_the_budget_and_no_longer(world: World, end: str) -> None:
    """The best of some attempts, since a busy machine may take the processor away."""
    change, finish, _ = ENDS[end]
    least = SLACK
    for _ in range(8):
        key = seed(world, file=b"old")
        with world.session() as session:
            change(session, session.get_one(Doc, key))
            session.flush()
            world.storage.hang("delete")
            began = monotonic()
            finish(session)
            least = min(least, monotonic() - began)
        world.storage.heal()
        world.settle()
        if least < BUDGET + 0.1:
            break
    assert BUDGET <= least < BUDGET + 0.1


@everywhere
def test_each_of_many_commits_waits_no_longer_while_deletions_hang(world: World) -> None:
    keys = [seed(world, file=b"old") for _ in range(5)]
    world.storage.hang("delete")
    for key in keys:
        with world.session() as session:
            session.get_one(Doc, key).file = b"new %d" % key  # type: ignore[assignment]
            with within():
                session.commit()
    recover(world, *(b"new %d" % key for key in keys))


@everywhere
def test_a_transaction_that_stored_and_dropped_in_several_places_waits_once(world: World) -> None:
    """The budget is one for all that a commit leaves to clean."""
    world.storages |= {name: Faulty(MemoryStorage()) for name in ("a", "b", "c", "d")}
    with files.override(world.storages):
        with world.session() as session:
            pages = [Attachment.upload(name.encode(), storage=name) for name in "abcd"]
            doc = Doc(pages=pages)
            session.add(doc)
            session.commit()
            for storage in world.storages.values():
                storage.hang("delete")
            doc.pages = []
            with within():
                session.commit()
        for storage in world.storages.values():
            storage.heal()
        recover(world)


@on("world", ["aiosqlite", "asyncpg"], indirect=True)
@on("fault", ["delete-fails", "delete-hangs"])
def test_the_event_loop_does_not_complain_of_failures_that_were_dealt_with(
    world: World, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "sa_attachments")  # what is logged is kept, with the frames it came from
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    key = seed(world, file=b"old")
    FAULTS[fault](world.storage)
    with world.session() as session:
        session.get_one(Doc, key).file = b"new"  # type: ignore[assignment]
        session.commit()
    recover(world, b"new")
    gc.collect()
    assert complaints == []


@on("world", ["sqlite", "postgres", "asyncpg"], indirect=True)
def test_a_file_that_can_t_be_deleted_is_noted_and_holds_up_no_other(world: World) -> None:
    """Storages report failures one by one; the line of the one that failed stays, and says why."""
    stubborn = Stubborn()
    world.storages["default"] = Faulty(stubborn)
    with files.override(world.storages), world.session() as session:
        doc = Doc(pages=[b"one", b"two", b"three"])
        session.add(doc)
        session.commit()
        stubborn.key = doc.pages[1].key
        doc.pages = []
        session.commit()
        world.settle()
        first = world.sweep()
        assert not first.ok
        assert (first["default"].failed, list(world.stored().values())) == (1, [b"two"])
        with world.observer.connect() as connection:
            noted = connection.execute(text("SELECT state, attempts, last_error FROM attachment_ledger")).all()
        assert [(state, "in use" in (error or "")) for state, _, error in noted] == [("purging", True)]
        assert noted[0].attempts >= 1
        stubborn.key = None
        recover(world)


class Stubborn(MemoryStorage):
    """Does not let go of one file."""

    key: str | None = None

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        kept = {key: PermissionError("in use") for key in keys if key == self.key}
        return {**super().delete([key for key in keys if key not in kept]), **kept}


@on("world", ["sqlite", "postgres", "asyncpg"], indirect=True)
@on("verb", ["keys", "open", "delete"])
def test_a_sweep_tells_of_a_storage_that_fails_and_sweeps_the_others(world: World, verb: str) -> None:
    world.storages |= {"a": Faulty(MemoryStorage()), "z": Faulty(MemoryStorage())}
    with files.override(world.storages), world.session() as session:
        session.add(Doc(file=b"kept", pages=[Attachment.upload(n.encode(), storage=n) for n in ("a", "z", "default")]))
        session.commit()
        for storage in world.storages.values():
            storage.fail("delete")
        session.scalars(select(Doc)).one().pages = []
        session.commit()
        world.settle()
        for storage in world.storages.values():
            storage.heal()
        world.storage.fail(verb, error=ConnectionError("no answer"))
        report = world.sweep()
        assert not report.ok
        assert "no answer" in str(report["default"]) or report["default"].failed == 1
        assert sorted(world.stored().values()) == [b"default", b"kept"]
        recover(world, b"kept")


# Every call

Step = Callable[[Session, list[bytes]], list[bytes]]


def step_add(session: Session, contents: list[bytes]) -> list[bytes]:
    session.add(Doc(title="a", file=b"a1", pages=[b"a2", b"a3"], notes=[Note(file=b"a4")]))
    return [*contents, b"a1", b"a2", b"a3", b"a4"]


def step_replace(session: Session, contents: list[bytes]) -> list[bytes]:
    doc = session.scalar(select(Doc).where(Doc.title == "a"))
    if doc is None:
        return contents
    old = [item.read() for item in (doc.file, *doc.pages) if item]
    doc.file, doc.pages = b"b1", [b"b2"]  # type: ignore[assignment, list-item]
    return [*_without(contents, old), b"b1", b"b2"]


def step_copy(session: Session, contents: list[bytes]) -> list[bytes]:
    doc = session.scalar(select(Doc).where(Doc.title == "a"))
    if doc is None or doc.file is None:
        return contents
    session.add(Doc(title="copy", file=doc.file, scan=b"c1"))
    return [*contents, doc.file.read(), b"c1"]


def step_savepoint(session: Session, contents: list[bytes]) -> list[bytes]:
    savepoint = session.begin_nested()
    session.add(Doc(title="void", file=b"d1"))
    session.flush()
    savepoint.rollback()
    session.add(Doc(title="d", file=b"d2"))
    return [*contents, b"d2"]


def step_bulk(session: Session, contents: list[bytes]) -> list[bytes]:
    count = session.scalar(select(func.count()).select_from(Doc)) or 0
    old = [doc.scan.read() for doc in session.scalars(select(Doc)) if doc.scan]
    session.execute(update(Doc).values(scan=Attachment.upload(b"e1")))
    return [*_without(contents, old), *[b"e1"] * count]


def step_staged(session: Session, contents: list[bytes]) -> list[bytes]:
    session.add(Doc(title="f", file=files.stage(Attachment.upload(b"f1"), Doc.file)))
    return [*contents, b"f1"]


def step_abandoned(session: Session, contents: list[bytes]) -> list[bytes]:
    session.add(Doc(title="g", file=b"g1"))
    session.flush()
    session.rollback()
    return contents


def step_delete(session: Session, contents: list[bytes]) -> list[bytes]:
    doc = session.scalar(select(Doc).where(Doc.title == "a"))
    if doc is None:
        return contents
    old = [item.read() for item in (doc.file, doc.scan, *doc.pages, *(note.file for note in doc.notes)) if item]
    session.delete(doc)
    return _without(contents, old)


STEPS: list[Step] = [
    step_add,
    step_replace,
    step_copy,
    step_savepoint,
    step_bulk,
    step_staged,
    step_abandoned,
    step_delete,
]

KINDS: dict[str, Callable[[Faulty, int], Faulty]] = {
    "fails": lambda storage, nth: storage.fail("*", nth),
    "fails-after": lambda storage, nth: storage.fail("*", nth, after=True),
    "hangs": lambda storage, nth: storage.hang("*", nth, seconds=0.2),
    "fails-from-then-on": lambda storage, nth: storage.at("*", nth, lambda: _break(storage)),
}


@on("world", ["sqlite", "postgres", "asyncpg"], indirect=True)
@on("kind", KINDS)
def test_a_failure_at_some_calls_of_a_workload(world: World, kind: str) -> None:
    _fail_at(world, kind, first=1 + list(KINDS).index(kind), step=9)


@pytest.mark.torture
@pytest.mark.timeout(600)
@on("world", ["sqlite", "sqlite-legacy", "postgres", "aiosqlite", "asyncpg"], indirect=True)
@on("kind", KINDS)
def test_a_failure_at_every_call_of_a_workload(world: World, kind: str) -> None:
    _fail_at(world, kind, first=1, step=1)


def _fail_at(world: World, kind: str, first: int, step: int) -> None:
    """Run the workload again and again, each time failing at a later call, until it ends before that call."""
    nth, struck = first, True
    while struck:
        with _again(world):
            KINDS[kind](world.storage, nth)
            contents = work(world)
            struck = len(world.storage.calls) >= nth
            recover(world, *contents)
        nth += step
    assert nth > 25, "the workload makes more calls than that"


def work(world: World) -> list[bytes]:
    contents: list[bytes] = []
    for step in STEPS:
        with world.session() as session:
            try:
                after = step(session, contents)
                session.flush()
            except StorageFailed:
                with within():
                    session.rollback()
                session.scalars(select(Doc.id)).all()
                continue
            with within():
                session.commit()
            contents = after
    return contents


@on("world", ["sqlite", "postgres", "asyncpg"], indirect=True)
@on("kind", KINDS)
def test_a_failure_at_every_call_of_a_sweep(world: World, kind: str) -> None:
    """It raises nothing, tells of what failed, and the next one does the rest."""
    nth, struck = 1, True
    while struck:
        with _again(world):
            prepare_a_sweep(world)
            before = len(world.storage.calls)
            KINDS[kind](world.storage, nth)
            report = world.sweep()
            struck = len(world.storage.calls) - before >= nth
            assert report.ok is not (struck and kind != "hangs")
            recover(world, b"named")
        nth += 1
    assert nth > 4, "a sweep reads the marker, lists and deletes"


def prepare_a_sweep(world: World) -> None:
    """A file that is named, two strangers, and one that was dropped and could not be deleted."""
    key = seed(world, file=b"dropped", pages=[b"named"])
    for _ in range(2):
        files.stage(Attachment.upload(b"stranger"))
    world.storage.fail("delete")
    with world.session() as session:
        session.get_one(Doc, key).file = None
        session.commit()
    world.settle()
    world.storage.heal()


@contextmanager
def _again(world: World) -> Iterator[None]:
    """A world as it was in the beginning, with a new storage."""
    with world.observer.begin() as connection:
        for table in ("notes", "docs", "attachment_ledger", "attachment_storage"):
            connection.execute(text(f"DELETE FROM {table}"))
    world.storages = {"default": Faulty(MemoryStorage(parallel=4))}
    with files.override(world.storages):
        yield


def _break(storage: Faulty) -> None:
    storage.fail("*")
    raise OSError("broken for good")


def _without(contents: list[bytes], gone: list[bytes]) -> list[bytes]:
    left = list(contents)
    for content in gone:
        left.remove(content)
    return left
