"""A process is killed at every step, and so are the sweeps after it: nothing is lost, nothing is orphaned.

A workload runs in a child and dies by SIGKILL at its n-th step (see ``mortal``), for every n until it ends. What
its committed transactions named is there then, with the right bytes, and nothing of the others. Sweeps follow that
are killed at their own n-th step; the last one runs to its end, and then the storage holds what rows name and
nothing else.

By default a sample of the steps; all of them with the marker ``torture``.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.pool import NullPool

from .application import LATER, Application, content
from .forks import ForkServer

DATABASES = ["sqlite", "sqlite-wal", "postgres"]
both = pytest.mark.parametrize("ground", ["sqlite", "postgres"], indirect=True)


class Ground:
    """Where children work and die: a database and a folder, new for each, and an application that looks at them."""

    application = Application

    def __init__(
        self, server: ForkServer, engine: Engine, folder: Path, *, wal: bool = False, storage: str | None = None
    ) -> None:
        self.server = server
        self.folder = folder
        self._engine = engine
        self._wal = wal
        self._strangers = self._clients()
        self.app = self.application(engine, folder, storage)
        if engine.dialect.name == "postgresql":
            self.app.create()
        self.renew()
        url = engine.url.render_as_string(hide_password=False)
        kind = f"{self.application.__module__}:{self.application.__qualname__}"
        server.prepare("tests.crash.scenes:prepare", url, str(folder), storage, kind)

    def renew(self) -> None:
        """Empty the database and the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if self._engine.dialect.name == "postgresql":
            with self._engine.begin() as connection:
                connection.execute(text(f"TRUNCATE {', '.join(self.app.Base.metadata.tables)}"))
        else:
            raw = self._engine.raw_connection()
            raw.cursor().execute(f"PRAGMA journal_mode = {'WAL' if self._wal else 'DELETE'}")
            raw.close()
            self.app.create()
        self.app.given.mkdir(exist_ok=True)
        (self.app.given / "given").write_bytes(content("given"))

    def work(self, workload: str, limit: int, system_calls: bool = False) -> bool:
        """Run the workload up to a step; whether the child died of it."""
        return self._killed("work", workload, limit, system_calls)

    def sweep(self, limit: int | None = None, system_calls: bool = False) -> bool:
        """Sweep up to a step; whether the child died of it."""
        return self._killed("sweep", limit, system_calls)

    def steps(self, workload: str, system_calls: bool = False) -> list[str]:
        """Those of a workload."""
        self.renew()
        found: list[str] = self.server.run("tests.crash.scenes:work", workload, None, system_calls).result
        return found

    def states(self, workload: str) -> dict[int, Any]:
        """What rows name after so many commits."""
        self.renew()
        seen = self.server.run("tests.crash.scenes:states", workload).result
        return {int(marks): state for marks, state in seen.items()}

    def _killed(self, scene: str, *arguments: Any) -> bool:
        killed = self.server.run(f"tests.crash.scenes:{scene}", *arguments).killed
        if killed:
            self._wait_for_rollback()
        return killed

    def _wait_for_rollback(self) -> None:
        """PostgreSQL takes a moment to notice that a client is gone."""
        deadline = time.monotonic() + 10
        while self._clients() - self._strangers:
            assert time.monotonic() < deadline, "the server does not notice that its client is dead"
            time.sleep(0.001)

    def _clients(self) -> set[int]:
        if self._engine.dialect.name != "postgresql":
            return set()
        with self._engine.connect() as connection:
            return set(
                connection.scalars(
                    text(
                        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                    )
                )
            )


@pytest.fixture(params=DATABASES)
def ground(request: pytest.FixtureRequest, open_engine: Callable[..., Engine]) -> Iterator[Ground]:
    # In memory, where there is such a place: what SIGKILL leaves is the same there, and no flush waits for a disk.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as root, ForkServer() as server:
        folder = Path(root) / "ground"
        if request.param == "postgres":
            engine = open_engine(request.getfixturevalue("postgres_url"), pool_size=1, max_overflow=0)
        else:
            engine = open_engine(f"sqlite:///{folder}/test.db", poolclass=NullPool)
        yield Ground(server, engine, folder, wal=request.param == "sqlite-wal")


