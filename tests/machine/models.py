"""The table that the machine plays with: two single attachments and a list, in two storages, one with retention. All
have variants: one that comes with the upload, and fails for some, and a lazy one. Its rows may be children of folders,
with which they go, and without which if they are taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages
from sa_attachments.processing import Recipe, Variant

DEFAULT, VAULT = "default", "vault"

# A commit waits for its cleaning however busy the machine is, so that what a run sees does not depend on that.
files = Storages(budget=timedelta(minutes=1), grace=timedelta(0))


def shout(attachment: Attachment) -> Attachment:
    data = attachment.read()
    if fails(data):
        raise ValueError("no three")
    return Attachment.upload(data.upper())


def turn(attachment: Attachment) -> Attachment:
    return Attachment.upload(attachment.read()[::-1])


def fails(data: bytes) -> bool:
    """Whether ``shout`` can't do it."""
    return b"3" in data


VARIANTS: dict[str, Recipe] = {"loud": shout, "turned": Variant(turn, lazy=True)}
CONTENTS: dict[str, Callable[[bytes], bytes]] = {"loud": bytes.upper, "turned": lambda data: data[::-1]}


class Base(DeclarativeBase):
    pass


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str | None] = mapped_column(unique=True)
    folder: Mapped[int | None]
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, variants=VARIANTS))
    scan: Mapped[Attachment | None] = mapped_column(
        AttachmentType(files, VAULT, variants=VARIANTS, retain=timedelta(days=1))
    )
    pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files, variants=VARIANTS))


class Folder(Base):
    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(primary_key=True)
    # No constraint of the database: a session need not know that others have put a child elsewhere.
    docs: Mapped[list[Doc]] = relationship(
        primaryjoin=lambda: Folder.id == foreign(Doc.folder), cascade="all, delete-orphan"
    )


ATTRIBUTES = ("file", "scan", "pages")
SINGLE = ("file", "scan")
PLURAL = "pages"
RETAINED = "scan"
