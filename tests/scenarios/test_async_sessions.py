"""AsyncSession: the same promises, an event loop that is never blocked, and cancellation that leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from sa_attachments import Attachment
from tests import engines

from .models import Doc, files
from .world import AsyncWorld

on = pytest.mark.parametrize


async def seed(aworld: AsyncWorld) -> int:
    async with aworld.sessions() as session:
        doc = Doc(file=b"old")
        session.add(doc)
        await session.commit()
        return (await session.scalars(select(Doc.id))).one()


@on("end", ["commit", "rollback", "close", "invalidate", "reset"])
async def test_ends(aworld: AsyncWorld, end: str) -> None:
    key = await seed(aworld)
    async with aworld.sessions() as session:
        doc = await session.get_one(Doc, key)
        doc.file = b"new"
        session.add(Doc(file=b"added", pages=[b"page"]))
        await session.flush()
        await getattr(session, end)()
    await aworld.acheck(*([b"new", b"added", b"page"] if end == "commit" else [b"old"]))


@on("inner", ["commit", "rollback"])
async def test_savepoints(aworld: AsyncWorld, inner: str) -> None:
    key = await seed(aworld)
    async with aworld.sessions() as session:
        session.add(Doc(file=b"outer"))
        await session.flush()
        savepoint = await session.begin_nested()
        (await session.get_one(Doc, key)).file = b"inner"
        await session.flush()
        await getattr(savepoint, inner)()
        await session.commit()
    await aworld.acheck(b"outer", b"inner" if inner == "commit" else b"old")


async def test_an_expired_attribute_can_be_set(aworld: AsyncWorld) -> None:
    """Listeners that ask for active history would load here, where nothing can be awaited."""
    async with aworld.sessions() as session:
        doc = Doc(file=b"old", pages=[b"page"])
        session.add(doc)
        await session.commit()
        doc.file = b"new"
        doc.pages = []
        await session.commit()
        await session.refresh(doc)
        assert doc.file is not None
        assert await doc.file.aread() == b"new"
        doc.file = b"newer"
        await session.refresh(doc, ["file"])
        assert await doc.file.aread() == b"new"
        session.expire(doc)
        doc.file = None
        await session.commit()
    await aworld.acheck()


async def test_a_failed_flush_and_a_retry(aworld: AsyncWorld) -> None:
    async with aworld.sessions() as session:
        session.add(Doc(title="taken"))
        await session.commit()
        doc = Doc(title="taken", file=b"data")
        session.add(doc)
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.rollback()
        doc.title = "free"
        session.add(doc)
        await session.commit()
    await aworld.acheck(b"data")


async def test_statements(aworld: AsyncWorld) -> None:
    async with aworld.sessions() as session:
        await session.execute(insert(Doc), [{"title": "a", "file": b"a"}, {"title": "b", "file": b"b"}])
        await session.execute(update(Doc).where(Doc.title == "a").values(file=b"c"))
        await session.execute(delete(Doc).where(Doc.title == "b"))
        await session.commit()
    await aworld.acheck(b"c")


async def chunks() -> AsyncIterator[bytes]:
    for number in range(3):
        await asyncio.sleep(0.01)
        yield b"%d" % number


async def test_an_async_source(aworld: AsyncWorld) -> None:
    async with aworld.sessions() as session:
        session.add(Doc(file=Attachment.upload(chunks(), "numbers")))
        await session.commit()
    await aworld.acheck(b"012")


async def test_uploads_of_one_flush_run_in_parallel(aworld: AsyncWorld) -> None:
    async with aworld.sessions() as session:
        session.add(Doc(file=b"first"))  # with the marker of the place, which is stored alone
        await session.commit()
        four = threading.Barrier(4, timeout=30)  # one by one, it would break
        aworld.storage.at("put", None, lambda: four.wait() and None)
        session.add_all([Doc(file=b"%d" % number) for number in range(4)])
        await session.commit()
    await aworld.acheck(b"first", *(b"%d" % number for number in range(4)))


async def test_many_tasks(aworld: AsyncWorld) -> None:
    """On PostgreSQL all at a time; SQLite has one writer."""

    async def work(number: int) -> None:
        async with one, aworld.sessions() as session:
            doc = Doc(file=b"%d" % number)
            session.add(doc)
            await session.commit()
            doc.file = b"again %d" % number
            await (session.rollback() if number % 2 else session.commit())

    one = asyncio.Semaphore(1 if aworld.name == "aiosqlite" else 8)
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(work(number))
    await aworld.acheck(*((b"%d" if number % 2 else b"again %d") % number for number in range(20)))


async def test_many_tasks_replace_the_file_of_one_row(aworld: AsyncWorld) -> None:
    """All have read the row before the first one writes; but SQLite refuses to let the second one write then."""
    key = await seed(aworld)

    async def replace(number: int) -> None:
        async with aworld.sessions() as session:
            if aworld.name == "aiosqlite":
                await session.execute(update(Doc).values(title="changed"))
            doc = await session.get_one(Doc, key)
            if aworld.name == "asyncpg":
                await all_have_read.wait()
            doc.file = b"%d" % number
            await session.flush()
            await (session.rollback() if number % 3 else session.commit())
            committed.extend([] if number % 3 else [b"%d" % number])

    all_have_read = asyncio.Barrier(8)
    committed: list[bytes] = []
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(replace(number))
    assert len(committed) == 3
    async with aworld.sessions() as session:
        doc = await session.get_one(Doc, key)
        assert doc.file is not None
        last = await doc.file.aread()
    assert last in committed
    await aworld.acheck(last)


@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up")
async def test_a_session_that_is_garbage_collected_is_left_to_the_sweep(aworld: AsyncWorld) -> None:
    """Nobody may use its connection any more, not even to clean."""
    key = await seed(aworld)
    session = aworld.sessions()
    (await session.get_one(Doc, key)).file = b"new"
    await session.flush()
    del session
    gc.collect()
    await asyncio.sleep(0.1)
    await files.asettled()
    for _ in range(2):
        await files.asweep(aworld.asynchronous, grace=timedelta(0), stranger_retain=timedelta(0))
    await aworld.acheck(b"old", swept=True)


POOLS = {
    "one": {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0},
    "null": {"poolclass": NullPool},
}


@on("pool", POOLS)
async def test_pools(aworld: AsyncWorld, pool: str) -> None:
    engine = engines.open_async_engine(aworld.asynchronous.url, **POOLS[pool])
    async with AsyncSession(engine) as session:
        doc = Doc(file=b"old")
        session.add(doc)
        await session.commit()
        doc.file = b"new"
        await session.commit()
        session.add(Doc(file=b"undone"))
        await session.flush()
        await session.rollback()
    await aworld.acheck(b"new")
    await engine.dispose()


async def test_sweeping_and_verifying(aworld: AsyncWorld) -> None:
    await seed(aworld)
    staged = await files.astage(Attachment.upload(b"nobody's"))
    report = await files.asweep(aworld.asynchronous, grace=timedelta(0), stranger_retain=timedelta(0))
    assert report["default"].strangers == 1
    assert staged.is_stored
    await aworld.acheck(b"old", swept=True)
    assert (await files.averify(aworld.asynchronous)).ok
