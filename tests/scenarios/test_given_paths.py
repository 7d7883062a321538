"""``Attachment.upload(path, move=True)``: the path is the caller's until the row is committed, and is gone then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session, make_transient

from sa_attachments import Attachment, BadSource, StorageFailed
from sa_attachments.processing.storing import Meter
from sa_attachments.storage import HasPath
from sa_attachments.storages.local import LocalStorage

from .models import Doc, files
from .world import World

on = pytest.mark.parametrize
docs: Any = Doc.__table__


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


@on("storage", ["local", "memory"])
@on("how", ["another file", "written again"])
def test_what_came_to_its_place_since_was_not_given_away(world: World, path: Path, storage: str, how: str) -> None:
    """The next delivery under the same name, say: nobody has stored it."""
    new = path.with_name("new")
    new.write_bytes(b"next")
    with world.session() as session, world.files.override(elsewhere(storage, path)):
        staged = given(path)
        session.add(staged)
        session.flush()
        if how == "another file":
            new.replace(path)
        else:
            path.unlink()
            path.write_bytes(b"next")
        session.commit()
        assert staged.file is not None
        assert staged.file.read() == b"data"
    assert path.read_bytes() == b"next"


@on(("when", "how"), [("read", "another file"), ("read", "written into"), ("taken", "another file")])
@on("moment", ["before", "after"])
def test_what_is_stored_is_what_the_row_says_though_the_path_changes(
    world: World, path: Path, monkeypatch: pytest.MonkeyPatch, when: str, how: str, moment: str
) -> None:
    """A writer who does not know that it was given away."""
    todo = [how]

    def change(at: str) -> None:
        if at == f"{moment} it is {when}" and todo:
            todo.clear()
            new = path.with_name("new")
            new.write_bytes(b"longer")
            if how == "another file":
                new.replace(path)
            else:
                path.write_bytes(b"longer")

    def around(cls: Any, name: str, what: str) -> None:
        original = getattr(cls, name)

        def call(*arguments: Any) -> Any:
            change(f"before it is {what}")
            result = original(*arguments)
            change(f"after it is {what}")
            return result

        monkeypatch.setattr(cls, name, call)

    around(LocalStorage, "take", "taken")
    around(Meter, "read", "read")
    with world.session() as session, world.files.override(elsewhere("local", path)):
        doc = given(path)
        session.add(doc)
        session.commit()
        assert doc.file is not None
        stored = doc.file.read()
        assert (doc.file.size, doc.file.sha256) == (len(stored), sha256(stored).hexdigest())
    assert not todo


def elsewhere(storage: str, path: Path) -> str:
    return f"local:{path.parent}/files?durable=false" if storage == "local" else "memory:"


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


@on("world", ["sqlite"], indirect=True)
@on("linked", [Path.symlink_to, Path.hardlink_to])
def test_a_link_goes_and_what_it_leads_to_is_not_what_is_stored(world: World, path: Path, linked: Any) -> None:
    """Else who writes there would change the stored file."""
    link = path.with_name("link")
    linked(link, path)
    with world.files.override(LocalStorage(path.with_name("files"))), world.session() as session:
        doc = given(link)
        session.add(doc)
        session.commit()
        world.settle()
        with path.open("r+b") as file:
            file.write(b"XXXX")
        assert doc.file is not None
        assert doc.file.read() == b"data"
    assert not link.is_symlink()
    assert not link.exists()


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


# A storage's own files


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The URLs of two folders, of a pattern, and of a mirror of two more."""
    urls = {
        "default": f"local:{tmp_path}/files",
        "scans": f"local:{tmp_path}/scans",
        "tenant-*": f"local:{tmp_path}/tenants/{{name}}",
        "one": f"local:{tmp_path}/one",
        "two": f"local:{tmp_path}/two",
        "both": "mirror:one,two",
    }
    with files.override(urls):
        yield urls


def kept(world: World) -> None:
    """Rows name files that are there, and nothing else is."""
    world.settle()
    files.sweep(world.engine, grace=timedelta(0), stranger_retain=timedelta(0))
    assert [finding.kind for finding in files.verify(world.engine).findings] == []


