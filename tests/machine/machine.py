"""The machine: whatever an application may do to its files, in several sessions, in any order, with failing storages.

After each step, when all is settled, the storages hold exactly the files that committed rows and open transactions
name, and those that are kept for a restore; after a storage failed, once it is recovered and swept.

Where the database has one writer, only one session is connected at a time; the others go on with the objects that they
hold, and find out later what became of their rows.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sa_attachments import FileMissing, StorageFailed

from .model import Name
from .models import DEFAULT, RETAINED, VAULT, Doc, files
from .objects import Objects
from .play import PK, THEN, WHO
from .statements import Statements
from .variants import Variants
from .wishes import loaded_by, original


class Machine(Objects, Statements, Variants):
    """Objects, statements, files beside the rows, all ways to end a transaction, storages that fail."""

    # Files beside the rows

    @rule(attribute=st.sampled_from([None, "file", "scan"]))
    def stage(self, attribute: str | None) -> None:
        fired = self.world.fired
        try:
            staged = files.stage(self.world.upload(), attribute and getattr(Doc, attribute))
        except StorageFailed:
            assert self.world.fired > fired
            self.world.dirty = True  # Nobody knows of what it may have left.
        else:
            self.shelf.append(staged)
        # With a variant that failed while it was stored, nobody knows of it.
        self.world.staged |= self.world.put_since() & set(self.world.stored())

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
        except DBAPIError:
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
        if actor.outer is not None:
            return
        if not actor.flush_all():
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
        idle = actor.outer is None and not actor.wishes and not actor.session.new
        if self.world.has_one_writer or not idle or actor.session.in_nested_transaction():
            return  # To release a savepoint would be an error that is heard.
        try:
            actor.session.execute(text("SELECT 1/0"))
        except DBAPIError:
            actor.session.commit()
            actor.folders.forget()
            actor.restart()

    @rule(who=WHO)
    def rollback(self, who: int) -> None:
        self.turn(who).rollback()

    @rule(who=WHO, how=st.sampled_from(["close", "reset", "invalidate"]))
    def close(self, who: int, how: str) -> None:
        self.detached += self.turn(who).close(how)

    @rule(who=WHO, then=THEN)
    def savepoint(self, who: int, then: str) -> None:
        actor = self.turn(who)
        if not actor.savepoint():
            actor.recover(then)

    @rule(who=WHO, then=THEN)
    def release(self, who: int, then: str) -> None:
        actor = self.nested(who)
        if actor is not None and not actor.release():
            actor.recover(then)

    @rule(who=WHO, depth=st.integers(1, 3))
    def rollback_to_savepoint(self, who: int, depth: int) -> None:
        actor = self.nested(who)
        if actor is not None:
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
        if not self.world.has_one_writer or not any(actor.connected for actor in self.actors):
            self.world.sweep()  # It would wait for seconds for SQLite's writer, who would wait for it.

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
                actor.end_outer(commit=False)
            self.storages_hold_what_is_named()
            self.world.sweep()
            assert not self.world.staged & set(self.world.stored())
            self.world.staged.clear()
            self.storages_hold_what_is_named()
            self.world.verify(set())
        finally:
            for actor in self.actors:
                actor.session.close()
                if actor.outer is not None:
                    actor.outer.connection.close()
            self.world.end()
