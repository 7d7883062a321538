"""Pools: whether they have a connection for cleaning, beside those that sessions work on.

>>> from sqlalchemy import create_engine
>>> engine = create_engine("sqlite://")
>>> with engine.connect() as connection:
...     _ = connection.exec_driver_sql("BEGIN")
...     is_shared_and_busy(engine)
True
>>> is_shared_and_busy(engine)
False
"""

from __future__ import annotations

from math import inf
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.pool import AssertionPool, QueuePool, SingletonThreadPool, StaticPool

SOON = 1.0
"""Seconds: who waits for a connection no longer than that may wait in vain while a worker has it."""


def is_full(engine: Engine) -> bool:
    """Whether the thread that may hold SQLite's last connection would wait for it, or fail."""
    pool: Any = engine.pool
    if isinstance(pool, AssertionPool):
        return bool(pool._checked_out)
    return isinstance(pool, QueuePool) and engine.dialect.name == "sqlite" and _left(pool) <= 0


def is_scarce(engine: Engine) -> bool:
    """Whether a connection that a worker takes may be missed: it is the only one, or the last one of a pool that soon
    refuses whoever finds it empty.
    """
    pool: Any = engine.pool
    if isinstance(pool, QueuePool):
        waits: Any = pool.timeout()  # None is for ever
        return waits is not None and waits < SOON and _left(pool) <= 1
    return isinstance(pool, StaticPool | AssertionPool)


def _left(pool: QueuePool) -> float:
    """How many more connections it would give out."""
    return inf if pool._max_overflow < 0 else pool.size() + pool._max_overflow - pool.checkedout()


def is_shared_and_busy(engine: Engine) -> bool:
    """Whether all sessions share one connection, and one of them is in a transaction: it is not ours to end."""
    pool: Any = engine.pool
    if isinstance(pool, StaticPool):
        connection = pool.connection.dbapi_connection
    elif isinstance(pool, SingletonThreadPool):
        connection = getattr(getattr(pool._conn, "current", lambda: None)(), "dbapi_connection", None)
    else:
        return False
    return _is_in_transaction(getattr(connection, "driver_connection", connection))


def _is_in_transaction(driver: Any) -> bool:
    """What a driver says of its connection."""
    if hasattr(driver, "is_in_transaction"):  # asyncpg
        return bool(driver.is_in_transaction())
    if hasattr(driver, "server_status"):  # PyMySQL, in the protocol's words
        return bool(driver.server_status & 1)
    status = getattr(getattr(driver, "info", None), "transaction_status", 0)  # psycopg, in libpq's
    return bool(status or getattr(driver, "in_transaction", False))  # sqlite3


def forget_returned(engine: Engine) -> None:
    """While the connection of a thread is being given back, its pool would hand out what is left of it."""
    pool: Any = engine.pool
    if isinstance(pool, SingletonThreadPool):
        last = getattr(pool._fairy, "current", lambda: None)()
        if last is not None and not last.is_valid:
            del pool._fairy.current
