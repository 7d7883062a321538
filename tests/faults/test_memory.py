"""Memory: a long stream passes through in chunks, whatever its length."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells peaks of memory")
on = pytest.mark.parametrize

MB = 1 << 20
SIZE = 512 * MB
GROWTH = 16 * MB

PROGRAM = '''
import json, sys
from pathlib import Path
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sa_attachments import Attachment, AttachmentType, Storages

folder, size, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
files = Storages(f"local:{folder}/files?durable=false")

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
        self.chunk = bytes(range(256)) * 256
    def seekable(self):
        return False
    def read(self, size=-1):
        assert size > 0, "somebody wants all of it"
        data = self.chunk[:min(size, self.left, len(self.chunk))]
        self.left -= len(data)
        return data

def pieces(size):
    pipe = Pipe(size)
    while data := pipe.read(65536):
        yield data

def memory(name):
    """Of this process alone: getrusage counts what its parent had when it was started, too."""
    found = dict(line.split(":") for line in open("/proc/self/status"))
    return int(found[name].split()[0]) * 1024

def peak():
    return memory("VmHWM")

def store(size):
    with Session(engine) as session:
        doc = Doc(file=Attachment.upload(Pipe(size) if kind == "pipe" else pieces(size), "big.bin"))
        session.add(doc)
        session.commit()
        return doc.file

engine = create_engine(f"sqlite:///{folder}/test.db")
Base.metadata.create_all(engine)
store(1 << 20)          # imports, pools and caches are not the stream's
open("/proc/self/clear_refs", "w").write("5")     # forget the peak of the imports
before = memory("VmRSS")
stored = store(size)
grown = peak() - before
with stored.open() as file:
    read = 0
    while data := file.read(1 << 20):
        read += len(data)
print(json.dumps({"grown": grown, "size": stored.size, "read": read, "grown reading": peak() - before}))
'''


@on("kind", ["pipe", "generator"])
def test_a_long_stream_that_can_t_be_rewound_takes_little_memory(tmp_path: Path, kind: str) -> None:
    size = SIZE if kind == "pipe" else SIZE // 8
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(size), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, env={**os.environ})
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["size"], told["read"]) == (size, size)
    assert told["grown"] < GROWTH, f"{told['grown'] / MB:.1f} MB"
    assert told["grown reading"] < GROWTH, f"{told['grown reading'] / MB:.1f} MB"
    shutil.rmtree(tmp_path / "files")  # pytest keeps temporary folders
