"""Rules for sessions that join a transaction of somebody else, which is committed or rolled back afterwards."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from .outer import MODES, Mode
from .play import WHO, Play


class Joined(Play):
    """See the module."""

    @rule(who=WHO, mode=st.sampled_from(MODES))
    def join(self, who: int, mode: Mode) -> None:
        """Its session is closed, and a new one joins. Nothing is left to clean then, which SQLite would not let us."""
        actor = self.turn(who)
        if not actor.connected:
            self.detached += actor.close()
            actor.join(mode)

    @rule(which=st.integers(0, 2), commit=st.booleans())
    def end_outer(self, which: int, commit: bool) -> None:
        joined = [actor for actor in self.actors if actor.outer is not None]
        if joined:
            self.detached += joined[which % len(joined)].end_outer(commit)
