"""Through sessions: what is refused stores nothing and leaves the session usable, photos are made on all cores and
beside the event loop, and a codec that takes the process with it takes no committed file.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, Refused, Storages
from sa_attachments.processing import Fit, Intact, MaxPixels, Placeholder
from sa_attachments.processing.images import cores, rendering
from sa_attachments.processing.images.cores import Turns
from sa_attachments.processing.steps import run

from .bombs import png
from .samples import QUARTERS, chart, corners, opened, samples, similar, written

GOOD = written(chart((400, 300)), "JPEG")
BAD = {
    "no image": b"<!doctype html>",
    "nothing": b"",
    "half an image": GOOD[: len(GOOD) // 2],
    "a bomb": png(),
    "a broken profile": written(chart(), "PNG", icc_profile=b"broken"),
}


def application(url: str = "memory:", **options: Any) -> tuple[type[DeclarativeBase], Any, Storages]:
    files = Storages(url)

    class Base(DeclarativeBase): ...

    class Photo(Base):
        __tablename__ = "photos"
        id: Mapped[int] = mapped_column(primary_key=True)
        image: Mapped[Attachment] = mapped_column(AttachmentType(files, **options))

    return Base, Photo, files


def keys(files: Storages) -> list[str]:
    return [key for key, _ in files.resolve("default").keys()]  # noqa: SIM118 - no dict's


@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)
@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_what_is_refused_stores_nothing_and_leaves_the_session_usable(engine: Engine, data: bytes) -> None:
    base, photo, files = application(steps=[Fit(20, 20)])
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([photo(id=1, image=GOOD), photo(id=2, image=Attachment.upload(data, "me.png"))])
        with pytest.raises(Refused, match=r"^Photo\.image: the ") as refused:
            session.commit()
        error = refused.value
        assert (error.target, error.rule) == ("Photo.image", "Fit")
        assert error.limit is not None
        assert error.measured is not None
        session.rollback()
        assert files.settled(10)
        assert keys(files) == []
        session.add(photo(id=1, image=GOOD))
        session.commit()
        assert similar(corners(opened(session.get_one(photo, 1).image.read())), QUARTERS, 40)
        assert len(keys(files)) == 1


@pytest.mark.parametrize("async_engine", ["aiosqlite"], indirect=True)
async def test_the_same_under_asyncio(async_engine: AsyncEngine) -> None:
    base, photo, files = application(steps=[Fit(20, 20)])
    async with async_engine.begin() as connection:
        await connection.run_sync(base.metadata.create_all)
    async with AsyncSession(async_engine, expire_on_commit=False) as session:
        session.add(photo(id=1, image=BAD["half an image"]))
        with pytest.raises(Refused, match=r"Photo\.image: the image is broken"):
            await session.commit()
        await session.rollback()
        good = photo(id=1, image=GOOD)
        session.add(good)
        await session.commit()
        assert opened(await good.image.aread()).size == (20, 15)
        assert len(keys(files)) == 1


@pytest.mark.parametrize("async_engine", ["aiosqlite"], indirect=True)
async def test_the_event_loop_goes_on_while_photos_are_made(async_engine: AsyncEngine) -> None:
    base, photo, _ = application(steps=[Placeholder(), Fit(1000, 1000, format="WEBP")])
    async with async_engine.begin() as connection:
        await connection.run_sync(base.metadata.create_all)
    data = written(chart((3000, 2000)), "PNG")
    turns = 0

    async def beat() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.005)
            turns += 1

    async with AsyncSession(async_engine) as session:
        session.add_all(photo(id=number, image=data) for number in range(3))
        heart = asyncio.create_task(beat())
        await session.flush()
        heart.cancel()
        await session.commit()
    assert turns >= 10  # blocked, it would have been one


@pytest.mark.skipif(cores.available() < 2, reason="one core has no others")
def test_photos_of_one_commit_are_made_on_all_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Even for a storage that takes one file at a time."""
    together = threading.Barrier(cores.available())
    seen = []
    still = rendering._frames

    def frames(*arguments: Any) -> Any:
        together.wait(20)  # which fails unless so many come here at the same time
        seen.append(threading.current_thread())
        return still(*arguments)

    monkeypatch.setattr(rendering, "_frames", frames)
    base, photo, _ = application("memory:?parallel=1", steps=[Fit(20, 20)])
    engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(photo(id=number, image=GOOD) for number in range(2 * cores.available()))
        session.commit()
    assert len(set(seen)) == cores.available()
    engine.dispose()


