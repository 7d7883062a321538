"""Bytes in a column become attachments, by migration; what is wrong is said before anything is changed."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Column, Engine, inspect, text, update
from sqlalchemy.orm import Session

from sa_attachments import (
    AdoptionFailed,
    BadConfiguration,
    LedgerMissing,
    NoTransaction,
    StorageFailed,
    UnknownStorage,
)
from sa_attachments.adoption import Blobs, Plan, adopt
from sa_attachments.adoption import adopting as adopting_module
from sa_attachments.adoption.rows import Rows
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty
from tests.engines import ENGINES

from .museum import Museum

here = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
SERVERS = [name for name in ENGINES if name in ("sqlite", "postgres", "mariadb")]


@pytest.fixture
def museum(engine: Engine, tmp_path: Path) -> Museum:
    return Museum(engine, tmp_path)


def png(number: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"%d" % number * number


def test_blobs_become_attachments(museum: Museum) -> None:
    museum.open(file=False)
    museum.insert(*({"id": n, "data": png(n), "name": f"bild {n}.png", "kind": "text/html"} for n in range(250)))
    museum.insert({"id": 900, "data": None, "name": "none"}, {"id": 901, "data": b"", "name": None})
    report = museum.migrate(
        lambda op: op.adopt_blob_column("docs", "data", "file", filename="name", content_type="kind", create=True)
    )
    assert report.ok
    assert (report.rows, report.files, report.size) == (251, 251, sum(len(png(n)) for n in range(250)))
    facts = museum.facts()
    assert 900 not in facts
    assert museum.problems() == []
    for number in range(250):
        assert facts[number]["sha256"] == hashlib.sha256(png(number)).hexdigest()
        assert facts[number]["filename"] == f"bild {number}.png"
        assert (facts[number]["content_type"], facts[number]["claimed_content_type"]) == ("image/png", "text/html")
    assert (facts[901]["size"], facts[901]["filename"]) == (0, "unnamed")
    assert set(museum.lines().values()) == {("owned", False)}
    with Session(museum.engine) as session:
        doc = session.get_one(museum.Doc, 7)
        assert doc.file is not None
        assert doc.file.read() == png(7)
        doc.file = None
        session.commit()
    assert museum.sweep().ok
    assert museum.problems() == []
    assert len(museum.stored()) == 250


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_an_adoption_in_a_batch_and_one_that_is_done_again(museum: Museum) -> None:
    museum.open(file=False)
    museum.insert({"id": 1, "data": b"hello"})

    def upgrade(op: Any) -> Any:
        with op.batch_alter_table("docs") as batch_op:
            return batch_op.adopt_blob_column("data", "file", create=True)

    assert museum.migrate(upgrade).rows == 1
    assert museum.migrate(upgrade).rows == 0
    assert museum.problems() == []


@here
def test_a_batch_does_what_was_said_before_the_adoption_first(museum: Museum) -> None:
    museum.open(file=False)
    museum.insert({"id": 1, "data": b"hello"})

    def upgrade(op: Any) -> Any:
        with op.batch_alter_table("docs") as batch_op:
            batch_op.add_column(Column("file", JSON()))
            batch_op.create_attachment_triggers(["file", "pages"])
            done = batch_op.adopt_blob_column("data", "file")
            batch_op.drop_column("data")
        return done

    assert museum.migrate(upgrade).rows == 1
    assert museum.problems() == []
    with museum.engine.connect() as connection:
        assert {column["name"] for column in inspect(connection).get_columns("docs")} >= {"file", "pages"}
        names = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars().all()
    assert len(names) == len(set(names)) > 2


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_large_and_many_blobs_go_by_in_small_groups(museum: Museum, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopting_module, "MEMORY", 1000)
    monkeypatch.setattr("sa_attachments.adoption.rows.SLICE", 300)
    museum.open()
    sizes = [0, 1, 299, 300, 301, 900, 999, 1000, 1001, 5000, 20, 30]
    museum.insert(*({"id": n, "data": bytes([n]) * size} for n, size in enumerate(sizes)))
    assert museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file")).rows == len(sizes)
    assert museum.problems() == []
    assert [facts["size"] for facts in museum.facts().values()] == sizes


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_composite_keys_and_urls_given_to_the_operation(museum: Museum) -> None:
    museum.metadata.create_all(museum.engine)
    with museum.engine.begin() as connection:
        kind = {"sqlite": ("BLOB", "JSON"), "postgresql": ("BYTEA", "JSON")}.get(
            museum.engine.dialect.name, ("LONGBLOB", "JSON")
        )
        connection.execute(
            text(f"CREATE TABLE pairs (a VARCHAR(20), b INTEGER, data {kind[0]}, file {kind[1]}, PRIMARY KEY (a, b))")
        )
        rows = [{"a": f"a{n % 7}", "b": n, "d": b"%d" % n} for n in range(230)]
        connection.execute(text("INSERT INTO pairs (a, b, data) VALUES (:a, :b, :d)"), rows)
    url = f"local:{museum.folder}/elsewhere?durable=false"
    report = museum.migrate(
        lambda op: op.adopt_blob_column("pairs", "data", "file", files=url), attachment_storages=None
    )
    assert report.rows == 230
    with museum.engine.connect() as connection:
        for data, facts in connection.execute(text("SELECT data, file FROM pairs")):
            said = facts if isinstance(facts, dict) else json.loads(facts)
            assert (museum.folder / "elsewhere" / said["key"]).read_bytes() == bytes(data)


@pytest.mark.parametrize("engine", [name for name in SERVERS if name != "sqlite"], indirect=True)
@pytest.mark.parametrize("key", ["kind, id", "id, kind"])
def test_keys_that_the_database_sorts_in_an_order_of_their_own(museum: Museum, key: str) -> None:
    """MariaDB sorts an ENUM by the number of its value, and compares it by its text."""
    museum.metadata.create_all(museum.engine)
    postgres = museum.engine.dialect.name == "postgresql"
    kind = "mood" if postgres else "ENUM('zebra', 'Ape', 'monkey', 'ape') COLLATE utf8mb4_bin"
    types = "data BYTEA, file JSONB" if postgres else "data LONGBLOB, file JSON"
    rows = [{"k": k, "n": n, "d": b"%d" % n} for k in ("zebra", "monkey", "ape", "Ape") for n in range(120)]
    del rows[0]  # so that a page ends between rows of one id
    with museum.engine.begin() as connection:
        if postgres:
            connection.execute(text("CREATE TYPE mood AS ENUM ('zebra', 'Ape', 'monkey', 'ape')"))
        connection.execute(text(f"CREATE TABLE beasts (kind {kind}, id INTEGER, {types}, PRIMARY KEY ({key}))"))
        bound = "CAST(:k AS mood)" if postgres else ":k"
        connection.execute(text(f"INSERT INTO beasts (kind, id, data) VALUES ({bound}, :n, :d)"), rows)
    for verb in ("adopt", "restore"):
        report = museum.migrate(lambda op, v=verb: getattr(op, f"{v}_blob_column")("beasts", "data", "file"))
        assert (report.ok, report.rows) == (True, 479)
    with museum.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM beasts WHERE file IS NULL AND data IS NOT NULL")) == 479
    assert (museum.lines(), museum.stored()) == ({}, set())


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
@pytest.mark.parametrize("when", ["before", "meanwhile", "after"])
def test_keys_that_rows_of_an_inheriting_table_have_too(
    museum: Museum, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """One row's file would be written into two."""
    museum.open()
    museum.insert(*({"id": n, "data": b"parent %d" % n} for n in range(120)))
    with museum.engine.begin() as connection:
        connection.execute(text("CREATE TABLE old_docs (PRIMARY KEY (id)) INHERITS (docs)"))
        connection.execute(text("INSERT INTO old_docs (id, data) VALUES (1000, 'child 1000')"))

    def repeat() -> None:
        with museum.engine.begin() as connection:
            connection.execute(text("INSERT INTO old_docs (id, data) VALUES (99, 'child 99')"))

    if when == "after":
        assert museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file")).rows == 121
        assert museum.problems() == []
    if when == "meanwhile":
        _while_adopting(museum, monkeypatch, repeat)
    else:
        repeat()
    verb = "restore" if when == "after" else "adopt"
    with pytest.raises(BadConfiguration, match=r"several rows of table 'docs' have the primary key \(99,\)"):
        museum.migrate(lambda op: getattr(op, f"{verb}_blob_column")("docs", "data", "file"))
    assert museum.stored() == {key for _, key in museum.lines()}
    with museum.engine.connect() as connection:
        held = {row.file["key"]: row.data for row in connection.execute(museum.docs.select()) if row.file}
    assert len(held) == len(museum.lines()) == (121 if when == "after" else 0)
    assert all((museum.folder / "default" / key).read_bytes() == data for key, data in held.items())


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
@pytest.mark.parametrize("verb", ["adopt", "restore"])
def test_keys_that_can_t_be_compared_with_what_is_read_are_refused(museum: Museum, verb: str) -> None:
    museum.open()
    with museum.engine.begin() as connection:
        connection.execute(text("CREATE TABLE prices (id MONEY PRIMARY KEY, data BYTEA, file JSONB)"))
        connection.execute(text("INSERT INTO prices (id, data) VALUES ('1.50', 'x')"))
    with pytest.raises(BadConfiguration, match=r"prices\.id is MONEY: no primary key to know rows by"):
        museum.migrate(lambda op: getattr(op, f"{verb}_blob_column")("prices", "data", "file"))


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_partitions_are_one_table(museum: Museum) -> None:
    museum.metadata.create_all(museum.engine)
    with museum.engine.begin() as connection:
        columns = "id INTEGER, year INTEGER, data BYTEA, file JSONB, PRIMARY KEY (id, year)"
        connection.execute(text(f"CREATE TABLE parts ({columns}) PARTITION BY RANGE (year)"))
        connection.execute(text("CREATE TABLE parts_2024 PARTITION OF parts FOR VALUES FROM (2024) TO (2025)"))
        connection.execute(text("CREATE TABLE parts_rest PARTITION OF parts DEFAULT"))
        values = [{"n": n, "y": 2024 + n % 3} for n in range(230)]
        connection.execute(text("INSERT INTO parts VALUES (:n, :y, 'x')"), values)
    for verb in ("adopt", "restore"):
        report = museum.migrate(lambda op, v=verb: getattr(op, f"{v}_blob_column")("parts", "data", "file"))
        assert (report.ok, report.rows) == (True, 230)


