"""Storages, the object that an application makes: staging, binding, restoring, and what an operator asks of it.

Names, aliases, patterns and overrides are tested with the registry, sweeping and verifying by themselves.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import URL, Engine, MetaData, NullPool, Numeric, create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.util import greenlet_spawn

from sa_attachments import (
    Attachment,
    AttachmentListType,
    AttachmentType,
    AttachmentWarning,
    BadConfiguration,
    DescriptorDamaged,
    FileMissing,
    OwnershipLost,
    Refused,
    StorageFailed,
    Storages,
    UnknownStorage,
)
from sa_attachments.attachment import binding_of
from sa_attachments.key import is_key
from sa_attachments.ledger import Ledger
from sa_attachments.processing import MaxSize
from sa_attachments.queries import CONDEMNED, OWNED
from sa_attachments.statistics import LedgerStats
from sa_attachments.storage import Storage
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.sweep import Times
from sa_attachments.testing import Faulty
from tests.archive import DAY, DIALECTS, NO_TIME, Archive
from tests.engines import with_driver

on = pytest.mark.parametrize
everywhere = on("engine", DIALECTS, indirect=True)
sqlite = on("engine", ["sqlite"], indirect=True)
HOUR = timedelta(hours=1)


class Scan(Attachment):
    __slots__ = ()


@pytest.fixture
def archive(engine: Engine) -> Archive:
    return Archive(engine, {"other": "memory:"}, budget=timedelta(seconds=30))


# Configuration


@everywhere
def test_an_override_ends_when_what_was_dropped_in_it_is_purged(engine: Engine) -> None:
    """Else the worker would ask the application's own storage to delete it."""
    archive, stand_in = Archive(engine), Faulty(MemoryStorage())
    with archive.files.override(stand_in):
        archive.keep(b"first")
        archive.settle()
        stand_in.hang("delete", seconds=0.3)
        (kept,) = archive.keep(b"second")
        with archive.session() as session:
            session.delete(session.get_one(archive.Doc, kept))
            session.commit()
    assert [stand_in.inner.open(key).read() for key, _ in stand_in.inner.keys()] == [b"first"]  # noqa: SIM118
    assert not [call for call in archive.storage.calls if call.verb == "delete"]


async def deleted_in_an_override(url: URL, archive: Archive) -> Storage:
    """The storage in the place of the application's, in which a file was dropped just now."""
    engine = create_async_engine(with_driver(url, "asyncpg"), poolclass=NullPool)
    async with AsyncSession(engine) as session:
        session.add(archive.Doc(file=b"one"))
        await session.commit()
        for doc in await session.scalars(select(archive.Doc)):
            await session.delete(doc)
        await session.commit()
    return archive.files.resolve()


@on("engine", ["postgres"], indirect=True)
async def test_tasks_that_outlive_an_override_stay_where_they_began(engine: Engine, postgres_url: URL) -> None:
    """``with`` can't wait for them; they marked the application's own place for the database of a test."""
    archive = Archive(engine, budget=NO_TIME)
    with archive.files.override("memory:"):
        stand_in = await deleted_in_an_override(postgres_url, archive)
    await archive.files.asettled()
    assert archive.storage.calls == []
    assert [key for key, _ in stand_in.keys() if is_key(key)] == []  # noqa: SIM118


@on("engine", ["postgres"], indirect=True)
async def test_async_with_waits_for_the_tasks_of_an_override(engine: Engine, postgres_url: URL) -> None:
    archive = Archive(engine, budget=NO_TIME)
    async with archive.files.override("memory:"):
        stand_in = await deleted_in_an_override(postgres_url, archive)
    assert [key for key, _ in stand_in.keys() if is_key(key)] == []  # noqa: SIM118
    assert archive.files.resolve() is archive.storage


