"""What the machine found, as short stories that stay told."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sa_attachments import FileMissing, StorageFailed

from .models import Doc, files
from .world import World

on_sqlite = pytest.mark.parametrize("world", ["sqlite"], indirect=True)


@on_sqlite
@pytest.mark.parametrize("many", [True, False])
def test_a_statement_that_failed_leaves_no_file_if_the_transaction_is_committed_nevertheless(
    world: World, many: bool
) -> None:
    """SQLite goes on after an error; of an executemany, the rows before the failing one would stay."""
    with Session(world.engine) as session:
        session.add(Doc(id=2, file=world.upload()))
        session.commit()
        rows = [{"id": pk, "file": world.upload()} for pk in (1, 2, 3)]
        with pytest.raises(IntegrityError):
            session.execute(insert(Doc), rows) if many else session.execute(insert(Doc).values(rows))
        session.commit()
    assert len(world.originals()) == len(world.committed_rows()) == 1
    assert files.verify(world.engine).ok


@pytest.mark.parametrize("after", [None, "rollback", "commit"])
def test_a_staged_file_can_be_assigned_again_after_a_flush_that_failed(world: World, after: str | None) -> None:
    staged = files.stage(world.upload(), Doc.file)
    with Session(world.engine) as session:
        world.storages["vault"].fail("put", on=2)  # The first is the marker.
        doc = Doc(id=1, file=staged, scan=world.upload())
        session.add(doc)
        with pytest.raises(StorageFailed):
            session.flush()
        world.heal()
        if after is not None:
            session.expunge(doc)
            getattr(session, after)()
            doc = Doc(id=1, file=staged)
            session.add(doc)
        session.commit()
        assert doc.file.read() == b"bytes of 0"
    world.sweep()
    assert len(world.originals()) == (2 if after is None else 1)
    assert files.verify(world.engine).ok


@on_sqlite
def test_a_statement_that_failed_gives_up_a_staged_file(world: World) -> None:
    staged = files.stage(world.upload(), Doc.file)
    with Session(world.engine) as session:
        session.add(Doc(id=1, title="a"))
        session.flush()
        with pytest.raises(IntegrityError):
            session.execute(insert(Doc).values(id=1, file=staged))
        session.execute(insert(Doc).values(id=2, file=staged))
        session.commit()
    assert list(world.originals().values()) == [b"bytes of 0"]
    assert files.verify(world.engine).ok


def test_a_file_is_restored_to_an_object_that_does_not_know_of_the_drop(world: World) -> None:
    """To the object it was no change, so that the file became the row's in the ledger, and not in the row."""
    with Session(world.engine, expire_on_commit=False) as session, Session(world.engine) as other:
        doc = Doc(id=1, scan=world.upload())
        session.add(doc)
        session.commit()
        other.get_one(Doc, 1).scan = None
        other.commit()
        files.restore(session, Doc.scan, 1)
        session.commit()
        assert [row.slots["scan"][0].item.content for row in world.committed_rows().values()] == [b"bytes of 0"]
    assert files.verify(world.engine).ok


def test_a_file_moves_back_to_an_object_that_does_not_know_that_it_was_gone(world: World) -> None:
    with Session(world.engine, expire_on_commit=False) as session, Session(world.engine) as other:
        one, two = Doc(id=1, file=world.upload()), Doc(id=2)
        session.add_all([one, two])
        session.commit()
        there, here = other.get_one(Doc, 1), other.get_one(Doc, 2)
        here.file, there.file = there.file, None
        other.commit()
        session.refresh(two)
        one.file, two.file = two.file, None
        session.commit()
        assert [len(row.slots["file"]) for _, row in sorted(world.committed_rows().items())] == [1, 0]
    assert list(world.originals().values()) == [b"bytes of 0"]
    assert files.verify(world.engine).ok


def test_what_a_transaction_stored_around_a_savepoint_is_not_retained_when_a_released_one_inside_drops_it(
    world: World,
) -> None:
    """The savepoint in the middle did nothing by itself, and took over what the inner one had done."""
    with Session(world.engine) as session:
        doc = Doc(id=1, scan=world.upload())
        session.add(doc)
        session.commit()
        before = doc.scan
        doc.scan = world.upload()
        with session.begin_nested():
            with session.begin_nested():
                doc.file = world.upload()
            files.restore(session, Doc.scan, 1)
            session.flush()
            assert doc.scan == before
        session.commit()
        with pytest.raises(FileMissing):
            files.restore(session, Doc.scan, 1)
    assert sorted(world.originals().values()) == [b"bytes of 0", b"bytes of 2"]


@on_sqlite
def test_a_variant_that_an_older_object_does_not_know_goes_when_what_was_kept_would(world: World) -> None:
    """It was made after the object was loaded; the row was deleted, and the object brought it back."""
    with Session(world.engine, expire_on_commit=False) as session:
        doc = Doc(id=1, scan=world.upload())
        session.add(doc)
        session.commit()
        session.expunge(doc)
        assert files.rebuild(world.engine, lazy=True).made == 1
        session.execute(delete(Doc))
        session.merge(doc)
        session.commit()
    assert files.settled(30)
    [(name, state)] = [(name, state) for name, (state, _) in world.ledger().items() if state != "owned"]
    assert (state, name in world.stored(), world.waiting()) == ("condemned", True, {name})
    with world.engine.begin() as connection:
        connection.execute(text("UPDATE attachment_ledger SET purge_after = 1 WHERE state = 'condemned'"))
    world.sweep()
    assert name not in world.stored()
    assert files.verify(world.engine).ok
