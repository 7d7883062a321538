"""A flush or a commit fails, and the application tries again with the same objects."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, PendingRollbackError, SAWarning

from sa_attachments import Attachment, DescriptorDamaged, OwnershipLost, SourceConsumed, StorageFailed

from .models import Doc
from .world import World

on = pytest.mark.parametrize


def take(world: World, title: str = "taken") -> None:
    """A committed row that is in the way."""
    with world.session() as session:
        session.add(Doc(title=title))
        session.commit()


def keys(world: World) -> list[str]:
    """All keys that files were put under so far."""
    return [call.args[0] for call in world.storage.calls if call.verb == "put" and not call.args[0].startswith(".")]


class LookedAt(io.BytesIO):
    """Stands in the middle when it is assigned, since somebody looked at its beginning."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.read(2)


def path_of(data: bytes, folder: Path) -> Path:
    path = folder / "file"
    path.write_bytes(data)
    return path


SEEKABLE: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda folder: b"data",
    "path": lambda folder: path_of(b"data", folder),
    "file": lambda folder: path_of(b"data", folder).open("rb"),
    "file that was looked at": lambda folder: LookedAt(b"data"),
    "upload": lambda folder: Attachment.upload(io.BytesIO(b"data"), "a.txt"),
}


@on("world", ["sqlite"], indirect=True)
def test_each_attempt_wraps_the_same_file(world: World) -> None:
    """As pyramid_retry and plain loops do with an upload: its file would have been at its end by then."""
    take(world)
    file = LookedAt(b"data")
    for title in ("taken", "free"):
        with world.session() as session:
            session.add(Doc(title=title, file=file))
            if title == "taken":
                with pytest.raises(IntegrityError):
                    session.commit()
            else:
                session.commit()
    world.check(b"data")


def test_a_flush_that_sqlalchemy_refuses_reads_nothing(world: World) -> None:
    """Another one failed, and nobody called rollback(): what can be read only once is there for the one after it."""
    take(world)
    upload = Attachment.upload(iter([b"data"]))
    with world.session() as session:
        doc = Doc(title="free", file=b"old")
        session.add(doc)
        session.commit()
        before = keys(world)
        session.add(Doc(title="taken"))
        with pytest.raises(IntegrityError):
            session.flush()
        doc.file = upload
        with pytest.raises(PendingRollbackError):
            session.flush()
        assert keys(world) == before
        with pytest.warns(SAWarning, match="non-active transaction"):
            session.rollback()
        doc.file = upload
        session.commit()
    world.check(b"data")


@on("kind", SEEKABLE)
def test_the_same_object_in_a_new_transaction(world: World, kind: str, tmp_path: Path) -> None:
    """The source is rewound, and each attempt gets a fresh key."""
    take(world)
    with world.session() as session:
        doc = Doc(title="taken", file=SEEKABLE[kind](tmp_path))
        for _ in range(2):
            session.add(doc)
            with pytest.raises(IntegrityError):
                session.flush()
            session.rollback()
            assert doc.file is not None
            assert not doc.file.is_stored
        doc.title = "free"
        session.add(doc)
        session.commit()
        assert doc.file.read() == b"data"
    assert len(set(keys(world))) == 3
    world.check(b"data")


def test_the_same_object_in_another_session(world: World) -> None:
    take(world)
    doc = Doc(title="taken", file=io.BytesIO(b"data"), pages=[b"page"])
    with world.session() as session, pytest.raises(IntegrityError):  # noqa: PT012 - as applications write it
        session.add(doc)
        session.commit()
    doc.title = "free"
    with world.session() as session:
        session.add(doc)
        session.commit()
    assert len(set(keys(world))) == 4
    world.check(b"data", b"page")


def test_an_object_whose_flush_succeeded_is_added_again_after_a_rollback(world: World) -> None:
    with world.session() as session:
        doc = Doc(title="one", file=io.BytesIO(b"data"), pages=[b"page"])
        session.add(doc)
        session.flush()
        session.rollback()
        world.check()
        session.add(doc)
        session.commit()
    assert len(set(keys(world))) == 4
    world.check(b"data", b"page")


@on("world", ["sqlite", "postgres"], indirect=True)
@on("how", ["refresh", "populate_existing"])
def test_an_object_that_was_read_again_after_its_flush_is_added_again_after_a_rollback(world: World, how: str) -> None:
    with world.session() as session:
        doc = Doc(file=b"data", pages=[b"page"])
        session.add(doc)
        session.flush()
        if how == "refresh":
            session.refresh(doc)
        else:
            session.scalars(select(Doc).execution_options(populate_existing=True)).all()
        session.rollback()
        assert doc.file is not None
        assert not doc.file.is_stored
        session.add(doc)
        session.commit()
    world.check(b"data", b"page")


@on("world", ["sqlite"], indirect=True)
def test_a_long_transaction_does_not_keep_the_sources_of_objects_that_are_gone(world: World) -> None:
    with world.session() as session:
        source = LookedAt(b"data")
        session.add(Doc(file=source))
        session.flush()
        kept = ref(source)
        del source
        world.storage.calls.clear()  # which keep what was put
        gc.collect()
        assert kept() is None
        session.commit()
    world.check(b"data")