async def test_async_with_gives_up_what_hangs_and_is_lifted_by_an_error(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, stand_in = Archive(engine, budget=NO_TIME), Faulty(MemoryStorage())
    monkeypatch.setattr("sa_attachments.settling.MOST", 0.1)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - it is what the override is around
        async with archive.files.override(stand_in.hang("delete")):
            archive.files._settler._worker.submit(lambda: stand_in.delete([]))
            raise ZeroDivisionError
    assert archive.files.resolve() is archive.storage
    stand_in.heal()


def test_options_have_defaults_that_are_safe() -> None:
    files = Storages()
    assert (files.retain, files.own_within) == (NO_TIME, timedelta(days=3))
    assert files.times == Times(timedelta(hours=24), timedelta(days=3), timedelta(days=7), timedelta(days=7))


@on("within", [DAY, 2 * DAY])
def test_a_tombstone_outlives_every_late_owner(within: timedelta) -> None:
    with pytest.raises(BadConfiguration, match="must be shorter than tombstone_ttl"):
        Storages(own_within=within, tombstone_ttl=DAY)


@on("option", ["retain", "grace", "own_within", "tombstone_ttl", "stranger_retain", "budget"])
@on("value", [30, None, "30d"])
def test_what_is_no_duration_is_said_at_once(option: str, value: Any) -> None:
    with pytest.raises(BadConfiguration, match=f"^{option} is {value!r}, expected a timedelta, as "):
        Storages(**{option: value})


@on("option", ["grace", "stranger_retain"])
def test_what_is_no_duration_is_said_before_a_sweep_does_anything(option: str) -> None:
    with pytest.raises(BadConfiguration, match=f"{option} is 30, expected a timedelta"):
        Storages().sweep(create_engine("sqlite://"), **{option: 30})  # type: ignore[arg-type]


def test_what_is_no_duration_is_said_before_a_file_is_moved() -> None:
    with pytest.raises(BadConfiguration, match="retain is 30, expected a timedelta"):
        Storages("memory:").move(create_engine("sqlite://"), "default", "default", retain=30)  # type: ignore[arg-type]


def test_a_mistake_in_the_mapping_is_met_at_once() -> None:
    with pytest.raises(BadConfiguration):
        Storages({"a/b": "memory:"})


def test_a_column_names_what_is_missing_when_storages_are_configured_late() -> None:
    files = Storages()

    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = "users"
        id: Mapped[int] = mapped_column(primary_key=True)
        avatar: Mapped[Attachment] = mapped_column(AttachmentType(files, "avatars"))

    user = User(avatar=b"x")
    with pytest.raises(UnknownStorage, match="none is configured yet"):
        files.stage(user.avatar, User.avatar)
    with pytest.raises(UnknownStorage, match=r"users\.avatar"):
        files.configure({"attachments.default": "memory:"}, prefix="attachments.")
    files.configure(
        {"attachments.avatars": "memory:", "attachments.default": "memory:", "debug": "1"}, prefix="attachments."
    )
    assert files.stage(user.avatar, User.avatar).storage == "avatars"


def test_two_applications_in_one_process_do_not_meet() -> None:
    one, two = Storages("memory:"), Storages("memory:")
    stored = one.stage(Attachment.upload(b"x"))
    assert two.resolve("default") is not one.resolve("default")
    with pytest.raises(FileMissing):
        two.bind(stored.to_json()).read()


@sqlite
def test_the_ledger_can_be_that_of_another_metadata(engine: Engine) -> None:
    metadata = MetaData()
    files = Storages("memory:", ledger=metadata)

    class Base(DeclarativeBase):
        pass

    class Doc(Base):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment] = mapped_column(AttachmentType(files))

    assert sorted(Base.metadata.tables) == ["docs"]
    assert "attachment_ledger" in metadata.tables
    Base.metadata.create_all(engine)
    metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Doc(file=b"x"))
        session.commit()
    assert files.ledger_of(Doc.__table__) is Ledger.of(metadata)  # type: ignore[arg-type]
    assert [(each.state, each.files) for each in files.stats(engine)] == [(OWNED, 1)]
    assert files.verify(engine).ok


