"""The application of the project, whose models grow from test to test."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages

files = Storages("memory:")


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(String(50))
    avatar: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    photos: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files, retain=timedelta(days=1)))


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id"))
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
