"""Bad input, end to end: whatever a client calls a file is data, and never a path, a key, a header or an error."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from starlette.datastructures import UploadFile
from werkzeug.datastructures import FileStorage

from sa_attachments import Attachment, BadSource
from sa_attachments.filename import MAX_BYTES, clean
from sa_attachments.key import is_key
from sa_attachments.places import MARKER
from sa_attachments.storages.local import LocalStorage
from tests.archive import DIALECTS, Archive

on = pytest.mark.parametrize


@on("metadata", [{"a": "x\0"}, {"a\0": 1}, {"a": [{"b": "\ud800"}]}], ids=["NUL", "NUL in a name", "half a pair"])
def test_metadata_that_no_database_keeps_is_refused_at_once(metadata: dict[str, Any]) -> None:
    with pytest.raises(BadSource, match="no database keeps it"):
        Attachment.upload(b"x", metadata=metadata)
    with pytest.raises(BadSource, match="no database keeps it"):
        Attachment.upload(b"x").replace(metadata=metadata)
    assert Attachment.upload(b"x", metadata={"a": "\\u0000 \U0001f600"}).metadata["a"] == "\\u0000 \U0001f600"


HOSTILE = {
    "up": "../../etc/passwd",
    "far up": "../" * 200 + "etc/shadow",
    "absolute": "/etc/passwd",
    "backslashes": "..\\..\\boot.ini",
    "drive": "C:\\Windows\\System32\\cmd.exe",
    "share": "\\\\server\\share\\a.txt",
    "NUL": "cv.pdf\0.exe",
    "only NUL": "\0",
    "CR and LF": 'a.txt\r\nContent-Type: text/html\r\n\r\n<script>alert(1)</script>"',
    "4,096 characters": "x" * 4096 + ".txt",
    "4,096 wide characters": "漢" * 4096 + ".pdf",
    "a long extension": "a." + "x" * 253,
    "right to left": "photo\u202egpj.exe",
    "isolates": "\u2066\u2069\u200f.txt",
    "device": "CON",
    "device with extension": "nul.txt",
    "numbered device": "COM1.tar.gz",
    "stream": "a.txt:hidden",
    "empty": "",
    "blank": "  \t ",
    "dot": ".",
    "dots": "..",
    "hidden": ".htaccess",
    "marker": MARKER,
    "our folder": ".unfinished",
    "quotes": "a'; DROP TABLE docs; --\".txt",
    "JSON": '{"key": "k"}',
    "percent": "%2e%2e%2fetc%2fpasswd %s %(x)s {0}",
    "lone surrogate": "half\ud800.txt",
    "decomposed": "u\u0308ber.txt",
    "emoji": "👩‍👩‍👧.png",
    "shell": "$(reboot).`id`.txt",
    "dash": "-rf",
}


def uploads(name: str) -> list[Any]:
    return [
        Attachment.upload(b"data", name),
        UploadFile(io.BytesIO(b"data"), filename=name),
        FileStorage(io.BytesIO(b"data"), filename=name),
    ]


@pytest.fixture
def archive(engine: Engine, tmp_path: Path) -> Archive:
    return Archive(engine, {"default": LocalStorage(tmp_path / "files", durable=False)})


@on("engine", DIALECTS, indirect=True)
def test_a_hostile_name_is_kept_as_a_clean_display_name_and_never_in_a_key(archive: Archive, tmp_path: Path) -> None:
    expected = []
    with archive.session() as session:
        for name in HOSTILE.values():
            for each in uploads(name):
                session.add(archive.Doc(file=each))
                expected.append(clean(name))
        session.commit()
    with archive.session() as session:
        files = session.scalars(select(archive.Doc.file).order_by(archive.Doc.id)).all()
        assert [file.filename for file in files] == expected  # type: ignore[union-attr]
        for file in files:
            assert file is not None
            assert is_key(file.key)
            assert file.read() == b"data"
            assert file.filename.replace("\u200c", "").replace("\u200d", "").isprintable()
            assert 0 < len(file.filename.encode()) <= MAX_BYTES
            assert json.loads(file.to_json())["filename"] == file.filename
        (same,) = session.scalars(
            select(archive.Doc.id).where(archive.Doc.file.filename == clean(HOSTILE["quotes"]))
        ).all()[:1]
        assert same
    keys = {file.key for file in files if file is not None}
    root = tmp_path / "files"
    assert {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} == keys | {MARKER}
    assert {path.name for path in root.iterdir()} == {MARKER, *(key.split("/")[0] for key in keys)}
    assert archive.files.verify(archive.engine).ok


@on("engine", ["sqlite"], indirect=True)
@on("name", HOSTILE)
def test_a_hostile_name_can_be_downloaded_under(engine: Engine, name: str, tmp_path: Path) -> None:
    archive = Archive(engine)
    stored = archive.files.stage(Attachment.upload(b"data", HOSTILE[name]))
    with stored.path() as path:
        assert path.read_bytes() == b"data"
        assert path.name.startswith("file")
    stored.save_to(tmp_path / stored.filename)
    assert (tmp_path / stored.filename).read_bytes() == b"data"
    assert (tmp_path / stored.filename).parent == tmp_path


@on("engine", DIALECTS, indirect=True)
def test_a_renamed_file_is_cleaned_too(archive: Archive) -> None:
    (id_,) = archive.keep(b"data")
    for name in HOSTILE.values():
        with archive.session() as session:
            doc = session.get_one(archive.Doc, id_)
            assert doc.file is not None
            doc.file = doc.file.replace(filename=name)
            session.commit()
            assert doc.file.filename == clean(name)
    assert archive.states() == {archive.key(id_): "owned"}


CLAIMS = [
    "text/html\0",
    "a/b\r\nSet-Cookie: c=d",
    "x" * 100_000,
    "\ud800",
    "",
    "image/png; charset=\u202e",
    "';--",
    "{}",
]


@on("engine", DIALECTS, indirect=True)
def test_a_hostile_content_type_is_kept_as_a_harmless_claim(archive: Archive) -> None:
    with archive.session() as session:
        for claim in CLAIMS:
            session.add(archive.Doc(file=Attachment.upload(b"data", content_type=claim)))
        session.commit()
        session.expire_all()
        for doc in session.scalars(select(archive.Doc)):
            assert doc.file is not None
            assert doc.file.content_type == "text/plain"
            assert doc.file.claimed_content_type is None or doc.file.claimed_content_type.isprintable()
            assert len(doc.file.claimed_content_type or "") <= 255
