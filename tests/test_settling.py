"""Settling: no commit, rollback or close waits for cleaning for long, or fails because of it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, AssertionPool, Engine, QueuePool, StaticPool, create_engine, event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.util import greenlet_spawn

from sa_attachments import Storages
from sa_attachments.descriptor import Named
from sa_attachments.frames import Frame
from sa_attachments.offload import run
from sa_attachments.queries import CONDEMNED, OWNED, PURGING
from tests.archive import DIALECTS, NO_TIME, Archive
from tests.engines import with_driver

on = pytest.mark.parametrize
everywhere = on("engine", DIALECTS, indirect=True)
sqlite = on("engine", ["sqlite"], indirect=True)
servers = on("engine", [name for name in DIALECTS if name != "sqlite"], indirect=True)
PATIENT = 4.5  # Machines of tests may be slow; what hangs here would do so for ever.


def timed(action: Callable[[], Any]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


@pytest.fixture
def archive(engine: Engine) -> Archive:
    """Its budget is long, so that a slow machine makes no difference."""
    return opened(engine, timedelta(seconds=30))


@pytest.fixture
def hasty(engine: Engine) -> Archive:
    return opened(engine, timedelta(milliseconds=50))


def opened(engine: Engine, budget: timedelta) -> Archive:
    archive = Archive(engine, budget=budget)
    archive.keep(b"first")  # the place is known
    archive.settle()
    return archive


def suspect(archive: Archive, *, marked: bool = False) -> tuple[Frame, str]:
    """The frame of a transaction that was rolled back, and the key of the file that it had staged."""
    key = archive.stranger(NO_TIME)
    frame = Frame()
    work = frame.work(archive.scope())
    if archive.engine.dialect.name == "sqlite":  # where all may share one connection: asking would end their work
        work.identities = {""}
    else:
        with archive.engine.connect() as connection:
            work.identities = {archive.ledger.identity(connection)}
    work.staged.append(Named("default", key, 8))
    frame.marked = marked
    return frame, key


# Within the budget


@everywhere
def test_what_is_done_within_the_budget_is_waited_for(archive: Archive) -> None:
    frame, key = suspect(archive)
    archive.files.settle(frame)
    assert key not in archive.stored()
    if archive.engine.dialect.name != "sqlite":
        assert key not in archive.states()


@sqlite
def test_on_sqlite_the_next_transaction_that_settles_removes_the_lines(archive: Archive) -> None:
    """One commit to the disk less for each that drops a file."""
    (first, one), (second, two) = suspect(archive), suspect(archive)
    archive.files.settle(first)
    assert archive.states()[one] == PURGING
    archive.files.settle(second)
    assert one not in archive.states()
    assert archive.states()[two] == PURGING
    assert not {one, two} & set(archive.stored())
    archive.settle()
    assert two not in archive.states()


@sqlite
def test_lines_that_cannot_be_removed_are_removed_later(archive: Archive) -> None:
    frame, key = suspect(archive)
    archive.files.settle(frame)
    with archive.engine.connect() as writer:
        writer.execute(archive.ledger.lines.update().values(attempts=1))
        archive.settle()
        writer.rollback()
    assert archive.states()[key] == PURGING
    archive.settle()
    assert key not in archive.states()


@sqlite
def test_lines_whose_removal_cannot_be_committed_are_removed_later(archive: Archive) -> None:
    """Without WAL, one who reads keeps SQLite from committing."""
    frame, key = suspect(archive)
    archive.files.settle(frame)
    with archive.engine.connect() as reader:
        assert reader.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
        reader.execute(archive.ledger.lines.select()).all()
        archive.settle()
    assert archive.states()[key] == PURGING
    archive.settle()
    assert key not in archive.states()


@sqlite
def test_lines_of_a_database_that_is_gone_are_forgotten(archive: Archive, caplog: pytest.LogCaptureFixture) -> None:
    frame, _ = suspect(archive)
    archive.files.settle(frame)
    archive.ledger.lines.drop(archive.engine)
    archive.settle()
    archive.settle()
    assert [record.getMessage() for record in caplog.records].count(
        "cleaning after a transaction failed, the next sweep does it"
    ) == 1


@everywhere
def test_a_worker_that_is_late_deletes_where_the_file_is(hasty: Archive) -> None:
    """Not where its storage's name leads by then."""
    (frame, key), loose = suspect(hasty), hasty.stranger(NO_TIME)
    frame.loose.append((hasty.files, Named("default", loose, 8)))
    hasty.storage.hang("delete")
    hasty.files.settle(suspect(hasty)[0])  # the worker is at it
    hasty.files.settle(frame)
    with hasty.files.override("memory:"):
        hasty.storage.release()
        hasty.settle()
    assert not {key, loose} & set(hasty.stored())
    assert key not in hasty.states()


