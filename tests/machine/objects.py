"""Rules for objects: what an application assigns, adds, deletes and merges, to be flushed now or later."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule
from sqlalchemy import inspect
from sqlalchemy.exc import InvalidRequestError

from .actor import Actor
from .models import ATTRIBUTES, PLURAL, Doc
from .play import ATTRIBUTE, END, ONE, PK, SOURCE, TITLE, WHO, Play, finish
from .wishes import loaded_by


class Objects(Play):
    """See the module."""

    @rule(who=WHO, pk=PK, title=TITLE, file=SOURCE, scan=SOURCE, pages=st.lists(SOURCE, max_size=2), other=PK, end=END)
    def add(
        self, who: int, pk: int, title: str | None, file: str, scan: str, pages: list[str], other: int, end: str
    ) -> None:
        actor = self.turn(who)
        if actor.find(pk) is None and not actor.is_adopted(pk):
            actor.add(self._doc(actor, pk, title, file, scan, pages, other))
            finish(actor, end)

    @rule(who=WHO, pk=PK, title=TITLE, file=SOURCE, scan=SOURCE, other=PK, parts=st.sets(ATTRIBUTE), end=END)
    def delete_and_add_again(
        self, who: int, pk: int, title: str | None, file: str, scan: str, other: int, parts: set[str], end: str
    ) -> None:
        """The new object's row is an UPDATE of the old one, which leaves alone what was not set."""
        actor = self.turn(who)
        doc = actor.find(pk)
        if doc is None or inspect(doc).key is None or actor.is_adopted(pk):
            return
        new = self._doc(actor, pk, title, file, scan, ["new"], other, parts)
        actor.delete(doc)
        actor.add(new)
        finish(actor, end)

    def _doc(
        self,
        actor: Actor,
        pk: int,
        title: str | None,
        file: str,
        scan: str,
        pages: list[str],
        other: int,
        parts: set[str] | None = None,
    ) -> Doc:
        given: dict[str, Any] = {
            "file": self.pick(actor, file, other, "scan"),
            "scan": self.pick(actor, scan, other, "file"),
            "pages": [each for each in (self.pick(actor, page, other, "file") for page in pages) if each is not None],
        }
        given = {name: value for name, value in given.items() if parts is None or name in parts}
        return Doc(id=pk, title=title, **given)

    @rule(who=WHO, pk=PK, attribute=ONE, source=SOURCE, other=PK, place=ATTRIBUTE, offline=st.booleans(), end=END)
    def assign(
        self, who: int, pk: int, attribute: str, source: str, other: int, place: str, offline: bool, end: str
    ) -> None:
        actor = self.actors[who] if offline else self.turn(who)
        if (doc := actor.find(pk, offline)) is not None:
            actor.assign(doc, attribute, self.pick(actor, source, other, place, offline))
            finish(actor, end)

    @rule(
        who=WHO,
        pk=PK,
        how=st.sampled_from(["append", "insert", "remove", "turn", "double", "clear"]),
        source=SOURCE,
        other=PK,
        place=ATTRIBUTE,
        end=END,
    )
    def change_list(self, who: int, pk: int, how: str, source: str, other: int, place: str, end: str) -> None:
        actor = self.turn(who)
        if (doc := actor.find(pk)) is None:
            return
        pages = list(actor.values(doc, PLURAL))
        match how:
            case "append" | "insert":
                item = self.pick(actor, source, other, place)
                if item is not None:
                    pages.insert(len(pages) if how == "append" else 0, item)
            case "remove":
                del pages[:1]
            case "turn":
                pages.reverse()
            case "double":
                pages = [*pages[:2], *pages[:2]]
            case "clear":
                pages = []
        actor.assign(doc, PLURAL, pages)
        finish(actor, end)

    @rule(who=WHO, pk=PK, title=TITLE)
    def entitle(self, who: int, pk: int, title: str | None) -> None:
        actor = self.turn(who)
        # The same title is not written: that another one has deleted the row would go unnoticed.
        if (doc := actor.find(pk)) is not None and doc.title != title:
            actor.assign(doc, "title", title)

    @rule(who=WHO, pk=PK, attribute=ATTRIBUTE, filename=st.sampled_from(["x", "y"]), caption=st.booleans(), end=END)
    def describe(self, who: int, pk: int, attribute: str, filename: str, caption: bool, end: str) -> None:
        """Another name, or another caption, for the same file."""
        actor = self.turn(who)
        doc = actor.find(pk)
        if not (values := actor.values(doc, attribute)) or doc is None:
            return
        first, *rest = values
        if caption:
            described = first.replace(metadata={**first.metadata, "caption": filename})
        else:
            described = first.replace(filename=filename)
        before = self.world.item(first)
        wanted = before._replace(caption=filename) if caption else before._replace(filename=filename)
        assert self.world.item(described) == wanted
        actor.assign(doc, attribute, [described, *rest] if attribute == PLURAL else described)
        finish(actor, end)

    @rule(who=WHO, pk=PK, attribute=ATTRIBUTE, other=PK, place=ONE, swap=st.booleans(), end=END)
    def move(self, who: int, pk: int, attribute: str, other: int, place: str, swap: bool, end: str) -> None:
        """From one attribute to another, of the same row or not; or both change places."""
        actor = self.turn(who)
        doc, target = actor.find(pk), actor.find(other)
        if doc is None or target is None or (doc is target and attribute == place):
            return
        values, there = actor.values(doc, attribute), actor.values(target, place)
        if not values:
            return
        actor.assign(target, place, values[0])
        back = there[:1] if swap else ()
        new = [*values[1:], *back]
        actor.assign(doc, attribute, new if attribute == PLURAL else new[0] if new else None)
        finish(actor, end)

    @rule(who=WHO, pk=PK, end=END)
    def delete(self, who: int, pk: int, end: str) -> None:
        actor = self.turn(who)
        if (doc := actor.find(pk)) is not None:
            actor.delete(doc)
            finish(actor, end)

    @rule(who=WHO, pk=PK, source=SOURCE, other=PK, stays=st.booleans())
    def attempt(self, who: int, pk: int, source: str, other: int, stays: bool) -> None:
        """Inside of a savepoint, which is released or rolled back."""
        actor = self.turn(who)
        if not actor.savepoint():
            actor.recover("rollback")
            return
        if (doc := actor.find(pk)) is None:
            actor.add(self._doc(actor, pk, None, source, "new", ["new"], other))
        else:
            actor.assign(doc, "file", self.pick(actor, source, other, PLURAL))
        if not actor.flush() or (stays and not actor.release()):
            actor.recover("savepoint")
        elif not stays:
            actor.rollback_to(1)

    @rule(who=WHO, pk=PK, refresh=st.booleans())
    def expire(self, who: int, pk: int, refresh: bool) -> None:
        """What was assigned and not flushed is forgotten."""
        actor = self.turn(who)
        doc = actor.find(pk)
        if doc is None or inspect(doc).key is None:
            return
        if not refresh:
            actor.session.expire(doc)
        else:
            try:
                actor.session.refresh(doc)
            except InvalidRequestError:
                assert actor.transaction.row(pk) is None
        actor.forget(pk)

    @rule(who=WHO, which=st.integers(0, 9), end=END)
    def merge(self, who: int, which: int, end: str) -> None:
        """An object of a session that was closed."""
        actor = self.turn(who)
        docs = [doc for doc in self.detached if "id" in inspect(doc).dict]
        if not docs:
            return
        doc = docs[which % len(docs)]
        wish = actor.wishes.get(doc.id)
        if wish is not None and (wish.fresh or wish.deleted):
            return
        target = actor.find(doc.id)
        state = inspect(doc).dict
        known = [each for each in ("title", *ATTRIBUTES) if each in state]
        before = {} if target is None else {each: loaded_by(target, each) for each in known}
        merged = actor.session.merge(doc)
        if target is None:
            actor.add(merged)
        else:
            for each in known:
                actor.note(merged, each, before[each])
        finish(actor, end)

    @rule(who=WHO, which=st.integers(0, 9), end=END)
    def try_again(self, who: int, which: int, end: str) -> None:
        """An object whose INSERT was rolled back is added once more; its sources are read again."""
        actor = self.turn(who)
        docs = [doc for doc in actor.objects if inspect(doc).transient and "id" in inspect(doc).dict]
        if not docs:
            return
        doc = docs[which % len(docs)]
        if doc.id in actor.wishes or actor.find(doc.id) is not None:
            return
        actor.add(doc)
        finish(actor, end)

    @rule(who=WHO, pk=PK, attribute=ATTRIBUTE)
    def keep(self, who: int, pk: int, attribute: str) -> None:
        """The application keeps an attachment for later."""
        actor = self.turn(who)
        self.shelf += actor.values(actor.find(pk), attribute)