def test_no_more_photos_are_in_memory_than_there_are_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However many files the storage takes at the same time."""
    inside, most, lock = 0, 0, threading.Lock()
    still = rendering._frames

    def frames(*arguments: Any) -> Any:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        try:
            yield from still(*arguments)
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(rendering, "_frames", frames)
    monkeypatch.setattr(rendering, "CORES", Turns(2))
    base, photo, _ = application("memory:?parallel=16", steps=[Fit(600, 600)])
    engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(photo(id=number, image=written(chart((900, 600)), "PNG")) for number in range(16))
        session.commit()
    assert most <= 2
    engine.dispose()


@pytest.mark.parametrize("step", [Fit(20, 20), Placeholder(), Intact()], ids=lambda step: type(step).__name__)
def test_who_waits_for_an_upload_keeps_nobody_waiting(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all cores could wait for uploads that an event loop has to deliver, while it waits for a core itself."""
    turns = Turns(1)
    monkeypatch.setattr(rendering, "CORES", turns)
    monkeypatch.setattr(cores, "CORES", turns)

    data = written(chart((400, 300)), "BMP")

    def arriving() -> Any:
        for at in range(0, len(data), 50_000):
            with turns:
                pass
            yield data[at : at + 50_000]

    attachment = Attachment.upload(arriving(), "me.bmp")
    worker = threading.Thread(target=lambda: run([step], attachment, "Photo.image"), daemon=True)
    worker.start()
    worker.join(20)
    assert not worker.is_alive()


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_variant_that_fails_says_why_and_the_upload_stays(engine: Engine) -> None:
    base, photo, _ = application(
        steps=[MaxPixels(50_000_000)], variants={"thumb": Fit(20, 20), "tiny": Fit(2, 2, format="PNG")}
    )
    base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([photo(id=1, image=GOOD), photo(id=2, image=BAD["half an image"])])
        session.commit()
        good, bad = (session.get_one(photo, number).image for number in (1, 2))
        assert opened(good.variants["thumb"].read()).size == (20, 15)
        assert good.variants["tiny"].content_type == "image/png"
        assert bad.read() == BAD["half an image"]
        assert dict(bad.variants) == {}
        assert "the image is broken: OSError: image file is truncated" in bad.to_json()


CRASH = """
import ctypes, sys
from PIL import PngImagePlugin
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from tests.processing.images.samples import samples
from tests.processing.images.test_uploads import application
from sa_attachments.processing import Fit

folder, how = sys.argv[1], sys.argv[2]
rules = {"steps": [Fit(20, 20)]} if how == "step" else {"variants": {"thumb": Fit(20, 20)}}
base, Photo, files = application(f"local:{folder}/files", **rules)
engine = create_engine(f"sqlite:///{folder}/test.db")
base.metadata.create_all(engine)
with Session(engine) as session:
    session.add(Photo(id=1, image=samples()["PNG-RGB"].data))
    session.commit()
    print("committed", flush=True)

    def crash(self):
        ctypes.string_at(0)  # as a codec does that a file has confused

    PngImagePlugin.PngImageFile.load_prepare = crash
    session.add(Photo(id=2, image=samples()["GIF-P"].data))   # is stored, by the time the other one crashes
    session.flush()
    session.get_one(Photo, 1).image = samples()["JPEG-RGB"].data
    session.flush()
    print("flushed", flush=True)
    session.add(Photo(id=3, image=samples()["PNG-RGBA"].data))
    session.commit()
print("survived", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSEGV") or sys.platform == "win32", reason="another kind of crash")
@pytest.mark.parametrize("how", ["step", "variant"])
def test_a_codec_that_crashes_takes_no_committed_file_with_it(how: str, tmp_path: Path) -> None:
    """A crash in C ends the process. Until the commit, the database names nothing of what the transaction stored."""
    path = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", CRASH, str(tmp_path), how]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == -signal.SIGSEGV, done.stderr
    assert done.stdout.split() == ["committed", "flushed"]

    rules: dict[str, Any] = {"steps": [Fit(20, 20)]} if how == "step" else {"variants": {"thumb": Fit(20, 20)}}
    _, photo, files = application(f"local:{tmp_path}/files", **rules)
    engine = create_engine(f"sqlite:///{tmp_path}/test.db")
    with Session(engine) as session:
        (only,) = session.scalars(select(photo)).all()
        assert only.id == 1
        image = only.image.read() if how == "step" else only.image.variants["thumb"].read()
        assert opened(image).format == "PNG"
        assert similar(corners(opened(image)), QUARTERS, 20)
    named = 1 if how == "step" else 2
    assert len(keys(files)) > named  # what the dead process stored
    report = files.sweep(engine, grace=timedelta(0), stranger_retain=timedelta(0))
    assert len(keys(files)) == named, report
    assert files.verify(engine).ok
    engine.dispose()


def test_the_sample_that_crashes_is_one_that_is_decoded() -> None:
    image = Image.open(io.BytesIO(samples()["PNG-RGB"].data))
    assert isinstance(image, PngImagePlugin.PngImageFile)
