"""Statements for many keys at once, in chunks that every database takes.

>>> list(chunked("abc", 2))
[['a', 'b'], ['c']]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, bindparam
from sqlalchemy.dialects import mysql, postgresql, sqlite

from .descriptor import Name, Named

CHUNK = 500
"""Keys per statement."""

T = TypeVar("T")


def chunked(items: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Lists of up to ``size`` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def one_of(column: Any, values: Sequence[Any], written: bool = False) -> Any:
    """``column.in_(values)`` for many values that need no look each, and have the column's own type; ``written`` into
    the SQL, or passed as parameters.
    """
    return column.in_(bindparam(None, values, expanding=True, type_=column.type, literal_execute=written))


def lockable(connection: Connection, files: Iterable[T]) -> Iterator[list[T]]:
    """Chunks for a statement that locks lines. On MySQL each is one: for more it may scan the table, and lock all."""
    return chunked(files, 1 if connection.dialect.name in ("mysql", "mariadb") else CHUNK)


def by_storage(files: Iterable[Named | Name]) -> Iterator[dict[str, Any]]:
    """Parameters for a statement of ``Queries``: ``of`` a storage the ``keys``. Most chunks are of one.

    >>> list(by_storage([("scans", "k"), ("default", "k"), ("scans", "l")]))
    [{'of': 'default', 'keys': ['k']}, {'of': 'scans', 'keys': ['k', 'l']}]
    """
    keys: dict[str, list[str]] = {}
    for file in files:
        keys.setdefault(file[0], []).append(file[1])
    return ({"of": storage, "keys": keys[storage]} for storage in sorted(keys))


def insert_ignoring(dialect: str, table: Table) -> Any:
    """An INSERT that leaves a line with the same primary key alone."""
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    key = next(iter(table.primary_key))
    return mysql.insert(table).on_duplicate_key_update({key.name: key})
