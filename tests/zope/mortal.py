"""Children that work on an archive until they are killed: at each step of its ledger, its storage and its shelf."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import transaction.interfaces

from sa_attachments.storages.local import LocalStorage
from tests.crash.mortal import Mortal, kill_at

from .archive import Archive

PATIENT = timedelta(seconds=30)


def content(name: str, version: int) -> bytes:
    return f"{name} {version}".encode()


def one(archive: Archive) -> None:
    archive.write("a", content("a", 1))
    archive.write("b", content("b", 1))


def two(archive: Archive) -> None:
    archive.write("a", content("a", 2))
    archive.remove("b")
    archive.write("c", content("c", 1))


def three(archive: Archive) -> None:
    """With a savepoint that is rolled back."""
    archive.write("c", content("c", 2))
    savepoint = archive.manager.savepoint()
    archive.write("d", content("d", 1))
    archive.remove("a")
    savepoint.rollback()


def void(archive: Archive) -> None:
    archive.write("a", content("a", 9))
    archive.manager.abort()


WORKLOAD: list[Callable[[Archive], None]] = [one, two, void, three]


def open_archive(folder: str, url: str, one_phase: bool, storage: Any = None) -> Archive:
    place = storage or LocalStorage(Path(folder) / "files")
    return Archive(Path(folder), url, storage=place, one_phase=one_phase, budget=PATIENT)


def prepare(folder: str, url: str, one_phase: bool) -> None:
    """Do everything once: later children are faster by that."""
    for scene in (work, recover):
        scene(folder, url, one_phase)


def work(folder: str, url: str, one_phase: bool, limit: int | None = None) -> Any:
    """Run the workload up to a step; returns the steps."""
    mortal, archive = _mortal(folder, url, one_phase, limit)
    for each in WORKLOAD:
        each(archive)
        archive.manager.commit()
        archive.files.storages.settled()
    archive.files.engine.dispose()
    return {"steps": mortal.steps}


def fail(folder: str, url: str, one_phase: bool, phase: str, limit: int | None = None) -> Any:
    """A transaction whose documents fail in a phase, killed at a step of what is done about it."""
    mortal, archive = _mortal(folder, url, one_phase, limit)
    counted = archive.shelf.at
    one(archive)
    archive.manager.commit()
    two(archive)

    def at(reached: str) -> None:
        counted(reached)
        if reached == phase:
            raise transaction.interfaces.TransientError(phase)

    archive.shelf.at = at
    with suppress(transaction.interfaces.TransientError):
        archive.manager.commit()
    archive.manager.abort()
    archive.files.storages.settled()
    return {"steps": mortal.steps}


def recover(folder: str, url: str, one_phase: bool, limit: int | None = None) -> Any:
    """Recover and sweep, up to a step."""
    mortal, archive = _mortal(folder, url, one_phase, limit)
    assert archive.sweep().ok
    archive.files.engine.dispose()
    return {"steps": mortal.steps}


def _mortal(folder: str, url: str, one_phase: bool, limit: int | None) -> tuple[Mortal, Archive]:
    mortal = Mortal(kill_at(limit))
    archive = open_archive(folder, url, one_phase, mortal.storage(LocalStorage(Path(folder) / "files")))
    archive.files._keeper.doubts.create()
    mortal.engine(archive.files.engine)
    archive.shelf.at = lambda phase: mortal.step(f"shelf: {phase}")
    return mortal, archive
