"""Slots: the attributes that a flush writes or deletes, one by one."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Connection, inspect
from sqlalchemy.orm import InstanceState, Session
from sqlalchemy.orm.base import NO_VALUE
from sqlalchemy.schema import sort_tables_and_constraints

from .attachment import Attachment, facts_of, make, origin_of, set_origin
from .descriptor import Name
from .references import (
    Identity,
    Reference,
    is_any_there,
    is_mentioned,
    may_be_renamed,
    names,
    of_row,
    of_state,
)


@dataclass(eq=False, slots=True)
class Slot:
    """One attribute of one object in the flush: what its row named, and what it is to name."""

    state: InstanceState[Any]
    reference: Reference
    items: list[Attachment]
    identity: Identity | None
    """Of the row that there was; None for a new one."""
    deleted: bool = False
    old: Sequence[Attachment] = ()
    value: Any = None
    """What was put on the object: if something else is there later, a hook changed it."""
    there: bool = True
    """Whether the row was."""

    @property
    def is_current(self) -> bool:
        """Whether the object is that of this row still: a listener may have made it one of another row."""
        return self.identity == identity_of(self.state, self.reference)

    def described(self, present: Attachment, item: Attachment) -> Attachment:
        """The row's present descriptor with the name and metadata of ``item``, so that nothing else of it is undone."""
        facts = {**facts_of(present), "filename": item.filename, "metadata": facts_of(item).get("metadata", {})}
        found = make(self.reference.type.attachment_class, facts, self.reference.type)
        set_origin(found, origin_of(item))
        return found

    def moved_meanwhile(self, item: Attachment) -> Attachment | None:
        """The row's present attachment, if only the description of ``item`` was changed here while its bytes moved to
        another place.
        """
        before = self.state.committed_state.get(self.reference.key)
        if not (isinstance(before, Attachment) and names([before]) and len(self.old) == 1 and names(self.old)):
            return None
        present = self.old[0]
        same = before == item and (present.sha256, present.size) == (item.sha256, item.size)
        return present if same else None


@dataclass(eq=False, slots=True)
class Course:
    """How a flush goes: what was foreseen, and how far the ORM has come."""

    slots: dict[tuple[InstanceState[Any], str], Slot] = field(default_factory=dict)
    """What is foreseen, by object and attribute."""
    replaced: list[Slot] = field(default_factory=list)
    """What was, before a hook changed its object."""
    taken: set[Name] = field(default_factory=set)
    """Files that slots got: another one gets a copy."""
    saved: set[InstanceState[Any]] = field(default_factory=set)
    """Objects whose INSERT or UPDATE came."""
    deleted: set[InstanceState[Any]] = field(default_factory=set)
    """Objects whose DELETE came."""

    objects: list[Any] = field(default_factory=list)
    """Held: a listener may take them out of the session meanwhile."""

    def foresee(self, slots: Sequence[Slot]) -> None:
        """Slots that are to be written or deleted."""
        self.slots |= {(slot.state, slot.reference.key): slot for slot in slots}
        self.objects += [slot.state.obj() for slot in slots]

    def replace(self, slot: Slot) -> None:
        """A hook changed its object: it is looked at anew."""
        self.replaced.append(self.slots.pop((slot.state, slot.reference.key)))

    def is_written(self, slot: Slot) -> bool:
        """Whether its row names what was foreseen: not if a hook that came later than ours changed the object."""
        going = slot.deleted or slot.state in self.deleted
        value = slot.state.dict.get(slot.reference.key, NO_VALUE)
        return slot.state in self.saved and slot.there and not going and value is slot.value

    def row(self, slot: Slot) -> Identity | None:
        """The primary key of its row, which is another one, or new, once that is written."""
        if not (slot.state in self.saved and slot.is_current):
            return slot.identity
        values = [slot.state.dict.get(name, NO_VALUE) for name in slot.reference.identity_keys]
        return slot.identity if NO_VALUE in values else tuple(values)


