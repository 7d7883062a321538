"""An application with a task queue, as docs/variants.md has it; its settings come from the environment."""

from __future__ import annotations

import os
from contextlib import suppress

import procrastinate
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, Storages, VariantMissing
from sa_attachments.processing import Variant

DATABASE = os.environ.get("QUEUE_DATABASE", "postgresql+psycopg:///")

files = Storages(f"local:{os.environ.get('QUEUE_FOLDER', 'files')}?durable=false")
engine = create_engine(DATABASE)
app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(conninfo=DATABASE.replace("+psycopg", "", 1)),
    import_paths=["tests.queues.tasks"],
)


def shout(attachment: Attachment) -> Attachment:
    data = attachment.read()
    if b"bad" in data:
        raise ValueError("it is bad")
    return Attachment.upload(data.upper())


class Base(DeclarativeBase):
    pass


class Song(Base):
    __tablename__ = "songs"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[Attachment | None] = mapped_column(AttachmentType(files, variants={"loud": Variant(shout, lazy=True)}))


@files.after_commit(Song.text)
def enqueue(primary_keys: list[int]) -> None:
    for primary_key in primary_keys:
        make_loud.defer(song_id=primary_key)


@app.task(name="make_loud", retry=3)
def make_loud(song_id: int) -> None:
    with Session(engine) as session:
        song = session.get(Song, song_id)
        text = song.text if song is not None else None
    if text is not None:  # else it was deleted before the task came to it
        with suppress(VariantMissing):  # it was dropped meanwhile; or the recipe failed, which is in the row
            files.make(engine, text, "loud", primary_key=song_id)
