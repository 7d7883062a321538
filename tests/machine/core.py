"""The machine of the core: its sessions have folders, too, and join transactions of somebody else, which are committed
or rolled back afterwards.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from .cascades import Cascades
from .machine import Machine
from .outer import MODES, Mode
from .play import END, PKS, WHO, finish

OUTCOME = st.sampled_from([None, True, False])
"""Whether the outer transaction is committed at once; None leaves it open."""


class CoreMachine(Cascades, Machine):
    """See the module."""

    @rule(who=WHO, mode=st.sampled_from(MODES), pks=PKS, end=END, commit=OUTCOME)
    def join(self, who: int, mode: Mode, pks: list[int], end: str, commit: bool | None) -> None:
        """Its session is closed, and a new one joins and works. Nothing is left to clean when it begins, which SQLite
        would not let us.
        """
        actor = self.turn(who)
        if actor.connected:
            return
        self.detached += actor.close()
        actor.join(mode)
        for pk in pks:
            if (doc := actor.find(pk)) is not None:
                actor.assign(doc, "file", self.world.upload())
            elif not actor.is_adopted(pk):
                actor.add(self._doc(actor, pk, None, "new", "none", ["new"], pk))
        finish(actor, end)
        if commit is not None and actor.outer is not None:
            self.detached += actor.end_outer(commit)

    @rule(which=st.integers(0, 2), commit=st.booleans())
    def end_outer(self, which: int, commit: bool) -> None:
        joined = [actor for actor in self.actors if actor.outer is not None]
        if joined:
            self.detached += joined[which % len(joined)].end_outer(commit)
