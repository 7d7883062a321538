"""Rules for statements: bulk INSERT, UPDATE and DELETE, and upserts, beside what waits to be flushed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule
from sqlalchemy import delete, insert, update
from sqlalchemy.dialects import postgresql, sqlite

from sa_attachments import Attachment

from .actor import Actor
from .model import Row
from .models import PLURAL, RETAINED, Doc
from .play import ATTRIBUTE, PKS, SOURCE, THEN, TITLE, WHO, Play
from .wishes import Hope, Hopes, hope


class Statements(Play):
    """See the module."""

    @rule(who=WHO, pks=PKS, title=TITLE, attribute=ATTRIBUTE, source=SOURCE, many=st.booleans(), then=THEN)
    def insert_many(
        self, who: int, pks: list[int], title: str | None, attribute: str, source: str, many: bool, then: str
    ) -> None:
        actor = self.turn(who)
        item = self.pick(actor, source, pks[0], "scan")
        rows = [{"id": pk, "title": title, attribute: _value(attribute, item)} for pk in pks]
        visible = actor.transaction.rows()
        clash = any(pk in visible for pk in pks) or (title is not None and len(pks) > 1)
        clash = clash or title in [row.title for row in visible.values() if row.title is not None]
        hopes = {pk: self._hope(Hope(title, hope(Row(None)).slots), attribute, item) for pk in pks}
        if many:
            self._execute(actor, insert(Doc), hopes, item, then, rows, clash=clash)
        else:
            self._execute(actor, insert(Doc).values(rows), hopes, item, then, clash=clash)

    @rule(who=WHO, pks=PKS, attribute=ATTRIBUTE, source=SOURCE, nothing=st.booleans(), title=TITLE, then=THEN)
    def upsert(
        self, who: int, pks: list[int], attribute: str, source: str, nothing: bool, title: str | None, then: str
    ) -> None:
        actor = self.turn(who)
        item = self.pick(actor, source, pks[0], "scan")
        title = title if nothing else None
        rows = [{"id": pk, "title": title, attribute: _value(attribute, item)} for pk in pks]
        dialect: Any = sqlite if self.world.has_one_writer else postgresql
        statement = dialect.insert(Doc).values(rows)
        visible = {pk: hope(row) for pk, row in actor.transaction.rows().items()}
        hopes: dict[int, Hope | None] = {}
        for pk in pks:
            if pk in visible and not nothing:
                hopes[pk] = self._hope(visible[pk], attribute, item)
            elif pk not in visible and not (title and title in [each.title for each in visible.values()]):
                visible[pk] = hopes[pk] = self._hope(Hope(title, hope(Row(None)).slots), attribute, item)
            else:
                hopes[pk] = visible.get(pk)
                # Who has the title stays as well, and may be locked.
                hopes |= {other: each for other, each in visible.items() if title and each.title == title}
        if nothing:
            statement = statement.on_conflict_do_nothing()
        else:
            changes = {attribute: statement.excluded[attribute]}
            statement = statement.on_conflict_do_update(index_elements=["id"], set_=changes)
        self._execute(actor, statement, hopes, item, then)

    @rule(who=WHO, pks=PKS, attribute=ATTRIBUTE, source=SOURCE, then=THEN, autoflush=st.booleans())
    def update_where(self, who: int, pks: list[int], attribute: str, source: str, then: str, autoflush: bool) -> None:
        actor = self.turn(who)
        item = self.pick(actor, source, pks[0], "scan")
        statement = update(Doc).where(Doc.id.in_(pks)).values({attribute: _value(attribute, item)})
        autoflush = autoflush and not _is_unsure(actor, pks)
        visible = self._visible(actor, autoflush)
        hopes = {pk: self._hope(visible[pk], attribute, item) for pk in pks if pk in visible}
        if self._execute(actor, statement, hopes, item, then, autoflush=autoflush):
            for pk in pks:
                actor.forget(pk, attribute)

    @rule(who=WHO, pks=PKS, attribute=ATTRIBUTE, source=SOURCE, then=THEN)
    def update_by_key(self, who: int, pks: list[int], attribute: str, source: str, then: str) -> None:
        actor = self.turn(who)
        visible = actor.transaction.rows()
        there = [pk for pk in pks if pk in visible]
        if not there:
            return
        item = self.pick(actor, source, pks[0], "scan")
        hopes = {pk: self._hope(hope(visible[pk]), attribute, item) for pk in there}
        parameters = [{"id": pk, attribute: _value(attribute, item)} for pk in there]
        if self._execute(actor, update(Doc), hopes, item, then, parameters):
            for pk in there:
                actor.forget(pk, attribute)

    @rule(who=WHO, pks=PKS, then=THEN, autoflush=st.booleans())
    def delete_where(self, who: int, pks: list[int], then: str, autoflush: bool) -> None:
        actor = self.turn(who)
        autoflush = autoflush and not _is_unsure(actor, pks)
        hopes = {pk: None for pk in pks if pk in self._visible(actor, autoflush)}
        if self._execute(actor, delete(Doc).where(Doc.id.in_(pks)), hopes, None, then, autoflush=autoflush):
            for pk in pks:
                actor.forget_object(pk)

    def _visible(self, actor: Actor, autoflush: bool) -> dict[int, Hope]:
        found: dict[int, Hope | None] = {pk: hope(row) for pk, row in actor.transaction.rows().items()}
        if autoflush:
            found |= actor.hopes()
        return {pk: each for pk, each in found.items() if each is not None}

    def _hope(self, before: Hope, attribute: str, item: Attachment | None) -> Hope:
        items = () if item is None else (self.world.item(item),)
        return Hope(before.title, {**before.slots, attribute: items}, before.same - {attribute})

    def _execute(
        self,
        actor: Actor,
        statement: Any,
        hopes: Hopes,
        item: Attachment | None,
        then: str,
        parameters: Any = None,
        *,
        clash: bool = False,
        autoflush: bool = False,
    ) -> bool:
        pending = actor.hopes() if autoflush else {}
        actor.session.autoflush = autoflush
        done = actor.write(
            lambda: actor.session.execute(statement, parameters),
            {**pending, **hopes},
            [] if item is None else [item],
            flushes=autoflush,
            clash=clash,
        )
        actor.session.autoflush = False
        if not done:
            actor.recover("rollback" if autoflush and then == "continue" else then)
        return done


def _value(attribute: str, item: Attachment | None) -> Any:
    if attribute == PLURAL:
        return [] if item is None else [item]
    return item


def _is_unsure(actor: Actor, pks: Sequence[int]) -> bool:
    """Whether a flush would store a file that is retained, and whose name nobody saw when the statement drops it; or
    there would be two flushes, of which the first takes a DELETE back.
    """
    unseen = any(RETAINED in wish.slots for pk, wish in actor.wishes.items() if pk in pks)
    return unseen or any(wish.deleted and actor.is_adopted(pk) for pk, wish in actor.wishes.items())