# Staging


def test_staging_stores_before_any_transaction() -> None:
    files = Storages("memory:")
    staged = files.stage(Attachment.upload(b"hello", "a.txt"))
    assert staged.is_stored
    assert staged.read() == b"hello"
    assert len(list(files.resolve("default").keys())) == 1


@sqlite
def test_where_a_staged_file_goes(archive: Archive) -> None:
    files, doc = archive.files, archive.Doc
    assert files.stage(Attachment.upload(b"x")).storage == "default"
    assert files.stage(Attachment.upload(b"x", storage="other")).storage == "other"
    assert files.stage(Attachment.upload(b"x", storage="other"), storage="default").storage == "default"
    assert files.stage(Attachment.upload(b"x", storage="other"), doc.file).storage == "other"
    with pytest.raises(UnknownStorage, match="no storage 'nowhere'; configured are 'default', 'other'"):
        files.stage(Attachment.upload(b"x", storage="nowhere"))


def test_an_alias_is_recorded_by_its_real_name() -> None:
    files = Storages({"default": "memory:", "avatars": "default"})
    assert files.stage(Attachment.upload(b"x"), storage="avatars").storage == "default"


@pytest.fixture
def notes() -> tuple[Storages, Any, list[str]]:
    """A model whose steps write down what they see."""
    files, seen = Storages("memory:"), []

    class Base(DeclarativeBase):
        pass

    def look(attachment: Attachment) -> None:
        seen.append(attachment.filename)

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Scan | None] = mapped_column(
            AttachmentType(files, steps=[MaxSize(10), look], attachment_class=Scan)
        )
        other: Mapped[Attachment | None] = mapped_column(AttachmentType(files, steps=[MaxSize(3)]))

    return files, Note, seen


def test_staging_for_an_attribute_runs_its_steps_once(notes: tuple[Storages, Any, list[str]], tmp_path: Path) -> None:
    files, Note, seen = notes
    staged = files.stage(Attachment.upload(b"hello", "a.txt"), Note.file)
    assert (type(staged), seen) == (Scan, ["a.txt"])
    assert binding_of(staged) is Note.file.type
    engine = create(Note, tmp_path)
    with Session(engine) as session:
        session.add(Note(file=staged))
        session.commit()
        assert session.query(Note).one().file == staged
    assert seen == ["a.txt"]


