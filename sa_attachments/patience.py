"""Patience: how long a connection of our own waits for locks, what tells that one is held, and how durable commits are.

>>> from sqlalchemy import create_engine
>>> with create_engine("sqlite://").connect() as connection:
...     with impatient(connection, PATIENCE):
...         connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
...     connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
50
5000

A connection goes back to its pool as it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

PATIENCE = 50
"""Milliseconds that cleaning waits for a lock that somebody else holds."""


class Busy(Exception):
    """Cleaning would have to wait: it is left for later."""


@contextmanager
def impatient(connection: Connection, patience: int) -> Iterator[None]:
    """Short waits for locks and durable commits, as long as the connection is ours."""
    is_own = connection.dialect.name == "sqlite" and isinstance(connection.engine.pool, QueuePool | NullPool)
    ask, change, back = _SETTINGS.get(connection.dialect.name, ((), (), ()))
    with _outside(connection) if is_own else nullcontext():
        before = [_driver_sql(connection, question) for question in ask]
        for command in change:
            _driver_sql(connection, command.format(patience))
    try:
        yield
    finally:
        if not connection.invalidated:
            with _outside(connection) if is_own else nullcontext():
                for command, value in zip(back, before, strict=True):
                    _driver_sql(connection, command.format(value))


@contextmanager
def _outside(connection: Connection) -> Iterator[None]:
    """Outside of SQLite's transactions: it changes its settings only there."""
    # A COMMIT that SQLite refuses leaves the transaction open: one of ours, or of a session that was closed after it.
    connection.connection.rollback()
    driver: Any = connection.connection.driver_connection
    if always := driver.in_transaction:  # sqlite3's autocommit=False begins the next one at once
        _driver_sql(connection, "ROLLBACK")
    yield
    if always:
        _driver_sql(connection, "BEGIN")


@contextmanager
def together(connection: Connection) -> Iterator[None]:
    """All or nothing, where the driver of SQLite was told to commit each statement; elsewhere the connection's own
    isolation level sees to that.
    """
    if connection.dialect.name != "sqlite" or not commits_by_itself(connection.connection.driver_connection):
        yield
        return
    connection.exec_driver_sql("BEGIN")
    try:
        yield
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        with suppress(DBAPIError):  # SQLite has ended it, perhaps: the first error is the one to tell
            connection.exec_driver_sql("ROLLBACK")
        raise


def isolation_level(bind: Engine | Connection) -> str | None:
    """The one that SQLAlchemy was told of, for a connection or its engine; None is the database's own."""
    level: str | None = bind.get_execution_options().get("isolation_level")
    return level or getattr(bind.dialect, "_on_connect_isolation_level", None)


def commits_by_itself(driver: Any) -> bool:
    """Whether the driver of a connection that has begun was told to commit each statement."""
    try:
        if hasattr(driver, "get_autocommit"):  # those of MySQL
            return driver.get_autocommit() is True
        without_begin = driver.isolation_level is None if hasattr(driver, "in_transaction") else False  # sqlite3
        return getattr(driver, "autocommit", None) is True or (without_begin and not driver.in_transaction)
    except Exception:  # noqa: BLE001 - it is closed: the next statement tells, in SQLAlchemy's words
        return False


_SETTINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "sqlite": (
        ("PRAGMA busy_timeout", "PRAGMA synchronous"),
        # FULL does not flush the folder when it removes the journal: a power cut could bring the journal back, and undo
        # a claim whose bytes are deleted.
        ("PRAGMA busy_timeout = {}", "PRAGMA synchronous = EXTRA"),
        ("PRAGMA busy_timeout = {}", "PRAGMA synchronous = {}"),
    ),
    "mysql": (
        ("SELECT @@SESSION.innodb_lock_wait_timeout",),
        ("SET SESSION innodb_lock_wait_timeout = 1",),
        ("SET SESSION innodb_lock_wait_timeout = {}",),
    ),
}
_SETTINGS["mariadb"] = _SETTINGS["mysql"]


def _driver_sql(connection: Connection, statement: str) -> Any:
    """Below SQLAlchemy's transaction: SQLite changes its settings only outside of one."""
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None
    except connection.dialect.loaded_dbapi.Error as error:
        connection._handle_dbapi_exception(error, statement, None, None, None)
    finally:
        cursor.close()


_HELD = {"55P03", "40P01", 1205, 1213}
"""Codes of PostgreSQL and MySQL for a lock that was not to be had in time, and for a deadlock."""


_IOERR = 10
"""What SQLite calls a disk that fails; the rest of its code says where."""


def is_perhaps_committed(error: Exception) -> bool:
    """Whether nobody knows what became of a transaction: its connection was lost, or SQLite's disk failed, of which a
    COMMIT tells after it was carried out, too, as where the folder of a journal that is deleted can't be flushed.
    """
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", 0)
    return error.connection_invalidated or code & 0xFF == _IOERR


def raise_unless_held(error: Busy | DBAPIError) -> None:
    """Raise the error that is handled, unless it says that somebody holds a lock, or all connections."""
    if isinstance(error, Busy):
        return
    origin: Any = error.orig
    # PyMySQL has both, and one SQLSTATE for errors of many kinds.
    codes = {getattr(origin, "sqlstate", None), getattr(origin, "pgcode", None), *origin.args[:1]}
    if not codes & _HELD and "database is locked" not in str(origin):
        raise error
