"""Under asyncio nothing blocks the event loop, and who is cancelled leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.util import greenlet_spawn

from sa_attachments import Attachment
from sa_attachments.queries import CONDEMNED
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty
from tests.archive import NO_TIME, Archive

from .models import Doc, files
from .world import AsyncWorld

on = pytest.mark.parametrize


async def seed(aworld: AsyncWorld) -> int:
    async with aworld.sessions() as session:
        session.add(Doc(file=b"old"))
        await session.commit()
        return (await session.scalars(select(Doc.id))).one()


async def longest_pause(work: Callable[[], Awaitable[object]]) -> float:
    """For how many seconds the event loop did nothing else, at most, while ``work`` ran."""
    pauses: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            pauses.append(time.perf_counter() - before - 0.001)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.01)
    await work()
    await asyncio.sleep(0.01)
    ticker.cancel()
    return max(pauses)


async def replace_and_roll_back(aworld: AsyncWorld) -> None:
    async with aworld.sessions() as session:
        doc = Doc(file=b"one", pages=[b"two", b"three"])
        session.add(doc)
        await session.commit()
        doc.file = b"four"
        await session.commit()
        await session.delete(doc)
        session.add(Doc(file=b"five"))
        await session.flush()
        await session.rollback()
        staged = await files.astage(Attachment.upload(b"six"))
        session.add(Doc(file=staged))
        await session.commit()
        doc = (await session.scalars(select(Doc).limit(1))).one()
        await doc.file.aread()  # type: ignore[union-attr]
    await files.asettled()


async def sweep_and_verify(aworld: AsyncWorld) -> None:
    async with aworld.sessions() as session:
        if await session.scalar(select(Doc.id)) is None:
            session.add(Doc(file=b"one", pages=[b"two"]))
            await session.commit()
    await files.asweep(aworld.asynchronous, grace=timedelta(0), full=True)
    await files.averify(aworld.asynchronous, checksums=True)


@on("work", [replace_and_roll_back, sweep_and_verify])
async def test_a_slow_storage_never_blocks_the_loop(
    aworld: AsyncWorld, work: Callable[[AsyncWorld], Awaitable[None]]
) -> None:
    """300 ms for each call of the storage, never more than 20 ms for the loop: the best of some attempts, since a busy
    machine may take the processor away; if it always does, runs without the delay are as slow.
    """
    await work(aworld)  # what happens for the first time only
    with_delay, without = 1.0, 0.0
    for _ in range(8):
        for verb in ("put", "open", "stat", "delete", "keys", "copy"):
            aworld.storage.at(verb, None, lambda: time.sleep(0.3))
        began = time.perf_counter()
        with_delay = min(with_delay, await longest_pause(lambda: work(aworld)))
        assert time.perf_counter() - began > 0.3
        aworld.storage.heal()
        without = max(without, await longest_pause(lambda: work(aworld)))
        if with_delay < 0.02:
            break
    assert with_delay < max(0.02, 2 * without)


class Watched(MemoryStorage):
    """Notes in which threads it lists and tidies up."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        for key in super().keys(after, before):
            self.threads.append(threading.get_ident())
            yield key

    def discard_unfinished(self, before: datetime) -> int:
        self.threads.append(threading.get_ident())
        return 0


async def test_nothing_of_a_storage_is_looked_at_in_the_thread_of_the_loop(async_engine: AsyncEngine) -> None:
    """What is lazy works late: a listing, when somebody takes its next name."""
    watched = {name: Watched() for name in ("one", "two", "plain")}
    storages: dict[str, Any] = {name: Faulty(each) for name, each in watched.items()} | {"default": "mirror:one,two"}
    archive = await greenlet_spawn(Archive, async_engine.sync_engine, storages)
    async with AsyncSession(async_engine) as session:
        uploads = [Attachment.upload(b"mirrored"), Attachment.upload(b"plain", storage="plain")]
        session.add_all([archive.Doc(file=upload) for upload in uploads])
        await session.commit()
        for name, each in watched.items():
            storages[name].at("*", None, lambda each=each: each.threads.append(threading.get_ident()))
        await archive.files.asweep(async_engine, grace=NO_TIME, full=True)
        watched["two"]._files.pop(next(key for key, file in watched["two"]._files.items() if file.data == b"mirrored"))
        await session.execute(archive.ledger.lines.update().values(state=CONDEMNED))
        await session.commit()
    report = await archive.files.averify(async_engine, checksums=True, repair=True)
    assert report.counts == {"unowned": 2, "incomplete": 1}
    assert report.ok
    for each in watched.values():
        assert each.threads
        assert threading.get_ident() not in each.threads


async def test_the_measure_notices_a_loop_that_is_blocked() -> None:
    async def block() -> None:
        time.sleep(0.1)

    assert await longest_pause(block) > 0.09


async def test_events_of_the_engine_see_no_statement_outside_of_the_greenlet(aworld: AsyncWorld) -> None:
    """Cleaning is a task of the loop that the session runs in, not a thread with a connection of its own."""
    loops: set[object] = set()

    @event.listens_for(aworld.engine, "before_cursor_execute")
    def note(*_: object) -> None:
        loops.add(asyncio.get_running_loop())

    await replace_and_roll_back(aworld)
    assert loops == {asyncio.get_running_loop()}