def create(model: Any, tmp_path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{tmp_path}/notes.db")
    model.metadata.create_all(engine)
    return engine


def test_what_was_staged_for_nobody_meets_the_steps_when_it_is_assigned(
    notes: tuple[Storages, Any, list[str]], tmp_path: Path
) -> None:
    files, Note, seen = notes
    short, long = files.stage(Attachment.upload(b"abc")), files.stage(Attachment.upload(b"abcd"))
    assert seen == []
    with Session(create(Note, tmp_path)) as session:
        session.add(Note(other=short))
        session.commit()
        session.add(Note(other=long))
        with pytest.raises(Refused, match=r"^Note\.other: "):
            session.flush()


def test_a_refusal_while_staging_names_the_attribute_and_stores_nothing(notes: tuple[Storages, Any, list[str]]) -> None:
    files, Note, _ = notes
    with pytest.raises(Refused, match=r"^Note\.file: the file has 11 bytes"):
        files.stage(Attachment.upload(b"x" * 11), Note.file)
    assert list(files.resolve("default").keys()) == []


def test_a_storage_that_fails_while_staging() -> None:
    files = Storages(Faulty(MemoryStorage()).fail("put", error=OSError("full")))
    with pytest.raises(StorageFailed, match="full"):
        files.stage(Attachment.upload(b"x"))


@everywhere
def test_a_staged_file_has_one_owner(archive: Archive) -> None:
    staged = archive.files.stage(Attachment.upload(b"x"), archive.Doc.file)
    with archive.session() as session:
        one, two = archive.Doc(file=staged), archive.Doc(file=staged)
        session.add_all([one, two])
        session.commit()
        assert one.file is not None
        assert two.file is not None
        assert len({one.file.key, two.file.key}) == 2
        assert staged.key in {one.file.key, two.file.key}
    assert sorted(archive.stored().values()) == [b"x", b"x"]


@everywhere
def test_a_staged_file_that_comes_too_late(engine: Engine) -> None:
    archive = Archive(engine, own_within=timedelta(milliseconds=20))
    staged = archive.files.stage(Attachment.upload(b"x"), archive.Doc.file)
    time.sleep(0.1)
    with archive.session() as session:
        session.add(archive.Doc(file=staged))
        with pytest.raises(OwnershipLost, match="assign a fresh upload"):
            session.flush()


async def test_astage_does_not_block_the_loop() -> None:
    storage = Faulty(MemoryStorage()).hang("put")
    files, ticks = Storages(storage), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1
            if ticks > 5:
                storage.heal()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"he"
        await asyncio.sleep(0)
        yield b"llo"

    ticker = asyncio.create_task(tick())
    staged = await asyncio.wait_for(files.astage(Attachment.upload(chunks())), 30)
    ticker.cancel()
    assert await staged.aread() == b"hello"


# Binding


def test_binding_takes_back_what_came_from_a_cache() -> None:
    files = Storages("memory:")
    stored = files.stage(Attachment.upload(b"x", "a.txt"))
    for value in (stored.to_json(), pickle.loads(pickle.dumps(stored))):
        again = files.bind(value)
        assert again == stored
        assert again.read() == b"x"
    assert type(files.bind(stored.to_json(), Scan)) is Scan


@on("text", ["", "{}", "null", '{"key": "k"}', "nonsense"])
def test_binding_a_text_that_is_no_attachment(text: str) -> None:
    with pytest.raises(DescriptorDamaged, match="a text holds"):
        Storages("memory:").bind(text)


@sqlite
def test_what_was_bound_can_be_assigned_and_is_copied(archive: Archive) -> None:
    (id_,) = archive.keep(b"one")
    with archive.session() as session:
        file = session.get_one(archive.Doc, id_).file
        assert file is not None
        session.add(archive.Doc(file=archive.files.bind(file.to_json())))
        session.commit()
    assert sorted(archive.stored().values()) == [b"one", b"one"]
    assert archive.files.verify(archive.engine).ok


# Restoring


@pytest.fixture
def retaining(engine: Engine) -> Archive:
    return Archive(engine, retain=HOUR, budget=timedelta(seconds=30))


@everywhere
def test_what_a_row_dropped_last_is_taken_back(retaining: Archive) -> None:
    (id_,) = retaining.keep(b"one")
    for data in (b"two", b"three"):
        with retaining.session() as session:
            session.get_one(retaining.Doc, id_).file = data  # type: ignore[assignment]
            session.commit()
    assert sorted(retaining.states().values()) == [CONDEMNED, CONDEMNED, OWNED]
    with retaining.session() as session:
        restored = retaining.files.restore(session, retaining.Doc.file, id_)
        assert restored.read() == b"two"
        session.commit()
        file = session.get_one(retaining.Doc, id_).file
        assert file == restored
    assert sorted(retaining.stored().values()) == [b"one", b"three", b"two"]
    assert sorted(retaining.states().values()) == [CONDEMNED, CONDEMNED, OWNED]
    retaining.sweep()
    assert len(retaining.stored()) == 3  # retained still


@everywhere
def test_a_deleted_rows_file_is_given_back_to_be_assigned(retaining: Archive) -> None:
    (id_,) = retaining.keep(b"one")
    retaining.remove(id_)
    with retaining.session() as session:
        restored = retaining.files.restore(session, retaining.Doc.file, id_)
        session.add(retaining.Doc(file=restored))
        session.commit()
    assert list(retaining.stored().values()) == [b"one"]
    assert list(retaining.states().values()) == [OWNED]


@everywhere
@pytest.mark.filterwarnings("ignore:Dialect sqlite.* does .not. support Decimal")
def test_a_row_is_known_by_its_key_however_that_is_written(engine: Engine) -> None:
    """What a database makes of a key on its way there and back: zeros of a number, here."""
    files = Storages("memory:", retain=HOUR)

    class Base(DeclarativeBase):
        pass

    class Priced(Base):
        __tablename__ = "priced"
        price: Mapped[Decimal] = mapped_column(Numeric(10, 3), primary_key=True, autoincrement=False)
        file: Mapped[Attachment] = mapped_column(AttachmentType(files))
        pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files))

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Priced(price=Decimal("1.5"), file=Attachment.upload(b"one"), pages=[Attachment.upload(b"page")]))
        session.commit()
    with Session(engine) as session:
        priced = session.scalars(select(Priced)).one()
        priced.file, priced.pages = Attachment.upload(b"two"), []
        session.commit()
    with Session(engine) as session:
        assert files.restore(session, Priced.file, Decimal("1.5")).read() == b"one"
        assert files.restore(session, Priced.pages, Decimal("1.50")).read() == b"page"
        session.commit()
        priced = session.scalars(select(Priced)).one()
        assert [file.read() for file in (priced.file, *priced.pages)] == [b"one", b"page"]
    assert files.settled(20)