@here
@pytest.mark.parametrize("ever", [True, False])
def test_rows_that_reading_passes_over_are_met_again_or_stop_it(
    museum: Museum, monkeypatch: pytest.MonkeyPatch, ever: bool
) -> None:
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(8)))
    page, adopted = Rows.page, Rows.adopted
    seen: list[int] = []

    def is_met(number: int) -> bool:
        seen.append(number)
        return number < 6 or (ever and seen.count(number) > 2)

    def some_of(*arguments: Any) -> Any:
        return [row for row in page(*arguments) if is_met(row.identity[0])]

    def some_adopted(*arguments: Any) -> Any:
        return [row for row in adopted(*arguments) if is_met(row[0][0])]

    monkeypatch.setattr(Rows, "page", some_of)
    if ever:
        assert museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file")).rows == 8
    else:
        with pytest.raises(AdoptionFailed, match="2 rows still left, that reading by the primary key") as no:
            museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"))
        assert no.value.report.rows == 6
        monkeypatch.setattr(Rows, "page", page)
        assert museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file")).rows == 2
    seen.clear()
    monkeypatch.setattr(Rows, "adopted", some_adopted)
    if ever:
        assert museum.migrate(lambda op: op.restore_blob_column("docs", "data", "file")).rows == 8
    else:
        with pytest.raises(AdoptionFailed, match="2 rows still left"):
            museum.migrate(lambda op: op.restore_blob_column("docs", "data", "file"))
        assert sorted(museum.facts()) == [6, 7]


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
@pytest.mark.parametrize(
    ("arguments", "options", "error", "said"),
    [
        (("docks", "data", "file"), {}, BadConfiguration, "there is no table 'docks'; there are .*'docs'"),
        (("docs", "date", "file"), {}, BadConfiguration, "no column 'date'; it has .*'data'"),
        (("docs", "data", "fail"), {}, BadConfiguration, "no column 'fail'"),
        (("docs", "data", "file"), {"filename": "nam"}, BadConfiguration, "no column 'nam'"),
        (("docs", "data", "file"), {"storage": "s3"}, UnknownStorage, "there is no storage 's3'"),
        (("docs", "data", "file"), {"policy": "maybe"}, BadConfiguration, "policy 'maybe'"),
        (("docs", "data", "file"), {"policy": "null"}, BadConfiguration, "name a file for the report"),
        (("docs", "data", "file"), {"report": "/dev/null/left"}, BadConfiguration, "no report can be written"),
        (("docs", "data", "data"), {}, BadConfiguration, "into itself"),
        (("docs", "data", "file"), {"files": 42}, BadConfiguration, "int names no storages"),
        (("docs", "data", "file"), {"ledger_schema": "main2"}, (LedgerMissing, Exception), "main2"),
    ],
)
def test_mistakes_are_said_before_anything_is_changed(
    museum: Museum, arguments: Any, options: Any, error: Any, said: str
) -> None:
    museum.open()
    museum.insert({"id": 1, "data": b"hello"})
    with pytest.raises(error, match=said):
        museum.migrate(lambda op: op.adopt_blob_column(*arguments, **options))
    assert museum.facts() == {}
    assert museum.lines() == {}
    assert museum.stored() == set()


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_columns_of_another_kind_are_refused(museum: Museum) -> None:
    museum.open()
    for source, into, said in (("path", "file", "expected a column of bytes"), ("data", "name", "expected JSON")):
        with pytest.raises(BadConfiguration, match=said):
            museum.migrate(lambda op, source=source, into=into: op.adopt_blob_column("docs", source, into))
    with pytest.raises(BadConfiguration, match="expected a column of text"):
        museum.migrate(lambda op: op.adopt_path_column("docs", "data", "file", root=museum.root))


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
@pytest.mark.parametrize(
    "held",
    [
        {"anything": 1},
        {
            "v": 1,
            "storage": "default",
            "key": "2026/x",
            "filename": "",
            "content_type": "",
            "size": 1,
            "sha256": "",
            "stored_at": "",
        },
    ],
)
def test_a_column_that_is_not_empty_is_refused(museum: Museum, held: Any) -> None:
    museum.open()
    museum.insert({"id": 1, "data": b"hello", "file": None}, {"id": 2, "data": b"hello", "file": held})
    with pytest.raises(BadConfiguration, match=r"docs.file is not empty: row \(2,\)"):
        museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"))
    assert set(museum.facts()) == {2}
    assert museum.stored() == set()


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_without_storages_or_ledger(museum: Museum) -> None:
    museum.docs.create(museum.engine)
    with pytest.raises(BadConfiguration, match="attachment_storages"):
        museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"), attachment_storages=None)
    with pytest.raises(LedgerMissing):
        museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"))


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_a_transaction_of_somebody_else_is_not_committed(museum: Museum) -> None:
    museum.open()
    museum.insert({"id": 1, "data": b"hello"})
    with museum.engine.connect() as connection, connection.begin() as transaction:
        connection.execute(museum.docs.delete())
        with pytest.raises(NoTransaction):
            adopt(connection, museum.files, Plan("docs", "data", "file", Blobs()))
        transaction.rollback()
    assert museum.column("data") == {1: b"hello"}


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_a_storage_that_fails_stops_it_whatever_the_policy(museum: Museum) -> None:
    class Full(MemoryStorage):
        def put(self, key: str, *arguments: Any, **options: Any) -> None:
            if not key.startswith(".") and len(list(self.keys())) > 40:
                raise OSError("no space left")
            super().put(key, *arguments, **options)

    full = Full()
    museum.files.configure({"default": full})
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(250)))
    with pytest.raises(StorageFailed, match="no space left"):
        museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file", policy="skip"))
    assert len(list(full.keys())) == len(museum.facts()) == len(museum.lines())