@on("world", ["sqlite"], indirect=True)
def test_a_committed_object_does_not_keep_its_source(world: World) -> None:
    with world.session(expire_on_commit=False) as session:
        source = LookedAt(b"data")
        doc = Doc(file=source)
        session.add(doc)
        session.commit()
        kept = ref(source)
        del source
        world.settle()
        world.storage.calls.clear()  # which keep what was put
        gc.collect()
        assert kept() is None
    world.check(b"data")


@on("world", ["sqlite", "postgres"], indirect=True)
def test_a_descriptor_that_was_damaged_after_its_flush_is_in_no_rollbacks_way(world: World) -> None:
    with world.session() as session:
        doc = Doc(file=b"data", pages=[b"page"])
        session.add(doc)
        session.flush()
        session.execute(text("UPDATE docs SET file = '{}'"))
        session.refresh(doc)
        session.rollback()
        assert not doc.pages[0].is_stored
        with pytest.raises(DescriptorDamaged):
            doc.file.read()  # type: ignore[union-attr]
    world.check()


def test_a_row_is_updated_again_after_a_rollback(world: World) -> None:
    """The object of a row is expired by the rollback; what it was given is gone, as for any other column."""
    with world.session() as session:
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        doc.file = b"new"
        session.flush()
        session.rollback()
        assert doc.file.read() == b"old"
        doc.file = b"newer"
        session.commit()
    world.check(b"newer")


@on("source", ["iterator", "pipe", "upload"])
def test_a_one_shot_source_is_used_up_by_the_first_attempt(world: World, source: str) -> None:
    take(world)
    made: dict[str, Any] = {
        "iterator": iter([b"da", b"ta"]),
        "pipe": Pipe(b"data"),
        "upload": Attachment.upload(iter([b"data"]), "a.txt"),
    }
    with world.session() as session:
        doc = Doc(title="taken", file=made[source])
        session.add(doc)
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
        doc.title = "free"
        session.add(doc)
        with pytest.raises(SourceConsumed, match="assign a fresh source"):
            session.flush()
        session.rollback()
        world.check()
        doc.file = b"fresh"
        session.add(doc)
        session.commit()
    world.check(b"fresh")


class Pipe(io.RawIOBase):
    """Readable, and nothing else."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


def test_a_file_that_was_closed_meanwhile_says_so(world: World) -> None:
    take(world)
    with world.session() as session:
        file = io.BytesIO(b"data")
        doc = Doc(title="taken", file=file)
        session.add(doc)
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
        file.close()
        doc.title = "free"
        session.add(doc)
        with pytest.raises(SourceConsumed, match="closed"):
            session.commit()
    world.check()


def test_an_upload_that_fails_undoes_the_others_of_its_flush(world: World) -> None:
    """And leaves the session usable, in the same transaction."""
    with world.session() as session:
        session.add(Doc(file=b"before"))
        session.flush()
        docs = [Doc(title=str(number), file=b"%d" % number) for number in range(5)]
        session.add_all(docs)
        world.storage.fail("put", on=3)
        with pytest.raises(StorageFailed, match="put"):
            session.flush()
        assert session.is_active
        world.storage.heal()
        session.commit()
    assert len(set(keys(world))) == len(keys(world))
    world.check(b"before", *(b"%d" % number for number in range(5)))


def test_an_upload_that_fails_and_is_given_up(world: World) -> None:
    with world.session() as session:
        session.add(Doc(file=b"before"))
        session.flush()
        world.storage.fail("put", on=1)
        session.add(doc := Doc(file=b"fails"))
        with pytest.raises(StorageFailed):
            session.flush()
        session.expunge(doc)
        session.commit()
    world.check(b"before")


def test_a_put_that_fails_after_its_work_was_done_leaves_nothing(world: World) -> None:
    """The answer was lost, the bytes are there."""
    world.storage.fail("put", on=2, after=True)  # the first one marks the place
    with world.session() as session:
        session.add(Doc(file=b"data"))
        with pytest.raises(StorageFailed):
            session.commit()
        session.rollback()
        session.add(Doc(file=b"again"))
        session.commit()
    world.check(b"again")


@on("world", ["postgres", "asyncpg"], indirect=True)
def test_the_same_object_after_the_server_rolled_back_silently(world: World) -> None:
    """Nobody can know that the file is gone; naming it again is refused or copied, never a row without bytes."""
    with world.session(expire_on_commit=False) as session:
        doc = Doc(title="one", file=b"data")
        session.add(doc)
        session.flush()
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1/0"))
        session.commit()
        world.check()
        again = Doc(title="two", file=doc.file)
        session.add(again)
        with pytest.raises(OwnershipLost, match="may not name a file that is gone"):
            session.flush()
    world.check()


def test_a_commit_that_fails_in_its_last_flush(world: World) -> None:
    take(world)
    with world.session() as session:
        session.add(Doc(title="one", file=b"one"))
        session.flush()
        session.add(doc := Doc(title="taken", file=b"two"))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        doc.title = "free"
        session.add(doc)
        session.commit()
    world.check(b"two")