@sqlite
def test_a_list_gets_it_back_at_its_end(engine: Engine) -> None:
    archive = Archive(engine, {}, budget=timedelta(seconds=30))
    archive.files.retain = HOUR
    (id_,) = archive.keep(b"file", pages=[b"one", b"two"])
    with archive.session() as session:
        doc = session.get_one(archive.Doc, id_)
        doc.pages = doc.pages[1:]
        session.commit()
        archive.files.restore(session, archive.Doc.pages, id_)
        session.commit()
        assert [page.read() for page in doc.pages] == [b"two", b"one"]


@everywhere
def test_a_restored_file_that_is_rolled_back_is_kept_as_before(retaining: Archive) -> None:
    (id_,) = retaining.keep(b"one")
    with retaining.session() as session:
        session.get_one(retaining.Doc, id_).file = None
        session.commit()
        retaining.files.restore(session, retaining.Doc.file, id_)
        session.flush()
        session.rollback()
    retaining.settle()
    assert list(retaining.states().values()) == [CONDEMNED]
    assert list(retaining.stored().values()) == [b"one"]
    with retaining.session() as session:
        assert retaining.files.restore(session, retaining.Doc.file, id_).read() == b"one"


@sqlite
def test_what_is_not_kept_cannot_be_restored(archive: Archive) -> None:
    (id_,) = archive.keep(b"one")
    archive.remove(id_)
    with archive.session() as session:
        with pytest.raises(FileMissing, match=r"Doc\.file: nothing is kept of what row \(1,\) dropped"):
            archive.files.restore(session, archive.Doc.file, id_)
        with pytest.raises(BadConfiguration, match=r"Doc\.id holds no attachments"):
            archive.files.restore(session, archive.Doc.id, id_)
        with pytest.raises(BadConfiguration, match=r"Doc.* holds no attachments to be restored: .*, as User\.avatar"):
            archive.files.restore(session, archive.Doc, id_)


@sqlite
def test_a_retention_that_is_over_ends_in_a_sweep(retaining: Archive) -> None:
    (id_,) = retaining.keep(b"one")
    key = retaining.key(id_)
    retaining.remove(id_)
    retaining.change(key, purge_after=1)
    assert retaining.sweep().purged == 1
    with retaining.session() as session, pytest.raises(FileMissing):
        retaining.files.restore(session, retaining.Doc.file, id_)


