"""What type checkers make of the public API. A program that ``test_typed.py`` checks and nobody runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, assert_type

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages
from sa_attachments.processing import Accept, MaxSize, Step, Variant
from sa_attachments.processing.responsive import responsive
from sa_attachments.testing import Faulty


class Photo(Attachment):
    @property
    def caption(self) -> str:
        return str(self.metadata.get("caption", ""))


def no_drafts(attachment: Attachment, /) -> None:
    if "draft" in attachment.filename:
        raise ValueError("drafts stay at home")


def shrink(attachment: Attachment, /) -> Attachment:
    return Attachment.upload(attachment.read()[:100])


steps: list[Step] = [MaxSize(5_000_000), Accept("image/*"), no_drafts]
files = Storages({"default": "local:./files", "spare": "default"}, grace=timedelta(hours=1))


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's form
        Attachment: AttachmentType(files),
        Sequence[Attachment]: AttachmentListType(files),
    }


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment]
    scan: Mapped[Attachment | None] = mapped_column(AttachmentType(files, "spare", steps))
    photo: Mapped[Photo] = mapped_column(
        AttachmentType(
            files,
            steps=steps,
            variants={"thumb": shrink, "small": [shrink, shrink], "page": Variant(shrink, lazy=True)},
            attachment_class=Photo,
        )
    )
    pages: Mapped[Sequence[Attachment]]


class Data(MappedAsDataclass, Base):
    __tablename__ = "data"
    id: Mapped[int] = mapped_column(init=False, primary_key=True)
    file: Mapped[Attachment]
    note: Mapped[Attachment | None] = mapped_column(AttachmentType(files), default=None)


def values(doc: Doc, path: Path) -> None:
    assert_type(doc.file, Attachment)
    assert_type(doc.scan, Attachment | None)
    assert_type(doc.pages, Sequence[Attachment])
    assert_type(doc.photo.caption, str)
    assert_type(doc.photo.replace(filename="a.png"), Photo)
    assert_type(doc.photo.copy(), Photo)
    assert_type(Photo.upload(path, move=True), Photo)
    assert_type(Photo.from_data_uri("data:,"), Photo)
    assert_type((doc.file.size, doc.file.sha256, doc.file.stored_at), tuple[int, str, datetime])
    assert_type(doc.file.claimed_content_type, str | None)
    assert_type(doc.file.metadata, Mapping[str, Any])
    with doc.file.open() as file, doc.file.path() as local:
        assert_type(file, BinaryIO)
        assert_type(local, Path)
    doc.pages = [*doc.pages, Attachment.upload(b"more")]
    doc.scan = None
    Data(file=Attachment.upload(b"x"))


async def reading(doc: Doc) -> None:
    assert_type(await doc.file.aread(), bytes)
    async for chunk in doc.file.achunks():
        assert_type(chunk, bytes)
    assert_type(await files.astage(Photo.upload(b"x"), Doc.photo), Photo)
    assert_type(await doc.photo.avariant("thumb"), Photo)


def queries(session: Session) -> None:
    statement = select(Doc.file).where(Doc.file.content_type == "image/png", Doc.file.metadata["caption"] == "Me")
    assert_type(session.scalars(statement).first(), Attachment | None)
    session.execute(insert(Doc), [{"file": Attachment.upload(b"x")}])
    session.execute(update(Doc).where(Doc.file.size > 10).values(scan=None))


def care(engine: Engine, session: Session) -> None:
    report = files.sweep(engine)
    assert_type(report["default"].purged, int)
    assert_type([finding.kind for finding in files.verify(engine, repair=True).findings], list[str])
    assert_type([line.size for line in files.stats(engine)], list[int])
    assert_type(files.restore(session, Doc.file, 1), Attachment)
    assert_type(files.stage(Photo.upload(b"x")), Photo)
    assert_type(files.bind("{}", Photo), Photo)
    with files.override(Faulty(files.resolve("default")).fail("put")):
        files.settled(1)


@files.after_commit(Doc.photo)
def enqueue(primary_keys: list[int]) -> None:
    print(primary_keys)


def variants(engine: Engine, doc: Doc) -> None:
    assert_type(doc.photo.variant("thumb"), Photo)
    assert_type(doc.photo.variant("thumb").caption, str)
    assert_type(doc.photo.variants, Mapping[str, Photo])
    assert_type(doc.file.variants.get("thumb"), Attachment | None)
    assert_type(files.make(engine, doc.photo, "page", primary_key=doc.id), Photo)
    assert_type(files.rebuild(engine, variants=["thumb"], lazy=True).failed, list[str])
    assert_type(responsive(doc.photo, "50vw", url=lambda photo: photo.key).attributes, dict[str, str])
    select(Doc.id).where(Doc.photo.variants["thumb"]["size"] > 100)
    enqueue([1])