@everywhere
def test_a_storage_that_hangs_is_not_waited_for(hasty: Archive) -> None:
    frame, key = suspect(hasty)
    hasty.storage.hang("delete")
    assert timed(lambda: hasty.files.settle(frame)) < PATIENT
    assert hasty.storage.wait_for_hang()
    assert hasty.states()[key] == PURGING
    hasty.storage.release()
    hasty.settle()
    assert key not in hasty.stored()
    hasty.sweep()
    assert hasty.states().get(key) != PURGING


@sqlite
def test_a_storage_too_slow_to_be_waited_for_is_cleaned_all_the_same(hasty: Archive) -> None:
    """Whose the place is, it tells too late for the first transaction: the second one need not ask again."""
    hasty.files.places._known.clear()
    for verb in ("open", "delete"):
        hasty.storage.hang(verb, seconds=1)
    (first, one), (second, two) = suspect(hasty), suspect(hasty)
    hasty.files.settle(first)
    assert hasty.files._settler._worker.idle(20)
    assert {one, two} <= set(hasty.stored())
    hasty.files.settle(second)
    hasty.settle()
    assert two not in hasty.stored()
    assert two not in hasty.states()


@on("engine", ["sqlite", "sqlite-memory"], indirect=True)
def test_what_would_have_had_to_wait_on_sqlite_is_done_by_who_waits(engine: Engine) -> None:
    """The test of an application asks for what is there; a sweep it does not run."""
    hasty = opened(engine, NO_TIME)
    hasty.files.places._known.clear()
    hasty.storage.hang("open", seconds=1)
    for key in hasty.states():
        frame = Frame()
        frame.work(hasty.scope()).dropped.append(Named("default", key, 5))
        hasty.change(key, state=CONDEMNED, purge_after=0)
        hasty.files.settle(frame)
    assert hasty.stored() != {}
    assert not hasty.files.settled(0.01)
    hasty.settle()
    assert (hasty.stored(), hasty.states()) == ({}, {})


@sqlite
def test_what_a_writer_kept_from_cleaning_is_done_by_who_waits(hasty: Archive) -> None:
    frame, key = suspect(hasty)
    with hasty.engine.connect() as writer:
        hasty.ledger.begin_write(writer)
        hasty.files.settle(frame)
        hasty.settle()
    assert key in hasty.stored()
    hasty.settle()
    assert key not in hasty.stored()
    assert key not in hasty.states()


@sqlite
def test_what_is_done_later_is_done_where_the_file_is(hasty: Archive) -> None:
    frame, key = suspect(hasty)
    hasty.files.places._known.clear()
    hasty.storage.hang("open", seconds=1)
    hasty.files.settle(frame)
    with hasty.files.override("memory:"):
        hasty.settle()
    assert key not in hasty.stored()


@everywhere
def test_many_that_wait_do_not_wait_for_each_other(hasty: Archive) -> None:
    hasty.storage.hang("delete")
    frames = [suspect(hasty)[0] for _ in range(5)]
    assert timed(lambda: [hasty.files.settle(frame) for frame in frames]) < PATIENT
    hasty.storage.heal()
    hasty.settle()
    hasty.sweep()
    assert list(hasty.stored().values()) == [b"first"]


