"""The machine of the core with two-phase sessions: it also prepares a transaction and lets another connection decide,
and it loses either answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.orm import Session

from tests.machine.actor import Actor
from tests.machine.machine import Machine
from tests.machine.play import THEN, WHO
from tests.machine.test_machine import EXAMPLES, PARTS, SETTINGS, run
from tests.machine.world import World


class TwoPhaseActor(Actor):
    """Each of its transactions has two phases."""

    def open(self, **options: Any) -> Session:
        return Session(self.world.engine, twophase=True, **options)

    def commit_elsewhere(self, connection: Any, xid: str) -> None:
        """The session is gone, and what it had prepared is committed by somebody who knows nothing of it."""
        connection.execute(text(f"COMMIT PREPARED '{xid}'"))
        self.world.unheard |= {name for name, _ in self.transaction.names()}
        self.transaction.commit_into(self.committed)
        # The dropped files wait for a sweep.
        self.world.dirty = True


class TwoPhaseMachine(Machine):
    actor = TwoPhaseActor

    @rule(who=WHO, then=THEN, end=st.sampled_from(["COMMIT", "ROLLBACK"]))
    def decide_elsewhere(self, who: int, then: str, end: str) -> None:
        """The process is gone after the first phase; sweeps come by until somebody decides."""
        actor = self.turn(who)
        if not actor.flush():
            actor.recover(then)
            return
        if not actor.connected or actor.savepoints:
            return
        xids: list[Any] = []
        noted = lambda connection, xid: xids.append(xid)  # noqa: E731 - events are removed by it
        event.listen(self.world.engine, "prepare_twophase", noted)
        try:
            actor.session.prepare()
        finally:
            event.remove(self.world.engine, "prepare_twophase", noted)
        actor.session.info.clear()
        actor.session.invalidate()
        self.world.sweep()
        with self.world.observer.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if end == "COMMIT":
                actor.commit_elsewhere(connection, xids[0])
            else:
                connection.execute(text(f"ROLLBACK PREPARED '{xids[0]}'"))
                self.world.dirty = True
        actor.close()

    @rule(who=WHO, then=THEN)
    def commit_without_an_answer(self, who: int, then: str) -> None:
        """The server commits what it prepared, and the session hears of a broken connection."""
        actor = self.turn(who)
        if not actor.flush():
            actor.recover(then)
        elif actor.connected:
            dialect: Any = self.world.engine.dialect
            plain = dialect.do_commit_twophase

            def do_commit_twophase(*arguments: Any, **options: Any) -> None:
                plain(*arguments, **options)
                raise ConnectionResetError("the answer got lost")

            dialect.do_commit_twophase = do_commit_twophase
            try:
                actor.commit_unheard()
            finally:
                dialect.do_commit_twophase = plain

    @rule(who=WHO)
    def commit_what_is_lost(self, who: int) -> None:
        """After an error of a statement that the application caught, nothing is prepared; here somebody says so."""
        actor = self.turn(who)
        if actor.wishes or actor.savepoints:
            return
        try:
            actor.session.execute(text("SELECT 1/0"))
        except DBAPIError:
            with pytest.raises(ProgrammingError):
                actor.session.commit()
            actor.close()
            self.world.engine.dispose()  # the connection is of no use any more, and lies in the pool
            self.world.dirty = True


@pytest.fixture
def world(postgres_url: Any, open_engine: Callable[..., Engine]) -> Iterator[World]:
    engine = open_engine(postgres_url, connect_args={"options": "-c lock_timeout=30"})
    made = World(engine, open_engine(postgres_url))
    made.begin()
    yield made
    made.end()


@pytest.mark.timeout(300)
def test_a_sample(world: World) -> None:
    run(world, settings(SETTINGS, max_examples=5), 1, TwoPhaseMachine)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_many_examples(world: World, part: int) -> None:
    run(world, settings(SETTINGS, max_examples=EXAMPLES // PARTS), 3000 + part, TwoPhaseMachine)
