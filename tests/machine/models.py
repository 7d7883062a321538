"""The table that the machine plays with: two single attachments and a list, in two storages, one with retention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages

DEFAULT, VAULT = "default", "vault"

# A commit waits for its cleaning however busy the machine is, so that what a run sees does not depend on that.
files = Storages(budget=timedelta(minutes=1), grace=timedelta(0))


class Base(DeclarativeBase):
    pass


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str | None] = mapped_column(unique=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    scan: Mapped[Attachment | None] = mapped_column(AttachmentType(files, VAULT, retain=timedelta(days=1)))
    pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files))


ATTRIBUTES = ("file", "scan", "pages")
SINGLE = ("file", "scan")
PLURAL = "pages"
RETAINED = "scan"
