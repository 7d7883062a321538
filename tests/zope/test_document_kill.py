"""A process whose documents have files is killed at every step, and so is whoever recovers after it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from tests.crash.forks import ForkServer

from .archive import Archive
from .mortal import content, open_archive


class Ground:
    """A folder with documents, files and the ledger, new for each child."""

    def __init__(self, server: ForkServer, folder: Path, url: str, one_phase: bool) -> None:
        self.server = server
        self.folder = folder
        self.arguments = (str(folder), url, one_phase)
        self.is_sqlite = url.startswith("sqlite")
        self.renew()
        server.prepare("tests.zope.mortal:prepare", *self.arguments)

    def renew(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.archive: Archive = open_archive(*self.arguments)
        self.archive.files._keeper.doubts.create()
        if not self.is_sqlite:
            with self.archive.files.engine.begin() as connection:
                connection.execute(text("TRUNCATE attachment_doubt, attachment_ledger, attachment_storage"))
        self.archive.files.engine.dispose()

    def run(self, scene: str, *arguments: Any) -> Any:
        return self.server.run(f"tests.zope.mortal:{scene}", *self.arguments, *arguments)

    def check(self, where: str) -> dict[str, bytes]:
        """What documents name is there, always; returns it."""
        archive = open_archive(*self.arguments)
        try:
            found = {name: each.read() for name, each in archive.named().items()}
        except FileNotFoundError as error:
            raise AssertionError(f"{where}: lost: {error}") from error
        finally:
            archive.files.engine.dispose()
        return found

    def check_swept(self, where: str) -> None:
        """And nothing else is."""
        archive = open_archive(*self.arguments)
        try:
            archive.check(**self.check(where))
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error
        finally:
            archive.files.engine.dispose()
        assert list((self.folder / "files" / ".unfinished").glob("*")) == [], where


STATES: list[dict[str, bytes]] = [
    {},
    {"a": content("a", 1), "b": content("b", 1)},
    {"a": content("a", 2), "c": content("c", 1)},
    {"a": content("a", 2), "c": content("c", 2)},
]


@pytest.fixture(params=["sqlite", "postgres"])
def ground(request: pytest.FixtureRequest) -> Iterator[Callable[[bool], Ground]]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as root, ForkServer() as server:
        folder = Path(root) / "ground"
        if request.param == "postgres":
            url = request.getfixturevalue("postgres_url").render_as_string(hide_password=False)
        else:
            url = f"sqlite:///{folder}/ledger.db"
        yield lambda one_phase: Ground(server, folder, url, one_phase)


def kill_at_each(ground: Ground, scene: str, *arguments: Any, every: int, recoveries: int) -> None:
    ground.renew()
    steps = ground.run(scene, *arguments).result["steps"]
    died = 0
    for n in range(1, len(steps) + 1, every):
        ground.renew()
        where = f"{scene}{arguments} killed at step {n} of {len(steps)}, {steps[n - 1]!r}"
        assert ground.run(scene, *arguments, n).killed, where
        state = ground.check(where)
        assert state in STATES, where
        for m in range(1 + n % recoveries, 10_000, recoveries):
            if not ground.run("recover", m).killed:
                break
            died += 1
            assert ground.check(f"{where}, then a recovery at step {m}") == state
        ground.run("recover")
        ground.run("recover")
        assert ground.check(where) == state
        ground.check_swept(where)
    assert died, "no recovery was killed"


PHASES = ["tpc_begin", "tpc_vote", "after tpc_vote", "tpc_finish", "after tpc_finish"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("one_phase", [False, True], ids=["two phases", "one phase"])
def test_a_workload(ground: Callable[[bool], Ground], one_phase: bool) -> None:
    made = ground(one_phase)
    kill_at_each(made, "work", every=139 if made.is_sqlite else 241, recoveries=83)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ground", ["sqlite"], indirect=True)
@pytest.mark.parametrize("phase", ["tpc_vote", "after tpc_vote"])
def test_a_failure_and_what_is_done_about_it(ground: Callable[[bool], Ground], phase: str) -> None:
    kill_at_each(ground(phase.startswith("after")), "fail", phase, every=61, recoveries=61)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("one_phase", [False, True], ids=["two phases", "one phase"])
def test_a_workload_at_every_step(ground: Callable[[bool], Ground], one_phase: bool) -> None:
    kill_at_each(ground(one_phase), "work", every=1, recoveries=7)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("one_phase", [False, True], ids=["two phases", "one phase"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_failure_at_every_step(ground: Callable[[bool], Ground], phase: str, one_phase: bool) -> None:
    kill_at_each(ground(one_phase), "fail", phase, every=1, recoveries=13)
