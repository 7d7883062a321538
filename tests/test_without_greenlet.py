"""SQLAlchemy 2.1 does not bring greenlet along, which only its asyncio needs: all else works without."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

sys.modules["greenlet"] = None  # as if it were not installed: importing it raises ImportError

from datetime import timedelta
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sa_attachments import Attachment, AttachmentType, Storages

files = Storages("local:files")

class Base(DeclarativeBase):
    pass

class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))

engine = create_engine("sqlite:///test.db")
Base.metadata.create_all(engine)
with Session(engine) as session:
    doc = Doc(file=Attachment.upload(b"old"))
    session.add(doc)
    session.commit()
    doc.file = Attachment.upload(b"new")
    session.commit()
    doc.file = Attachment.upload(b"void")
    session.flush()
    session.rollback()
    assert files.settled(10)
    print(doc.file.read().decode(), len(list(files.resolve().keys())))
print(files.sweep(engine, grace=timedelta(0)).ok, files.verify(engine).ok)
engine.dispose()  # or Python 3.13 complains
"""


def test_a_synchronous_application_needs_no_greenlet(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["new 1", "True True"]