def collect(session: Session, objects: Iterable[Any] | None) -> list[Slot]:
    """The attributes that a flush will write or delete, as far as it is known before; perhaps of some ``objects`` only.

    Every flush of every session comes by here: hence SQLAlchemy's own collections of states, from which ``session.new``
    and its kin make sets of objects first.
    """
    slots: list[Slot] = []
    for state in session._new:
        for reference in of_state(state):
            if reference.key in state.dict:
                slots += slot_of(state, reference)
    for state in session._dirty_states:
        for reference in of_state(state):
            if reference.key in state.committed_state and state not in session._deleted:
                slots += slot_of(state, reference)
    if session._deleted:
        named = {manager: of_row(manager) for manager in {state.manager for state in session._deleted}}
        for state in session._deleted:
            if named[state.manager]:
                slots += doomed(state)
    if objects:
        chosen = {inspect(each) for each in objects}
        return [slot for slot in slots if slot.state in chosen]
    return slots


def slot_of(state: InstanceState[Any], reference: Reference) -> list[Slot]:
    """The slot of an attribute that is written, if there is anything to do for it."""
    value, identity = reference.type.coerce(state.dict.get(reference.key)), identity_of(state, reference)
    items = list(reference.type.items(value))
    return [Slot(state, reference, items, identity, value=value)] if items or identity is not None else []


def doomed(state: InstanceState[Any], known: Container[tuple[InstanceState[Any], str]] = ()) -> list[Slot]:
    """The slots of all that the row of an object names, which goes; but for those known."""
    return [
        Slot(state, reference, [], identity_of(state, reference), deleted=True)
        for reference in of_row(state.manager)
        if (state, reference.key) not in known
    ]


def is_there_still(connection: Connection, slot: Slot) -> bool:
    """Whether the row that a slot was read from, and that is about to be deleted, has the primary key that it had."""
    if not slot.old or slot.identity is None or not may_be_renamed(slot.reference):
        return slot.there
    return is_any_there(connection, slot.reference, [slot.identity])


def named_still(connection: Connection, slot: Slot) -> list[Attachment]:
    """What rows name of what the row of a slot named, which is not where it was: it has another key, or was deleted."""
    return [item for item in slot.old if is_mentioned(connection, slot.reference, item)]


def heirs_of(session: Session, slots: Iterable[Slot]) -> dict[InstanceState[Any], InstanceState[Any]]:
    """New objects by the deleted ones whose rows they take over: an UPDATE then, which leaves columns that are not set
    as they are.
    """
    deleted = {slot.state.key: slot.state for slot in slots if slot.deleted}
    new = [inspect(obj) for obj in session.new] if deleted else []
    keys = {state.mapper.identity_key_from_instance(state.obj()): state for state in new if of_state(state)}
    return {state: keys[key] for key, state in deleted.items() if key in keys}


def identity_of(state: InstanceState[Any], reference: Reference) -> Identity | None:
    """The primary key of the row that there is of an object."""
    return None if state.key is None else reference.identity(state)


def by_table(slots: Iterable[Slot]) -> Iterator[tuple[list[Reference], list[Slot]]]:
    """Slots of one table, with their references; tables always in the same order, that of the ORM where it has one, so
    that transactions that lock rows of several wait for each other one way only.
    """
    groups: dict[tuple[Any, Any], list[Slot]] = {}
    for slot in slots:
        groups.setdefault((slot.reference.mapper, slot.reference.table), []).append(slot)
    if len(groups) > 1:
        tables = sorted({table for _, table in groups}, key=lambda table: table.fullname)
        in_order: list[Any] = [table for table, _ in cast(Any, sort_tables_and_constraints)(tables)]
        groups = {key: groups[key] for key in sorted(groups, key=lambda key: (in_order.index(key[1]), str(key[0])))}
    for group in groups.values():
        yield list({slot.reference.key: slot.reference for slot in group}.values()), group
