"""The machine: whatever an application may do to its files, in several sessions, in any order, with failing storages.

After each step, when all is settled, the storages hold exactly the files that committed rows and open transactions
name, and those that are kept for a restore; after a storage failed, once it is recovered and swept.

Where the database has one writer, only one session is connected at a time; the others go on with the objects that they
hold, and find out later what became of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import delete, insert, inspect, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InvalidRequestError, OperationalError

from sa_attachments import Attachment, FileMissing, StorageFailed

from .actor import Actor, Hope, Hopes, hope, key_of, loaded_by, original
from .model import Name, Row, State
from .models import ATTRIBUTES, DEFAULT, PLURAL, RETAINED, SINGLE, VAULT, Doc, files
from .world import World

WHO = st.integers(0, 2)
PK = st.integers(1, 4)
PKS = st.lists(PK, min_size=1, max_size=3, unique=True)
ATTRIBUTE = st.sampled_from(ATTRIBUTES)
ONE = st.sampled_from(SINGLE)
TITLE = st.sampled_from([None, None, None, "a", "b"])
SOURCE = st.sampled_from(["new", "row", "shelf", "same", "none"])
THEN = st.sampled_from(["continue", "savepoint", "rollback", "close"])
END = st.sampled_from(["flush", "commit", "later"])


class Machine(RuleBasedStateMachine):
    world: ClassVar[World]

    @initialize(expires=st.lists(st.booleans(), min_size=3, max_size=3), rows=st.integers(0, 3))
    def begin(self, expires: list[bool], rows: int) -> None:
        self.world.begin()
        self.committed = State()
        self.actors: list[Actor] = []
        for each in expires:
            self.actors.append(Actor(self.world, self.committed, self.actors, each))
        self.shelf: list[Attachment] = []
        """Attachments that the application kept, from whatever session."""
        self.detached: list[Doc] = []
        for pk in range(1, rows + 1):
            self.actors[0].add(self._doc(self.actors[0], pk, None, "new", "new", ["new", "new"], pk))
        assert self.actors[0].commit()

    # Who and what

    def turn(self, who: int) -> Actor:
        """The actor of that number, or the one that is connected, where only one may be."""
        busy = [actor for actor in self.actors if actor.connected] if self.world.has_one_writer else []
        return busy[0] if busy else self.actors[who]

    def pick(self, actor: Actor, source: str, pk: int, attribute: str, offline: bool = False) -> Attachment | None:
        if source == "row" and (values := actor.values(actor.find(pk, offline), attribute, offline)):
            return values[0]
        if source == "shelf" and self.shelf:
            return self.shelf[pk % len(self.shelf)]
        return None if source == "none" else self.world.upload(same=source == "same")

    # Objects

    @rule(who=WHO, pk=PK, title=TITLE, file=SOURCE, scan=SOURCE, pages=st.lists(SOURCE, max_size=2), other=PK, end=END)
    def add(
        self, who: int, pk: int, title: str | None, file: str, scan: str, pages: list[str], other: int, end: str
    ) -> None:
        actor = self.turn(who)
        if actor.find(pk) is None:
            actor.add(self._doc(actor, pk, title, file, scan, pages, other))
            finish(actor, end)

    @rule(who=WHO, pk=PK, title=TITLE, file=SOURCE, scan=SOURCE, other=PK, parts=st.sets(ATTRIBUTE), end=END)
    def delete_and_add_again(
        self, who: int, pk: int, title: str | None, file: str, scan: str, other: int, parts: set[str], end: str
    ) -> None:
        """The new object's row is an UPDATE of the old one, which leaves alone what was not set."""
        actor = self.turn(who)
        doc = actor.find(pk)
        if doc is None or inspect(doc).key is None:
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
        if (doc := actor.find(pk)) is not None:
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
        docs = [doc for doc in actor.objects if inspect(doc).transient]
        if not docs:
            return
        doc = docs[which % len(docs)]
        if doc.id in actor.wishes or actor.find(doc.id) is not None:
            return
        for each in ATTRIBUTES:
            if (id(doc), each) in actor.uploaded:
                assert not any(item.is_stored for item in actor.values(doc, each)), "its upload was not put back"
        actor.add(doc)
        finish(actor, end)

    @rule(who=WHO, pk=PK, attribute=ATTRIBUTE)
    def keep(self, who: int, pk: int, attribute: str) -> None:
        """The application keeps an attachment for later."""
        actor = self.turn(who)
        self.shelf += actor.values(actor.find(pk), attribute)

    # Statements

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
        autoflush = autoflush and not _overwrites(actor, pks)
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
        autoflush = autoflush and not _overwrites(actor, pks)
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

    # Files beside the rows

    @rule(attribute=st.sampled_from([None, "file", "scan"]))
    def stage(self, attribute: str | None) -> None:
        fired = self.world.fired
        try:
            staged = files.stage(self.world.upload(), attribute and getattr(Doc, attribute))
        except StorageFailed:
            assert self.world.fired > fired
        else:
            self.shelf.append(staged)
            self.world.staged.add((staged.storage, staged.key))
        self.world.put_since()

    @rule(who=WHO, pk=PK, then=THEN)
    def restore(self, who: int, pk: int, then: str) -> None:
        actor = self.turn(who)
        wish = actor.wishes.get(pk)
        if wish is not None and (wish.fresh or wish.deleted):
            return
        kept = {entry.name: entry.item for entry in actor.transaction.kept(pk)}
        doc = actor.find(pk)
        before = None if doc is None else loaded_by(doc, RETAINED)
        locked = any(actor.is_in_the_way_of({pk, *kept}) for actor in self.actors if actor is not self.turn(who))
        try:
            restored = files.restore(actor.session, Doc.scan, pk)
        except FileMissing:
            assert not kept
        except OperationalError:
            assert locked
            actor.recover(then)
        else:
            name = original(restored)
            assert name is not None
            assert self.world.item(restored) == kept[name]
            actor.touched.add(name)
            if doc is None:
                self.shelf.append(restored)
            else:
                actor.note(doc, RETAINED, before)

    # Ends

    @rule(who=WHO, then=THEN)
    def flush(self, who: int, then: str) -> None:
        actor = self.turn(who)
        if not actor.flush():
            actor.recover(then)

    @rule(who=WHO, then=THEN)
    def commit(self, who: int, then: str) -> None:
        actor = self.turn(who)
        if not actor.commit():
            actor.recover(then)

    @rule(who=WHO, then=THEN)
    def commit_without_an_answer(self, who: int, then: str) -> None:
        """The server commits, and the session hears of a broken connection."""
        actor = self.turn(who)
        if not actor.flush():
            actor.recover(then)
        elif actor.connected:
            dialect: Any = self.world.engine.dialect
            plain = dialect.do_commit

            def do_commit(connection: Any) -> None:
                dialect.do_commit = plain  # Only this commit, not those of the cleaning after it.
                plain(connection)
                raise ConnectionResetError("the answer got lost")

            dialect.do_commit = do_commit
            try:
                actor.commit_unheard()
            finally:
                dialect.do_commit = plain

    @rule(who=WHO)
    def commit_what_is_lost(self, who: int) -> None:
        """After an error of a statement that the application caught: PostgreSQL rolls back, and no driver says so."""
        actor = self.turn(who)
        if self.world.has_one_writer or actor.wishes or actor.savepoints:
            return
        try:
            actor.session.execute(text("SELECT 1/0"))
        except DBAPIError:
            actor.session.commit()
            actor.restart()

    @rule(who=WHO)
    def rollback(self, who: int) -> None:
        self.turn(who).rollback()

    @rule(who=WHO)
    def close(self, who: int) -> None:
        self.detached += self.turn(who).close()

    @rule(who=WHO, then=THEN)
    def savepoint(self, who: int, then: str) -> None:
        actor = self.turn(who)
        if not actor.savepoint():
            actor.recover(then)

    @rule(who=WHO, then=THEN)
    def release(self, who: int, then: str) -> None:
        actor = self.turn(who)
        if actor.savepoints and not actor.release():
            actor.recover(then)

    @rule(who=WHO, depth=st.integers(1, 3))
    def rollback_to_savepoint(self, who: int, depth: int) -> None:
        actor = self.turn(who)
        if actor.savepoints:
            actor.rollback_to(min(depth, len(actor.savepoints)))

    # Storages

    @rule(
        storage=st.sampled_from([DEFAULT, VAULT]),
        verb=st.sampled_from(["put", "copy", "delete", "open"]),
        on=st.sampled_from([1, 2, None]),
        after=st.booleans(),
    )
    def fail(self, storage: str, verb: str, on: int | None, after: bool) -> None:
        self.world.fail(storage, verb, on, after)

    @rule()
    def heal(self) -> None:
        self.world.heal()

    @rule(heal=st.booleans())
    def sweep(self, heal: bool) -> None:
        if heal:
            self.world.heal()
        self.world.sweep(busy=any(actor.connected for actor in self.actors))

    @rule()
    def verify(self) -> None:
        self.world.heal()
        self.world.verify(self._young())

    @invariant()
    def storages_hold_what_is_named(self) -> None:
        named = dict(self.committed.named())
        kept = dict(self.committed.retained())
        needed = dict(pair for actor in self.actors for pair in actor.needed())
        self.world.check(self.committed.rows, set(kept), {**kept, **needed, **named}, self._young())

    def _young(self) -> set[Name]:
        return {name for actor in self.actors for name in actor.young}

    def teardown(self) -> None:
        self.world.heal()
        try:
            for actor in self.actors:
                actor.close()
            self.storages_hold_what_is_named()
            self.world.sweep(busy=False)
            assert not self.world.staged & set(self.world.stored())
            self.world.staged.clear()
            self.storages_hold_what_is_named()
            self.world.verify(set())
        finally:
            for actor in self.actors:
                actor.session.close()
            self.world.end()


def finish(actor: Actor, end: str) -> None:
    """What an application does with its changes."""
    if end != "later" and actor.may_connect() and not (actor.flush() if end == "flush" else actor.commit()):
        actor.recover("rollback")


def _value(attribute: str, item: Attachment | None) -> Any:
    if attribute == PLURAL:
        return [] if item is None else [item]
    return item


def _overwrites(actor: Actor, pks: Sequence[int]) -> bool:
    """Whether a flush would store a file that is retained, and whose name nobody saw when the statement drops it."""
    return any(RETAINED in wish.slots for pk, wish in actor.wishes.items() if pk in pks)
