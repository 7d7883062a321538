"""Archive: one database, with ``Storages`` and a model of its own, for tests of what cares for files.

``archive.keep(b"one")`` commits a document with a file, ``archive.stranger(age)`` puts a file that nobody owns, as old
as the test wants; ``archive.states()`` and ``archive.stored()`` tell what the ledger and the storage say of each key.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages
from sa_attachments.descriptor import Named
from sa_attachments.key import mint
from sa_attachments.ledger import Ledger
from sa_attachments.offload import run
from sa_attachments.places import Verdict
from sa_attachments.recovery import Purger
from sa_attachments.scope import Scope
from sa_attachments.storage import Stat
from sa_attachments.storages.memory import MemoryStorage, _File
from sa_attachments.testing import Faulty
from tests import engines

DIALECTS = ["sqlite", "postgres", *(["mariadb"] if engines.MARIADB else [])]
"""Where statements differ."""

NO_TIME = timedelta(0)
DAY = timedelta(days=1)


class Archive:
    """See the module. ``Doc`` is the model, ``storage`` the default storage."""

    def __init__(
        self,
        engine: Engine,
        storages: Mapping[str, Any] | None = None,
        *,
        retain: timedelta | None = None,
        **times: Any,
    ) -> None:
        self.engine = engine
        self.memory = MemoryStorage(parallel=4)
        self.storage = Faulty(self.memory)
        self.files = files = Storages({"default": self.storage, **(storages or {})}, **times)

        class Base(DeclarativeBase):
            pass

        class Doc(Base):
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True)
            file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, retain=retain))
            pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files))

        self.Base, self.Doc = Base, Doc
        self.ledger = Ledger.of(Base.metadata)
        Base.metadata.create_all(engine)

    def session(self, **options: Any) -> Session:
        return Session(self.engine, **options)

    def keep(self, *contents: bytes, **values: Any) -> list[int]:
        """Commit a document for each; returns their primary keys."""
        with self.session() as session:
            docs = [self.Doc(file=data, **values) for data in contents]
            session.add_all(docs)
            session.commit()
            ids = [doc.id for doc in docs]
        self.settle()
        return ids

    def remove(self, *ids: int) -> None:
        """Delete documents."""
        with self.session() as session:
            for each in ids:
                session.delete(session.get_one(self.Doc, each))
            session.commit()
        self.settle()

    def settle(self) -> None:
        assert self.files.settled(20)

    def key(self, id_: int) -> str:
        """The key of a document's file."""
        with self.session() as session:
            file = session.get_one(self.Doc, id_).file
            assert file is not None
            return file.key

    def named(self, id_: int) -> Named:
        with self.session() as session:
            file = session.get_one(self.Doc, id_).file
            assert file is not None
            return Named(file.storage, file.key, file.size)

    def stranger(self, age: timedelta = DAY, *, touched: timedelta | None = None, data: bytes = b"stranger") -> str:
        """Put a file whose key is ``age`` old, and whose bytes were written as long ago, or ``touched`` ago."""
        now = datetime.now(UTC) - timedelta(milliseconds=5)  # the database's clock has a grain
        key = mint(round((now - age).timestamp() * 1000))
        self.memory.put(key, io.BytesIO(data), size=None, content_type="text/plain")
        modified = now - (age if touched is None else touched)
        self.memory._files[key] = _File(data, Stat(len(data), modified, "text/plain"))
        return key

    def stored(self) -> dict[str, bytes]:
        return {key: self.memory.open(key).read() for key, _ in self.memory.keys()}  # noqa: SIM118

    def states(self) -> dict[str, str]:
        c = self.ledger.lines.c
        with self.engine.connect() as connection:
            return {row.key: row.state for row in connection.execute(select(c.key, c.state))}

    def line(self, key: str) -> Any:
        """The line of the ledger; None if there is none."""
        with self.engine.connect() as connection:
            return connection.execute(select(self.ledger.lines).where(self.ledger.lines.c.key == key)).one_or_none()

    def change(self, key: str, **values: Any) -> None:
        """Change a line as time, or somebody else, would."""
        with self.engine.begin() as connection:
            connection.execute(update(self.ledger.lines).where(self.ledger.lines.c.key == key).values(**values))

    def watermark(self) -> int | None:
        with self.engine.connect() as connection:
            return connection.scalar(select(self.ledger.places.c.watermark))

    def scope(self) -> Scope:
        return Scope(self.files, self.ledger, self.engine)

    def places(self) -> dict[str, Verdict]:
        """What is known of places, by the names of their storages."""
        return self.files.places.known(self.scope()).verdicts

    def purger(self, io: Any = run) -> Purger:
        return Purger(self.scope(), self.files.places, io)

    def sweep(self, **options: Any) -> Any:
        """Sweep without waiting for anything, unless ``options`` say so."""
        return self.files.sweep(self.engine, **{"grace": NO_TIME, "stranger_retain": NO_TIME, **options})["default"]
