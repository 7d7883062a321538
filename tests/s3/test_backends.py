"""One application, whose files are on every backend: nothing but the URL is another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from sa_attachments import Attachment
from sa_attachments.storage import Heals
from tests.faults.site import Site
from tests.seaweed import ACCESS_KEY, SECRET_KEY

Configuration = dict[str, str]


def local(request: pytest.FixtureRequest, folder: Path) -> Configuration:
    return {"default": f"local:{folder}/files"}


def memory(request: pytest.FixtureRequest, folder: Path) -> Configuration:
    return {"default": "memory:"}


def database(request: pytest.FixtureRequest, folder: Path) -> Configuration:
    return {"default": f"db:sqlite:///{folder}/files.db?create=true&piece_size=1"}


def s3(request: pytest.FixtureRequest, folder: Path) -> Configuration:
    endpoint, bucket = request.getfixturevalue("seaweed").endpoint, request.getfixturevalue("bucket")
    credentials = f"access_key_id={ACCESS_KEY}&secret_access_key={SECRET_KEY}"
    return {"default": f"s3://{bucket}/{uuid4().hex}?endpoint_url={endpoint}&{credentials}"}


def gridfs(request: pytest.FixtureRequest, folder: Path) -> Configuration:
    pytest.importorskip("pymongo", reason="GridFS is tested where the extras gridfs and test-gridfs are installed")
    return {"default": f"gridfs:{request.getfixturevalue('mongo')}test_{uuid4().hex}"}


def mirror(request: pytest.FixtureRequest, folder: Path) -> Configuration:
    return {"default": "mirror:here,there", "here": f"local:{folder}/here", "there": s3(request, folder)["default"]}


BACKENDS: list[Callable[[pytest.FixtureRequest, Path], Configuration]] = [local, memory, database, s3, gridfs, mirror]


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.__name__)
def site(request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> Site:
    return Site(engine, request.param(request, tmp_path))


@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)
def test_the_same_model_on_every_backend(site: Site) -> None:
    # Insert, and read in all ways.
    large = bytes(range(256)) * 300
    with site.session() as session:
        pages = [Attachment.upload(b"two", "2.txt"), Attachment.upload(b"")]
        doc = site.Doc(id=1, file=Attachment.upload(large, "ä.bin"), pages=pages)
        session.add(doc)
        session.commit()
        assert (doc.file.filename, doc.file.size, doc.file.content_type) == ("ä.bin", len(large), doc.file.content_type)
        assert doc.file.read(1000, 70_000) == large[1000:70_000]
        with doc.file.open() as file:
            file.seek(-5, 2)
            assert file.read() == large[-5:]
        assert b"".join(doc.file.chunks(1000)) == large
        with doc.file.path() as path:
            assert path.read_bytes() == large
    assert site.read() == [large, b"two", b""]

    # Replace, describe, copy.
    with site.session() as session:
        doc = session.get_one(site.Doc, 1)
        doc.file = Attachment.upload(b"one")
        session.add(site.Doc(id=2, file=doc.pages[0]))
        doc.pages = [doc.pages[1].replace(filename="empty.txt"), doc.pages[0]]
        session.commit()
    expect(site, b"one", b"", b"two", b"two")

    # Roll back: a transaction, and a savepoint.
    with site.session() as session:
        session.get_one(site.Doc, 1).file = Attachment.upload(b"void")
        session.add(site.Doc(id=3, file=Attachment.upload(b"void too")))
        session.flush()
        site.roll_back(session)
    expect(site, b"one", b"", b"two", b"two")
    with site.session() as session:
        savepoint = session.begin_nested()
        session.get_one(site.Doc, 2).file = Attachment.upload(b"void")
        session.flush()
        savepoint.rollback()
        session.get_one(site.Doc, 2).pages = [Attachment.upload(b"three")]
        session.commit()
    expect(site, b"one", b"", b"two", b"two", b"three")

    # Delete.
    site.remove(1)
    expect(site, b"two", b"three")

    # Sweep.
    site.files.stage(Attachment.upload(b"nobody's"))
    report = site.sweep()
    assert report.ok, report
    assert sum(storage.strangers for storage in report.storages) == 1
    assert site.sweep().ok
    expect(site, b"two", b"three")

    # Verify: nothing is wrong; then a file is lost.
    assert site.files.verify(site.engine).ok
    with site.session() as session:
        key = session.get_one(site.Doc, 2).file.key
    storage = site.files.resolve()
    victim = site.files.resolve("here") if isinstance(storage, Heals) else storage
    assert victim.delete([key]) == {}
    assert key in str(site.files.verify(site.engine).findings)
    if isinstance(storage, Heals):
        site.files.verify(site.engine, repair=True)
        assert site.files.verify(site.engine).ok
        expect(site, b"two", b"three")


def expect(site: Site, *contents: bytes) -> None:
    """Rows name these files, and no others are stored, in no member either."""
    assert site.files.settled(20)
    assert site.read() == list(contents)
    site.check("default")
    storage = site.files.resolve()
    for member in getattr(storage, "members", {}).values():
        assert list(dict(member.keys("0"))) == list(dict(storage.keys("0")))
