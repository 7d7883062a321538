"""Review: after a flush, what the rows of its objects name, and what is dropped as no row names it any more.

Most rows are as foreseen, and nobody asks the database. Those that hooks, listeners, triggers or versions may have
written otherwise are read again, under lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from sqlalchemy.orm.exc import StaleDataError

from .attachment import Attachment, facts_of
from .descriptor import Name, named
from .drops import Drops
from .errors import OwnershipLost
from .frames import Frame
from .references import Row, is_any_there, names, of_state, read_locked
from .slots import Course, Slot, by_table, named_still, slot_of
from .staging import Stage
from .wants import line


class Review:
    """What became of one flush."""

    def __init__(self, stage: Stage, frame: Frame, course: Course) -> None:
        self._stage = stage
        self._frame = frame
        self._course = course
        self._drops = Drops(stage, frame)

    def carry_out(self) -> None:
        """Drop what no row names any more. StaleDataError if a row is gone that was to get a file, OwnershipLost if two
        rows name one, or a hook that came too late changed a row.
        """
        course, drops = self._course, self._drops
        slots = course.slots.values()
        objects = Counter((slot.reference.column, slot.identity) for slot in slots if slot.identity is not None)
        alone = {s for s in slots if s.identity is None or objects[s.reference.column, s.identity] == 1}
        unforeseen = list(course.replaced)
        for slot in slots:
            if slot.old:
                drops.named(slot.reference, slot.old, slot.identity)
            foreseen = slot in alone and not self._frame.met and course.is_written(slot)
            if foreseen and (not slot.old or names(slot.old) <= names(slot.items)):
                drops.keep(slot.items)
                self._note(slot)
            else:
                unforeseen.append(slot)
        if unforeseen:
            self._look_again(unforeseen, alone)
        self._refuse_late()
        drops.of_listeners({(slot.reference.table, slot.identity) for slot in slots if slot.state in course.deleted})
        drops.carry_out()
        self._reclaim()

    def _look_again(self, unforeseen: Sequence[Slot], alone: set[Slot]) -> None:
        """What the rows name that were not written as foreseen, perhaps."""
        course, drops = self._course, self._drops
        for slot in unforeseen:
            drops.named(slot.reference, slot.items, None)
        holding: list[tuple[Slot, Sequence[Attachment]]]
        holding = [(slot, slot.items) for slot in filter(course.is_written, course.slots.values())]
        for slot, row in self._rows_now([each for each in unforeseen if each.old or each.items or not each.there]):
            if slot.state in course.saved and slot.is_current and not slot.there:
                # One that somebody inserted since would be written all the same, and nobody knows what it named.
                raise StaleDataError(f"{slot.reference.target}: row {slot.identity} is gone, and could not be written")
            is_hidden = row is None and slot in alone and course.is_written(slot)  # by the view that it was written to
            items = slot.items if is_hidden else slot.reference.items_in(row)
            drops.keep(items)
            holding.append((slot, items))
            if names(slot.items) == names(items):
                self._note(slot)
        for slot in course.slots.values():
            if slot.old and not slot.there:
                holding.append((slot, left := named_still(self._stage.of(slot.reference)[1], slot)))
                drops.keep(left)
        self._refuse_two_names(holding)

    def _rows_now(self, slots: list[Slot]) -> Iterator[tuple[Slot, Row | None]]:
        """The rows that were not written as foreseen: a new object took one over, or there are two objects of it; a
        listener let its object be forgotten; another version or a trigger kept it from being deleted; or it is gone.
        """
        known = {slot: row for slot in slots if (row := self._course.row(slot)) is not None}
        for references, group in by_table(known):
            connection = self._stage.of(references[0])[1]
            rows_of = {slot: known[slot] for slot in group}
            deleted = {row: None for slot, row in rows_of.items() if slot.state in self._course.deleted}
            wanted = {row: None for row in rows_of.values() if row not in deleted}
            if is_any_there(connection, references[0], deleted):
                wanted |= deleted
            rows = read_locked(connection, references, wanted)
            for slot, row in rows_of.items():
                yield slot, rows.get(row)

    def _refuse_two_names(self, holding: Sequence[tuple[Slot, Sequence[Attachment]]]) -> None:
        """OwnershipLost if a row that was to give a file up names it still, and another one got it."""
        row_of = self._course.row
        holders: dict[Name, Slot] = {}
        for slot, name in ((slot, name) for slot, items in holding for name in names(items) & self._course.taken):
            first = holders.setdefault(name, slot)
            if first is slot:
                continue
            if (first.reference.column, row_of(first)) != (slot.reference.column, row_of(slot)):
                giver, heir = (slot, first) if name in names(slot.old) else (first, slot)
                raise OwnershipLost(
                    f"{giver.reference.target} of row {row_of(giver)} was to give up its file to "
                    f"{heir.reference.target}, and names it still, by a listener, a trigger or a version: assign a copy"
                )

    def _refuse_late(self) -> None:
        """OwnershipLost if a hook that came later than ours changed what would have stayed, and that was written."""
        course = self._course
        late = [
            slot
            for state in course.saved
            for reference in of_state(state)
            if reference.key in state.committed_state and (state, reference.key) not in course.slots
            for slot in slot_of(state, reference)
            if not reference.type.compare_values(slot.value, state.committed_state[reference.key])
        ]
        for slot, row in self._rows_now([slot for slot in late if all(item.is_stored for item in slot.items)]):
            if row is not None and names(slot.reference.items_in(row)) == names(slot.items):
                raise OwnershipLost(
                    f"{slot.reference.target} of row {course.row(slot)} was changed by a hook that came too late to "
                    "take care of its files: listen before mappers are configured, or with insert=True"
                )

    def _reclaim(self) -> None:
        """What a listener's statement dropped, as its row did not know yet that the flush gave it to another one."""
        if not self._frame.let_go:
            return
        let_go, self._frame.let_go = self._frame.let_go, set()
        given = [(slot, item) for slot in self._course.slots.values() for item in slot.items if names([item]) & let_go]
        for slot, item in given:
            if not self._drops.keeps([item]):
                continue
            scope, connection = self._stage.of(slot.reference)
            for file in (file for file in named(facts_of(item)) if file.name in let_go):
                scope.ledger.reclaim(connection, line(file, slot.reference))

    def _note(self, slot: Slot) -> None:
        """Remember a row that got a file, if somebody wants to hear of it."""
        if slot.reference.type.hooks and {(item.storage, item.key) for item in slot.items} - names(slot.old):
            key = slot.state.mapper.primary_key_from_instance(slot.state.obj())
            self._frame.stored.append((slot.reference.type, tuple(key)))
            self._frame.work(self._stage.of(slot.reference)[0])  # so that the end of the transaction is told
