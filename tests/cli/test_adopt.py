from __future__ import annotations

import json

import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, text

from sa_attachments import AttachmentType

from .shop import AT_ONCE, Shop


@pytest.fixture
def old(shop: Shop) -> Shop:
    """A shop with a table from before."""
    blob, document = ("BYTEA", "JSONB") if shop.engine.dialect.name == "postgresql" else ("BLOB", "JSON")
    shop.execute(
        f"CREATE TABLE docs (id INTEGER PRIMARY KEY, data {blob}, name VARCHAR(50), path TEXT, file {document})"
    )
    root = shop.folder / "media"
    root.mkdir()
    with shop.engine.begin() as connection:
        for number in range(3):
            (root / f"{number}.txt").write_bytes(b"content %d" % number)
            connection.execute(
                text("INSERT INTO docs (id, data, name, path) VALUES (:n, :d, :name, :path)"),
                {"n": number, "d": b"%d" % number, "name": f"n{number}.txt", "path": f"{number}.txt"},
            )
    return shop


def files(shop: Shop) -> int:
    return len([path for path in (shop.folder / "files").rglob("*") if path.is_file() and path.name[0] != "."])


def test_adopts_and_takes_back(old: Shop) -> None:
    result = old.run("adopt", "blob", "docs", "data", "file", "--filename", "name")
    assert (result.exit_code, result.stdout) == (0, "3 rows, 3 files, 3 bytes\n")
    assert files(old) == 3
    report = old.json("adopt", "blob", "docs", "data", "file", "--reverse")
    assert report["ok"]
    assert (report["rows"], report["files"]) == (3, 3)
    assert files(old) == 0


def test_adopts_paths_and_finishes(old: Shop) -> None:
    arguments = ["docs", "path", "file", "--root", str(old.folder / "media"), "--mode", "link"]
    assert old.json("adopt", "path", *arguments)["rows"] == 3
    old.execute("UPDATE attachment_ledger SET state = 'condemned', purge_after = 0")
    assert old.json("sweep", *AT_ONCE)["ok"]
    assert files(old) == 3
    assert old.json("adopt", "finish", "docs", "file")["files"] == 3
    assert old.json("sweep", *AT_ONCE)["ok"]
    assert files(old) == 0
    assert old.json("adopt", "hold", "docs", "file")["files"] == 3


def test_tells_what_could_not_be_adopted(old: Shop) -> None:
    old.execute("UPDATE docs SET path = '../secret' WHERE id = 1")
    arguments = ["path", "docs", "path", "file", "--root", "media"]
    result = old.run("adopt", *arguments)
    assert result.exit_code == 1
    assert "nothing was changed" in result.stdout
    assert result.stdout.strip().endswith("or say by policy= (--policy) what becomes of them: 'skip' leaves them alone")
    report = old.json("adopt", *arguments, exit_code=1)
    assert (report["ok"], report["counts"]) == (False, {"outside": 1})
    assert "nothing was changed" in report["error"]
    result = old.run("adopt", *arguments, "--policy", "skip", "--report", "left.jsonl")
    assert result.exit_code == 1
    assert result.stdout.startswith("2 rows, 2 files, 18 bytes; 1 row not adopted: 1 outside\nleft alone: row (1,): ")
    (line,) = (old.folder / "left.jsonl").read_text().splitlines()
    assert json.loads(line)["value"] == "../secret"


def test_adopts_what_a_library_wrote(old: Shop) -> None:
    old.lose(b"theirs").rename(old.folder / "files" / "7")
    value = {"depot_name": "attic", "file_id": "7", "path": "attic/7", "files": ["attic/7"], "filename": "a.txt"}
    with old.engine.begin() as connection:
        connection.execute(text("UPDATE docs SET path = :p WHERE id = 1"), {"p": json.dumps(value)})
        connection.execute(text("UPDATE docs SET path = NULL WHERE id <> 1"))
    assert old.json("adopt", "depot", "docs", "path", "file", "--map", "attic=photos")["rows"] == 1
    assert [line["files"] for line in old.json("stats")["stats"] if line["state"] == "owned"] == [1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["blob", "docks", "data", "file"], "there is no table 'docks'"),
        (["blob", "docs", "file"], "blob takes TABLE SOURCE INTO"),
        (["finish", "docs", "data", "file"], "finish takes TABLE INTO"),
        (["blobs", "docs", "data", "file"], "'blobs' is not one of"),
        (["depot", "docs", "path", "file", "--map", "x"], "'x' maps nothing"),
        (["path", "docs", "path", "file"], "needs the root"),
        (["blob", "docs", "data", "file", "--policy", "null"], "name a file for the report"),
        (["blob", "docs", "data", "file", "--storage", "s3"], "there is no storage 's3'"),
    ],
)
def test_mistakes(old: Shop, arguments: list[str], said: str) -> None:
    result = old.run("adopt", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


@pytest.mark.parametrize("shop", ["postgres"], indirect=True)
def test_of_several_ledgers_it_is_the_one_beside_the_table(shop: Shop) -> None:
    shop.execute("CREATE SCHEMA other")
    docs = Table(
        "docs",
        MetaData(schema="other"),
        Column("id", Integer, primary_key=True),
        Column("data", LargeBinary),
        Column("file", AttachmentType(shop.module.files)),
    )
    docs.metadata.create_all(shop.engine)
    shop.execute("INSERT INTO other.docs (id, data) VALUES (1, 'abc')")
    assert shop.json("adopt", "blob", "docs", "data", "file", "--schema", "other")["rows"] == 1
    with shop.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM other.attachment_ledger")) == 1
