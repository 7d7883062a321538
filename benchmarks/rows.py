"""The two models of the contests, alike but for the column: attachments, or plain JSON and the floor's files."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from contest import Run
from floor import Floor
from sqlalchemy import JSON, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, Storages
from sa_attachments.frames import Frame

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01"


def contents(count: int, size: int) -> list[bytes]:
    """Different files that begin as JPEG does."""
    return [JPEG + os.urandom(size - len(JPEG)) for _ in range(count)]


class TimedStorages(Storages):
    """Counts how long commits and rollbacks spend in cleaning."""

    cleaning = 0.0

    def settle(self, frame: Frame) -> None:
        began = time.perf_counter()
        super().settle(frame)
        self.cleaning += time.perf_counter() - began


class Automatic:
    """A side whose files follow the session by themselves."""

    def commit(self, session: Session) -> None:
        session.commit()

    def delete(self, session: Session, rows: Sequence[Any]) -> None:
        for row in rows:
            session.delete(row)
        session.commit()

    def rollback(self, session: Session) -> None:
        session.rollback()


class Ours(Automatic):
    """A model with an attachment column, its storages and its database."""

    def __init__(self, folder: Path, database: Database, durable: bool = True) -> None:
        self.root = folder / "files"
        self.files = TimedStorages(f"local:{self.root}?durable={str(durable).lower()}")
        files = self.files

        class Base(DeclarativeBase):
            pass

        class Doc(Base):
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]
            file: Mapped[Attachment] = mapped_column(AttachmentType(files))

        self.base, self.model, self.engine = Base, Doc, database.engine

    def new(self, number: int, data: bytes) -> Any:
        """A row with a new file."""
        return self.model(title=f"photo {number}", file=Attachment.upload(data, f"photo-{number}.jpg"))

    def new_large(self, source: Any, file: Any) -> Any:
        """A row with a file that is too large for memory."""
        return self.model(title="film", file=Attachment.upload(source, "film.jpg"))

    def replace(self, row: Any, data: bytes) -> None:
        """Give a row another file."""
        row.file = Attachment.upload(data, "other.jpg")

    def finish(self, run: Run) -> None:
        """Wait for the background, and check that rows and files agree."""
        run.beside["cleaning ms, inside"] = self.files.cleaning * 1000
        began = time.perf_counter()
        assert self.files.settled(60)
        run.beside["cleaning ms, after"] = (time.perf_counter() - began) * 1000
        check(self)


class ByHand:
    """A model with a plain JSON column, and files of the floor."""

    def __init__(self, folder: Path, database: Database, durable: bool = True, flush_folder: bool = True) -> None:
        self.root = folder / "files"
        self.files = Floor(self.root, flush=durable, flush_folder=flush_folder)

        class Base(DeclarativeBase):
            pass

        class Doc(Base):
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]
            file: Mapped[dict[str, Any]] = mapped_column(JSON().with_variant(JSONB(), "postgresql"))

        self.base, self.model, self.engine = Base, Doc, database.engine
        self._stored: list[dict[str, Any]] = []
        self._old: list[dict[str, Any]] = []

    def new(self, number: int, data: bytes) -> Any:
        stored = self.files.store(data, f"photo-{number}.jpg")
        self._stored.append(stored)
        return self.model(title=f"photo {number}", file=stored)

    def new_large(self, source: Any, file: Any) -> Any:
        return self.model(title="film", file=self.files.copy(file, "film.jpg"))

    def replace(self, row: Any, data: bytes) -> None:
        self._old.append(row.file)
        row.file = self.files.store(data, "other.jpg")

    def commit(self, session: Session) -> None:
        session.commit()
        self._stored.clear()
        if self._old:
            self.files.delete(self._old)
            self._old.clear()

    def delete(self, session: Session, rows: Sequence[Any]) -> None:
        for row in rows:
            self._old.append(row.file)
            session.delete(row)
        self.commit(session)

    def rollback(self, session: Session) -> None:
        session.rollback()
        self.files.delete(self._stored)
        self._stored.clear()

    def finish(self, run: Run) -> None:
        check(self)


class Database:
    """An empty database for one run: an SQLite file in the run's folder, or a PostgreSQL database of its own."""

    def __init__(self, folder: Path, url: str | None = None, journal: str | None = None) -> None:
        self._admin: Engine | None = None
        if url is None:
            self.engine = create_engine(f"sqlite:///{folder / 'rows.db'}")
            if journal:
                event.listen(self.engine, "connect", lambda raw, _: raw.execute(f"PRAGMA journal_mode={journal}"))
        else:
            self._name = f"bench_{uuid4().hex}"
            self._admin = create_engine(url, isolation_level="AUTOCOMMIT")
            with self._admin.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {self._name}"))
            self.engine = create_engine(make_url(url).set(database=self._name))

    def close(self) -> None:
        """Drop it."""
        self.engine.dispose()
        if self._admin is not None:
            with self._admin.connect() as connection:
                connection.execute(text(f"DROP DATABASE {self._name} WITH (FORCE)"))
            self._admin.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def settings(self) -> str:
        """What matters for durability, as the database tells it."""
        with self.engine.connect() as connection:
            if self.engine.dialect.name == "sqlite":
                journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
                level = connection.exec_driver_sql("PRAGMA synchronous").scalar()
                return f"SQLite (journal_mode={journal}, synchronous={('OFF', 'NORMAL', 'FULL', 'EXTRA')[level or 0]})"
            version = connection.exec_driver_sql("SHOW server_version").scalar()
            commit = connection.exec_driver_sql("SHOW synchronous_commit").scalar()
            return f"PostgreSQL {version} (synchronous_commit={commit})"


def check(side: Ours | ByHand) -> None:
    """There are as many files as rows, and one of them is what its row says."""
    with Session(side.engine) as session:
        rows = session.scalar(select(func.count()).select_from(side.model))
    there = sum(1 for path in side.root.rglob("*-*") if path.is_file() and not path.name.startswith("."))
    assert there == rows, f"{there} files and {rows} rows"
