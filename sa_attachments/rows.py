"""Rows: those of one attachment column, walked and rewritten outside of sessions, while the application reads and
writes.

Who works on files of many rows reads a page of rows, works with no transaction open, and then, in one short
transaction, locks the rows, reads them again, and writes those that are still what they were. So it can be killed at
any moment, and begun again.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, and_, column, func, select, table, tuple_, update

from .attachment import Attachment
from .column import AttachmentListType, AttachmentType, nameable
from .recovery import Purger
from .references import row_key

ColumnType = AttachmentType | AttachmentListType
Identity = tuple[Any, ...]
Page = list[tuple[Identity, list[Attachment]]]
"""Primary keys, and what their rows name."""

PAGE = 100
"""Rows that are worked on together and written in one transaction."""


class Rows:
    """Those of one column, in the database of a purger."""

    def __init__(self, purger: Purger, column_type: ColumnType) -> None:
        assert column_type.column is not None
        self._purger = purger
        self._type = column_type
        self._column = column_type.column
        self._table = self._column.table
        self._key = row_key(self._table)

    def count(self, condition: Any) -> int:
        """How many fulfil a condition."""
        statement = select(func.count()).select_from(self._table).where(condition)
        with self._purger.connection() as connection, self._purger.transaction(connection):
            return connection.scalar(statement) or 0

    def pages(self, condition: Any, part: tuple[int, int] = (1, 1)) -> Iterator[Page]:
        """Those that fulfil a condition, by primary key. ``part=(2, 4)``: the second quarter of them."""
        last: Identity | None = None
        while True:
            statement = select(*self._key, self._column).where(condition).order_by(*self._key)
            statement = statement.limit(PAGE if self._key else None)
            if last is not None:
                later = self._key[0] > last[0] if len(self._key) == 1 else tuple_(*self._key) > last
                statement = statement.where(later)
            page = self._read(statement)
            if mine := [(identity, items) for identity, items in page if _is_in(identity, part)]:
                yield mine
            if len(page) < PAGE or not self._key:
                return
            last = page[-1][0]

    def find(self, condition: Any) -> Page:
        """All that fulfil a condition: for conditions that hold for a few."""
        return self._read(select(*self._key, self._column).where(condition).order_by(*self._key))

    def is_one(self, identity: Identity) -> Any:
        """The condition that a row has this primary key."""
        return and_(*(c == value for c, value in zip(self._key, identity, strict=True)))

    def lock(
        self, connection: Connection, identities: Sequence[Identity]
    ) -> tuple[dict[Identity, list[Attachment]], set[Identity]]:
        """What rows name now, locked until the transaction ends; passed over is what somebody holds. And those that
        were met: a deleted one counts.
        """
        self._purger.ledger.begin_write(connection)
        several = tuple_(*self._key).in_(list(identities))
        condition = self._key[0].in_([each[0] for each in identities]) if len(self._key) == 1 else several
        # Without locks: what is not even there was deleted, what is not locked is held by somebody.
        there = {tuple(row) for row in connection.execute(select(*self._key).where(condition))}
        statement = select(*self._key, self._column).where(condition).order_by(*self._key)
        found = connection.execute(statement.with_for_update(skip_locked=True, key_share=True)).all()
        locked = {tuple(row[:-1]): list(self._type.items(row[-1])) for row in found}
        return locked, set(locked) | (set(identities) - there)

    def write(self, connection: Connection, identity: Identity, items: Sequence[Attachment]) -> None:
        """Write the descriptors alone: a table without ``onupdate`` defaults, so that no row looks edited."""
        lean = table(
            self._table.name,
            *(column(c.name, c.type) for c in (*self._key, self._column)),
            schema=self._table.schema,
        )
        key = [lean.c[c.name] for c in self._key]
        statement = update(lean).where(*(c == value for c, value in zip(key, identity, strict=True)))
        token = nameable.set({(self._column, item.key) for item in items})
        try:
            connection.execute(statement.values({lean.c[self._column.name]: self._type.value(items)}))
        finally:
            nameable.reset(token)

    def _read(self, statement: Any) -> Page:
        with self._purger.connection() as connection, self._purger.transaction(connection):
            return [(tuple(row[:-1]), list(self._type.items(row[-1]))) for row in connection.execute(statement)]


def _is_in(identity: Identity, part: tuple[int, int]) -> bool:
    number, parts = part
    return zlib.crc32(repr(identity).encode()) % parts == number - 1
