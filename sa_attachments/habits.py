"""Habits: what MariaDB and MySQL do with columns by themselves, which the mapping of a table does not tell.

Other databases have none of them, and are not asked.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, text

from .tables import translated


class Habits(NamedTuple):
    """Names of columns."""

    enums: frozenset[str] = frozenset()
    """Sorted by the number of their value, but compared by its text."""
    stamped: frozenset[str] = frozenset()
    """Set to the time of an UPDATE that does not set them (``ON UPDATE CURRENT_TIMESTAMP``)."""


def of_table(connection: Connection, table: str, schema: str | None) -> Habits:
    """Those of the columns of a table; ``schema`` may be one that the connection translates."""
    if connection.dialect.name not in ("mysql", "mariadb"):
        return Habits()
    statement = text(
        "SELECT column_name AS name, data_type = 'enum' AS is_enum, extra LIKE '%on update%' AS is_stamped"
        " FROM information_schema.columns"
        " WHERE table_schema = coalesce(:schema, database()) AND table_name = :table"
    )
    rows = connection.execute(statement, {"schema": translated(connection, schema), "table": table}).all()
    return Habits(
        frozenset(row.name for row in rows if row.is_enum), frozenset(row.name for row in rows if row.is_stamped)
    )