def _while_adopting(museum: Museum, monkeypatch: pytest.MonkeyPatch, work: Any) -> None:
    """Do something, once, between reading rows and writing them."""
    original = adopting_module.Adopting._switch
    done: list[bool] = []

    def switch(self: Any, made: Any) -> Any:
        if not done:
            done.append(True)
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(30)
        return original(self, made)

    monkeypatch.setattr(adopting_module.Adopting, "_switch", switch)


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_rows_that_change_meanwhile(museum: Museum, monkeypatch: pytest.MonkeyPatch) -> None:
    museum.open()
    museum.insert(*({"id": n, "data": b"old %d" % n} for n in range(5)))

    def users() -> None:
        with museum.engine.begin() as connection:
            connection.execute(update(museum.docs).where(museum.docs.c.id == 1).values(data=b"new 1"))
            connection.execute(museum.docs.delete().where(museum.docs.c.id == 2))
        with Session(museum.engine) as session:
            session.get_one(museum.Doc, 3).file = b"written by the application"  # type: ignore[assignment]
            session.commit()

    _while_adopting(museum, monkeypatch, users)
    report = museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"))
    assert (report.ok, report.rows) == (True, 3)
    assert museum.problems() == []
    read = {n: (museum.folder / "default" / facts["key"]).read_bytes() for n, facts in museum.facts().items()}
    assert read == {0: b"old 0", 1: b"new 1", 3: b"written by the application", 4: b"old 4"}


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_rows_that_lose_their_blob_before_it_is_read(museum: Museum, monkeypatch: pytest.MonkeyPatch) -> None:
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(5)))
    original = Rows.blobs

    def blobs(self: Any, connection: Any, identities: Any) -> Any:
        connection.execute(museum.docs.delete().where(museum.docs.c.id == 1))
        connection.execute(update(museum.docs).where(museum.docs.c.id == 2).values(data=None))
        return original(self, connection, identities)

    monkeypatch.setattr(Rows, "blobs", blobs)
    report = museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"))
    assert (report.ok, report.rows) == (True, 3)
    assert museum.problems() == []


