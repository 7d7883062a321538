"""SQLite says of a COMMIT that its disk failed, and it was carried out all the same.

So it is where the folder of the journal can't be flushed after the journal was deleted (``PRAGMA synchronous = EXTRA``,
by which our own commits are durable). What copies files and lets rows take them may not delete the copies then.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, Storages, adoption
from sa_attachments.processing.variants import Variant

AT_ONCE = timedelta(0)


def loud(attachment: Attachment) -> Attachment:
    """A recipe."""
    return Attachment.upload(attachment.read().upper())


class Shop:
    """Three rows with files, and three with paths that are to be adopted."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.old = folder / "old"
        places = {"default": f"local:{folder}/one", "other": f"local:{folder}/two"}
        files = self.files = Storages({name: f"{place}?durable=false" for name, place in places.items()})

        class Base(DeclarativeBase):
            pass

        class Doc(Base):
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True)
            path: Mapped[str | None]
            file: Mapped[Attachment | None] = mapped_column(
                AttachmentType(files, variants={"loud": Variant(loud, lazy=True)})
            )

        self.Doc = Doc
        Base.metadata.create_all(engine)
        self.old.mkdir(parents=True)
        with Session(engine) as session:
            for number in (1, 2, 3):
                (self.old / str(number)).write_bytes(b"old")
                session.add(Doc(file=b"new"))
                session.add(Doc(path=str(number)))
            session.commit()

    def first(self) -> Attachment:
        with Session(self.engine) as session:
            file = session.get_one(self.Doc, 1).file
        assert file is not None
        return file

    def adopt(self, job: Callable[..., object] = adoption.adopt) -> None:
        plan = adoption.Plan("docs", "path", "file", adoption.Paths(str(self.old)))
        with self.engine.connect() as connection:
            job(connection, self.files, plan)

    def check(self) -> None:
        """All files are there, and in the end nothing but them."""
        self.files.sweep(self.engine, grace=AT_ONCE, stranger_retain=AT_ONCE)
        assert self.files.sweep(self.engine, grace=AT_ONCE, stranger_retain=AT_ONCE).ok
        report = self.files.verify(self.engine, checksums=True)
        assert report.ok, str(report)
        named = set()
        with Session(self.engine) as session:
            for doc in session.scalars(select(self.Doc)):
                if doc.file is None:
                    assert doc.path is not None
                    assert (self.old / doc.path).read_bytes() in (b"old", b"new")
                else:
                    named |= {doc.file.key, *(variant.key for variant in doc.file.variants.values())}
        assert named == {key for name in self.files.names() for key, _ in self.files.resolve(name).keys()}  # noqa: SIM118


@contextmanager
def doubtful(engine: Engine, number: int) -> Iterator[list[int]]:
    """The COMMIT of that number is carried out, and an error; the list tells how many there were."""
    dialect, plain, commits = engine.dialect, engine.dialect.do_commit, [0]

    def committed() -> None:
        commits[0] += 1
        if commits[0] == number:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_DIR_FSYNC
            raise error

    def do_commit(connection: Any) -> None:
        began = connection.in_transaction
        plain(connection)
        if began:
            committed()

    @event.listens_for(engine, "after_cursor_execute")
    def executed(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement == "COMMIT":
            committed()

    dialect.do_commit = do_commit  # type: ignore[method-assign]
    try:
        yield commits
    finally:
        dialect.do_commit = plain  # type: ignore[method-assign]
        event.remove(engine, "after_cursor_execute", executed)


def move(shop: Shop) -> None:
    shop.files.move(shop.engine, "default", "other", retain=AT_ONCE)


def make(shop: Shop) -> None:
    shop.files.make(shop.engine, shop.first(), "loud", primary_key=1)


def rebuild(shop: Shop) -> None:
    shop.files.rebuild(shop.engine, lazy=True)


def adopt(shop: Shop) -> None:
    shop.adopt()


def take_back(shop: Shop) -> None:
    shop.adopt(adoption.restore)


@pytest.mark.parametrize(
    ("before", "work"), [(None, move), (None, make), (None, rebuild), (None, adopt), (adopt, take_back)]
)
@pytest.mark.parametrize(("rows", "autocommit"), [(1, False), (3, False), (3, True)])
def test_no_file_is_lost(
    before: Callable[[Shop], None] | None,
    work: Callable[[Shop], None],
    rows: int,
    autocommit: bool,
    tmp_path: Path,
    open_engine: Callable[..., Engine],
) -> None:
    number = 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        shop = Shop(open_engine(f"sqlite:///{folder}/test.db", legacy=autocommit), folder)
        with Session(shop.engine) as session:
            for doc in session.scalars(select(shop.Doc).where(shop.Doc.id > 2 * rows)):
                session.delete(doc)
            session.commit()
        if before is not None:
            before(shop)
        if autocommit:
            shop.engine = shop.engine.execution_options(isolation_level="AUTOCOMMIT")
        with doubtful(shop.engine, number) as commits, suppress(OperationalError):
            work(shop)
        if commits[0] < number:
            break
        shop.check()
    assert number > 2
