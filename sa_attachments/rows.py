"""Rows: those of one attachment column, walked and rewritten outside of sessions, while the application reads and
writes.

Who works on files of many rows reads a page of rows, works with no transaction open, and then, in one short
transaction, locks the rows, reads them again, and writes those that are still what they were. So it can be killed at
any moment, and begun again.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, column, func, select, table, update

from . import habits
from .attachment import Attachment, facts_of, make
from .chunks import chunked
from .column import ColumnType, mentions, nameable
from .descriptor import Name, Named, named, renamed
from .errors import BadConfiguration, DescriptorDamaged, OwnershipLost
from .habits import Habits
from .keyset import Keyset, one_each
from .offload import run
from .recovery import Purger
from .references import Identity, names, row_key

Page = list[tuple[Identity, list[Attachment]]]
"""Primary keys, and what their rows name."""

PAGE = 100
"""Rows that are worked on together and written in one transaction."""
_TRIES = 5

T = TypeVar("T")


class Rows:
    """Those of one column, in the database of a purger."""

    def __init__(self, purger: Purger, column_type: ColumnType) -> None:
        assert column_type.column is not None
        self._purger = purger
        self._type = column_type
        self._column = column_type.column
        self._table = self._column.table
        self._key = row_key(self._table)
        self._keys = Keyset(self._key)
        self._habits: Habits | None = None

    def count(self, condition: Any) -> int:
        """How many fulfil a condition."""
        statement = select(func.count()).select_from(self._table).where(condition)
        with self._purger.begin() as connection:
            return connection.scalar(statement) or 0

    def pages(self, condition: Any, part: tuple[int, int] = (1, 1), size: int | None = None) -> Iterator[Page]:
        """Those that fulfil a condition, by primary key, ``size`` at a time. ``part=(2, 4)``: the second quarter of
        them.
        """
        size = PAGE if size is None else size
        with self._purger.begin() as connection:
            keys = Keyset(self._key, self._known(connection).enums)
        last: Identity | None = None
        while True:
            statement = select(*self._key, self._column).where(condition).order_by(*keys.order)
            statement = statement.limit(size if self._key else None)
            page = self._read(statement if last is None else statement.where(keys.later(last)))
            if mine := [(identity, items) for identity, items in page if _is_in(identity, part)]:
                yield mine
            if len(page) < size or not self._key:
                return
            last = page[-1][0]

    def find(self, condition: Any) -> Page:
        """All that fulfil a condition: for conditions that hold for a few."""
        return self._read(select(*self._key, self._column).where(condition).order_by(*self._key))

    def still_name(self, connection: Connection, file: Named, locked: bool = False) -> bool:
        """Whether one of them names a file; with ``locked``, it does so until the transaction ends."""
        statement = select(self._column).where(mentions(self._column, file.key))
        if locked:
            statement = statement.with_for_update(nowait=True, key_share=True)
        for value in connection.scalars(statement):
            for item in self._type.items(value):
                try:
                    if any(each.name == file.name for each in named(facts_of(item))):
                        return True
                except DescriptorDamaged:
                    return True  # It may name anything.
        return False

    def is_one(self, identity: Identity) -> Any:
        """The condition that a row has this primary key."""
        return self._keys.is_one(identity)

    def lock(
        self, connection: Connection, identities: Sequence[Identity]
    ) -> tuple[dict[Identity, list[Attachment]], set[Identity]]:
        """What rows name now, locked until the transaction ends; passed over is what somebody holds. And those that
        were met: a deleted one counts. BadConfiguration if several rows have one primary key.
        """
        self._purger.ledger.begin_write(connection)
        condition = self._keys.among(identities)
        # Without locks: what is not even there was deleted, what is not locked is held by somebody.
        there = one_each(connection.execute(select(*self._key).where(condition)), len(self._key), self._table.fullname)
        statement = select(*self._key, self._column).where(condition).order_by(*self._key)
        found = connection.execute(statement.with_for_update(skip_locked=True, key_share=True)).all()
        locked = {tuple(row[:-1]): list(self._type.items(row[-1])) for row in found}
        return locked, set(locked) | (set(identities) - there.keys())

    def write(self, connection: Connection, rows: Mapping[Identity, Sequence[Attachment]]) -> None:
        """Write the descriptors alone: a table without ``onupdate`` defaults, and what the database would set by
        itself to what it is, so that no row looks edited.

        OwnershipLost if a row does not keep them, as a trigger may have it, BadConfiguration if it is not the only one.
        """
        stamped = self._known(connection).stamped
        lean = table(
            self._table.name,
            *(column(c.name, c.type) for c in (*self._key, self._column)),
            *(column(name) for name in stamped),
            schema=self._table.schema,
        )
        keys = Keyset([lean.c[c.name] for c in self._key])
        for identity, items in rows.items():
            statement = update(lean).where(keys.is_one(identity))
            token = nameable.set({(self._column, item.key): connection.connection for item in items})
            try:
                values = {self._column.name: self._type.value(items), **{name: lean.c[name] for name in stamped}}
                connection.execute(statement.values(values))
            finally:
                nameable.reset(token)
        for some in chunked(list(rows)):
            found = connection.execute(select(*self._key, self._column).where(self._keys.among(some)))
            kept = one_each(found, len(self._key), self._table.fullname)
            for identity in some:
                if identity not in kept or names(self._type.items(kept[identity][-1])) != names(rows[identity]):
                    raise OwnershipLost("its row does not keep what it is given")

    def _known(self, connection: Connection) -> Habits:
        if self._habits is None:
            self._habits = habits.of_table(connection, self._table.name, self._table.schema)
        return self._habits

    def _read(self, statement: Any) -> Page:
        with self._purger.begin() as connection:
            return [(tuple(row[:-1]), list(self._type.items(row[-1]))) for row in connection.execute(statement)]


def check_part(part: tuple[int, int]) -> None:
    """BadConfiguration unless it is one that ``Rows.pages`` knows."""
    if not 1 <= part[0] <= part[1]:
        raise BadConfiguration(f"part {part} makes no sense: (2, 4) is the second of four")


def tried_again(left: list[T], work: Callable[[list[T]], list[T]]) -> list[T]:
    """What is still left of that whose rows somebody holds, after some tries, each a little later than the last.

    >>> tried_again(["held", "free"], lambda some: [each for each in some if each == "taken"])
    []
    """
    for attempt in range(_TRIES):
        if left:
            run(partial(time.sleep, 0.1 * attempt))
            left = [each for some in chunked(left, PAGE) for each in work(some)]
    return left


def _is_in(identity: Identity, part: tuple[int, int]) -> bool:
    number, parts = part
    return zlib.crc32(repr(identity).encode()) % parts == number - 1


def renamed_items(
    each: ColumnType, items: Sequence[Attachment], copies: Mapping[Name, Named]
) -> tuple[list[Attachment], dict[Name, Named]]:
    """The attachments of a row under their new names, and which copies that took; none if one of them is damaged."""
    items_now = []
    used: dict[Name, Named] = {}
    try:
        for item in items:
            facts = facts_of(item)
            for file in named(facts):
                if (copy := copies.get(file.name)) is not None:
                    facts = renamed(facts, file, copy)
                    used[file.name] = copy
            items_now.append(make(each.attachment_class, facts, each))
    except DescriptorDamaged:
        return [], {}
    return items_now, used
