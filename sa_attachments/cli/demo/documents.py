"""An application in one file: documents, each with a file, in an SQLite database and a folder beside this module.

The demo calls these functions and shows them; nothing else happens.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, Storages
from sa_attachments.reports import SweepReport
from sa_attachments.storages.local import LocalStorage

HERE = Path(__file__).resolve().parent

# The budget lets each commit wait until all is cleaned up, so that a slow disk can't spoil the demo.
files = Storages(LocalStorage(HERE / "files"), budget=timedelta(seconds=10))
engine = create_engine(URL.create("sqlite", database=str(HERE / "documents.db")))


@event.listens_for(engine, "connect")
def connect(connection: Any, record: object) -> None:  # SQLAlchemy's recipe for real savepoints on SQLite
    connection.isolation_level = None


@event.listens_for(engine, "begin")
def begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


class Base(DeclarativeBase):
    pass


class Document(Base):
    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment] = mapped_column(
        AttachmentType(files, retain=timedelta(days=30)),
    )


def commit(sources: list[Path]) -> None:
    with Session(engine) as session:
        for source in sources:
            session.add(Document(file=Attachment.upload(source)))
        session.commit()


def rollback(source: Path) -> None:
    with Session(engine) as session:
        session.add(Document(file=Attachment.upload(source)))
        session.flush()  # the file is stored, the row is written
        session.rollback()


def savepoint(kept: Path, undone: Path) -> None:
    with Session(engine) as session:
        session.add(Document(file=Attachment.upload(kept)))
        with session.begin_nested() as savepoint:
            session.add(Document(file=Attachment.upload(undone)))
            session.flush()
            savepoint.rollback()
        session.commit()


def replace(number: int, source: Path) -> None:
    with Session(engine) as session:
        document = session.get_one(Document, number)
        document.file = Attachment.upload(source)
        session.commit()


def undo(number: int) -> None:
    with Session(engine) as session:
        files.restore(session, Document.file, number)
        session.commit()


def be_killed(source: Path) -> None:
    with Session(engine) as session:
        session.add(Document(file=Attachment.upload(source)))
        session.flush()
        print("stored", flush=True)
        sys.stdin.read()  # SIGKILL comes here
        session.commit()


def sweep() -> SweepReport:
    # A real application leaves young files alone: grace is 24 hours.
    at_once = timedelta(0)
    return files.sweep(engine, grace=at_once, stranger_retain=at_once)


if __name__ == "__main__":
    be_killed(Path(sys.argv[1]))