@on("storage", ["default", "scans", "tenant-7", "both"])
def test_the_path_of_a_stored_file_is_refused(world: World, folders: dict[str, str], storage: str) -> None:
    """It would be removed, and its row would lose it."""
    with world.session() as session:
        first = Doc(file=Attachment.upload(b"data", storage=storage))
        session.add(first)
        session.commit()
        file = first.file
        assert file is not None
        path = own_path(file)
        session.add(Doc(title="other", file=b"other"))
        doc = given(path)
        session.add(doc)
        with pytest.raises(BadSource, match=rf"Doc\.file: {path} is in the folder of the storage.*its copy\(\)"):
            session.flush()
        doc.file = file.copy()
        session.commit()
        contents = [each.file.read() for each in session.scalars(select(Doc)) if each.file]
        assert sorted(contents) == [b"data", b"data", b"other"]
    kept(world)


def own_path(file: Attachment) -> Path:
    """Where a storage, or the first part of a mirror, has a file."""
    storage = files.resolve("one" if file.storage == "both" else file.storage)
    assert isinstance(storage, HasPath)
    return storage.path(file.key)


@on("world", ["sqlite"], indirect=True)
@on("known", [True, False])
def test_so_it_is_where_this_process_has_not_met_the_storage(
    world: World, folders: dict[str, str], known: bool
) -> None:
    """One of a pattern that another process stored in, or one of another application."""
    with world.session() as session:
        session.add(Doc(id=1, file=Attachment.upload(b"data", storage="tenant-7")))
        session.commit()
        file = session.get_one(Doc, 1).file
        assert file is not None
        path = own_path(file)
        here = folders if known else {"default": folders["default"]}
        with files.override(here):
            session.add(given(path))
            with pytest.raises(BadSource, match=rf"in the folder of the storage '{path.parents[4]}', whose files"):
                session.flush()
            session.rollback()
        assert file.read() == b"data"
    kept(world)


def add(session: Session, doc: Doc) -> None:
    session.add(doc)
    session.flush()


WAYS: dict[str, Callable[[Session, Attachment], Any]] = {
    "flush": lambda session, upload: add(session, Doc(file=upload)),
    "list": lambda session, upload: add(session, Doc(pages=[upload])),
    "bulk": lambda session, upload: session.execute(insert(Doc), [{"file": upload}]),
    "before": lambda session, upload: files.stage(upload),
    "before, for a column": lambda session, upload: files.stage(upload, Doc.file),
    "connection": lambda session, upload: files.stage(upload, session.connection(), docs.c.file),
}


@on("world", ["sqlite"], indirect=True)
@on("way", WAYS)
@on("link", [None, "file", "folder"])
def test_however_it_is_said_it_is_refused(
    world: World, folders: dict[str, str], tmp_path: Path, way: str, link: str | None
) -> None:
    with world.session() as session:
        session.add(Doc(id=1, file=b"data"))
        session.commit()
        file = session.get_one(Doc, 1).file
        assert file is not None
        path = own_path(file)
        if link == "file":
            (tmp_path / "link").symlink_to(path)
            path = tmp_path / "link"
        elif link == "folder":
            (tmp_path / "link").symlink_to(path.parent)
            path = tmp_path / "link" / path.name
        with pytest.raises(BadSource, match="can't be given away"):
            WAYS[way](session, Attachment.upload(path, move=True))
        session.rollback()
        assert file.read() == b"data"
    kept(world)


@on("world", ["sqlite"], indirect=True)
def test_what_lies_beside_a_storage_can_be_given_away(world: World, folders: dict[str, str], path: Path) -> None:
    """Its hard link too: the storage keeps its own."""
    with world.session() as session:
        session.add(Doc(id=1, file=b"one"))
        session.commit()
        file = session.get_one(Doc, 1).file
        assert file is not None
        link = path.with_name("files-beside")
        link.hardlink_to(own_path(file))
        with files.override({**folders, "broken": "nothing-like-that:"}):  # that one of all is of no interest
            session.add_all([given(path), given(link)])
            session.commit()
    kept(world)
    assert not path.exists()
    assert not link.exists()
