"""``Attachment.upload(path, move=True)``: the path is the caller's until the row is committed, and is gone then."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import make_transient

from sa_attachments import Attachment, StorageFailed

from .models import Doc
from .world import World

on = pytest.mark.parametrize


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "given"
    path.write_bytes(b"data")
    return path


def given(path: Path, title: str | None = None) -> Doc:
    return Doc(title=title, file=Attachment.upload(path, move=True))


def test_it_is_removed_by_the_commit_not_by_the_flush(world: World, path: Path) -> None:
    with world.session() as session:
        session.add(given(path))
        session.flush()
        assert path.read_bytes() == b"data"
        session.commit()
    world.check(b"data")
    assert not path.exists()


@on("end", ["rollback", "close"])
def test_it_stays_after_a_rollback_and_can_be_given_again(world: World, path: Path, end: str) -> None:
    with world.session() as session:
        doc = given(path)
        session.add(doc)
        session.flush()
        getattr(session, end)()
        world.check()
        assert path.read_bytes() == b"data"
        if end == "close":
            make_transient(doc)  # else it is taken for an object with a row
        session.add(doc)
        session.commit()
    world.check(b"data")
    assert not path.exists()


@on("inner", ["commit", "rollback"])
@on("outer", ["commit", "rollback"])
def test_it_shares_the_fate_of_its_savepoint(world: World, path: Path, inner: str, outer: str) -> None:
    with world.session() as session:
        session.add(Doc(file=b"root"))
        session.flush()
        savepoint = session.begin_nested()
        session.add(given(path))
        session.flush()
        getattr(savepoint, inner)()
        getattr(session, outer)()
    kept = outer == "commit"
    moved = kept and inner == "commit"
    world.check(*([b"root"] if kept else []), *([b"data"] if moved else []))
    assert path.exists() is not moved


def test_it_stays_after_a_failed_flush(world: World, path: Path) -> None:
    with world.session() as session:
        session.add(Doc(title="taken"))
        session.commit()
        session.add(given(path, "taken"))
        with pytest.raises(IntegrityError):
            session.commit()
    world.check()
    assert path.read_bytes() == b"data"


def test_it_stays_where_the_storage_fails(world: World, path: Path) -> None:
    with world.session() as session:
        session.add(Doc(title="one"))
        session.commit()
        session.add(given(path))
        world.storage.fail("put")
        with pytest.raises(StorageFailed):
            session.commit()
        world.storage.heal()
    world.check()
    assert path.read_bytes() == b"data"


@on("world", ["postgres", "asyncpg"], indirect=True)
def test_it_stays_where_the_server_rolled_back_silently(world: World, path: Path) -> None:
    with world.session() as session:
        session.add(given(path))
        session.flush()
        with pytest.raises(DBAPIError):
            session.execute(text("SELECT 1/0"))
        session.commit()
    world.check()
    assert path.read_bytes() == b"data"


@on("how", ["connection", "sql"])
def test_it_stays_where_a_savepoint_was_rolled_back_without_the_session(world: World, path: Path, how: str) -> None:
    with world.session() as session:
        session.add(Doc(file=b"first"))
        session.flush()
        if how == "connection":
            with session.connection().begin_nested() as savepoint:
                session.add(given(path))
                session.flush()
                savepoint.rollback()
        else:
            session.execute(text("SAVEPOINT beside"))
            session.add(given(path))
            session.flush()
            session.execute(text("ROLLBACK TO SAVEPOINT beside"))
        session.commit()
    assert {report.strangers for report in world.sweep().storages} == {1}
    world.sweep()
    world.check(b"first", swept=True)
    assert path.read_bytes() == b"data"


def test_it_is_removed_although_the_row_was_deleted_again(world: World, path: Path) -> None:
    """It was given away; that nobody wanted it in the end is another matter."""
    with world.session() as session:
        doc = given(path)
        session.add(doc)
        session.flush()
        session.delete(doc)
        session.commit()
    world.check()
    assert not path.exists()


def test_one_that_was_staged_before_is_removed_by_the_commit(world: World, path: Path) -> None:
    staged = world.files.stage(Attachment.upload(path, move=True))
    with world.session() as session:
        session.add(Doc(file=staged))
        session.rollback()
        session.add(Doc(file=staged))
        session.flush()
        assert path.read_bytes() == b"data"
        session.commit()
    world.check(b"data")
    assert not path.exists()


def test_one_that_was_staged_and_rolled_back_stays(world: World, path: Path) -> None:
    staged = world.files.stage(Attachment.upload(path, move=True))
    with world.session() as session:
        session.add(Doc(file=staged))
        session.flush()
        session.rollback()
    world.settle()
    assert path.read_bytes() == b"data"
    assert staged.read() == b"data"


@on("world", ["sqlite", "postgres"], indirect=True)
def test_one_that_cannot_be_removed_keeps_nothing_from_being_purged(world: World, path: Path) -> None:
    with world.session() as session:
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        doc.file = Attachment.upload(path, move=True)
        session.flush()
        path.unlink()
        path.mkdir()  # what was a file is a folder now
        session.commit()
    world.check(b"data")
    assert path.is_dir()


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_it_stays_if_no_row_takes_it(world: World, path: Path) -> None:
    """Neither that of a flush that was refused, nor that of a statement which met no row."""
    with world.session() as session:
        session.add(Doc(id=1, file=b"kept"))
        session.commit()
        doc = given(path)
        session.add_all([doc, Doc(file=Attachment.upload(iter([b"no", None])))])  # type: ignore[list-item]
        with pytest.raises(TypeError):
            session.flush()
        session.expunge_all()
        session.commit()
        assert path.read_bytes() == b"data"
        session.execute(update(Doc).where(Doc.id == 999).values(file=Attachment.upload(path, move=True)))
        session.commit()
    world.check(b"kept")
    assert path.read_bytes() == b"data"


@on("world", ["sqlite", "mariadb"], indirect=True)
def test_it_stays_after_a_statement_that_failed(world: World, path: Path) -> None:
    with world.session() as session:
        session.add(Doc(id=1, file=b"kept"))
        session.commit()
        with pytest.raises(IntegrityError):
            session.execute(insert(Doc).values(id=1, file=Attachment.upload(path, move=True)))
        session.commit()
    world.check(b"kept")
    assert path.read_bytes() == b"data"
