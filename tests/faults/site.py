"""Site: an application as one process sees it: a database, a ``Storages`` and models of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from time import sleep
from typing import Any

from sqlalchemy import Engine, event, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages
from sa_attachments.storage import Storage
from sa_attachments.sweep import SweepReport

AT_ONCE = timedelta(0)


class Site:
    """See the module. ``names`` are storages or their URLs; ``options`` are those of ``Storages``."""

    def __init__(self, engine: Engine, names: Mapping[str, str | Storage], **options: Any) -> None:
        self.engine = engine
        self.files = Storages(names, **{"budget": timedelta(seconds=10), **options})

        class Base(DeclarativeBase):
            pass

        class Doc(Base):
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True)
            file: Mapped[Attachment | None] = mapped_column(AttachmentType(self.files))
            pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(self.files))

        self.Doc: Any = Doc
        Base.metadata.create_all(engine)

    def session(self) -> Session:
        return Session(self.engine)

    def add(self, data: bytes, storage: str | None = None) -> int:
        with self.session() as session:
            doc = self.Doc(file=Attachment.upload(data, storage=storage))
            session.add(doc)
            session.commit()
            return doc.id  # type: ignore[no-any-return]

    def remove(self, key: int) -> None:
        with self.session() as session:
            session.delete(session.get_one(self.Doc, key))
            session.commit()

    def roll_back(self, session: Session) -> None:
        session.rollback()
        assert self.files.settled(20)

    def read(self) -> list[bytes]:
        """The bytes of all files that rows name, by row."""
        with self.session() as session:
            docs = session.scalars(select(self.Doc).order_by(self.Doc.id))
            return [item.read() for doc in docs for item in (doc.file, *doc.pages) if item]

    def sweep(self, **options: Any) -> SweepReport:
        """Sweep all, however young."""
        assert self.files.settled(20)
        sleep(0.01)  # what was stored in this very millisecond is too young for any sweep
        return self.files.sweep(self.engine, **{"grace": AT_ONCE, "stranger_retain": AT_ONCE, "full": True, **options})

    def lines(self) -> list[str]:
        """The states of all lines of the ledger."""
        with self.engine.connect() as connection:
            return list(connection.scalars(text("SELECT state FROM attachment_ledger")))

    def check(self, *names: str) -> None:
        """Rows name files that are there and whole, each once; no other file is there, nor owned. Looks into storages
        of these ``names``, else into all.
        """
        named: dict[tuple[str, str], Attachment] = {}
        with self.session() as session:
            for doc in session.scalars(select(self.Doc)):
                for item in (doc.file, *doc.pages):
                    if item is not None:
                        assert (item.storage, item.key) not in named, f"{item} is named twice"
                        assert hashlib.sha256(item.read()).hexdigest() == item.sha256
                        named[item.storage, item.key] = item
            lines = session.execute(text("SELECT storage, state, " + _key(session) + " FROM attachment_ledger")).all()
        owned = {(storage, key) for storage, state, key in lines if state == "owned"}
        assert owned == set(named), "owned and named are not the same"
        assert {state for _, state, _ in lines} <= {"owned", "gone"}
        stored = {
            (name, key) for name in names or self.files.names() for key, _ in self.files.resolve(name).keys("0")
        }  # the marker comes before "0"
        assert stored - set(named) == set(), "nobody names these"


def begin_immediately(engine: Engine) -> Engine:
    """SQLite as writers at the same time need it: who has read can't begin to write while another one does."""
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _key(session: Session) -> str:
    return "`key`" if session.get_bind().dialect.name in ("mysql", "mariadb") else "key"
