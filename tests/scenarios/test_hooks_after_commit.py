"""Functions of the application hear which rows got new files, after the commit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.util import await_only

from sa_attachments import Attachment, AttachmentType, BadConfiguration, Storages

from .models import files
from .world import World


class Base(DeclarativeBase):
    pass


class Song(Base):
    __tablename__ = "songs"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    other: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


class Page(Base):
    __tablename__ = "pages"
    book: Mapped[str] = mapped_column(String(20), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    scan: Mapped[Attachment] = mapped_column(AttachmentType(files))


@pytest.fixture
def world(world: World) -> World:
    world.create(Base.metadata)
    return world


@pytest.fixture
def told(world: World) -> Iterator[list[list[Any]]]:
    found: list[list[Any]] = []
    files.after_commit(Song.text)(found.append)
    yield found
    Song.text.type.hooks.clear()


def test_of_new_and_replaced_files(world: World, told: list[list[Any]]) -> None:
    with world.session() as session:
        one, two, none = Song(text=b"one"), Song(text=b"two"), Song(other=b"other")
        session.add_all([one, two, none])
        session.flush()
        assert told == []
        session.commit()
        assert told == [[one.id, two.id]]
        one.text = Attachment.upload(b"new")
        session.flush()
        one.text = Attachment.upload(b"newer")
        none.other = None
        session.commit()
        assert told[1:] == [[one.id]]
        one.text = one.text.replace(filename="same.txt")
        two.text = None
        session.commit()
        session.delete(one)
        session.commit()
        assert len(told) == 2


def test_not_of_what_was_rolled_back(world: World, told: list[list[Any]]) -> None:
    with world.session() as session:
        song = Song(text=b"one")
        session.add(song)
        session.flush()
        session.rollback()
        assert told == []
        with session.begin_nested():
            session.add(song)
        savepoint = session.begin_nested()
        session.add(Song(text=b"two"))
        session.flush()
        savepoint.rollback()
        session.commit()
        assert told == [[song.id]]


def test_once_though_the_connection_is_given_back_later(world: World, told: list[list[Any]]) -> None:
    with world.engine.connect() as connection:
        with Session(connection) as session:
            session.add(Song(id=1, text=b"one"))
            session.commit()
        assert told == [[1]]
    assert told == [[1]]


def test_of_copies_and_staged_files(world: World, told: list[list[Any]]) -> None:
    with world.session() as session:
        session.add(Song(id=1, text=b"one"))
        session.commit()
        session.add_all([Song(id=2, text=session.get_one(Song, 1).text)])
        session.commit()
        session.add(Song(id=3, text=files.stage(Attachment.upload(b"three"), Song.text)))
        session.commit()
        assert told == [[1], [2], [3]]


def test_the_hook_may_ask_the_database(world: World) -> None:
    seen: list[bytes] = []

    @files.after_commit(Song.text)
    def read(keys: list[int]) -> None:
        with Session(world.observer) as other:
            text = other.get_one(Song, keys[0]).text
            assert text is not None
            seen.append(text.read())

    try:
        with world.session() as session:
            session.add(Song(text=b"one"))
            session.commit()
    finally:
        Song.text.type.hooks.clear()
    assert seen == [b"one"]


@pytest.mark.parametrize("world", ["aiosqlite"], indirect=True)
def test_under_asyncio_the_hook_may_begin_a_task(world: World) -> None:
    sent: list[int] = []
    tasks: list[asyncio.Task[None]] = []

    async def send(keys: list[int]) -> None:
        sent.extend(keys)

    @files.after_commit(Song.text)
    def enqueue(keys: list[int]) -> None:
        tasks.append(asyncio.get_running_loop().create_task(send(keys)))

    try:
        with world.session() as session:
            session.add(Song(id=1, text=b"one"))
            session.commit()
        await_only(tasks[0])
    finally:
        Song.text.type.hooks.clear()
    assert sent == [1]


@pytest.mark.parametrize("world", ["sqlite"], indirect=True)
class TestOnce:
    def test_a_hook_that_fails_is_logged(
        self, world: World, told: list[list[Any]], caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(keys: list[Any]) -> None:
            raise RuntimeError("the broker is down")

        Song.text.type.hooks.insert(0, fail)
        with world.session() as session, caplog.at_level(logging.ERROR, "sa_attachments"):
            session.add(Song(id=1, text=b"one"))
            session.commit()
        assert told == [[1]]
        assert "a hook of songs.text failed, after the commit of rows [1]" in caplog.text

    def test_keys_of_two_columns(self, world: World) -> None:
        found: list[list[Any]] = []
        files.after_commit(Page.scan)(found.append)
        try:
            with world.session() as session:
                session.add_all([Page(book="a", number=n, scan=b"x") for n in (1, 2)])
                session.commit()
        finally:
            Page.scan.type.hooks.clear()
        assert found == [[("a", 1), ("a", 2)]]

    def test_mistakes(self, world: World) -> None:
        for attribute in (Song.id, Song, None, print):  # the last one without an attribute: @files.after_commit
            with pytest.raises(BadConfiguration, match="holds no attachments of these Storages"):
                files.after_commit(attribute)
        with pytest.raises(BadConfiguration):
            Storages("memory:").after_commit(Song.text)

    def test_a_joined_session(self, world: World, told: list[list[Any]]) -> None:
        with world.engine.connect() as connection:
            transaction = connection.begin()
            with Session(connection, join_transaction_mode="create_savepoint") as session:
                session.add(Song(id=1, text=b"one"))
                session.commit()
            assert told == []
            transaction.commit()
        assert told == [[1]]
