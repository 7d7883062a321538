"""The mapped classes of the scenarios, and the ``files`` that every test overrides with a storage of its own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages

# What ended transactions leave is cleaned in time on a machine that is busy with other things, too.
files = Storages(budget=timedelta(seconds=10))


class Base(DeclarativeBase):
    pass


class Doc(Base):
    """One of everything: two single attachments, a list, children that go with it."""

    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None] = mapped_column(String(50), unique=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    scan: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files))
    notes: Mapped[list[Note]] = relationship(back_populates="doc", cascade="all, delete-orphan")


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    doc_id: Mapped[int | None] = mapped_column(ForeignKey("docs.id"))
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    doc: Mapped[Doc | None] = relationship(back_populates="notes")