def kill_at_each(ground: Ground, workload: str, *, every: int, sweeps: int, system_calls: bool = False) -> None:
    """Kill the workload at every so many steps, and after each one its sweeps at every so many of theirs, which are
    different ones each time.
    """
    names = ground.steps(workload, system_calls)
    states = ground.states(workload)
    survived = 0
    for n in range(every, len(names) + 1, every):
        ground.renew()
        where = f"{workload} killed at step {n} of {len(names)}, about {names[n - 1]!r}"
        if not ground.work(workload, n, system_calls):
            # Threads take steps in any order, and what one must do another may have done: a flush of a folder.
            assert system_calls, f"{where}: it did not die"
            continue
        marks = ground.app.marks()
        assert ground.app.problems() == [], where
        assert ground.app.state() == states[marks], where
        assert (ground.app.given / "given").exists() or states[marks].get("5.cover") == ["given"], where
        for m in itertools.count(1 + n % sweeps, sweeps):
            if not ground.sweep(m, system_calls):
                break
            survived += 1
            assert ground.app.problems() == [], f"{where}, then a sweep at step {m}"
        assert not ground.sweep()
        assert ground.app.problems(swept=True) == [], where
        assert ground.app.state() == states[marks], where
        if workload == "variants":
            finish_rebuild(ground, where)
    assert survived, "no sweep was killed"


def finish_rebuild(ground: Ground, where: str) -> None:
    """What was begun is brought to its end, by another process."""
    ground.app.deploy(LATER)
    first, second = [ground.app.files.rebuild(ground.app.engine) for _ in range(2)]
    done = first.busy, first.overtaken, second.made, second.dropped
    assert done == (0, 0, 0, 0), (where, first, second)
    assert second.missing == len(second.failed) == len(first.failed), (where, first, second)
    assert ground.app.problems() == [], where


@pytest.mark.timeout(600)
def test_a_small_workload(ground: Ground, request: pytest.FixtureRequest) -> None:
    # Even steps: between the end of one call and the beginning of the next nothing happens.
    every = {"sqlite": 38, "sqlite-wal": 94, "postgres": 78}
    kill_at_each(ground, "small", every=every[request.node.callspec.params["ground"]], sweeps=53)


@pytest.mark.parametrize("ground", ["sqlite"], indirect=True)
def test_a_file_given_away(ground: Ground) -> None:
    kill_at_each(ground, "given", every=6, sweeps=97)


@pytest.mark.timeout(600)
@both
def test_variants(ground: Ground, request: pytest.FixtureRequest) -> None:
    every = {"sqlite": 211, "postgres": 307}
    kill_at_each(ground, "variants", every=every[request.node.callspec.params["ground"]], sweeps=31)


@pytest.mark.timeout(600)
@both
def test_all_operations(ground: Ground) -> None:
    kill_at_each(ground, "all", every=307, sweeps=41)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ground", ["sqlite"], indirect=True)
@pytest.mark.parametrize("nameless", [True, False])
def test_system_calls(ground: Ground, nameless: bool) -> None:
    """Where unfinished files need a name they stay behind, and are discarded by the sweep."""
    if not nameless:
        ground.server.prepare("tests.crash.scenes:forbid_nameless_files")
    kill_at_each(ground, "small", every=83, sweeps=41, system_calls=True)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_small_workload_at_every_step_and_every_step_of_its_sweeps(ground: Ground) -> None:
    kill_at_each(ground, "small", every=1, sweeps=1)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_file_given_away_at_every_step(ground: Ground) -> None:
    kill_at_each(ground, "given", every=1, sweeps=7)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("ground", ["sqlite"], indirect=True)
def test_system_calls_where_unfinished_files_need_a_name(ground: Ground) -> None:
    ground.server.prepare("tests.crash.scenes:forbid_nameless_files")
    kill_at_each(ground, "small", every=1, sweeps=13, system_calls=True)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_variants_at_every_step(ground: Ground) -> None:
    kill_at_each(ground, "variants", every=1, sweeps=11)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_all_operations_at_every_step(ground: Ground) -> None:
    kill_at_each(ground, "all", every=1, sweeps=7)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_all_operations_at_every_system_call(ground: Ground) -> None:
    kill_at_each(ground, "all", every=1, sweeps=31, system_calls=True)
