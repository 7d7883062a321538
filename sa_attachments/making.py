"""Making: variants of files that rows name already, while the application goes on.

1. The recipe is carried out and its result stored, with no transaction open.
2. In one short transaction, the rows are locked and read again. Those that still name the attachment, and hold of the
   variant what they held before, get the new one into their descriptor, and the ledger a line for it; the line of the
   one that it replaces is condemned.
3. What no row took, because it was changed or deleted meanwhile or because somebody else was faster, is deleted.

A process may be killed anywhere in between: what it stored is a stranger to the next sweep.

Traps
-----
The row is found by its primary key, or else by the key of its file: on PostgreSQL by an index on ``(file ->> 'key')``,
where there is one; elsewhere all rows are looked at. A connection is needed beside that of a session which is open, and
what the session has not committed is not seen.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

from sqlalchemy import Connection, and_, type_coerce
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError

from .attachment import Attachment, facts_of
from .column import ColumnType, kept_for, ledger_owner, mentions
from .descriptor import Facts, Named, named_by
from .errors import (
    BadConfiguration,
    DescriptorDamaged,
    FileDamaged,
    FileMissing,
    OwnershipLost,
    StorageFailed,
    UnknownStorage,
    UnknownVariant,
    VariantFailed,
    VariantMissing,
    listing,
)
from .frames import Work
from .ledger import Drop, Line
from .offload import run
from .patience import Busy, is_perhaps_committed, raise_unless_held
from .processing.storing import store
from .processing.variants import Variant, derived, entry, failed, held, holding, is_current, is_there
from .recovery import Purger, discard
from .references import Identity, is_damaged
from .rows import Rows
from .settling import quietly

log = logging.getLogger("sa_attachments")

WAIT = 5.0
"""Seconds that making one variant waits for a row that somebody else holds."""
_ATTEMPTS = 5
_PASSING = (StorageFailed, FileMissing, FileDamaged, UnknownStorage)
"""No fault of the recipe: not written down, but raised."""


@dataclass(eq=False, slots=True)
class Wish:
    """What is to become of one variant of one attachment."""

    identity: Identity
    parent: Attachment
    name: str
    seen: Facts | None
    """What the descriptor held of it before."""
    new: Facts | None = None
    """What it is to hold; None: nothing."""
    hindrance: DBAPIError | None = None
    """Why its row did not take it the last time."""

    @property
    def file(self) -> Named | None:
        """The file that was made for it."""
        return named_by(self.new, facts_of(self.parent)) if self.new is not None and is_there(self.new) else None


class Maker:
    """Makes variants of what one column names, in one database."""

    def __init__(self, purger: Purger, column_type: ColumnType) -> None:
        self._purger = purger
        self._type = column_type
        self._files = purger.scope.files
        self._rows = Rows(purger, column_type)

    # One

    def make(
        self, attachment: Attachment, name: str, primary_key: Identity | None = None, *, again: bool = True
    ) -> Attachment:
        """The variant of that name of an attachment that a row names; made unless it is there by the present recipe.

        With ``again``, one that failed is tried once more, and one by a former recipe replaced. Raises UnknownVariant,
        VariantFailed, VariantMissing, and what storages raise.
        """
        variant = declared_as(self._type, name)
        for _ in range(_ATTEMPTS):
            identity, present = self._find(attachment, primary_key, name)
            seen = held(present).get(name)
            if seen is not None and _suffices(seen, variant, again) and name in present.variants:
                return present.variants[name]
            if seen is not None and is_current(seen, variant) and not again:
                raise self.failure(self._type.label, present, name, seen)
            try:
                wish = Wish(identity, present, name, seen, self.derive(present, name, variant))
            except FileMissing:
                if self.still_names(identity, present):
                    raise
                continue  # It was dropped meanwhile, and its bytes are gone already.
            assert wish.new is not None
            if wish.file is None and seen is not None and is_there(seen):
                raise self.failure(self._type.label, present, name, wish.new)  # rather the old one than none
            if self._publish_one(wish):
                if wish.file is None:
                    raise self.failure(self._type.label, present, name, wish.new)
                return holding(present, {name: wish.new}).variants[name]
        raise VariantMissing(f"{self._type.label}, variant {name!r}: its row changes all the time")

    def _publish_one(self, wish: Wish) -> bool:
        """Whether the row took it. VariantMissing if somebody holds the row all the time."""
        deadline = monotonic() + WAIT
        pause = 0.01
        while True:
            taken, left = self.publish([wish])
            if not left:
                return bool(taken)
            if wish.hindrance is not None:
                try:
                    raise_unless_held(wish.hindrance)
                except DBAPIError:
                    self.discard([wish])
                    raise
            if monotonic() > deadline:
                self.discard([wish])
                raise VariantMissing(
                    f"{self._type.label} {wish.identity}, variant {wish.name!r}: somebody else held the row, or all "
                    f"connections, for {WAIT:g} s: a transaction that is open, perhaps your own"
                )
            run(partial(time.sleep, pause))
            pause = min(2 * pause, 0.5)

    @staticmethod
    def failure(label: str, attachment: Attachment, name: str, facts: Facts) -> VariantFailed:
        """The error that tells of a variant that could not be made; ``label`` is that of its column."""
        reason = str(facts.get("error", "its descriptor is damaged"))
        about = f"{label}, variant {name!r} of {attachment.filename!r}"
        return VariantFailed(f"{about} could not be made: {reason}", variant=name, reason=reason)

    def _find(self, attachment: Attachment, primary_key: Identity | None, name: str) -> tuple[Identity, Attachment]:
        """The row that names an attachment, and what it holds of it now."""
        by_key = primary_key is not None
        found = self._rows.find(self._rows.is_one(primary_key) if primary_key is not None else self._naming(attachment))
        for identity, items in found:
            for item in items:
                try:
                    # Its bytes may have been moved to another storage meanwhile.
                    moved = by_key and (item.sha256, item.size) == (attachment.sha256, attachment.size)
                    if item == attachment or (moved and not self._type.plural):
                        return identity, item
                except DescriptorDamaged:
                    continue
        raise VariantMissing(
            f"{self._type.label}, variant {name!r}: no committed row names {attachment!r}: it was dropped, or is not "
            "committed yet"
        )

    def still_names(self, identity: Identity, attachment: Attachment) -> bool:
        """Whether a row names an attachment still."""
        found = self._rows.find(self._rows.is_one(identity))
        return any(not is_damaged(item) and item == attachment for _, items in found for item in items)

    def _naming(self, attachment: Attachment) -> Any:
        """A condition that holds for the row that names an attachment, and perhaps for others."""
        column, key = self._type.column, attachment.key
        assert column is not None
        if self._purger.scope.engine.dialect.name != "postgresql":
            # Not by a path into the JSON, which SQLite refuses for all rows as soon as one of them is damaged.
            return and_(column.is_not(None), mentions(column, key))
        if self._type.plural:
            return type_coerce(column, JSONB()).contains([{"key": key}])
        return column["key"].as_string() == key

    # Many

    def derive(self, item: Attachment, name: str, variant: Variant) -> Facts:
        """Make a variant and store it; returns what the descriptor is to hold, which is a reason if the recipe failed.

        Raises StorageFailed, FileMissing, FileDamaged, UnknownStorage.
        """
        place = self.place(item)
        result: Facts = run(lambda: self.carry_out(item, name, variant, place))
        return result

    def place(self, item: Attachment) -> str:
        """Name of the storage for variants of an attachment: its own, unless that is read-only."""
        is_readonly = self._files.resolve(item.storage).readonly
        place = self._files.real(self._type.storage) if is_readonly else item.storage
        self._purger.scope.meet(place, self._purger.begin)
        return place

    def carry_out(self, item: Attachment, name: str, variant: Variant, place: str) -> Facts:
        """``derive``, in this thread and without asking the database."""
        started: list[Named] = []
        storage = self._files.resolve(place)
        try:
            ready = derived(variant, item.copy(), f"{self._type.label}, variant {name!r}")
            stored = store(ready, place, storage, started=started.append, binding=self._type, cls=type(item))
            return entry(stored, variant)
        except BaseException as error:
            self._discard(started)
            if not isinstance(error, Exception) or isinstance(error, _PASSING):
                raise
            reason = failed(error, variant)
            log.warning("%s, variant %r failed: %s", self._type.label, name, reason["error"])
            return reason

    def publish(self, wishes: Sequence[Wish]) -> tuple[list[Wish], list[Wish]]:
        """Let the rows take what was made for them, where they are still what they were; the others' files are deleted.
        Returns those that were taken, and those whose rows somebody holds.
        """
        if not wishes:
            return [], []
        try:
            with self._purger.begin() as connection:
                taken, met, dropped = self._swap(connection, wishes)
        except Busy:
            return [], list(wishes)
        except BadConfiguration:
            self.discard(wishes)
            raise
        except (DBAPIError, OwnershipLost) as error:
            if is_perhaps_committed(error):
                raise  # Perhaps it was committed: a sweep will know.
            if len(wishes) > 1:
                each = [self.publish([wish]) for wish in wishes]
                return [wish for taken, _ in each for wish in taken], [wish for _, left in each for wish in left]
            if isinstance(error, OwnershipLost):  # A sweep without grace was faster.
                self.discard(wishes)
                return [], []
            wishes[0].hindrance = error
            return [], list(wishes)
        self.discard([wish for wish in wishes if wish.identity in met and wish not in taken])
        self._settle(dropped)
        return taken, [wish for wish in wishes if wish.identity not in met]

    def _swap(self, connection: Connection, wishes: Sequence[Wish]) -> tuple[list[Wish], set[Identity], list[Drop]]:
        """In one transaction: compare, and swap."""
        by_identity: dict[Identity, list[Wish]] = {}
        for wish in wishes:
            by_identity.setdefault(wish.identity, []).append(wish)
        locked, met = self._rows.lock(connection, list(by_identity))
        taken: list[Wish] = []
        drops: list[Drop] = []
        changed: dict[Identity, list[Attachment]] = {}
        retain = kept_for(self._type)
        for identity, items in locked.items():
            if any(map(is_damaged, items)):
                continue
            for wish in by_identity[identity]:
                index = next((i for i, item in enumerate(items) if item == wish.parent), None)
                if index is None or (entries := held(items[index])).get(wish.name) != wish.seen:
                    continue
                if wish.seen is not None and is_there(wish.seen):
                    drops.append(Drop(named_by(wish.seen, facts_of(items[index])), retain))
                rest = {name: each for name, each in entries.items() if name != wish.name}
                new = rest if wish.new is None else {**rest, wish.name: wish.new}
                changed[identity] = items = [*items[:index], holding(items[index], new), *items[index + 1 :]]
                taken.append(wish)
        if lines := [Line(file, *ledger_owner(self._type)) for wish in taken if (file := wish.file) is not None]:
            self._purger.ledger.own(connection, lines, self._files.own_within)
        self._rows.write(connection, changed)
        self._purger.ledger.drop(connection, drops)
        return taken, met, drops

    def discard(self, wishes: Sequence[Wish]) -> None:
        """Delete what was made and no row took: nobody else knows of it."""
        self._discard([file for wish in wishes if (file := wish.file) is not None])

    def _discard(self, files: Sequence[Named]) -> None:
        if files:
            run(partial(discard, self._files.resolve, files))

    def _settle(self, drops: Sequence[Drop]) -> None:
        """What was replaced goes now, if it is not retained; what can't go now is left to a sweep."""
        if due := [drop.named for drop in drops if not drop.retain]:
            quietly(lambda: self._purger.settle(Work(dropped=due), committed=True))


def declared_as(column_type: ColumnType, name: str) -> Variant:
    """The variant of that name. UnknownVariant."""
    variant = column_type.variants.get(name)
    if variant is None:
        there = listing(column_type.variants)
        raise UnknownVariant(f"{column_type.label} declares no variant {name!r}; declared are {there}")
    return variant


def _suffices(seen: Facts, variant: Variant, again: bool) -> bool:
    return is_there(seen) and (is_current(seen, variant) or not again)
