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

from typing import Any

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool, SingletonThreadPool, StaticPool


def is_full(engine: Engine) -> bool:
    """Whether the thread that may hold SQLite's last connection would wait for it."""
    pool = engine.pool
    return (
        isinstance(pool, QueuePool)
        and engine.dialect.name == "sqlite"
        and pool.checkedout() >= pool.size() + max(pool._max_overflow, 0)
    )


def is_shared_and_busy(engine: Engine) -> bool:
    """Whether all sessions share one connection, and one of them is in a transaction: it is not ours to end."""
    pool: Any = engine.pool
    if isinstance(pool, StaticPool):
        connection = pool.connection.dbapi_connection
    elif isinstance(pool, SingletonThreadPool):
        connection = getattr(getattr(pool._conn, "current", lambda: None)(), "dbapi_connection", None)
    else:
        return False
    driver = getattr(connection, "driver_connection", connection)
    return bool(getattr(driver, "in_transaction", False))


def forget_returned(engine: Engine) -> None:
    """While the connection of a thread is being given back, its pool would hand out what is left of it."""
    pool: Any = engine.pool
    if isinstance(pool, SingletonThreadPool):
        last = getattr(pool._fairy, "current", lambda: None)()
        if last is not None and not last.is_valid:
            del pool._fairy.current
