"""Keyset: the primary key of a table, by which its rows are read page by page, each once.

>>> from sqlalchemy import Integer, column, select
>>> keys = Keyset([column("a", Integer), column("b", Integer)])
>>> print(select(*keys.columns).where(keys.later((1, 2))).order_by(*keys.order))
SELECT a, b
WHERE (a, b) > (:param_1, :param_2) ORDER BY a, b

Traps
-----
MariaDB and MySQL sort an ENUM by the number of its value, and compare it by its text: pages that go by both pass over
rows. So there it is both sorted and compared by its text, byte by byte.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import and_, cast, collate, literal, tuple_, type_coerce
from sqlalchemy.dialects.mysql import CHAR

from .chunks import one_of
from .errors import BadConfiguration
from .references import Identity


class Keyset:
    """``enums``: names of columns that are an ENUM of MariaDB or MySQL."""

    def __init__(self, columns: Sequence[Any], enums: Collection[str] = ()) -> None:
        self.columns = list(columns)
        self.order = [_by_text(each) if each.name in enums else each for each in columns]

    def later(self, after: Identity) -> Any:
        """The condition that a row comes after another one in this order."""
        values = [literal(value, each.type) for each, value in zip(self.order, after, strict=True)]
        return self.order[0] > values[0] if len(values) == 1 else tuple_(*self.order) > tuple_(*values)

    def among(self, identities: Sequence[Identity]) -> Any:
        """The condition that a row has one of these primary keys."""
        if len(self.columns) == 1:
            return one_of(self.columns[0], [each[0] for each in identities])
        return one_of(tuple_(*self.columns), list(identities))

    def is_one(self, identity: Identity) -> Any:
        """The condition that a row has this primary key."""
        pairs = zip(self.columns, identity, strict=True)
        return and_(*(c.is_(None) if value is None else c == literal(value, c.type) for c, value in pairs))


def one_each(rows: Iterable[Any], width: int, table: str) -> dict[Identity, Any]:
    """Rows by their primary keys, which are the first so many values of each. BadConfiguration if several have one.

    >>> one_each([(1, "a"), (2, "b")], 1, "docs")
    {(1,): (1, 'a'), (2,): (2, 'b')}
    """
    found: dict[Identity, Any] = {}
    for row in rows:
        if (identity := tuple(row[:width])) in found:
            # What is written into one of them would be written into all.
            raise BadConfiguration(
                f"several rows of table {table!r} have the primary key {identity}, as those of a table that inherits "
                "from it may: give them keys of their own"
            )
        found[identity] = row
    return found


def _by_text(column: Any) -> Any:
    # Whatever the ENUM's own collation: two of its values may differ by case alone.
    return type_coerce(collate(cast(column, CHAR(charset="utf8mb4")), "utf8mb4_bin"), column.type)
