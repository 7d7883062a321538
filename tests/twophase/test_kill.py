"""A process with two-phase sessions is killed at every step, as in ``tests.crash.test_kill``. Where it dies between the
phases, a sweep meets what it had prepared and leaves it alone; then somebody commits it or rolls it back.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from tests.crash.forks import ForkServer
from tests.crash.test_kill import Ground, kill_at_each

from .application import TwoPhaseApplication


class TwoPhaseGround(Ground):
    application = TwoPhaseApplication
    ends: tuple[str, ...] = ("COMMIT", "ROLLBACK")
    """What somebody decides, in turn."""
    decided = 0
    """How often there was something to decide."""

    def _killed(self, scene: str, *arguments: object) -> bool:
        killed = super()._killed(scene, *arguments)
        if killed and (names := self._undecided()):
            assert self.app.problems() == []
            (name,) = names
            if not self.decided % 3:
                assert self.app.sweep().ok
                assert self.app.problems() == []
            with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                end = self.ends[self.decided % len(self.ends)]
                connection.execute(text(f"{end} PREPARED '{name}'"))
            self.decided += 1
        return killed

    def _undecided(self) -> list[str]:
        with self._engine.connect() as connection:
            statement = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            return list(connection.scalars(text(statement)))


@pytest.fixture
def ground(request: pytest.FixtureRequest, open_engine: Callable[..., Engine]) -> Iterator[TwoPhaseGround]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as root, ForkServer() as server:
        engine = open_engine(request.getfixturevalue("postgres_url"), pool_size=1, max_overflow=0)
        yield TwoPhaseGround(server, engine, Path(root) / "ground")


END = pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])


@pytest.mark.timeout(600)
def test_between_the_phases(ground: TwoPhaseGround) -> None:
    """After the first phase of every other transaction, and before the second."""
    steps = ground.steps("all")
    states = ground.states("all")
    between = [n for n, name in enumerate(steps, 1) if "after do_prepare_twophase" in name]
    assert len(between) > 8
    for number, n in enumerate(between[::2]):
        ground.renew()
        ground.decided = number
        assert ground.work("all", n)
        assert ground.decided == number + 1
        marks = ground.app.marks()
        assert ground.app.state() == states[marks]
        assert not ground.sweep()
        assert ground.app.problems(swept=True) == [], f"killed after {steps[n - 1]!r}, step {n}"
        assert ground.app.state() == states[marks]


@pytest.mark.timeout(600)
def test_a_small_workload(ground: TwoPhaseGround) -> None:
    kill_at_each(ground, "small", every=71, sweeps=53)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@END
def test_a_small_workload_at_every_step_and_steps_of_its_sweeps(ground: TwoPhaseGround, end: str) -> None:
    ground.ends = (end,)
    kill_at_each(ground, "small", every=1, sweeps=7)
    assert ground.decided >= 4


@pytest.mark.torture
@pytest.mark.timeout(3600)
@END
def test_all_operations_at_every_step(ground: TwoPhaseGround, end: str) -> None:
    ground.ends = (end,)
    kill_at_each(ground, "all", every=1, sweeps=31)
    assert ground.decided > 10
