"""The machine of the core, whose sessions zope.sqlalchemy manages and whose savepoints are the transaction's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from sqlalchemy import Engine

from tests.machine.actor import Actor
from tests.machine.machine import Machine
from tests.machine.test_machine import EXAMPLES, PARTS, SETTINGS, run
from tests.machine.world import World

from .sessions import ZopeSession


class ZopeActor(Actor):
    """Its session is kept."""

    session: ZopeSession
    keep_session: ClassVar = True

    def open(self, **options: Any) -> ZopeSession:
        return ZopeSession(self.world.engine, keep_session=self.keep_session, **options)

    def savepoint(self) -> bool:
        if not self.flush():
            return False
        self.session.events.join_transaction(self.session)  # One that joins later is aborted by the rollback.
        savepoint: Any = self.session.manager.savepoint()
        self.savepoints.append((savepoint, self.transaction.copy()))
        return True

    def release(self) -> bool:
        """The transaction package releases none: it stays, and nobody goes back to it."""
        done = self.flush()
        if done:
            self.savepoints.pop()
        return done


class ClosingActor(ZopeActor):
    """Its session is closed whenever a transaction ended; it adds the objects to it again."""

    keep_session: ClassVar = False


class ZopeMachine(Machine):
    actor = ZopeActor


class ClosingMachine(Machine):
    actor = ClosingActor


MACHINES = pytest.mark.parametrize("machine", [ZopeMachine, ClosingMachine], ids=["kept", "closed"])


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]) -> Iterator[World]:
    if request.param == "sqlite":
        url: Any = f"sqlite+pysqlite:///{tmp_path}/test.db"  # zope.sqlalchemy has no savepoints where it says sqlite://
        engine = open_engine(url)
    else:
        url = request.getfixturevalue("postgres_url")
        engine = open_engine(url, connect_args={"options": "-c lock_timeout=30"})
    made = World(engine, open_engine(url))
    made.begin()
    yield made
    made.end()


@pytest.mark.timeout(300)
@MACHINES
def test_a_sample(world: World, machine: type[Machine]) -> None:
    run(world, settings(SETTINGS, max_examples=8 if world.has_one_writer else 4), 1, machine)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@MACHINES
@pytest.mark.parametrize("part", range(PARTS))
def test_many_examples(world: World, part: int, machine: type[Machine]) -> None:
    run(world, settings(SETTINGS, max_examples=EXAMPLES // PARTS), 2000 + part, machine)
