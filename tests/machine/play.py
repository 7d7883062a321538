"""Play: what all rules of the machine need: the world, the sessions, and what to draw."""

from __future__ import annotations

from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize

from sa_attachments import Attachment

from .actor import Actor
from .model import State
from .models import ATTRIBUTES, DEFAULT, SINGLE, Doc
from .world import World

WHO = st.integers(0, 2)
PK = st.integers(1, 4)
PKS = st.lists(PK, min_size=1, max_size=3, unique=True)
ATTRIBUTE = st.sampled_from(ATTRIBUTES)
ONE = st.sampled_from(SINGLE)
TITLE = st.sampled_from([None, None, None, "a", "b"])
SOURCE = st.sampled_from(["new", "row", "shelf", "same", "none"])
THEN = st.sampled_from(["continue", "savepoint", "rollback", "close"])
END = st.sampled_from(["flush", "flush", "commit", "later", "fail first", "fail second"])


class Play(RuleBasedStateMachine):
    """One example."""

    world: ClassVar[World]
    actor: ClassVar[type[Actor]] = Actor

    @initialize(expires=st.lists(st.booleans(), min_size=3, max_size=3), rows=st.integers(0, 3))
    def begin(self, expires: list[bool], rows: int) -> None:
        self.world.begin()
        self.committed = State()
        self.actors: list[Actor] = []
        for each in expires:
            self.actors.append(self.actor(self.world, self.committed, self.actors, each))
        self.shelf: list[Attachment] = []
        """Attachments that the application kept, from whatever session."""
        self.detached: list[Doc] = []
        for pk in range(1, rows + 1):
            upload = self.world.upload
            doc = Doc(id=pk, title=None, file=upload(), scan=upload(), pages=[upload(), upload()])
            self.actors[0].folders.open(pk % 2).docs.append(doc)
            self.actors[0].add(doc)
        assert self.actors[0].commit()

    # Who and what

    def turn(self, who: int) -> Actor:
        """The actor of that number, or the one that is connected, where only one may be."""
        busy = [actor for actor in self.actors if actor.connected] if self.world.has_one_writer else []
        return busy[0] if busy else self.actors[who]

    def nested(self, who: int) -> Actor | None:
        """An actor inside of a savepoint."""
        inside = [actor for actor in self.actors if actor.savepoints]
        return inside[who % len(inside)] if inside else None

    def pick(self, actor: Actor, source: str, pk: int, attribute: str, offline: bool = False) -> Attachment | None:
        if source == "row" and (values := actor.values(actor.find(pk, offline), attribute, offline)):
            return values[0]
        if source == "shelf" and self.shelf:
            return self.shelf[pk % len(self.shelf)]
        return None if source == "none" else self.world.upload(same=source == "same")


def finish(actor: Actor, end: str) -> None:
    """What an application does with its changes."""
    if end == "later" or not actor.may_connect():
        return
    if end.startswith("fail"):
        # The user sees a storage fail, goes on with the same transaction, and tries again later.
        actor.world.fail(DEFAULT, "put", 1 if end == "fail first" else 2, after=False)
        done = actor.flush()
        actor.world.heal()
        if not done:
            actor.recover("continue")
    elif not (actor.flush() if end == "flush" else actor.commit()):
        actor.recover("rollback")