@on("when", ["in the put", "after the put"])
async def test_cancelled_while_uploading(aworld: AsyncWorld, when: str) -> None:
    """The upload goes on in its thread; it is waited for, and what it stored is deleted."""
    key = await seed(aworld)
    aworld.storage.hang("put", after=when == "after the put")

    async def upload() -> None:
        async with aworld.sessions() as session:
            (await session.get_one(Doc, key)).file = b"new"
            session.add(Doc(file=b"added"))
            await session.commit()

    task = asyncio.create_task(upload())
    assert await asyncio.to_thread(aworld.storage.wait_for_hang)
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    aworld.storage.heal()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    await aworld.acheck(b"old")


@on("way", ["commit", "stage"])
@on("pieces", [0, 1])
async def test_cancelled_while_a_client_says_nothing(aworld: AsyncWorld, way: str, pieces: int) -> None:
    """Nobody knows when it says something again, if ever: a timeout must not wait for that."""
    key = await seed(aworld)
    silent = asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        for _ in range(pieces):
            yield bytes(300_000)
        silent.set()
        await asyncio.sleep(60)

    async def work() -> None:
        async with aworld.sessions() as session:
            doc = await session.get_one(Doc, key)
            doc.file = Attachment.upload(upload())
            if way == "stage":
                doc.file = await files.astage(doc.file, Doc.file)
            await session.commit()

    task = asyncio.create_task(work())
    await silent.wait()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=10)
    assert done
    assert task.cancelled()
    await aworld.acheck(b"old")


async def test_cancelled_again_and_again(aworld: AsyncWorld) -> None:
    """A second cancellation, while the first one waits for the upload, must not leave it alone."""
    aworld.storage.hang("put", on=2)  # the first marks the place

    async def upload() -> None:
        async with aworld.sessions() as session:
            session.add(Doc(file=b"new"))
            await session.commit()

    task = asyncio.create_task(upload())
    assert await asyncio.to_thread(aworld.storage.wait_for_hang)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.02)
    aworld.storage.heal()
    with pytest.raises(asyncio.CancelledError):
        await task
    await aworld.acheck()


async def test_a_timeout_around_a_commit(aworld: AsyncWorld) -> None:
    key = await seed(aworld)
    aworld.storage.at("put", None, lambda: time.sleep(0.1))
    with pytest.raises(TimeoutError):  # noqa: PT012 - what the timeout is around matters
        async with asyncio.timeout(0.1), aworld.sessions() as session:
            (await session.get_one(Doc, key)).file = b"new"
            await session.commit()
    aworld.storage.heal()
    await aworld.acheck(b"old")


async def cancel_as_it_hangs(aworld: AsyncWorld, job: Coroutine[Any, Any, None]) -> None:
    """Cancel what waits for cleaning that hangs; then the storage goes on, and so does the cleaning."""
    task = asyncio.create_task(job)
    assert await asyncio.to_thread(aworld.storage.wait_for_hang)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    aworld.storage.heal()
    await files.asettled()


async def test_cancelled_while_cleaning(aworld: AsyncWorld) -> None:
    """It is committed; the cleaning goes on by itself, or is left to the sweep."""
    key = await seed(aworld)
    aworld.storage.hang("delete")

    async def replace() -> None:
        async with aworld.sessions() as session:
            (await session.get_one(Doc, key)).file = b"new"
            await session.commit()

    await cancel_as_it_hangs(aworld, replace())
    await files.asweep(aworld.asynchronous, grace=timedelta(0))
    await aworld.acheck(b"new", swept=True)


async def test_a_session_can_be_used_after_its_cancellation(aworld: AsyncWorld) -> None:
    key = await seed(aworld)
    async with aworld.sessions() as session:
        (await session.get_one(Doc, key)).file = b"new"
        aworld.storage.hang("put")
        task = asyncio.create_task(session.commit())
        assert await asyncio.to_thread(aworld.storage.wait_for_hang)
        task.cancel()
        aworld.storage.heal()
        with pytest.raises(asyncio.CancelledError):
            await task
        await session.rollback()
        (await session.get_one(Doc, key)).file = b"newer"
        await session.commit()
    await aworld.acheck(b"newer")


async def test_cancelled_while_a_connection_goes_back(aworld: AsyncWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes back all the same: the pool would soon have none."""
    monkeypatch.setattr(files._settler, "_budget", 60)
    engine = create_async_engine(aworld.asynchronous.url, pool_size=2, max_overflow=0, pool_timeout=5)
    for _ in range(2):
        connection = await engine.connect()
        outer = await connection.begin()
        async with AsyncSession(connection, join_transaction_mode="rollback_only") as session:
            session.add(Doc(file=b"new"))
            await session.commit()
        await outer.rollback()
        aworld.storage.hang("delete")
        await cancel_as_it_hangs(aworld, connection.close())
    async with engine.connect() as one, engine.connect() as other:
        assert [await each.scalar(select(1)) for each in (one, other)] == [1, 1]
    await engine.dispose()
    await files.asweep(aworld.asynchronous, grace=timedelta(0), stranger_retain=timedelta(0))
    await aworld.acheck(swept=True)
