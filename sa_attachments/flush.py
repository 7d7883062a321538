"""One flush: what becomes of the files of the objects in it.

Order matters here, and is the point of the module:

1. new files are stored, in parallel, before any SQL of the flush;
2. their ledger lines are inserted, which on SQLite also begins the transaction;
3. what the rows name now is read under lock, because histories are empty or stale;
4. stored attachments that change hands are proved: moved if their old owner gives them up, else copied;
5. the stored attachments take the place of the new ones, and the ORM writes the rows;
6. what no row names any more is dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from functools import partial
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.base import NO_VALUE
from sqlalchemy.orm.exc import StaleDataError

from .attachment import Attachment, binding_of, facts_of, make, origin_of
from .descriptor import Name, named, named_by, variants_of
from .frames import Frame
from .processing.variants import is_there
from .references import Reference, is_damaged, names, of_row, of_state, read_waiting
from .review import Review
from .slots import Course, Slot, by_table, doomed, heirs_of, is_there_still, slot_of
from .staging import SessionStage, Token
from .undo import Undo
from .wants import Want, copy_wanted, has_passed


class Flush:
    """The files of one flush."""

    def __init__(self, session: Session, frame: Frame) -> None:
        self._session = session
        self.frame = frame
        self.in_doubt = True
        """Whether nobody knows what is left of the transaction, after it could not be prepared."""
        self._stage = SessionStage(session, frame)
        self._course = Course()

    # Called by the tracker, in this order

    def prepare(self, slots: list[Slot]) -> None:
        """Before the flush: all that is known of it already."""
        try:
            self._process(slots)
        except BaseException as error:
            in_doubt = self._stage.is_in_doubt(error)
            self.abandon(error)
            self.in_doubt = in_doubt
            raise
        self._stage.hide()

    def abandon(self, error: BaseException | None = None) -> None:
        """It was prepared, and something refused to let it be carried out."""
        try:
            self._stage.abandon(error)
        finally:
            self._stage.close()

    def close(self) -> None:
        """It ended, or its transaction did."""
        self._stage.close()

    def saving(self, state: InstanceState[Any]) -> None:
        """Before an object's INSERT or UPDATE: what a mapper hook may have changed since ``prepare``."""
        course = self._course
        course.saved.add(state)
        self._stage.show()
        if state.key is None and self._session.identity_map:
            self._row_switch(state)
        late = []
        for reference in of_state(state):
            slot = course.slots.get((state, reference.key))
            if slot is not None:
                if slot.deleted and reference.key not in state.committed_state and names(slot.old) & course.taken:
                    self._take_back(slot)
                elif slot.is_current and state.dict.get(reference.key) is slot.value:
                    continue
                course.replace(slot)
            if state.key is None or reference.key in state.committed_state:
                late += slot_of(state, reference)
        if late:
            self._process(late)

    def _take_back(self, slot: Slot) -> None:
        """A listener took the deletion of a row back, whose file another one got: it is to name a copy."""
        state, key = slot.state, slot.reference.key
        state.dict[key] = slot.reference.type.value(slot.old)
        state.committed_state[key] = NO_VALUE

    def deleting(self, state: InstanceState[Any]) -> None:
        """Before an object's DELETE; orphans are not known earlier."""
        course = self._course
        course.deleted.add(state)
        self._process(doomed(state, course.slots))
        for slot in filter(None, (course.slots.get((state, each.key)) for each in of_row(state.manager))):
            slot.there = is_there_still(self._stage.of(slot.reference)[1], slot)

    def _row_switch(self, state: InstanceState[Any]) -> None:
        """A new object takes over the row of one that goes, an orphan perhaps, of which nobody hears otherwise."""
        existing = self._session.identity_map.get(state.mapper.identity_key_from_instance(state.obj()))
        if existing is not None:
            self._process(doomed(inspect(existing), self._course.slots))

    def finish(self) -> None:
        """After the flush: drop what no row names any more."""
        Review(self._stage, self.frame, self._course).carry_out()

    # Before the rows are written

    def _process(self, slots: list[Slot]) -> None:
        if not slots:
            return
        self._course.foresee(slots)
        self._stage.check({slot.reference for slot in slots})
        items = [(slot, index, item) for slot in slots for index, item in enumerate(slot.items)]
        new = {(slot, index): Want(item, slot.reference) for slot, index, item in items if not item.is_stored}
        self._put(new)
        self._read_old(slots)
        if len(new) < len(items):
            self._put(self._unproved(slots, new))
        self._place([slot for slot in slots if not slot.deleted])

    def _put(self, wants: dict[tuple[Slot, int], Want]) -> None:
        self._stage.put(list(wants.values()))
        for (slot, index), want in wants.items():
            assert want.stored is not None
            slot.items[index] = want.stored

    def _read_old(self, slots: list[Slot]) -> None:
        known = {slot: slot.identity for slot in slots if slot.identity is not None}
        for references, group in by_table(known):
            scope, connection = self._stage.of(references[0])
            scope.ledger.begin_write(connection)
            rows = read_waiting(connection, references, (known[slot] for slot in group))
            for slot in group:
                row = rows.get(known[slot])
                slot.there = row is not None
                slot.old = slot.reference.items_in(row)
                _refuse_lost_update(slot)

    def _unproved(self, slots: list[Slot], fresh: Container[tuple[Slot, int]]) -> dict[tuple[Slot, int], Want]:
        """Decide for each stored attachment whether it stays, moves here, or is copied; returns the copies wanted."""
        copies: dict[tuple[Slot, int], Want] = {}
        given = self._given()
        for slot in slots:
            own = {item: item for item in slot.old if not is_damaged(item)} if slot.items else {}
            for index, item in enumerate(slot.items):
                if (slot, index) not in fresh and not self._stays_or_moves(slot, index, item, own, given):
                    copies[slot, index] = copy_wanted(item, slot.reference)
        return copies

    def _stays_or_moves(
        self, slot: Slot, index: int, item: Attachment, own: dict[Attachment, Attachment], given: dict[Name, Any]
    ) -> bool:
        files = getattr(binding_of(item), "files", None)
        if (item.storage, item.key) in self._course.taken or files is not slot.reference.type.files:
            return False
        present = own.get(item) or slot.moved_meanwhile(item)
        if present is None and (present := self._claimed(slot, item, given)) is None:
            return False
        slot.items[index] = slot.described(present, item)
        self._course.taken |= names([slot.items[index]])
        return True

    def _given(self) -> dict[Name, tuple[Attachment, Any]]:
        """What the rows of this flush named and name no longer, as it is in the database, and by which connection."""
        heirs = heirs_of(self._session, self._course.slots.values())
        old: dict[Name, tuple[Attachment, Any]] = {}
        new: set[Name] = set()
        for slot in self._course.slots.values():
            heir = heirs.get(slot.state)
            if heir is None or slot.reference.key in heir.dict:
                where = self._stage.of(slot.reference)[1]
                old |= {(item.storage, item.key): (item, where) for item in slot.old if not is_damaged(item)}
            if slot.old:
                moved = any(slot.moved_meanwhile(item) for item in slot.items)
                new |= names(slot.old) if moved else names(slot.items) & names(slot.old)
        return {name: item for name, item in old.items() if name not in new}

    def _claimed(self, slot: Slot, item: Attachment, given: dict[Name, Any]) -> Attachment | None:
        """What the slot may name, once that is proved: a file that was given up, staged before, or dropped and not
        purged yet, with those of its variants that are still to be had.
        """
        token = origin_of(item)
        if isinstance(token, Token):
            return item if self._stage.claim(slot.reference, item, token) else None
        # An object may not know which variants were made, or made anew, since it was loaded.
        present, giving = given.get((item.storage, item.key), (None, None))
        elsewhere = giving not in (None, self._stage.of(slot.reference)[1])
        if elsewhere or not has_passed(present or item, slot.reference.type):
            return None  # A copy goes through the steps, and from one transaction into another.
        giver = None if present is None else getattr(binding_of(present), "column", None)
        prove = partial(self._stage.take_over, slot.reference, giver=giver)
        facts = facts_of(item if present is None else present)
        own = named(facts)[0]
        if not prove(own):
            return None
        stays = getattr(binding_of(item), "column", None) is slot.reference.column
        entries = {
            name: each
            for name, each in variants_of(facts).items()
            if stays or name in slot.reference.type.variants
            if not is_there(each) or prove(named_by(each, facts))
        }
        return make(type(item), {**facts, "variants": entries}, slot.reference.type)

    def _place(self, slots: list[Slot]) -> None:
        """Put the stored attachments on their objects."""
        placed: dict[Reference, list[Attachment]] = {}
        for slot in slots:
            placed.setdefault(slot.reference, []).extend(slot.items)
        for reference, items in placed.items():
            self._stage.allow(reference, items)
            self._course.taken |= names(items)
        for slot in slots:
            self._set(slot)

    def _set(self, slot: Slot) -> None:
        values = slot.state.dict
        if slot.reference.key not in values:
            return
        slot.value = values[slot.reference.key] = slot.reference.type.value(slot.items)
        if slot.identity is not None:
            # To a stale object it may seem no change: SQLAlchemy would not write what was just proved, nor see that
            # the row is gone.
            before = slot.reference.type.value(slot.old) if slot.there else NO_VALUE
            slot.state.committed_state[slot.reference.key] = before
        if new := [(item, origin) for item in slot.items if isinstance(origin := origin_of(item), Attachment)]:
            self.frame.undo.append(Undo(slot.state.obj(), slot.reference, new))


def _refuse_lost_update(slot: Slot) -> None:
    """StaleDataError if a list takes the place of another one than it was made of, and somebody's new file would go."""
    seen = slot.state.committed_state.get(slot.reference.key, NO_VALUE)
    if slot.deleted or not slot.reference.type.plural or seen is NO_VALUE:
        return
    # By their bytes: their names are others where they were moved meanwhile.
    unseen = _contents(slot.old) - _contents(slot.reference.type.items(seen))
    if unseen:
        raise StaleDataError(
            f"{slot.reference.target} of row {slot.identity} was given {unseen.total()} more since this session read "
            "it, which would be deleted: roll back and read it again, or read it with with_for_update=True"
        )


def _contents(items: Iterable[Attachment]) -> Counter[tuple[str, int]]:
    return Counter((item.sha256, item.size) for item in items if item.is_stored and not is_damaged(item))
