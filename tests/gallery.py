"""Gallery: an application that is deployed again and again, each time with other recipes for its variants.

::

    gallery = Gallery(engine, storage, {"loud": shout})
    gallery.fill(1, b"la")
    later = gallery.deployed({"loud": shout, "soft": whisper})
    later.check(b"la", b"LA")                # waits for the cleaning; what rows name is there, and nothing else
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty

NOW = timedelta(0)


def shout(attachment: Attachment) -> Attachment:
    """Refuses what is bad."""
    data = attachment.read()
    if b"bad" in data:
        raise ValueError("it is bad")
    return Attachment.upload(data.upper())


def whisper(attachment: Attachment) -> Attachment:
    return Attachment.upload(attachment.read().lower())


def double(attachment: Attachment) -> Attachment:
    return Attachment.upload(attachment.read() * 2)


class Gallery:
    """See the module."""

    def __init__(
        self,
        engine: Engine,
        storage: Faulty,
        variants: Mapping[str, Any],
        *,
        retain: timedelta = NOW,
        **options: Any,
    ) -> None:
        self.engine = engine
        self.storage = storage
        self.files = files = Storages({"default": storage}, budget=timedelta(seconds=10), **options)

        class Base(DeclarativeBase):
            pass

        class Song(Base):
            __tablename__ = "songs"
            id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
            text: Mapped[Attachment | None] = mapped_column(AttachmentType(files, variants=variants, retain=retain))
            verses: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files, variants=variants))

        self.Song = Song
        Base.metadata.create_all(engine)

    @classmethod
    def new(cls, engine: Engine, variants: Mapping[str, Any], **options: Any) -> Gallery:
        """One that stores in memory."""
        return cls(engine, Faulty(MemoryStorage(parallel=4)), variants, **options)

    def deployed(self, variants: Mapping[str, Any], **options: Any) -> Gallery:
        """The same rows and files, with other recipes."""
        return Gallery(self.engine, self.storage, variants, **options)

    def fill(self, pk: int, text: bytes | None = None, *verses: bytes) -> Attachment | None:
        """A new row. Returns its attachment."""
        with Session(self.engine) as session:
            song = self.Song(id=pk, text=text, verses=verses)
            session.add(song)
            session.commit()
        return self.text(pk) if text is not None else None

    def text(self, pk: int) -> Attachment:
        with Session(self.engine) as session:
            found = session.scalar(select(self.Song.text).where(self.Song.id == pk))
        assert found is not None
        return found

    def verses(self, pk: int) -> Sequence[Attachment]:
        with Session(self.engine) as session:
            return session.get_one(self.Song, pk).verses

    def replace(self, pk: int, text: bytes | None) -> None:
        with Session(self.engine) as session:
            session.get_one(self.Song, pk).text = text  # type: ignore[assignment]
            session.commit()

    def delete(self, pk: int) -> None:
        with Session(self.engine) as session:
            session.delete(session.get_one(self.Song, pk))
            session.commit()

    def held(self, pk: int) -> dict[str, Any]:
        """What the row says of its variants."""
        with Session(self.engine) as session:
            found = session.scalar(select(self.Song.text.variants).where(self.Song.id == pk))
        assert isinstance(found, dict)
        return found

    def stored(self) -> list[bytes]:
        """The bytes of all files."""
        found = []
        for key, _ in self.storage.inner.keys():  # noqa: SIM118 - no dictionary
            with self.storage.inner.open(key) as file:
                found.append(file.read())
        return sorted(found)

    def check(self, *contents: bytes) -> None:
        """See the module."""
        assert self.files.settled(20)
        assert self.stored() == sorted(contents)
        report = self.files.verify(self.engine, checksums=True)
        assert report.ok, report.findings
        assert report.lines >= len(contents)