@pytest.mark.parametrize("engine", [name for name in SERVERS if name != "sqlite"], indirect=True)
def test_rows_that_are_replaced_while_it_looks(museum: Museum, monkeypatch: pytest.MonkeyPatch) -> None:
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(5)))
    museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"))
    museum.insert({"id": 5, "data": b"5"})
    original = Rows.adopted

    def adopted(self: Any, *arguments: Any) -> Any:
        found = original(self, *arguments)
        with Session(museum.engine) as session:
            session.get_one(museum.Doc, 3).file = b"replaced"  # type: ignore[assignment]
            session.commit()
        assert museum.files.settled(20)
        return found

    monkeypatch.setattr(Rows, "adopted", adopted)
    assert museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file")).rows == 1
    assert museum.problems() == []


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_keys_that_are_not_what_their_type_says(museum: Museum) -> None:
    museum.open()
    with museum.engine.begin() as connection:
        for kind, values in (("DATETIME", "('yesterday'), ('2026-01-01')"), ("BOOLEAN", "(2), (1)"), ("UUID", "('a')")):
            connection.execute(text(f"CREATE TABLE {kind} (id {kind} PRIMARY KEY, data BLOB DEFAULT x'00', file JSON)"))
            connection.execute(text(f"INSERT INTO {kind} (id) VALUES {values}"))
        connection.execute(text("CREATE TABLE keyless (id TEXT PRIMARY KEY, data BLOB, file JSON)"))
        connection.execute(text("INSERT INTO keyless VALUES ('a', x'00', NULL), (NULL, x'00', NULL)"))
        connection.execute(text("CREATE TABLE raw (id TEXT PRIMARY KEY, data BLOB, file JSON)"))
        connection.execute(text("INSERT INTO raw VALUES (CAST(x'FF41' AS TEXT), x'00', NULL)"))
    for kind, rows in (("DATETIME", 2), ("BOOLEAN", 2), ("UUID", 1)):
        for verb in ("adopt", "restore"):
            report = museum.migrate(lambda op, k=kind, v=verb: getattr(op, f"{v}_blob_column")(k, "data", "file"))
            assert report.rows == rows
    with pytest.raises(BadConfiguration, match=r"the primary key \(None,\) of table 'keyless' does not lead back"):
        museum.migrate(lambda op: op.adopt_blob_column("keyless", "data", "file"))
    with pytest.raises(BadConfiguration, match="of table 'raw' does not lead back"):
        museum.migrate(lambda op: op.adopt_blob_column("raw", "data", "file"))
    assert museum.stored() == set()


