"""Which Counter writes for which database."""

from __future__ import annotations

from sqlalchemy import Dialect

from sa_attachments.errors import BadConfiguration

from .counter import Counter
from .mysql import MySQLCounter
from .postgresql import PostgreSQLCounter
from .sqlite import SQLiteCounter

_COUNTERS: dict[str, type[Counter]] = {
    "sqlite": SQLiteCounter,
    "postgresql": PostgreSQLCounter,
    "mysql": MySQLCounter,
    "mariadb": MySQLCounter,
}


def counter_of(dialect: Dialect) -> Counter:
    """The Counter of a database. BadConfiguration if there is none."""
    if dialect.name not in _COUNTERS:
        raise BadConfiguration(f"no triggers on {dialect.name!r}: expected sqlite, postgresql, mysql or mariadb")
    return _COUNTERS[dialect.name](dialect)
