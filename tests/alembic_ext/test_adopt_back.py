"""The way back: rows say what they said before, byte for byte, and nothing is left of the attachments."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic.operations import Operations
from sqlalchemy import Engine, MetaData, Table, inspect, text
from sqlalchemy.orm import Session

from alembic_ext.adoption.operations import AdoptColumn, FinishAdoption, HoldAdoption, RestoreColumn
from sa_attachments import AdoptionFailed, Attachment, AttachmentWarning, BadConfiguration, StorageFailed
from sa_attachments.adoption import Blobs, Paths, Plan, restoring
from sa_attachments.adoption import adopt as adopt_column
from sa_attachments.adoption import restore as restore_column
from sa_attachments.adoption.folder import Folder
from sa_attachments.storages.memory import MemoryStorage
from tests.engines import ENGINES

from .museum import Museum
from .test_adopt_paths import MODES

SERVERS = [name for name in ENGINES if name in ("sqlite", "postgres", "mariadb")]
here = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
everywhere = pytest.mark.parametrize("engine", SERVERS, indirect=True)


@pytest.fixture
def museum(engine: Engine, tmp_path: Path) -> Museum:
    return Museum(engine, tmp_path)


def adopt(op: Any, **options: Any) -> Any:
    return op.adopt_blob_column("docs", "data", "file", **options)


def restore(op: Any, **options: Any) -> Any:
    return op.restore_blob_column("docs", "data", "file", **options)


@everywhere
def test_blobs_come_back(museum: Museum) -> None:
    museum.open()
    data = {n: bytes([n % 256]) * n * 7 for n in range(230)}
    museum.insert(*({"id": n, "data": each} for n, each in data.items()), {"id": 900, "data": None})
    assert museum.migrate(adopt).rows == 230
    report = museum.migrate(restore)
    assert (report.ok, report.rows, report.size) == (True, 230, sum(map(len, data.values())))
    assert museum.column("data") == {**data, 900: None}
    assert museum.facts() == {}
    assert museum.lines() == {}
    assert museum.stored() == set()


@everywhere
def test_with_the_old_column_dropped_in_between(museum: Museum) -> None:
    museum.open(file=False)
    data = {n: b"%d" % n for n in range(120)}
    museum.insert(*({"id": n, "data": each} for n, each in data.items()))

    def upgrade(op: Any) -> None:
        adopt(op, create=True)
        with op.batch_alter_table("docs") as batch_op:
            batch_op.drop_column("data")

    def downgrade(op: Any) -> None:
        restore(op, create=True)
        with op.batch_alter_table("docs") as batch_op:
            batch_op.drop_column("file")

    museum.migrate(upgrade)
    assert "data" not in {column["name"] for column in inspect(museum.engine).get_columns("docs")}
    with Session(museum.engine) as session:
        session.get_one(museum.Doc, 7).file = Attachment.upload(b"replaced", "new.txt")
        session.delete(session.get_one(museum.Doc, 8))
        session.add(museum.Doc(id=500, file=b"uploaded since"))
        session.commit()
    assert museum.files.settled(20)
    museum.migrate(downgrade)
    assert {n: bytes(each) for n, each in museum.column("data").items()} == {
        **{n: each for n, each in data.items() if n != 8},
        7: b"replaced",
        500: b"uploaded since",
    }
    assert museum.lines() == {}
    assert museum.stored() == set()


@everywhere
@pytest.mark.parametrize(("mode", "options"), MODES)
def test_paths_come_back(museum: Museum, mode: str, options: Any) -> None:
    museum.open()
    paths = {n: f"{n % 3}/f {n}.txt" for n in range(120)}
    for number, path in paths.items():
        museum.lay(path, b"content %d" % number)
    museum.insert(*({"id": n, "path": path} for n, path in paths.items()))
    before = museum.stored("old")

    def call(verb: str) -> Any:
        return museum.migrate(
            lambda op: getattr(op, f"{verb}_path_column")(
                "docs", "path", "file", root=museum.root, mode=mode, **options
            )
        )

    call("adopt")
    with Session(museum.engine) as session:
        session.get_one(museum.Doc, 7).file = Attachment.upload(b"replaced", "new.txt")
        session.add(museum.Doc(id=500, file=Attachment.upload(b"uploaded since", "photo.png")))
        session.delete(session.get_one(museum.Doc, 8))
        session.commit()
    assert museum.files.settled(20)
    report = call("restore")
    assert (report.ok, report.rows) == (True, 120)
    after = museum.column("path")
    assert {n: path for n, path in after.items() if n not in (7, 500)} == {
        n: path for n, path in paths.items() if n not in (7, 8)
    }
    assert (museum.root / after[7]).read_bytes() == b"replaced"
    assert (museum.root / after[500]).read_bytes() == b"uploaded since"
    assert after[500].endswith(".png")
    assert museum.lines() == {}
    assert museum.facts() == {}
    assert museum.stored("default") == set()
    new = {after[7], after[500]}
    gone = {paths[7], paths[8]} if mode == "in_place" else set()
    assert museum.stored("old") - new == before - gone, "what rows gave up is gone where it was ours"
    for number in (0, 1, 119):
        assert (museum.root / after[number]).read_bytes() == b"content %d" % number


@here
def test_new_files_in_the_same_place_survive_the_sweep(museum: Museum) -> None:
    museum.open()
    museum.lay("media/a", b"a")
    museum.insert({"id": 1, "path": "media/a"})
    about: dict[str, Any] = {"mode": "in_place", "storage": "old"}
    museum.migrate(lambda op: op.adopt_path_column("docs", "path", "file", **about))
    with Session(museum.engine) as session:
        session.add(museum.Doc(id=2, file=Attachment.upload(b"2", storage="old")))
        session.commit()
    museum.migrate(lambda op: op.restore_path_column("docs", "path", "file", **about))
    paths = museum.column("path")
    assert museum.stored("old") == {"media/a", paths[2]}
    museum.files.sweep(museum.engine, grace=timedelta(0), stranger_retain=timedelta(0), full=True)
    assert (museum.root / paths[2]).read_bytes() == b"2"


@here
@pytest.mark.parametrize("prefix", ["https://cdn.example/media", "https://cdn.example/media/", "/media", "media:"])
def test_new_files_are_named_below_the_prefix(museum: Museum, prefix: str) -> None:
    museum.open()
    about: dict[str, Any] = {"root": museum.root, "prefix": prefix}
    with Session(museum.engine) as session:
        session.add(museum.Doc(id=2, file=Attachment.upload(b"2", "a.txt")))
        session.commit()
    museum.migrate(lambda op: op.restore_path_column("docs", "path", "file", **about))
    (path,) = museum.stored("old")
    assert museum.column("path") == {2: f"{prefix}{'/' if prefix.endswith('media') else ''}{path}"}


@here
def test_new_files_without_a_type_survive_in_the_folder_that_is_root_and_place(museum: Museum) -> None:
    museum.open()
    museum.lay("a", b"a")
    museum.insert({"id": 1, "path": "a"})
    about: dict[str, Any] = {"root": museum.root, "storage": "old"}
    museum.migrate(lambda op: op.adopt_path_column("docs", "path", "file", **about))
    with Session(museum.engine) as session:
        session.add(museum.Doc(id=2, file=Attachment.upload(b"2", "README", storage="old")))
        session.commit()
    museum.migrate(lambda op: op.restore_path_column("docs", "path", "file", **about))
    assert [(museum.root / path).read_bytes() for path in museum.column("path").values()] == [b"a", b"2"]


@here
@pytest.mark.parametrize("mode", ["in_place", "copy"])
@pytest.mark.parametrize("value", ["{root}/a", "a", "x/../a"])
def test_what_was_adopted_in_place_stays_however_it_is_named(museum: Museum, value: str, mode: str) -> None:
    museum.open()
    museum.lay("a", b"a")
    (museum.root / "x").mkdir()
    museum.insert({"id": 1, "path": value.format(root=museum.root)})
    about: dict[str, Any] = {"root": museum.root, "storage": "old"}
    museum.migrate(lambda op: op.adopt_path_column("docs", "path", "file", mode="in_place", **about))
    museum.migrate(lambda op: op.restore_path_column("docs", "path", "file", mode=mode, **about))
    assert museum.column("path") == {1: value.format(root=museum.root)}
    assert (museum.root / "a").read_bytes() == b"a"


@here
@pytest.mark.parametrize(
    ("path", "key", "root", "prefix"),
    [
        ("https://cdn.example/my%20%28own%29.txt", "my (own).txt", "", "https://cdn.example/"),
        ("file", "media/file", "media", ""),
    ],
)
def test_what_a_row_gave_up_stays_while_its_old_column_says_it(
    museum: Museum, path: str, key: str, root: str, prefix: str
) -> None:
    museum.open()
    museum.lay(key, b"a")
    museum.insert({"id": 1, "path": path})
    about: dict[str, Any] = {"root": museum.root / root, "prefix": prefix, "mode": "in_place", "storage": "old"}
    museum.migrate(lambda op: op.adopt_path_column("docs", "path", "file", **about))
    with Session(museum.engine) as session:
        session.get_one(museum.Doc, 1).file = None
        session.commit()
    assert museum.files.settled(20)
    museum.migrate(lambda op: op.restore_path_column("docs", "path", "file", **about))
    assert museum.column("path") == {1: path}
    assert (museum.root / key).read_bytes() == b"a"
    assert museum.lines() == {}


@everywhere
@pytest.mark.parametrize(("mode", "options"), MODES)
def test_a_path_that_the_old_application_wrote_since_is_not_lost(
    museum: Museum, mode: str, options: dict[str, Any]
) -> None:
    museum.open()
    for name in ("a", "b"):
        museum.lay(name, name.encode())
    museum.insert({"id": 1, "path": "a"}, {"id": 2, "path": None})
    about: dict[str, Any] = {"root": museum.root, "mode": mode, **options}
    museum.migrate(lambda op: op.adopt_path_column("docs", "path", "file", **about))
    with museum.engine.begin() as connection:
        connection.execute(text("UPDATE docs SET path = 'b' WHERE id = 1"))
    with pytest.raises(AdoptionFailed, match=r"docs\.path says 'b' since it was adopted"):
        museum.migrate(lambda op: op.restore_path_column("docs", "path", "file", **about))
    assert museum.column("path") == {1: "b", 2: None}
    with Session(museum.engine) as session:
        session.get_one(museum.Doc, 1).file = None
        session.commit()
    museum.migrate(lambda op: op.restore_path_column("docs", "path", "file", **about))
    assert museum.column("path") == {1: "b", 2: None}
    assert (museum.root / "b").read_bytes() == b"b"
    assert museum.lines() == {}
    assert museum.stored() == set()


@everywhere
def test_bytes_that_the_old_application_wrote_since_are_not_lost(museum: Museum) -> None:
    museum.open()
    museum.insert({"id": 1, "data": b"one"}, {"id": 2, "data": b"two"}, {"id": 3, "data": b"three"})
    museum.migrate(adopt)
    with Session(museum.engine) as session:  # the new one's own changes are no contradiction
        session.get_one(museum.Doc, 2).file = Attachment.upload(b"new")
        session.commit()
    with museum.engine.begin() as connection:
        connection.execute(museum.docs.update().where(museum.docs.c.id == 1).values(data=b"written since"))
        connection.execute(museum.docs.update().where(museum.docs.c.id == 3).values(data=None))
    with pytest.raises(AdoptionFailed, match=r"docs\.data says other bytes since it was adopted"):
        museum.migrate(restore)
    assert museum.column("data")[1] == b"written since"
    assert museum.migrate(lambda op: restore(op, policy="skip")).counts == {"changed": 1}
    assert museum.column("data") == {1: b"written since", 2: b"new", 3: b"three"}


@everywhere
@pytest.mark.parametrize("kind", ["blob", "path"])
def test_attachments_that_the_new_application_swapped_come_back_swapped(museum: Museum, kind: str) -> None:
    museum.open()
    for name in ("a", "b"):
        museum.lay(name, name.encode())
    rows = ({"id": n, "data": name.encode(), "path": name} for n, name in enumerate("ab"))
    museum.insert(*rows)
    column = "data" if kind == "blob" else "path"
    about: dict[str, Any] = {} if kind == "blob" else {"root": museum.root, "mode": "in_place", "storage": "old"}
    museum.migrate(lambda op: getattr(op, f"adopt_{kind}_column")("docs", column, "file", **about))
    with Session(museum.engine) as session:
        one, other = session.get_one(museum.Doc, 0), session.get_one(museum.Doc, 1)
        one.file, other.file = other.file, one.file
        session.commit()
    museum.migrate(lambda op: getattr(op, f"restore_{kind}_column")("docs", column, "file", **about))
    assert museum.column(column) == ({0: b"b", 1: b"a"} if kind == "blob" else {0: "b", 1: "a"})
    assert museum.stored("old") == {"a", "b"}


@here
def test_a_file_whose_names_were_counted_wrongly_does_not_stop_it(museum: Museum) -> None:
    museum.open()
    for name in ("a", "b"):
        museum.lay(name, name.encode())
    museum.insert({"id": 1, "path": "a"}, {"id": 2, "path": "b"})
    about: dict[str, Any] = {"root": museum.root, "mode": "in_place", "storage": "old"}
    museum.migrate(lambda op: op.adopt_path_column("docs", "path", "file", **about))
    with Session(museum.engine) as session:
        session.delete(session.get_one(museum.Doc, 1))
        session.commit()
    with museum.engine.begin() as connection:  # as where foreign keys that cascade fire no triggers
        connection.execute(text("UPDATE attachment_ledger SET names = 1"))
    assert museum.migrate(lambda op: op.restore_path_column("docs", "path", "file", **about)).rows == 1
    assert museum.column("path") == {2: "b"}
    assert museum.stored("old") == {"a", "b"}


@here
def test_a_path_whose_file_is_gone_is_written_again(museum: Museum) -> None:
    museum.open()
    for name in ("a", "größe/b", "c"):
        museum.lay(name, name.encode())
    museum.insert({"id": 1, "path": "a"}, {"id": 2, "path": "größe/b"}, {"id": 3, "path": "c"})
    museum.migrate(lambda op: op.adopt_path_column("docs", "path", "file", root=museum.root))
    museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    (museum.root / "a").unlink()
    (museum.root / "größe/b").unlink()
    (museum.root / "größe").rmdir()
    museum.lay("c", b"somebody else's")
    report = museum.migrate(lambda op: op.restore_path_column("docs", "path", "file", root=museum.root))
    assert report.rows == 3
    paths = museum.column("path")
    assert (paths[1], paths[2]) == ("a", "größe/b")
    assert [(museum.root / paths[n]).read_text() for n in (1, 2, 3)] == ["a", "größe/b", "c"]
    assert (museum.root / "c").read_bytes() == b"somebody else's"
    assert museum.stored() == set()


@pytest.mark.parametrize("can_do_without", [True, False])
def test_a_path_that_is_written_again_has_no_name_before_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_do_without: bool
) -> None:
    if not can_do_without:
        monkeypatch.delattr(os, "O_TMPFILE")
    seen: list[bool] = []

    def chunks() -> Iterator[bytes]:
        yield b"hel"
        seen.append(any(tmp_path.iterdir()))
        yield b"lo"

    facts = {"size": 5, "sha256": hashlib.sha256(b"hello").hexdigest()}
    folder = Folder(tmp_path)
    assert folder.write("a", facts, chunks)
    assert folder.write("a", facts, chunks), "it is there"
    assert seen == [not can_do_without]
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"hello"]


@here
def test_obstacles_where_a_path_was(museum: Museum) -> None:
    museum.open()
    museum.lay("a/b", b"b")
    museum.lay("c", b"c")
    museum.insert({"id": 1, "path": "a/b"}, {"id": 2, "path": "c"})
    museum.migrate(lambda op: op.adopt_path_column("docs", "path", "file", root=museum.root))
    (museum.root / "a/b").unlink()
    (museum.root / "a").rmdir()
    museum.lay("a", b"a file by now")
    about: dict[str, Any] = {"root": museum.root, "policy": "skip"}
    report = museum.migrate(lambda op: op.restore_path_column("docs", "path", "file", **about))
    assert {each.row[0]: each.kind for each in report.unadopted} == {1: "unreadable"}
    assert set(museum.facts()) == {1}
    assert museum.problems() == []


@pytest.mark.parametrize(
    ("engine", "lax"),
    [("postgres", False), *([("mariadb", False), ("mariadb", True)] if "mariadb" in SERVERS else [])],
    indirect=["engine"],
)
def test_what_the_old_column_is_too_small_for_is_not_lost(museum: Museum, lax: bool) -> None:
    is_maria = museum.engine.dialect.name == "mysql"
    museum.open()
    with museum.engine.begin() as connection:
        change = (
            "ALTER TABLE docs MODIFY path VARCHAR(9)" if is_maria else "ALTER TABLE docs ALTER path TYPE VARCHAR(9)"
        )
        connection.execute(text(change))
        if is_maria:
            connection.execute(text("ALTER TABLE docs MODIFY data TINYBLOB"))
    museum.insert({"id": 1, "data": b"1"}, {"id": 2, "data": b"2"})
    museum.migrate(adopt)
    with Session(museum.engine) as session:
        session.get_one(museum.Doc, 1).file = b"x" * 1000  # type: ignore[assignment]
        session.commit()
    assert museum.files.settled(20)

    def back(op: Any) -> Any:
        if lax:
            op.execute("SET sql_mode = ''")
        blobs = restore(op, policy="skip") if is_maria else None
        return blobs, op.restore_path_column("docs", "path", "file", root=museum.root, policy="skip")

    blobs, paths = museum.migrate(back)
    assert blobs is None or (blobs.rows, blobs.counts) == (1, {"unreadable": 1})
    assert paths.counts == {"unreadable": 1 if is_maria else 2}
    assert set(museum.facts()) == ({1} if is_maria else {1, 2})
    assert museum.problems() == []
    assert list(museum.root.iterdir()) == [], "what was written for them is gone"


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_a_trigger_that_keeps_rows_as_they_are(museum: Museum) -> None:
    museum.open()
    museum.insert({"id": 1, "data": b"1"}, {"id": 2, "data": b"2"}, {"id": 3, "data": b"3"})
    museum.migrate(lambda op: adopt(op, policy="skip"))
    with museum.engine.begin() as connection:
        connection.execute(text("UPDATE docs SET file = NULL WHERE id = 2"))
        connection.execute(
            text(
                "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN IF OLD.id = 3 THEN RETURN NEW; END IF; RETURN NULL; END $$"
            )
        )
        connection.execute(text("CREATE TRIGGER keep BEFORE UPDATE ON docs FOR EACH ROW EXECUTE FUNCTION keep()"))
    lying = museum.stored()
    assert museum.migrate(lambda op: adopt(op, policy="skip")).counts == {"unreadable": 1}
    assert museum.stored() == lying
    report = museum.migrate(lambda op: restore(op, policy="skip"))
    assert (report.rows, report.counts) == (1, {"unreadable": 1})
    assert (museum.folder / "default" / museum.facts()[1]["key"]).read_bytes() == b"1"


@pytest.mark.parametrize("engine", [name for name in ENGINES if name == "mariadb"], indirect=True)
def test_a_time_that_the_database_sets_by_itself_is_as_it_was(museum: Museum) -> None:
    museum.open()
    museum.insert({"id": 1, "data": b"1"}, {"id": 2, "data": b"2"})
    with museum.engine.begin() as connection:
        now = "TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP"
        connection.execute(text(f"ALTER TABLE docs ADD changed {now}"))
        connection.execute(text("UPDATE docs SET changed = '2001-02-03 04:05:06'"))

    def times() -> set[str]:
        with museum.engine.connect() as connection:
            return {str(time) for time in connection.scalars(text("SELECT changed FROM docs"))}

    for work in (adopt, restore):
        assert museum.migrate(work).rows == 2
        assert times() == {"2001-02-03 04:05:06"}


@here
def test_bytes_that_are_lost_or_damaged(museum: Museum) -> None:
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(5)))
    museum.migrate(adopt)
    facts = museum.facts()
    (museum.folder / "default" / facts[1]["key"]).unlink()
    (museum.folder / "default" / facts[2]["key"]).write_bytes(b"x")
    with pytest.raises(AdoptionFailed, match="stopped; what was taken back so far stays"):
        museum.migrate(restore)
    report = museum.migrate(lambda op: restore(op, policy="skip"))
    assert {each.row[0]: each.kind for each in report.unadopted} == {1: "missing", 2: "damaged"}
    assert set(museum.facts()) == {1, 2}
    assert museum.column("data")[3] == b"3"


@here
def test_retained_files_of_the_column_go_too(museum: Museum) -> None:
    museum.files.retain = timedelta(days=30)
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(3)))
    museum.migrate(adopt)
    with Session(museum.engine) as session:
        session.delete(session.get_one(museum.Doc, 1))
        session.commit()
    assert len(museum.stored()) == 3
    museum.migrate(restore)
    assert museum.stored() == set()
    assert museum.lines() == {}


@here
def test_nothing_is_deleted_in_a_place_of_another_database(museum: Museum) -> None:
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(3)))
    museum.migrate(adopt)
    (museum.folder / "default" / ".sa-attachments-place").write_text("somebody else's")
    with pytest.warns(AttachmentWarning, match="belongs to another database"):
        assert museum.migrate(restore).rows == 3
    assert len(museum.stored()) == 3


@here
def test_what_cannot_be_deleted_stops_it_and_is_deleted_the_next_time(
    museum: Museum, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stubborn(MemoryStorage):
        refuses = True

        def delete(self, keys: Any) -> Any:
            return dict.fromkeys(keys, OSError("no")) if self.refuses else super().delete(keys)

    storage = Stubborn()
    museum.files.configure({"default": storage})
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(3)))
    museum.migrate(adopt)
    with pytest.raises(StorageFailed, match="3 files could not be deleted, run it again"):
        museum.migrate(restore)
    storage.refuses = False
    museum.migrate(restore)
    assert list(storage.keys()) == []
    assert museum.lines() == {}


@everywhere
def test_rows_that_change_meanwhile(museum: Museum, monkeypatch: pytest.MonkeyPatch) -> None:
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(3)))
    museum.migrate(adopt)
    original, done = restoring.Restoring._switch, []

    def switch(self: Any, backs: Any) -> Any:
        if not done:
            done.append(True)
            with Session(museum.engine) as session:
                session.get_one(museum.Doc, 1).file = b"replaced"  # type: ignore[assignment]
                session.get_one(museum.Doc, 2).file = None
                session.commit()
            assert museum.files.settled(20)
        return original(self, backs)

    monkeypatch.setattr(restoring.Restoring, "_switch", switch)
    report = museum.migrate(restore)
    assert (report.ok, report.rows) == (True, 2)
    assert museum.column("data") == {0: b"0", 1: b"replaced", 2: b"2"}
    assert museum.facts() == {}
    assert museum.stored() == set()


@here
def test_a_column_that_cannot_be_emptied(museum: Museum) -> None:
    museum.open()
    with museum.engine.begin() as connection:
        connection.execute(text("CREATE TABLE strict (id INTEGER PRIMARY KEY, data BLOB, file JSON NOT NULL)"))
        connection.execute(
            text("CREATE TABLE made (id INTEGER PRIMARY KEY, path TEXT AS ('a'), file JSON, other JSON AS (NULL))")
        )
    with pytest.raises(BadConfiguration, match=r"strict\.file is NOT NULL"):
        museum.migrate(lambda op: op.restore_blob_column("strict", "data", "file"))
    with pytest.raises(BadConfiguration, match=r"made\.other is generated"):
        museum.migrate(lambda op: op.adopt_path_column("made", "path", "other", root=museum.root))
    with pytest.raises(BadConfiguration, match=r"made\.path is generated"):
        museum.migrate(lambda op: op.restore_path_column("made", "path", "file", root=museum.root))


def test_operations_have_their_reverse() -> None:
    operation = AdoptColumn(Plan("docs", "data", "file", Blobs()), None, False)
    assert isinstance(operation.reverse(), RestoreColumn)
    assert isinstance(operation.reverse().reverse(), AdoptColumn)
    assert operation.to_diff_tuple() == ("AdoptColumn", "docs", "data", "file")
    finished = FinishAdoption("docs", "file", None, None, {})
    assert isinstance(finished.reverse(), HoldAdoption)
    assert isinstance(finished.reverse().reverse(), FinishAdoption)
    for kind in ("blob", "path", "depot", "sqlalchemy_file", "advanced_alchemy"):
        assert hasattr(Operations, f"adopt_{kind}_column")
        assert hasattr(Operations, f"restore_{kind}_column")


@here
def test_a_table_in_another_schema(museum: Museum, tmp_path: Path) -> None:
    museum.open()
    other = Table("docs", MetaData(), *(c._copy() for c in museum.docs.c), schema="other")
    plan = Plan("docs", "data", "file", Blobs(), schema="other")
    with museum.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        driver.execute(f"ATTACH DATABASE '{tmp_path}/other.db' AS other")
        other.create(connection)
        connection.execute(other.insert(), [{"id": 1, "data": b"hello"}])
        connection.commit()
        assert adopt_column(connection, museum.files, plan).rows == 1
        assert connection.execute(museum.ledger.lines.select()).one().owner_table == "other.docs"


@here
def test_a_volume_that_is_unmounted_meanwhile_is_not_taken_for_deleted(museum: Museum) -> None:
    museum.open()
    for n in range(150):
        museum.lay(f"{n}.txt", b"%d" % n)
    museum.insert(*({"id": n, "path": f"{n}.txt"} for n in range(150)))
    plan = Plan("docs", "path", "file", Paths(museum.root))
    place, away = museum.folder / "default", museum.folder / "away"

    def unmount(rows: int, total: int) -> None:
        if not away.exists():
            place.rename(away)
            place.mkdir()

    with museum.engine.connect() as connection:
        assert adopt_column(connection, museum.files, plan).ok
        with pytest.raises(StorageFailed, match="is its volume mounted"):
            restore_column(connection, museum.files, plan, unmount)
        place.rmdir()
        away.rename(place)
        assert len(museum.lines()) == len(museum.stored()) == 50
        assert restore_column(connection, museum.files, plan).ok
    assert (museum.lines(), museum.stored()) == ({}, set())