@pytest.mark.parametrize("engine", [name for name in SERVERS if name != "sqlite"], indirect=True)
def test_rows_that_somebody_holds(museum: Museum, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sa_attachments.rows._TRIES", 2)
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(5)))
    with museum.engine.connect() as other, other.begin():
        other.execute(update(museum.docs).where(museum.docs.c.id == 3).values(name="mine"))
        with pytest.raises(AdoptionFailed, match="somebody held or changed it") as caught:
            museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"))
        assert caught.value.report.counts == {"overtaken": 1}
        left = museum.folder / "left.jsonl"
        report = museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file", policy="null", report=left))
    assert dict(report.counts) == {"overtaken": 1}
    assert museum.column("data")[3] == b"3", "what is only held is never emptied"
    assert len(museum.facts()) == 4
    assert museum.problems() == []
    assert museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file")).rows == 1


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_what_is_no_blob_is_reported(museum: Museum, tmp_path: Path) -> None:
    museum.open()
    museum.insert({"id": 1, "data": b"hello"})
    with museum.engine.begin() as connection:
        connection.execute(text("INSERT INTO docs (id, data) VALUES (2, 'a text')"))
    report = museum.migrate(
        lambda op: op.adopt_blob_column("docs", "data", "file", policy="skip", report=tmp_path / "left.jsonl")
    )
    assert (report.rows, dict(report.counts)) == (1, {"unreadable": 1})
    museum.migrate(
        lambda op: op.adopt_blob_column("docs", "data", "file", policy="null", report=tmp_path / "emptied.jsonl")
    )
    assert museum.column("data")[2] is None
    for name in ("left.jsonl", "emptied.jsonl"):
        (line,) = (tmp_path / name).read_text().splitlines()
        assert {name: json.loads(line)[name] for name in ("row", "kind", "value")} == {
            "row": [2],
            "kind": "unreadable",
            "value": "a text",
        }


@here
def test_what_stopped_it_is_told_even_if_its_copies_can_t_be_deleted(
    museum: Museum, caplog: pytest.LogCaptureFixture
) -> None:
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(3)))
    full = Faulty(MemoryStorage())
    full.fail("put", 4, OSError("disk full")).fail("delete", error=OSError("not now"))  # the first is the marker
    museum.files.configure(full)
    with pytest.raises(StorageFailed, match="disk full"):
        museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"))
    assert caplog.text.count("a sweep finds it: storage 'default' failed to delete: OSError: not now") >= 2
    full.heal()
    assert museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file")).rows == 3
