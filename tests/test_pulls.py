"""Pulls: worker threads read asynchronous sources on their loop, as long as somebody wants what they give."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from sa_attachments import Attachment, AttachmentType, BadConfiguration, Storages
from sa_attachments.pulls import Pulls


async def test_what_a_coroutine_returns_or_raises() -> None:
    pulls = Pulls(asyncio.get_running_loop())

    async def fails() -> None:
        raise OSError("gone")

    assert await asyncio.to_thread(pulls.take, asyncio.sleep(0, "it")) == "it"
    with pytest.raises(OSError, match="gone"):
        await asyncio.to_thread(pulls.take, fails())


@pytest.mark.parametrize("what", ["aread", "achunks", "acheck", "astage", "asettled"])
def test_where_no_loop_of_asyncio_runs_a_thread_is_advised(what: str) -> None:
    """As under trio."""
    files, new = Storages("memory:"), Attachment.upload(b"x")
    coroutine: Coroutine[Any, Any, Any] = {
        "aread": new.aread,
        "achunks": lambda: anext(new.achunks()),
        "acheck": lambda: new.acheck(AttachmentType(files)),
        "astage": lambda: files.astage(new),
        "asettled": files.asettled,
    }[what]()
    with pytest.raises(BadConfiguration, match=r"trio\.to_thread"):
        coroutine.send(None)


async def test_who_was_stopped_waits_no_longer_and_takes_nothing_more() -> None:
    pulls = Pulls(asyncio.get_running_loop())
    waiting = asyncio.create_task(asyncio.to_thread(pulls.take, asyncio.sleep(60)))
    other = asyncio.create_task(asyncio.to_thread(pulls.take, asyncio.sleep(60)))
    await asyncio.sleep(0.05)
    pulls.stop()
    for each in (waiting, other, asyncio.create_task(asyncio.to_thread(pulls.take, asyncio.sleep(0)))):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(each, 5)


async def test_who_is_cancelled_while_he_reads_leaves_no_thread_that_waits() -> None:
    """Else threads of silent clients would fill the loop's executor, one after the other."""
    threads: list[threading.Thread] = []
    closed = asyncio.Event()

    async def silent() -> AsyncIterator[bytes]:
        try:
            yield b"begun"
            await asyncio.sleep(60)
        finally:
            closed.set()

    class Seen(Attachment):
        __slots__ = ()

        def read(self, start: int = 0, end: int | None = None) -> bytes:
            threads.append(threading.current_thread())
            try:
                return super().read(start, end)
            finally:
                threads.clear()

    task = asyncio.create_task(Seen.upload(silent()).aread())
    while not threads:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(closed.wait(), 5)
    for _ in range(500):
        if not threads:
            break
        await asyncio.sleep(0.01)
    assert not threads
