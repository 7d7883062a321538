"""Rules for folders: docs that are put in, moved, taken out, put back, and deleted with their folder."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule
from sqlalchemy import inspect

from .actor import Actor
from .models import Doc
from .objects import Objects
from .play import END, PK, PKS, SOURCE, WHO, finish

NUMBER = st.integers(0, 1)
AGAIN = st.one_of(st.none(), NUMBER)


class Cascades(Objects):
    """See the module."""

    @rule(who=WHO, number=NUMBER, pks=PKS, source=SOURCE, other=PK, delete=st.booleans(), end=END)
    def put_in(self, who: int, number: int, pks: list[int], source: str, other: int, delete: bool, end: str) -> None:
        """Out of another folder, or back into the same; new ones come into the session with their folder, and what was
        to be deleted stays. One that is deleted afterwards goes with the flush after the next one.
        """
        actor = self.turn(who)
        folder = actor.folders.open(number)
        for pk in pks:
            wish = actor.wishes.get(pk)
            doc = actor.doomed(pk) if wish is not None and wish.deleted and not wish.fresh else actor.find(pk)
            if doc is None:
                doc = self._doc(actor, pk, None, source, "new", [source], other)
            elif actor.folders.take_out(doc):
                actor.taken_out(doc)
            folder.docs.append(doc)
            actor.put_in(doc)
            if delete and inspect(doc).persistent:
                actor.delete(doc)
        finish(actor, end)

    @rule(who=WHO, number=NUMBER, pks=PKS, change=st.booleans(), again=AGAIN, tries=st.booleans(), end=END)
    def take_out(
        self, who: int, number: int, pks: list[int], change: bool, again: int | None, tries: bool, end: str
    ) -> None:
        """They are orphans, changed ones perhaps, unless one is put in ``again`` before the flush."""
        actor = self.turn(who)
        docs = self._fill(actor, number, pks, tries)
        if not docs:
            return
        for doc in docs:
            if actor.folders.take_out(doc):
                actor.taken_out(doc)
        if change:
            actor.assign(docs[-1], "file", self.world.upload())
        if again is not None:
            actor.folders.open(again).docs.append(docs[0])
            actor.put_in(docs[0])
        self._finish(actor, end, tries)

    @rule(who=WHO, number=NUMBER, pks=PKS, tries=st.booleans(), end=END)
    def delete_folder(self, who: int, number: int, pks: list[int], tries: bool, end: str) -> None:
        """With all that is in it, as far as this session knows."""
        actor = self.turn(who)
        docs = self._fill(actor, number, pks, tries)
        folder = actor.folders.get(number) if docs else None
        if folder is None or not inspect(folder).persistent:
            return
        docs = list(folder.docs)
        actor.session.delete(folder)
        for doc in docs:
            actor.deleted_with_folder(doc)
        self._finish(actor, end, tries)

    def _fill(self, actor: Actor, number: int, pks: list[int], tries: bool) -> list[Doc]:
        """See that docs are in a folder; in the database, too, if need be. Who only ``tries`` begins a savepoint.

        None of them if that failed: the rule ends then, so that on SQLite nothing is in the way of the cleaning.
        """
        docs = [doc for doc in (actor.find(pk) for pk in pks) if doc is not None]
        folder = actor.folders.open(number)
        missing = [doc for doc in docs if doc not in folder.docs]
        for doc in missing:
            if actor.folders.take_out(doc):
                actor.taken_out(doc)
            folder.docs.append(doc)
            actor.put_in(doc)
        if (missing or tries) and not (actor.savepoint() if tries else actor.flush()):
            actor.recover("rollback")
            return []
        return [doc for doc in docs if doc in actor.session]

    def _finish(self, actor: Actor, end: str, tries: bool) -> None:
        """Who only tried changes its mind."""
        if not tries:
            finish(actor, end)
        elif actor.savepoints:
            if end != "later" and not actor.flush():
                actor.recover("savepoint")
            else:
                actor.rollback_to(1)
