"""Memory: a long stream goes into each backend and comes back in pieces, whatever its length."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells peaks of memory")
on = pytest.mark.parametrize

MB = 1 << 20
SIZES = [200 * MB, pytest.param(2000 * MB, marks=[pytest.mark.torture, pytest.mark.timeout(1800)])]
WARM = 1 * MB
"""Imports, pools and caches are not the stream's."""

PROGRAM = '''
import hashlib, json, sys
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sa_attachments import Attachment, AttachmentType, Storages

database, storage, size, warm = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
files = Storages(storage)

class Base(DeclarativeBase):
    pass

class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment] = mapped_column(AttachmentType(files))

class Pipe:
    """Not seekable, and made while it is read."""
    def __init__(self, size):
        self.left = size
        self.number = 0
    def seekable(self):
        return False
    def read(self, size=-1):
        assert size > 0, "somebody wants all of it"
        self.number += 1
        data = (b"%015d\\n" % self.number * 4096)[:min(size, self.left)]
        self.left -= len(data)
        return data

def memory(name):
    """Of this process alone: getrusage counts what its parent had when it was started, too."""
    found = dict(line.split(":") for line in open("/proc/self/status"))
    return int(found[name].split()[0]) * 1024

def peak():
    return memory("VmHWM")

def store(size):
    with Session(engine) as session:
        doc = Doc(file=Attachment.upload(Pipe(size), "big.bin"))
        session.add(doc)
        session.commit()
        return doc.file

def read(stored):
    digest = hashlib.sha256()
    with stored.open() as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()

engine = create_engine(database)
Base.metadata.create_all(engine)
read(store(warm))
open("/proc/self/clear_refs", "w").write("5")     # forget the peak of the imports
before = memory("VmRSS")
stored = store(size)
storing = peak() - before
whole = read(stored) == stored.sha256
print(json.dumps({"size": stored.size, "whole": whole, "storing": storing, "reading": peak() - before}))
'''


def grow(folder: Path, storage: str, size: int) -> int:
    """By how many bytes a process grows that stores a file of this size, and reads it."""
    command = [sys.executable, "-c", PROGRAM, f"sqlite:///{folder}/rows.db", storage, str(size), str(WARM)]
    credentials = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **credentials})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["size"], told["whole"]) == (size, True)
    print({name: f"{told[name] / MB:.1f} MB" for name in ("storing", "reading")})
    return max(told["storing"], told["reading"])


@on("size", SIZES)
def test_to_s3_and_back(tmp_path: Path, seaweed: Seaweed, bucket: str, prefix: str, size: int) -> None:
    assert grow(tmp_path, f"s3://{bucket}/{prefix}?endpoint_url={seaweed.endpoint}", size) < 64 * MB


@on("size", SIZES)
def test_to_a_database_and_back(tmp_path: Path, size: int) -> None:
    grown = grow(tmp_path, f"db:sqlite:///{tmp_path}/files.db?create=true", size)
    (tmp_path / "files.db").unlink()  # pytest keeps temporary folders
    assert grown < 16 * MB


@on("size", SIZES)
def test_to_a_folder_and_back(tmp_path: Path, size: int) -> None:
    grown = grow(tmp_path, f"local:{tmp_path}/files?durable=false", size)
    for path in (tmp_path / "files").rglob("*-7*"):
        path.unlink()
    assert grown < 16 * MB
