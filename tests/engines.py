"""The engines that database tests run on, by name.

``sqlite``
    a file, with SQLAlchemy's recipe for real transactions: the driver's own are off and an event sends BEGIN; foreign
    keys are enforced
``sqlite-legacy``
    a file, with the driver's defaults: BEGIN comes late, and a first SAVEPOINT is not inside of a transaction
``sqlite-memory``
    ``sqlite://``, with the recipe; all connections of a thread are one
``postgres``
    psycopg 3, a database that is empty at the start of each test
``mariadb``
    PyMySQL, likewise; only where SA_ATTACHMENTS_TEST_MARIADB names a server

and for asyncio ``aiosqlite`` (a file, with the recipe) and ``asyncpg``.
"""

from __future__ import annotations

import os
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

MARIADB = os.environ.get("SA_ATTACHMENTS_TEST_MARIADB")
POSTGRES = os.environ.get("SA_ATTACHMENTS_TEST_POSTGRES")

ENGINES = ["sqlite", "sqlite-legacy", "sqlite-memory", "postgres", *(["mariadb"] if MARIADB else [])]
ASYNC_ENGINES = ["aiosqlite", "asyncpg"]
# For tests of what only several connections at a time can show.
CONCURRENT_ENGINES = ["postgres", *(["mariadb"] if MARIADB else [])]


def open_engine(url: str | URL, *, legacy: bool = False, durable: bool = False, **options: Any) -> Engine:
    """``durable``: for tests that cut the power, all others wait for no disk."""
    engine = create_engine(url, **options)
    if engine.dialect.name == "sqlite":
        if not durable:
            hurry(engine)
        if not legacy:
            begin_explicitly(engine)
    return engine


def open_async_engine(url: str | URL, **options: Any) -> AsyncEngine:
    engine = create_async_engine(url, **options)
    if engine.dialect.name == "sqlite":
        hurry(engine.sync_engine)
        begin_explicitly(engine.sync_engine)
    return engine


def with_driver(url: str | URL, driver: str) -> URL:
    """The same database by another driver: ``with_driver(url, "asyncpg")``."""
    url = make_url(url)
    return url.set(drivername=f"{url.get_backend_name()}+{driver}")


def hurry(engine: Engine) -> None:
    """Let SQLite flush nothing."""

    @event.listens_for(engine, "connect")
    def connect(dbapi_connection: Any, _: object) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA synchronous = OFF")
        cursor.close()


def begin_explicitly(engine: Engine) -> None:
    """https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#serializable-isolation-savepoints-transactional-ddl"""

    @event.listens_for(engine, "connect")
    def connect(dbapi_connection: Any, _: object) -> None:
        dbapi_connection.isolation_level = None
        cursor = dbapi_connection.cursor()
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")
