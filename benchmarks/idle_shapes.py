"""What the contest of idle transactions runs in a process of its own: ``idle_shapes.py with|without TIMES [SHAPE]``.

Prints the names of the shapes in order, and the seconds that the processor worked for each. Before and after each of
them it calls ``os.getppid``, where callgrind writes down what it counted so far.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable

from sqlalchemy import create_engine, event, insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.base import CompileState

from sa_attachments import Attachment, AttachmentType, Storages, tracker

WITH = sys.argv[1] == "with"
TIMES = int(sys.argv[2])
ONLY = sys.argv[3:]


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    text: Mapped[str]


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment] = mapped_column(AttachmentType(Storages("memory:")))


engine = create_engine("sqlite://", poolclass=StaticPool)
Base.metadata.create_all(engine)
with engine.begin() as connection:
    rows = [{"id": number, "title": f"note {number}", "text": "x" * 100} for number in range(1, 101)]
    connection.execute(insert(Note), rows)


def use_the_other_model() -> None:
    """Whatever the library puts off until somebody uses it is in place when the counting begins."""
    with Session(engine) as session:
        doc = Doc(file=Attachment.upload(b"hello", "hello.txt"))
        session.add(doc)
        session.commit()
        session.scalars(select(Doc)).one()
        session.delete(doc)
        session.commit()


def unwire() -> None:
    """Take away all that the library put into SQLAlchemy."""
    event.remove(Session, "before_flush", tracker._before_flush)
    plugins = CompileState.plugins
    for key, standing_in in list(plugins.items()):
        if standing_in.__module__ == "sa_attachments.statements":
            plugins[key] = standing_in.__mro__[1]


def insert_10_rows_and_commit() -> None:
    with Session(engine) as session:
        session.add_all([Note(title=f"new {number}", text="y" * 100) for number in range(10)])
        session.commit()


def change_and_commit() -> None:
    with Session(engine) as session:
        note = session.get(Note, 8)
        assert note is not None
        note.title = "odd" if note.title == "even" else "even"
        session.commit()


def get_and_commit() -> None:
    with Session(engine) as session:
        session.get(Note, 7)
        session.commit()


def select_100_rows() -> None:
    with Session(engine) as session:
        session.scalars(select(Note).where(Note.id <= 100)).all()


def select_1_row() -> None:
    with Session(engine) as session:
        session.execute(select(Note.id, Note.title).where(Note.id == 7)).all()


SHAPES: list[Callable[[], None]] = [
    insert_10_rows_and_commit,
    change_and_commit,
    get_and_commit,
    select_100_rows,
    select_1_row,
]

if __name__ == "__main__":
    use_the_other_model()
    if not WITH:
        unwire()
    for shape in SHAPES:  # statements are compiled, modules imported
        for _ in range(20):
            shape()
    gc.collect()
    gc.disable()  # its turn comes at odd times, and costs more than what is measured
    for shape in SHAPES:
        name = shape.__name__.replace("_", " ")
        if ONLY and name not in ONLY:
            continue
        gc.collect()
        began = time.process_time()
        os.getppid()
        for _ in range(TIMES):
            shape()
        os.getppid()
        print(f"{name}\t{time.process_time() - began}")
