"""The way back of rows whose old value names a file that is not theirs any more: whoever drops or purges it, and in
whatever order, what a row says in the end is there.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from sa_attachments.adoption import restoring
from tests.engines import ENGINES

from .museum import Museum

SERVERS = [name for name in ENGINES if name in ("sqlite", "postgres", "mariadb")]
here = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
everywhere = pytest.mark.parametrize("engine", SERVERS, indirect=True)
SHARING: dict[str, Any] = {"mode": "in_place", "storage": "old", "fallback": "copy"}


@pytest.fixture
def museum(engine: Engine, tmp_path: Path) -> Museum:
    museum = Museum(engine, tmp_path)
    museum.files.retain = timedelta(days=30)
    museum.open()
    museum.lay("a.txt", b"precious")
    return museum


def call(museum: Museum, verb: str, column: str = "path", into: str = "file", **options: Any) -> Any:
    about = {"root": museum.root, **SHARING, **options}
    return museum.migrate(lambda op: getattr(op, f"{verb}_path_column")("docs", column, into, **about))


def drop(museum: Museum, number: int) -> None:
    with Session(museum.engine) as session:
        session.delete(session.get_one(museum.Doc, number))
        session.commit()
    assert museum.files.settled(20)


def purge(museum: Museum) -> None:
    """Thirty days later."""
    with museum.engine.begin() as connection:
        connection.execute(text("UPDATE attachment_ledger SET purge_after = 0 WHERE purge_after IS NOT NULL"))
    museum.sweep()


@everywhere
@pytest.mark.parametrize("finished", [True, False])
def test_a_path_from_which_a_file_was_moved(museum: Museum, finished: bool) -> None:
    museum.insert({"id": 1, "path": "a.txt"})
    call(museum, "adopt")
    if finished:
        museum.migrate(lambda op: op.finish_adoption("docs", "file", source="path"))
    assert museum.files.move(museum.engine, "old", "default").ok
    museum.migrate(lambda op: op.hold_adoption("docs", "file"))
    assert call(museum, "restore").ok
    assert museum.column("path") == {1: "a.txt"}
    purge(museum)
    assert museum.stored("old") == {"a.txt"}
    assert museum.stored() == set()
    assert museum.lines() == {}


@everywhere
def test_a_depot_from_which_a_file_was_moved(museum: Museum) -> None:
    for name in ("7/file", "7/metadata.json", "8/file"):
        museum.lay(name, name.encode())
    value = json.dumps({"depot_name": "old", "file_id": "7", "path": "old/7", "thumb_path": "old/8"})
    museum.insert({"id": 1, "path": value})
    museum.migrate(lambda op: op.adopt_depot_column("docs", "path", "file"))
    museum.migrate(lambda op: op.finish_adoption("docs", "file", source="path"))
    assert museum.files.move(museum.engine, "old", "default").ok
    museum.migrate(lambda op: op.restore_depot_column("docs", "path", "file"))
    assert museum.column("path") == {1: value}
    purge(museum)
    assert museum.stored("old") >= {"7/file", "7/metadata.json", "8/file"}
    assert museum.lines() == {}


@everywhere
@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("path", ["a.txt", "x/../latest", "folder/a.txt"])
def test_a_file_that_another_row_gave_up(museum: Museum, path: str, finished: bool) -> None:
    (museum.root / "x").mkdir()
    (museum.root / "latest").symlink_to("a.txt")
    (museum.root / "folder").symlink_to(".")
    museum.insert({"id": 1, "path": "a.txt"}, {"id": 2, "path": path})
    call(museum, "adopt")
    if finished:
        museum.migrate(lambda op: op.finish_adoption("docs", "file", source="path"))
    drop(museum, 1)
    assert call(museum, "restore").ok
    assert museum.column("path") == {2: path}
    purge(museum)
    assert (museum.root / path).read_bytes() == b"precious"
    assert museum.stored("old") == {"a.txt", "latest"}
    assert museum.lines() == {}


@everywhere
def test_a_file_that_comes_back_after_the_row_that_shares_it(museum: Museum) -> None:
    museum.insert({"id": 5, "path": "a.txt"})
    call(museum, "adopt")
    museum.insert({"id": 3, "path": "a.txt"}, {"id": 7, "path": "a.txt"})
    call(museum, "adopt")
    assert len(museum.lines()) == 3
    report = call(museum, "restore")
    assert (report.ok, report.rows) == (True, 3)
    assert museum.column("path") == {3: "a.txt", 5: "a.txt", 7: "a.txt"}
    assert museum.stored("old") == {"a.txt"}
    assert museum.lines() == {}


@everywhere
def test_a_file_whose_row_does_not_come_back(museum: Museum) -> None:
    museum.insert({"id": 1, "path": "a.txt"}, {"id": 2, "path": "a.txt"})
    call(museum, "adopt")
    with museum.engine.begin() as connection:
        connection.execute(text("UPDATE docs SET path = 'b.txt' WHERE id = 1"))
    report = call(museum, "restore", policy="skip")
    assert (report.rows, report.counts) == (1, {"changed": 1})
    museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    drop(museum, 1)
    purge(museum)
    path = museum.column("path")[2]
    assert (museum.root / path).read_bytes() == b"precious"
    assert museum.stored("old") == {path}


@everywhere
@pytest.mark.parametrize("dropped", [True, False])
def test_a_file_of_another_column(museum: Museum, dropped: bool) -> None:
    with museum.engine.begin() as connection:
        connection.execute(text("ALTER TABLE docs ADD second TEXT"))
    museum.insert({"id": 1, "path": "a.txt"})
    with museum.engine.begin() as connection:
        connection.execute(text("UPDATE docs SET second = path"))
    call(museum, "adopt")
    call(museum, "adopt", "second", "pages")
    museum.migrate(lambda op: op.finish_adoption("docs", "file"))

    def give_up() -> None:
        with Session(museum.engine) as session:
            session.get_one(museum.Doc, 1).file = None
            session.commit()
        assert museum.files.settled(20)

    if dropped:
        give_up()
    assert call(museum, "restore", "second", "pages").ok
    if not dropped:
        give_up()
    purge(museum)
    with museum.engine.connect() as connection:
        path = connection.scalar(text("SELECT second FROM docs"))
    assert (path == "a.txt") == dropped
    assert (museum.root / path).read_bytes() == b"precious"
    assert museum.stored("old") == {path}


@everywhere
@pytest.mark.parametrize("state", ["purging", "gone"])
def test_a_file_that_is_being_purged(museum: Museum, state: str) -> None:
    museum.insert({"id": 1, "path": "a.txt"}, {"id": 2, "path": "a.txt"})
    call(museum, "adopt")
    museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    drop(museum, 1)
    with museum.engine.begin() as connection:
        connection.execute(text("UPDATE attachment_ledger SET state = :s WHERE state = 'condemned'"), {"s": state})
    assert call(museum, "restore").ok
    purge(museum)
    path = museum.column("path")[2]
    assert (museum.root / path).read_bytes() == b"precious"
    assert museum.stored("old") == {path}


@everywhere
@pytest.mark.parametrize("claimed", [True, False])
def test_a_file_that_is_purged_meanwhile(museum: Museum, monkeypatch: pytest.MonkeyPatch, claimed: bool) -> None:
    museum.insert({"id": 1, "path": "a.txt"}, {"id": 2, "path": "a.txt"})
    call(museum, "adopt")
    museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    drop(museum, 1)
    original, done = restoring.Restoring._switch, []

    def switch(self: Any, backs: Any) -> Any:
        if not done:
            done.append(True)
            if claimed:
                with museum.engine.begin() as connection:
                    connection.execute(text("UPDATE attachment_ledger SET state = 'purging' WHERE state = 'condemned'"))
            else:
                purge(museum)
                assert not (museum.root / "a.txt").exists()
        return original(self, backs)

    monkeypatch.setattr(restoring.Restoring, "_switch", switch)
    report = call(museum, "restore")
    assert (report.ok, report.rows) == (True, 1)
    purge(museum)
    path = museum.column("path")[2]
    assert (museum.root / path).read_bytes() == b"precious"
    assert (path == "a.txt") != claimed
    assert museum.lines() == {}


@here
def test_a_link_that_leads_elsewhere_meanwhile(museum: Museum, monkeypatch: pytest.MonkeyPatch) -> None:
    museum.lay("b.txt", b"precious")
    link = museum.root / "latest"
    link.symlink_to("a.txt")
    museum.insert({"id": 1, "path": "b.txt"}, {"id": 2, "path": "latest"})
    call(museum, "adopt")
    drop(museum, 1)
    original, done = restoring.look, []

    def look(*arguments: Any) -> Any:
        found = original(*arguments)
        if not done:
            done.append(True)
            link.unlink()
            link.symlink_to("b.txt")
        return found

    monkeypatch.setattr(restoring, "look", look)
    assert call(museum, "restore").ok
    purge(museum)
    assert museum.column("path") == {2: "latest"}
    assert link.read_bytes() == b"precious"


@everywhere
@pytest.mark.parametrize("finished", [True, False])
def test_a_file_that_rows_without_an_attachment_name(museum: Museum, finished: bool) -> None:
    for name in ("b.txt", "c.txt"):
        museum.lay(name, name.encode())
    (museum.root / "latest").symlink_to("a.txt")
    museum.insert({"id": 1, "path": "a.txt"}, {"id": 2, "path": "latest"}, {"id": 3, "path": "b.txt"})
    museum.insert({"id": 4, "path": "c.txt"})
    call(museum, "adopt")
    if finished:
        museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    with Session(museum.engine) as session:
        for number in (2, 3):
            session.get_one(museum.Doc, number).file = None
        session.commit()
    drop(museum, 1)
    drop(museum, 4)
    assert call(museum, "restore").ok
    assert museum.column("path") == {2: "latest", 3: "b.txt"}
    assert museum.stored("old") == {"a.txt", "latest", "b.txt"}, "c.txt is named by nobody"
    assert museum.lines() == {}


@here
def test_a_folder_that_two_storages_have(museum: Museum) -> None:
    """One lies in the other, and each may delete there."""
    museum.files.configure(
        {**{name: museum.files.resolve(name) for name in ("default", "old")}, "sub": f"local:{museum.root}/sub"}
    )
    museum.lay("sub/a.txt", b"precious")
    museum.insert({"id": 1, "path": "a.txt"})
    call(museum, "adopt", root=museum.root / "sub", storage="sub")
    museum.insert({"id": 2, "path": "sub/a.txt"})
    call(museum, "adopt", mode="copy", storage="default")
    museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    drop(museum, 1)
    assert call(museum, "restore", mode="copy", storage="default").ok
    purge(museum)
    assert museum.column("path") == {2: "sub/a.txt"}
    assert (museum.root / "sub/a.txt").read_bytes() == b"precious"


@everywhere
@pytest.mark.parametrize("name", ['5" screen.txt', "100%_(own).txt"])
@pytest.mark.parametrize("wrapped", [True, False], ids=["not understood", "understood"])
def test_a_file_that_json_names(museum: Museum, name: str, wrapped: bool) -> None:
    museum.lay(name, b"precious")
    value = json.dumps({"filename": name, "backend": "old", "size": 8})
    museum.insert({"id": 1, "path": value}, {"id": 2, "path": f'{{"first": {value}}}' if wrapped else value})
    about: dict[str, Any] = {"policy": "skip", "fallback": "copy"}
    museum.migrate(lambda op: op.adopt_advanced_alchemy_column("docs", "path", "file", **about))
    with Session(museum.engine) as session:
        session.delete(session.get_one(museum.Doc, 1))
        session.get_one(museum.Doc, 2).file = None
        session.commit()
    assert museum.files.settled(20)
    museum.migrate(lambda op: op.restore_advanced_alchemy_column("docs", "path", "file", **about))
    assert museum.stored("old") == {"a.txt", name}
    assert museum.lines() == {}
