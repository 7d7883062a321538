"""The database's clock: all times in the ledger are milliseconds since the epoch by it, whatever the application's
machines think.

>>> from sqlalchemy import create_engine, select
>>> with create_engine("sqlite://").connect() as connection:
...     connection.scalar(select(now() - now() + milliseconds(timedelta(seconds=1.5))))
1500
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

from .errors import BadConfiguration

CLOCKS = {
    "sqlite": "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
    # When the statement began, and how long ago that was. SYSDATE alone is a time of the session's zone: of the hour
    # that this has twice in autumn, it does not tell which one it is.
    "mysql": (
        "((TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) + "
        "TIMESTAMPDIFF(MICROSECOND, NOW(3), SYSDATE(3))) DIV 1000)"
    ),
}
"""In the SQL of each database, for triggers, too."""
CLOCKS["mariadb"] = CLOCKS["mysql"]


class now(FunctionElement[int]):
    """The database's clock at this moment (not at the transaction's start), in milliseconds since the epoch."""

    type = BigInteger()
    inherit_cache = True


@compiles(now)
def _now(element: now, compiler: Any, **kw: Any) -> str:
    name = compiler.dialect.name
    if name not in CLOCKS:
        raise BadConfiguration(f"no ledger on {name!r}: expected sqlite, postgresql, mysql or mariadb")
    return CLOCKS[name]


def milliseconds(delta: timedelta) -> int:
    """
    >>> milliseconds(timedelta(seconds=1.5))
    1500
    """
    return round(delta / timedelta(milliseconds=1))


def durations(**options: object) -> None:
    """Raise BadConfiguration for an option that is no timedelta."""
    for name, value in options.items():
        if not isinstance(value, timedelta):
            raise BadConfiguration(f"{name} is {value!r}, expected a timedelta, as timedelta(days=30)")