async def test_restore_under_asyncio(async_engine: AsyncEngine) -> None:
    archive = await greenlet_spawn(Archive, async_engine.sync_engine, retain=HOUR)
    async with AsyncSession(async_engine) as session:
        doc = archive.Doc(file=b"one")
        session.add(doc)
        await session.commit()
        id_ = await session.run_sync(lambda _: doc.id)
        doc.file = None
        await session.commit()
        with pytest.raises(BadConfiguration, match=r"await session\.run_sync\(files\.restore, "):
            archive.files.restore(session, archive.Doc.file, id_)  # type: ignore[arg-type]
        restored = await session.run_sync(archive.files.restore, archive.Doc.file, id_)
        await session.commit()
        assert await restored.aread() == b"one"


# Statistics


@everywhere
def test_stats_count_files_and_bytes_by_storage_and_state(archive: Archive) -> None:
    ids = archive.keep(b"one", b"three")
    with archive.session() as session:
        session.add(archive.Doc(file=Attachment.upload(b"elsewhere", storage="other")))
        session.commit()
    archive.change(archive.key(ids[0]), state=CONDEMNED)
    archive.change(archive.key(ids[1]), held=True)
    stats = archive.files.stats(archive.engine)
    assert stats == [
        LedgerStats("default", CONDEMNED, 1, 3),
        LedgerStats("default", OWNED, 1, 5, 1),
        LedgerStats("other", OWNED, 1, 9),
    ]


@everywhere
def test_stats_of_nothing(archive: Archive) -> None:
    assert archive.files.stats(archive.engine) == []
    assert Storages("memory:").stats(archive.engine) == []


# The kind of engine


async def test_an_engine_of_the_other_kind_is_told_what_to_call(engine: Engine, async_engine: AsyncEngine) -> None:
    files, wrong = Storages("memory:"), cast(Any, async_engine)
    calls = [files.sweep, files.verify, files.rebuild, files.stats, files.takeover]
    for call in [*calls, partial(files.move, source="default", target="default")]:
        with pytest.raises(BadConfiguration, match=r"an AsyncEngine wants to be awaited: .*asweep.*run_sync"):
            call(wrong)
        with pytest.raises(BadConfiguration, match="expected an Engine, not 'sqlite://'"):
            call(cast(Any, "sqlite://"))
    for awaited in (files.asweep, files.averify, files.arebuild, partial(files.amove, source="default", target="new")):
        with pytest.raises(BadConfiguration, match=r"expected an AsyncEngine, not Engine\("):
            await awaited(engine)


async def test_what_has_no_twin_is_asked_through_a_connection(async_engine: AsyncEngine) -> None:
    archive = await greenlet_spawn(Archive, async_engine.sync_engine)
    async with AsyncSession(async_engine) as session:
        session.add(archive.Doc(file=b"one"))
        await session.commit()
    async with async_engine.connect() as connection:
        await connection.run_sync(lambda connection: archive.files.takeover(connection.engine))
        stats = await connection.run_sync(lambda connection: archive.files.stats(connection.engine))
    assert stats == [LedgerStats("default", OWNED, 1, 3)]


# Taking over


@sqlite
def test_takeover(archive: Archive, tmp_path: Path, open_engine: Callable[..., Engine]) -> None:
    archive.keep(b"one")
    second = Archive(open_engine(f"sqlite:///{tmp_path}/second.db"), {"default": archive.storage})
    with pytest.warns(AttachmentWarning, match="sa-attachments takeover"):
        assert second.sweep().problem
    second.files.takeover(second.engine)
    assert second.sweep().problem is None
    with pytest.warns(AttachmentWarning):
        assert archive.sweep().problem


@sqlite
def test_takeover_of_an_unknown_storage(archive: Archive) -> None:
    with pytest.raises(UnknownStorage, match="no storage 'nowhere'"):
        archive.files.takeover(archive.engine, "nowhere")


@sqlite
def test_takeover_follows_aliases(engine: Engine) -> None:
    archive = Archive(engine, {"avatars": "default"})
    archive.files.takeover(engine, "avatars")
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT name FROM attachment_storage")).all() == ["default"]
