"""The model: what rows should name, committed and inside of each open transaction. Pure; knows nothing of sessions.

>>> item = Item(b"one", "one.txt", None)
>>> committed = State()
>>> transaction = Transaction(committed)
>>> transaction.write({1: Row(None, {"file": (Entry(item, ("default", "k")),)})})
>>> transaction.row(1).slots["file"][0].item.content, committed.rows
(b'one', {})
>>> transaction.commit_into(committed); list(committed.named())
[(('default', 'k'), Item(content=b'one', filename='one.txt', caption=None))]
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from .models import ATTRIBUTES, CONTENTS, RETAINED

Name = tuple[str, str]
"""``(storage, key)``"""


class Item(NamedTuple):
    """What a file should be, whatever its key."""

    content: bytes
    filename: str
    caption: str | None


class Entry(NamedTuple):
    """A file that a row names, and its variants: None for one that failed."""

    item: Item
    name: Name
    variants: tuple[tuple[str, Name | None], ...] = ()

    def files(self) -> Iterator[tuple[Name, Item]]:
        """Its own, and those of its variants."""
        yield self.name, self.item
        for variant, name in self.variants:
            if name is not None:
                yield name, self.item._replace(content=CONTENTS[variant](self.item.content))


@dataclass(frozen=True)
class Row:
    """One row; what it names, by attribute. A single attachment is a tuple of one."""

    title: str | None
    slots: Mapping[str, tuple[Entry, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", {each: self.slots.get(each, ()) for each in ATTRIBUTES})

    def put(self, attribute: str, entries: tuple[Entry, ...]) -> Row:
        return replace(self, slots={**self.slots, attribute: entries})

    def entries(self) -> Iterator[tuple[str, Entry]]:
        for attribute, entries in self.slots.items():
            for entry in entries:
                yield attribute, entry

    def files(self) -> Iterator[Name]:
        """The names of all."""
        for _, entry in self.entries():
            for name, _ in entry.files():
                yield name

    def plain(self) -> Row:
        """Without variants."""
        slots = {each: tuple(entry._replace(variants=()) for entry in entries) for each, entries in self.slots.items()}
        return replace(self, slots=slots)


@dataclass
class State:
    """What is committed: rows by primary key, and the files kept after a drop, by primary key, oldest first."""

    rows: dict[int, Row] = field(default_factory=dict)
    kept: dict[int, tuple[Entry, ...]] = field(default_factory=dict)

    def snapshot(self) -> State:
        return State(dict(self.rows), dict(self.kept))

    def named(self) -> Iterator[tuple[Name, Item]]:
        """What rows name."""
        for row in self.rows.values():
            for _, entry in row.entries():
                yield from entry.files()

    def retained(self) -> Iterator[tuple[Name, Item]]:
        """What is kept though no row names it."""
        for entries in self.kept.values():
            for entry in entries:
                yield from entry.files()


class Transaction:
    """What one open transaction changed, over what it sees of the others."""

    def __init__(self, base: State) -> None:
        self.base = base
        self.changed: dict[int, Row | None] = {}
        self._kept: dict[int, tuple[Entry, ...]] = {}
        self._taken: frozenset[Name] = frozenset()

    def copy(self) -> Transaction:
        """As it is now, for a savepoint."""
        made = copy(self)
        made.changed = dict(self.changed)
        made._kept = dict(self._kept)
        return made

    def row(self, pk: int) -> Row | None:
        return self.changed[pk] if pk in self.changed else self.base.rows.get(pk)

    def rows(self) -> dict[int, Row]:
        found = {**self.base.rows, **self.changed}
        return {pk: row for pk, row in found.items() if row is not None}

    def kept(self, pk: int) -> tuple[Entry, ...]:
        """What a restore would find, oldest first."""
        both = (*self.base.kept.get(pk, ()), *self._kept.get(pk, ()))
        return tuple(entry for entry in both if entry.name not in self._taken or entry in self._kept.get(pk, ()))

    def write(self, after: Mapping[int, Row | None], unseen: Collection[Name] = ()) -> None:
        """Rows became this at once, by one flush or statement. Files that are ``unseen`` are not kept when dropped."""
        # Others may still change what did not change: nothing locks it.
        after = {pk: row for pk, row in after.items() if row != self.row(pk)}
        old = [(pk, attribute, entry) for pk in after for attribute, entry in _entries(self.row(pk))]
        now = {entry.name for row in after.values() for _, entry in _entries(row)}
        for pk, kept in list(self._kept.items()):
            self._kept[pk] = tuple(entry for entry in kept if entry.name not in now)
        self._taken |= now & {name for name, _ in self.base.retained()}
        gone = {*now, *unseen}
        dropped = [(pk, entry) for pk, attribute, entry in old if attribute == RETAINED and entry.name not in gone]
        for pk, entry in dropped:
            self._kept[pk] = (*self._kept.get(pk, ()), entry)
        self.changed.update(after)

    def commit_into(self, state: State) -> None:
        for pk, row in self.changed.items():
            if row is None:
                state.rows.pop(pk, None)
            else:
                state.rows[pk] = row
        for pk, kept in list(state.kept.items()):
            state.kept[pk] = tuple(entry for entry in kept if entry.name not in self._taken)
        for pk, kept in self._kept.items():
            state.kept[pk] = (*state.kept.get(pk, ()), *kept)

    def names(self) -> Iterator[tuple[Name, Item]]:
        """What only this transaction names or keeps."""
        for row in self.changed.values():
            for _, entry in _entries(row):
                yield from entry.files()
        for kept in self._kept.values():
            for entry in kept:
                yield from entry.files()


def _entries(row: Row | None) -> Iterator[tuple[str, Entry]]:
    return iter(()) if row is None else row.entries()