@servers
def test_on_a_server_a_worker_does_the_work(archive: Archive) -> None:
    threads: list[str] = []
    archive.storage.at("delete", None, lambda: threads.append(threading.current_thread().name))
    archive.files.settle(suspect(archive)[0])
    archive.settle()
    assert threads == ["sa_attachments"]


@sqlite
def test_on_sqlite_only_the_storage_works_in_the_worker(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one writer: another thread that writes would make the application's statements fail."""
    threads: list[str] = []
    archive.storage.at("delete", None, lambda: threads.append(threading.current_thread().name))
    connects: list[int] = []
    plain = archive.engine.connect

    def connect() -> Any:
        connects.append(threading.get_ident())
        return plain()

    monkeypatch.setattr(type(archive.engine), "connect", lambda self: connect())
    archive.files.settle(suspect(archive)[0])
    archive.settle()
    assert threads == ["sa_attachments"]
    assert set(connects) == {threading.get_ident()}


@on("name", [name for name in DIALECTS if name != "sqlite"])
def test_a_storage_that_does_not_say_whose_it_is_keeps_no_connection(
    request: pytest.FixtureRequest, open_engine: Callable[..., Engine], name: str
) -> None:
    """Cleaning could take the whole pool otherwise, for as long as a storage hangs."""
    engine = open_engine(request.getfixturevalue(f"{name}_url"), pool_size=1, max_overflow=0, pool_timeout=2)
    hasty = opened(engine, NO_TIME)
    hasty.files.places._known.clear()
    hasty.storage.hang("open")
    with hasty.session() as session:
        session.delete(session.get_one(hasty.Doc, 1))
        session.commit()
    assert hasty.storage.wait_for_hang()
    with engine.connect() as connection:
        assert connection.scalar(select(hasty.Doc.id)) is None
    hasty.storage.heal()
    hasty.settle()
    assert hasty.stored() == {}


# Without hurting


@everywhere
@on("verb", ["delete", "open"])
def test_a_storage_that_fails_hurts_nobody(archive: Archive, verb: str, caplog: pytest.LogCaptureFixture) -> None:
    archive.files.places._known.clear()
    archive.storage.fail(verb, error=ConnectionError("no route"))
    frame, key = suspect(archive)
    with caplog.at_level(logging.WARNING, "sa_attachments"):
        archive.files.settle(frame)
        archive.settle()
    assert "no route" in caplog.text
    assert "next sweep" in caplog.text
    assert key in archive.stored()
    archive.storage.heal()
    archive.sweep()
    assert key not in archive.stored()


@everywhere
def test_a_database_that_fails_hurts_nobody(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    frame, key = suspect(archive)

    def connect(self: Engine) -> Any:
        raise ConnectionRefusedError("no database")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "sa_attachments"):
        patch.setattr(Engine, "connect", connect)
        archive.files.settle(frame)
        archive.settle()
    assert "cleaning after a transaction failed, the next sweep does it" in caplog.text
    assert key in archive.stored()


@sqlite
def test_a_worker_that_cannot_be_started_hurts_nobody(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    frame, _ = suspect(archive)
    for thread in threading.enumerate():
        if thread.name == "sa_attachments":
            thread.join()  # it waits a moment for more to do
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "sa_attachments"):
        patch.setattr(threading.Thread, "start", start)
        archive.files.settle(frame)
    assert "can't start new thread" in caplog.text


@sqlite
def test_too_much_to_do_is_left_to_the_sweep(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, key = suspect(archive)
    with monkeypatch.context() as patch:
        patch.setattr("sa_attachments.offload.Worker.CAPACITY", 0)
        archive.files.settle(frame)
    assert key in archive.stored()
    archive.sweep()
    assert key not in archive.stored()


@sqlite
def test_a_writer_that_keeps_sqlite_is_not_waited_for(archive: Archive) -> None:
    frame, key = suspect(archive)
    with archive.engine.connect() as writer:
        archive.ledger.begin_write(writer)
        assert timed(lambda: archive.files.settle(frame)) < PATIENT
    assert key in archive.stored()
    archive.files.settle(frame)
    assert key not in archive.stored()


# What never came into a ledger


@sqlite
def test_loose_files_are_deleted_by_those_who_put_them(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    archive = Archive(engine, {"other": "memory:"})
    mine, theirs = archive.stranger(NO_TIME), archive.stranger(NO_TIME)
    frame = Frame()
    frame.loose += [(archive.files, Named("default", mine, 1)), (Storages("memory:"), Named("default", theirs, 1))]
    frame.loose.append((archive.files, Named("nowhere", "k", 1)))
    with caplog.at_level(logging.WARNING, "sa_attachments"):
        archive.files.settle(frame)
        archive.settle()
    assert set(archive.stored()) == {theirs}
    assert "could not delete nowhere:k, a sweep finds it" in caplog.text
    assert archive.states() == {}


@sqlite
def test_another_storages_work_is_not_ours(archive: Archive) -> None:
    frame, key = suspect(archive)
    Storages("memory:").settle(frame)
    assert key in archive.stored()


# One connection for all


@on("end", ["commit", "rollback"])
@on("pool", ["static", "singleton"])
def test_a_shared_connection_is_left_alone_while_somebody_is_in_a_transaction(pool: str, end: str) -> None:
    """Hole 18: settling would end another session's transaction, one way or the other."""
    options: dict[str, Any] = {"poolclass": StaticPool} if pool == "static" else {}
    engine = create_engine("sqlite://", connect_args={"check_same_thread": False}, **options)
    archive = Archive(engine, budget=timedelta(seconds=30))
    archive.keep(b"one")
    other = archive.session()
    other.add(archive.Doc(file=b"in flight"))
    other.flush()
    frame, key = suspect(archive)
    archive.files.settle(frame)
    archive.settle()
    assert key in archive.memory._files  # where the ledger is asked, the connection would be given back
    assert other.query(archive.Doc).count() == 2
    getattr(other, end)()
    other.close()
    archive.settle()
    expected = [b"in flight", b"one"] if end == "commit" else [b"one"]
    assert sorted(archive.stored().values()) == expected
    with archive.session() as session:
        assert session.query(archive.Doc).count() == len(expected)


@on("end", ["commit", "rollback"])
@servers
def test_a_shared_connection_to_a_server_is_left_to_the_sweep(
    engine: Engine, end: str, open_engine: Callable[..., Engine]
) -> None:
    archive = Archive(open_engine(engine.url, poolclass=StaticPool), budget=timedelta(seconds=30))
    archive.keep(b"one")
    archive.sweep()  # the place is known
    frame, key = suspect(archive)
    with archive.session() as other:
        other.add(archive.Doc(file=b"in flight"))
        other.flush()
        archive.files.settle(frame)
        archive.settle()
        assert archive.sweep().waiting
        getattr(other, end)()
    expected = [b"in flight", b"one"] if end == "commit" else [b"one"]
    with archive.session() as session:
        assert session.query(archive.Doc).count() == len(expected)
    assert key in archive.memory._files
    archive.sweep()
    assert sorted(archive.stored().values()) == expected


ONE: dict[str, Any] = {"pool_size": 1, "max_overflow": 0}
SMALL: dict[str, tuple[dict[str, Any], bool]] = {
    "assertion": ({"poolclass": AssertionPool}, False),
    "one, at once": ({"poolclass": QueuePool, "pool_timeout": 0, **ONE}, False),
    "one, patient": ({"poolclass": QueuePool, **ONE}, True),
    "two, at once": ({"poolclass": QueuePool, "pool_timeout": 0, "pool_size": 1, "max_overflow": 1}, True),
    "any, at once": ({"poolclass": QueuePool, "pool_timeout": 0, "pool_size": 1, "max_overflow": -1}, True),
}


@on("pool", SMALL)
@servers
def test_a_worker_takes_no_connection_that_the_application_would_miss(
    engine: Engine, pool: str, open_engine: Callable[..., Engine]
) -> None:
    """Who finds such a pool empty fails at once, or soon."""
    options, takes = SMALL[pool]
    archive = Archive(open_engine(engine.url, **options), budget=timedelta(seconds=30))
    archive.keep(b"one")
    frame, key = suspect(archive)
    threads: set[int] = set()
    event.listen(archive.engine, "checkout", lambda *_: threads.add(threading.get_ident()))
    archive.files.settle(frame)
    archive.settle()
    assert (threads != set()) is takes
    assert (key not in archive.memory._files) is takes
    archive.sweep()
    assert list(archive.stored().values()) == [b"one"]


@servers
def test_a_worker_leaves_the_last_connection(engine: Engine, open_engine: Callable[..., Engine]) -> None:
    archive = Archive(
        open_engine(engine.url, pool_timeout=0, pool_size=1, max_overflow=1), budget=timedelta(seconds=30)
    )
    archive.keep(b"one")
    frame, key = suspect(archive)
    with archive.engine.connect():
        archive.files.settle(frame)
        archive.settle()
        assert key in archive.memory._files
    archive.files.settle(frame)
    archive.settle()
    assert key not in archive.memory._files


@sqlite
def test_a_pool_that_asserts_is_not_provoked(
    engine: Engine, open_engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    archive = Archive(open_engine(engine.url, poolclass=AssertionPool), budget=timedelta(seconds=30))
    archive.keep(b"one")
    frame, key = suspect(archive)
    with archive.engine.connect():
        archive.files.settle(frame)
        archive.settle()
    assert caplog.records == []
    archive.files.settle(frame)
    archive.settle()
    assert key not in archive.stored()


# Under asyncio


@on("async_engine", ["asyncpg"], indirect=True)
async def test_under_asyncio_a_shared_connection_is_left_to_the_sweep(async_engine: AsyncEngine) -> None:
    shared = create_async_engine(async_engine.url, poolclass=StaticPool)
    archive = await greenlet_spawn(opened, shared.sync_engine, timedelta(seconds=30))
    async with AsyncSession(shared) as session:
        session.add(archive.Doc(file=b"undone"))
        await session.flush()
        await session.rollback()
        session.add(archive.Doc(file=b"in flight"))
        await session.flush()
        await archive.files.asettled()
        assert (await archive.files.asweep(shared))["default"].waiting
        await session.rollback()
        assert await session.scalar(select(func.count()).select_from(archive.Doc)) == 1
    await greenlet_spawn(archive.sweep)
    assert list(archive.stored().values()) == [b"first"]
    await shared.dispose()


async def test_under_asyncio_a_task_does_the_work_and_the_loop_stays_free(async_engine: AsyncEngine) -> None:
    archive = await greenlet_spawn(Archive, async_engine.sync_engine, budget=timedelta(milliseconds=200))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    async with AsyncSession(async_engine) as session:
        session.add(archive.Doc(file=b"one"))
        await session.commit()
        archive.storage.hang("delete")
        session.add(archive.Doc(file=b"two"))
        await session.flush()
        ticker = asyncio.create_task(tick())
        await asyncio.wait_for(session.rollback(), 30)  # what hangs does so until it is healed
        ticker.cancel()
        assert ticks > 5
    assert sorted(archive.stored().values()) == [b"one", b"two"]
    archive.storage.heal()
    await archive.files.asettled()
    assert list(archive.stored().values()) == [b"one"]


async def test_waiting_for_what_hangs_leaves_no_thread_behind(async_engine: AsyncEngine) -> None:
    """The end of the loop would wait for it."""
    archive = await greenlet_spawn(opened, async_engine.sync_engine, NO_TIME)
    async with AsyncSession(async_engine) as session:
        archive.storage.hang("delete")
        session.add(archive.Doc(file=b"one"))
        await session.flush()
        await session.rollback()
    assert await asyncio.to_thread(archive.storage.wait_for_hang)
    threads = threading.active_count()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(archive.files.asettled(), 0.01)
    assert threading.active_count() <= threads
    archive.storage.heal()
    await archive.files.asettled()
    assert list(archive.stored().values()) == [b"first"]


async def test_a_storage_that_does_not_say_whose_it_is_keeps_no_connection_of_an_async_pool(postgres_url: URL) -> None:
    url = with_driver(postgres_url, "asyncpg")
    engine = create_async_engine(url, pool_size=1, max_overflow=0, pool_timeout=2)
    hasty = await greenlet_spawn(opened, engine.sync_engine, NO_TIME)
    hasty.files.places._known.clear()
    hasty.storage.hang("open")
    async with AsyncSession(engine) as session:
        await session.delete(await session.get_one(hasty.Doc, 1))
        await session.commit()
    assert await asyncio.to_thread(hasty.storage.wait_for_hang)
    async with engine.connect() as connection:
        assert await connection.scalar(select(hasty.Doc.id)) is None
    hasty.storage.heal()
    await hasty.files.asettled()
    assert hasty.stored() == {}
    await engine.dispose()


@on("async_engine", ["asyncpg"], indirect=True)
async def test_a_storage_that_hangs_takes_few_threads(async_engine: AsyncEngine) -> None:
    hasty = await greenlet_spawn(opened, async_engine.sync_engine, NO_TIME)
    before = threading.active_count()
    try:
        async with AsyncSession(async_engine) as session:
            session.add_all([hasty.Doc(file=b"one") for _ in range(30)])
            await session.commit()
            hasty.storage.hang("delete")
            for doc in await session.scalars(select(hasty.Doc)):
                await session.delete(doc)
                await session.commit()
        assert await asyncio.to_thread(hasty.storage.wait_for_hang)
        await asyncio.sleep(0.2)
        assert threading.active_count() - before < 10
    finally:
        hasty.storage.heal()
    await hasty.files.asettled()
    assert hasty.stored() == {}


ENDING = """
import asyncio, sys, time
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sa_attachments import Attachment, AttachmentType, Storages
from sa_attachments.storages.memory import MemoryStorage

class Hanging(MemoryStorage):
    def delete(self, keys):
        time.sleep(60)

files = Storages(Hanging())

class Base(DeclarativeBase):
    pass

class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment] = mapped_column(AttachmentType(files))

async def main():
    engine = create_async_engine(sys.argv[1])
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        doc = Doc(file=Attachment.upload(b"one"))
        session.add(doc)
        await session.commit()
        await session.delete(doc)
        await session.commit()
    await asyncio.sleep(0.2)
    await engine.dispose()

asyncio.run(main())
"""


def test_a_process_ends_though_a_storage_hangs(postgres_url: URL) -> None:
    """A sweep does the rest."""
    url = with_driver(postgres_url, "asyncpg").render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-c", ENDING, url], capture_output=True, text=True, timeout=45)
    assert (done.returncode, done.stderr) == (0, "")


AT_EXIT = """
import atexit, sys
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sa_attachments import Attachment, AttachmentType, Storages

files = Storages("local:" + sys.argv[2] + "?parallel=4")

class Base(DeclarativeBase):
    pass

class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment] = mapped_column(AttachmentType(files))

engine = create_engine(sys.argv[1])
Base.metadata.create_all(engine)

@atexit.register
def end():
    with Session(engine) as session:
        docs = [Doc(file=data) for data in (b"one", b"two", b"three")]
        session.add_all(docs)
        session.commit()
        session.delete(docs[0])
        session.commit()
        print(sorted(doc.file.read() for doc in docs[1:]))
"""


AWAITED_AT_EXIT = (
    AT_EXIT.partition("@atexit")[0]
    + """
import asyncio
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

async def commit():
    engine = create_async_engine(sys.argv[1].replace("psycopg", "asyncpg"))
    async with AsyncSession(engine, expire_on_commit=False) as session:
        docs = [Doc(file=data) for data in (b"one", b"two", b"three")]
        session.add_all(docs)
        await session.commit()
        await session.delete(docs[0])
        await session.commit()
        print(sorted(doc.file.read() for doc in docs[1:]))
    await engine.dispose()

@atexit.register
def end():
    asyncio.run(commit())
"""
)


@on(
    ("program", "server"),
    [(AT_EXIT, False), (AT_EXIT, True), (AWAITED_AT_EXIT, True)],
    ids=["file", "server", "asyncio"],
)
def test_a_process_that_ends_may_still_commit(
    tmp_path: Path, request: pytest.FixtureRequest, program: str, server: bool
) -> None:
    """Pools of threads start none then; Python 3.12 starts no thread at all, so that a sweep cleans up."""
    url = f"sqlite:///{tmp_path / 'rows.db'}"
    if server:
        url = with_driver(request.getfixturevalue("postgres_url"), "psycopg").render_as_string(hide_password=False)
    command = [sys.executable, "-c", program, url, str(tmp_path / "files")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=45)
    assert (done.returncode, done.stdout) == (0, "[b'three', b'two']\n"), done.stderr


FORGOTTEN = """
import sys
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sa_attachments import Attachment, AttachmentType, Storages

files = Storages("memory:")

class Base(DeclarativeBase):
    pass

class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment] = mapped_column(AttachmentType(files))

class Work:
    def __init__(self):
        self.session = Session(engine)

    def __del__(self):
        if sys.argv[2] == "closed":
            self.session.close()

engine = create_engine(sys.argv[1])
Base.metadata.create_all(engine)
work = Work()
work.session.add(Doc(file=b"one"))
work.session.flush()
print("The end")
"""


@on("how", ["forgotten", "closed"])
@on("server", [False, True])
def test_a_process_ends_though_a_session_was_left_open(request: pytest.FixtureRequest, server: bool, how: str) -> None:
    """Its objects go when no thread can be started any more; a sweep cleans up."""
    url = "sqlite://"
    if server:
        url = with_driver(request.getfixturevalue("postgres_url"), "psycopg").render_as_string(hide_password=False)
    command = [sys.executable, "-c", FORGOTTEN, url, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=45)
    assert (done.returncode, done.stdout) == (0, "The end\n"), done.stderr


@on("async_engine", ["aiosqlite"], indirect=True)
async def test_what_would_have_had_to_wait_is_done_under_asyncio_too(async_engine: AsyncEngine) -> None:
    hasty = await greenlet_spawn(opened, async_engine.sync_engine, NO_TIME)
    hasty.files.places._known.clear()
    hasty.storage.hang("open", seconds=1)
    async with AsyncSession(async_engine) as session:
        await session.delete(await session.get_one(hasty.Doc, 1))
        await session.commit()
    assert hasty.stored() != {}
    await hasty.files.asettled()
    assert hasty.stored() == {}


def test_run_does_the_job_at_once() -> None:
    assert run(threading.get_ident) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)


async def test_run_does_it_in_a_thread_under_asyncio() -> None:
    assert await greenlet_spawn(run, threading.get_ident) != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        await greenlet_spawn(run, lambda: 1 / 0)


# Waiting for it


@sqlite
def test_settled_tells_whether_something_is_left_to_do(hasty: Archive) -> None:
    assert hasty.files.settled(0)
    hasty.storage.hang("delete")
    hasty.files.settle(suspect(hasty)[0])
    assert not hasty.files.settled(0.01)
    hasty.storage.release()
    assert hasty.files.settled(10)


@sqlite
def test_what_the_ledger_calls_owned_is_never_touched(archive: Archive) -> None:
    states = archive.states()
    for marked in (True, False):
        frame = Frame()
        (key,) = states
        frame.work(archive.scope()).dropped.append(Named("default", key, 5))
        frame.work(archive.scope()).staged.append(Named("default", key, 5))
        frame.marked = marked
        archive.files.settle(frame)
    archive.settle()
    assert archive.states() == states == {key: OWNED}
    assert list(archive.stored()) == [key]
