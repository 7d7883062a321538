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

from dataclasses import dataclass
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Session

from .attachment import Attachment, binding_of, facts_of, make, origin_of, set_origin
from .descriptor import named, named_by, variants_of
from .drops import Drops, Identity
from .frames import Frame
from .processing.variants import is_there
from .references import Reference, names, of_row, of_state, read_locked
from .staging import Stage, Token
from .undo import Undo
from .wants import Want, copy_wanted, has_passed, line

Name = tuple[str, str]
"""``(storage, key)``"""


@dataclass(eq=False, slots=True)
class Slot:
    """One attribute of one object in the flush: what its row named, and what it is to name."""

    state: InstanceState[Any]
    reference: Reference
    items: list[Attachment]
    identity: Identity | None
    """Of the row that there was; None for a new one. The object may be made one of another row by a listener."""
    deleted: bool = False
    old: tuple[Attachment, ...] = ()
    value: Any = None
    """What was put on the object: if something else is there later, a hook changed it."""
    there: bool = True
    """Whether the row was."""


class Flush:
    """The files of one flush."""

    def __init__(self, session: Session, frame: Frame) -> None:
        self._session = session
        self.frame = frame
        self._stage = Stage(session, frame)
        self._slots: dict[tuple[InstanceState[Any], str], Slot] = {}
        self._replaced: list[Slot] = []
        self._taken: set[Name] = set()
        self._saved: set[InstanceState[Any]] = set()
        self._deleted: set[InstanceState[Any]] = set()

    # Called by the tracker, in this order

    def prepare(self, slots: list[Slot]) -> None:
        """Before the flush: all that is known of it already."""
        try:
            self._process(slots)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """It was prepared, and something refused to let it be carried out."""
        self._stage.abandon()
        self._stage.close()

    def close(self) -> None:
        """It ended, or its transaction did."""
        self._stage.close()

    def saving(self, state: InstanceState[Any]) -> None:
        """Before an object's INSERT or UPDATE: what a mapper hook may have changed since ``prepare``."""
        self._saved.add(state)
        if state.key is None:
            self._row_switch(state)
        late = []
        for reference in of_state(state):
            slot = self._slots.get((state, reference.key))
            if slot is not None:
                if slot.identity == _identity(state, reference) and state.dict.get(reference.key) is slot.value:
                    continue
                self._replaced.append(self._slots.pop((state, reference.key)))
            if state.key is None or reference.key in state.committed_state:
                late += _slot(state, reference)
        self._process(late)

    def deleting(self, state: InstanceState[Any]) -> None:
        """Before an object's DELETE; orphans are not known earlier."""
        self._deleted.add(state)
        self._process([slot for slot in _doomed(state) if (state, slot.reference.key) not in self._slots])

    def _row_switch(self, state: InstanceState[Any]) -> None:
        """A new object takes over the row of one that goes, an orphan perhaps, of which nobody hears otherwise."""
        existing = self._session.identity_map.get(state.mapper.identity_key_from_instance(state.obj()))
        if existing is not None:
            doomed = _doomed(inspect(existing))
            self._process([slot for slot in doomed if (slot.state, slot.reference.key) not in self._slots])

    def finish(self) -> None:
        """After the flush: drop what no row names any more."""
        drops = Drops(self._stage, self.frame)
        for slot in self._slots.values():
            gone = slot.state in self._deleted
            drops.named(slot.reference, slot.old, slot.identity)
            if slot.state in self._saved and slot.there and not (slot.deleted or gone):
                drops.keep(slot.items)
                self._note(slot)
                continue
            drops.named(slot.reference, slot.items, None)
            if not gone:
                drops.keep(self._named_now(slot))
        for slot in self._replaced:
            drops.named(slot.reference, slot.items, None)
            drops.keep(self._named_now(slot))
        self._drop_met(drops)
        drops.carry_out()

    def _note(self, slot: Slot) -> None:
        """Remember a row that got a file, if somebody wants to hear of it."""
        if slot.reference.type.hooks and {(item.storage, item.key) for item in slot.items} - names(slot.old):
            key = slot.state.mapper.primary_key_from_instance(slot.state.obj())
            self.frame.stored.append((slot.reference.type, tuple(key)))
            self.frame.work(self._stage.of(slot.reference)[0])  # so that the end of the transaction is told

    def _drop_met(self, drops: Drops) -> None:
        """What statements of listeners wrote, and the flush wrote again."""
        for references, rows in self.frame.met:
            now = read_locked(self._stage.of(references[0])[1], references, rows)
            for reference in references:
                for identity, row in rows.items():
                    drops.named(reference, row.get(reference.column.name, ()), None)
                    drops.keep(now.get(identity, {}).get(reference.column.name, ()))
        self.frame.met.clear()

    # Processing

    def _process(self, slots: list[Slot]) -> None:
        if not slots:
            return
        for slot in slots:
            self._slots[slot.state, slot.reference.key] = slot
        self._stage.check({slot.reference for slot in slots})
        new = {
            (slot, i): Want(item, slot.reference)
            for slot in slots
            for i, item in enumerate(slot.items)
            if not item.is_stored
        }
        self._put(new)
        self._read_old(slots)
        self._put(self._unproved(slots, set(new)))
        for slot in slots:
            if not slot.deleted:
                self._place(slot)

    def _put(self, wants: dict[tuple[Slot, int], Want]) -> None:
        self._stage.put(list(wants.values()))
        for (slot, index), want in wants.items():
            assert want.stored is not None
            slot.items[index] = want.stored
            self._taken |= names([want.stored])

    def _read_old(self, slots: list[Slot]) -> None:
        by_table: dict[tuple[Any, Any], list[Slot]] = {}
        for slot in slots:
            if slot.identity is not None:
                by_table.setdefault((slot.reference.mapper, slot.reference.table), []).append(slot)
        for group in by_table.values():
            scope, connection = self._stage.of(group[0].reference)
            scope.ledger.begin_write(connection)
            references = list({slot.reference.key: slot.reference for slot in group}.values())
            identities = {slot.identity: None for slot in group if slot.identity is not None}
            rows = read_locked(connection, references, identities)
            for slot in group:
                row = None if slot.identity is None else rows.get(slot.identity)
                slot.there = row is not None
                slot.old = (row or {}).get(slot.reference.column.name, ())

    def _unproved(self, slots: list[Slot], fresh: set[tuple[Slot, int]]) -> dict[tuple[Slot, int], Want]:
        """Decide for each stored attachment whether it stays, moves here, or is copied; returns the copies wanted."""
        given = self._given()
        copies: dict[tuple[Slot, int], Want] = {}
        for slot in slots:
            own = {item: item for item in slot.old if names([item])} if slot.items else {}
            for index, item in enumerate(slot.items):
                if (slot, index) not in fresh and not self._stays_or_moves(slot, index, item, own, given):
                    copies[slot, index] = copy_wanted(item, slot.reference)
        return copies

    def _stays_or_moves(
        self, slot: Slot, index: int, item: Attachment, own: dict[Attachment, Attachment], given: dict[Name, Attachment]
    ) -> bool:
        if (item.storage, item.key) in self._taken or getattr(
            binding_of(item), "files", None
        ) is not slot.reference.type.files:
            return False
        present = own.get(item) or self._moved_meanwhile(slot, item)
        if present is None and (present := self._claimed(slot, item, given)) is None:
            return False
        slot.items[index] = self._described(slot, present, item)
        self._taken |= names([slot.items[index]])
        return True

    def _given(self) -> dict[Name, Attachment]:
        """What the rows of this flush named and name no longer, as it is in the database."""
        heirs = self._heirs()
        old: dict[Name, Attachment] = {}
        new: set[Name] = set()
        for slot in self._slots.values():
            heir = heirs.get(slot.state)
            if heir is None or slot.reference.key in heir.dict:
                old |= {(item.storage, item.key): item for item in slot.old if names([item])}
            if slot.old and slot.state not in self._deleted:
                new |= names(slot.items) & names(slot.old)
        return {name: item for name, item in old.items() if name not in new}

    def _heirs(self) -> dict[InstanceState[Any], InstanceState[Any]]:
        """New objects by the deleted ones whose rows they take over: an UPDATE then, which leaves columns that are not
        set as they are.
        """
        deleted = {slot.state.key: slot.state for slot in self._slots.values() if slot.deleted}
        new = [inspect(obj) for obj in self._session.new] if deleted else []
        keys = {state.mapper.identity_key_from_instance(state.obj()): state for state in new if of_state(state)}
        return {state: keys[key] for key, state in deleted.items() if key in keys}

    def _moved_meanwhile(self, slot: Slot, item: Attachment) -> Attachment | None:
        """The row's present attachment, if only the description of ``item`` was changed here while its bytes moved to
        another place.
        """
        before = slot.state.committed_state.get(slot.reference.key)
        if isinstance(before, Attachment) and before == item and len(slot.old) == 1 and names(slot.old):
            present = slot.old[0]
            if (present.sha256, present.size) == (item.sha256, item.size):
                return present
        return None

    def _described(self, slot: Slot, present: Attachment, item: Attachment) -> Attachment:
        """The row's present descriptor with the name and metadata of ``item``, so that nothing else of it is undone."""
        facts = {**facts_of(present), "filename": item.filename, "metadata": facts_of(item).get("metadata", {})}
        described = make(slot.reference.type.attachment_class, facts, slot.reference.type)
        set_origin(described, origin_of(item))
        return described

    def _claimed(self, slot: Slot, item: Attachment, given: dict[Name, Attachment]) -> Attachment | None:
        """What the slot may name, once that is proved: a file that was given up, staged before, or dropped and not
        purged yet, with those of its variants that are still to be had.
        """
        token = origin_of(item)
        if isinstance(token, Token):
            return item if self._stage.claim(slot.reference, item, token) else None
        scope, connection = self._stage.of(slot.reference)
        # An object may not know which variants were made, or made anew, since it was loaded.
        present = given.get((item.storage, item.key))
        if not has_passed(present or item, slot.reference.type):
            return None  # A copy goes through the steps.
        prove = scope.ledger.reclaim if present is None else scope.ledger.transfer
        facts = facts_of(item if present is None else present)
        own, *_ = named(facts)
        if not prove(connection, line(own, slot.reference)):
            return None
        stays = getattr(binding_of(item), "column", None) is slot.reference.column
        entries = {
            name: each
            for name, each in variants_of(facts).items()
            if stays or name in slot.reference.type.variants
            if not is_there(each) or prove(connection, line(named_by(each, facts), slot.reference))
        }
        return make(type(item), {**facts, "variants": entries}, slot.reference.type)

    def _place(self, slot: Slot) -> None:
        """Put the stored attachments on the object."""
        self._stage.allow(slot.reference, slot.items)
        self._taken |= names(slot.items)
        if slot.reference.key not in slot.state.dict:
            return
        slot.value = slot.reference.type.value(slot.items)
        slot.state.dict[slot.reference.key] = slot.value
        if slot.identity is not None and slot.there:
            # To a stale object it may seem no change, and SQLAlchemy would not write what was just proved.
            slot.state.committed_state[slot.reference.key] = slot.reference.type.value(slot.old)
        if any(isinstance(origin_of(item), Attachment) for item in slot.items):
            self.frame.undo.append(Undo(slot.state.obj(), slot.reference, slot.items))

    def _named_now(self, slot: Slot) -> tuple[Attachment, ...]:
        """What a row names that was not written as foreseen: a new object took it over, a listener let its object be
        forgotten, or it is gone.
        """
        if slot.identity is None:
            return ()
        rows = read_locked(self._stage.of(slot.reference)[1], [slot.reference], [slot.identity])
        return rows.get(slot.identity, {}).get(slot.reference.column.name, ())


def collect(session: Session) -> list[Slot]:
    """The attributes that a flush will write or delete, as far as it is known before.

    Every flush of every session comes by here: hence SQLAlchemy's own collections of states, from which ``session.new``
    and its kin make sets of objects first.
    """
    slots: list[Slot] = []
    for state in session._new:
        for reference in of_state(state):
            if reference.key in state.dict:
                slots += _slot(state, reference)
    for state in session._dirty_states:
        for reference in of_state(state):
            if reference.key in state.committed_state and state not in session._deleted:
                slots += _slot(state, reference)
    for state in session._deleted:
        slots += _doomed(state)
    return slots


def _slot(state: InstanceState[Any], reference: Reference) -> list[Slot]:
    value, identity = reference.type.coerce(state.dict.get(reference.key)), _identity(state, reference)
    items = list(reference.type.items(value))
    return [Slot(state, reference, items, identity, value=value)] if items or identity is not None else []


def _doomed(state: InstanceState[Any]) -> list[Slot]:
    return [
        Slot(state, reference, [], _identity(state, reference), deleted=True) for reference in of_row(state.manager)
    ]


def _identity(state: InstanceState[Any], reference: Reference) -> Identity | None:
    return None if state.key is None else reference.identity(state)
