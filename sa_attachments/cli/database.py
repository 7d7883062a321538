"""Database: that of the rows, reached by SQLAlchemy's URL, whether its driver is a synchronous one or one for asyncio.

>>> Database("sqlite://").run(lambda engine: engine.dialect.name)
'sqlite'

Work is a function of an ``Engine``; with an asyncio driver it runs inside SQLAlchemy's greenlet, on a loop of its own.

Traps
-----
SQLite makes a file where there is none; here that is a mistake in the URL, and an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.util import greenlet_spawn

from .failure import Failure, one_line

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

T = TypeVar("T")

_SYNCHRONOUS = {
    "asyncpg": "postgresql+psycopg",
    "aiosqlite": "sqlite",
    "aiomysql": "mysql+pymysql",
    "asyncmy": "mysql+pymysql",
}


class Database:
    """Where the ledger and the rows are. Nothing is opened before ``run``."""

    def __init__(self, url: str, folder: Path | None = None) -> None:
        """A relative path to an SQLite file counts from ``folder``. Raises Failure."""
        try:
            self._url = _absolute(make_url(url), folder or Path.cwd())
            self._is_async = self._url.get_dialect().is_async
        except NoSuchModuleError as error:
            raise Failure(f"the database URL begins with {url.partition(':')[0]!r}: {one_line(str(error))}") from error
        except (ArgumentError, ValueError) as error:
            # Not the URL itself: what can't be taken apart can't be stripped of its password.
            raise Failure("the database URL can't be understood: expected dialect+driver://user@host/name") from error
        except ImportError as error:
            raise self._without(error) from error

    def run(self, work: Callable[[Engine], T]) -> T:
        """What ``work`` returns. Raises Failure if the driver is not there."""
        if self._is_async:
            return asyncio.run(self._run(work))
        engine = self._opened(create_engine)
        try:
            return self._reached(work, engine)
        finally:
            engine.dispose()

    def __str__(self) -> str:
        return self._url.render_as_string()

    async def _run(self, work: Callable[[Engine], T]) -> T:
        engine = self._opened(_asynchronous)
        try:
            return await greenlet_spawn(self._reached, work, engine.sync_engine)
        finally:
            await engine.dispose()

    def _opened(self, create: Callable[[URL], T]) -> T:
        try:
            return create(self._url)
        except ImportError as error:
            raise self._without(error) from error
        except (TypeError, ValueError) as error:
            raise _refused(error) from error

    def _reached(self, work: Callable[[Engine], T], engine: Engine) -> T:
        try:
            engine.connect().close()
        except OSError as error:  # asyncpg's, which SQLAlchemy lets through
            raise Failure(f"the database: {str(error) or type(error).__name__}") from error
        except (TypeError, ValueError) as error:
            raise _refused(error) from error
        if engine.dialect.name in ("mysql", "mariadb") and not engine.dialect.default_schema_name:
            raise Failure(f"the database URL names no database: expected {self._url.drivername}://user@host/name")
        return work(engine)

    def _without(self, error: ImportError) -> Failure:
        driver = self._url.drivername
        other = _SYNCHRONOUS.get(driver.rpartition("+")[2])
        instead = f", or use a synchronous driver, as {other}://" if other else ""
        if "greenlet" in str(error):
            return Failure(f"{driver!r} is for asyncio: pip install 'sa-attachments[asyncio]'{instead}")
        return Failure(f"{driver!r} needs the module {error.name!r}, which is not installed{instead}")


def _refused(error: TypeError | ValueError) -> Failure:
    """What a driver says of an option in the URL that it does not know, or can't understand."""
    return Failure(f"the driver refuses the options of the database URL: {error}")


def _asynchronous(url: URL) -> AsyncEngine:
    if find_spec("greenlet") is None:  # SQLAlchemy 2.0 would miss it only later
        raise ImportError("no greenlet")
    from sqlalchemy.ext.asyncio import create_async_engine  # It needs greenlet, which nobody else here does.

    return create_async_engine(url)


def _absolute(url: URL, folder: Path) -> URL:
    path = url.database
    if url.get_backend_name() != "sqlite" or not path or path == ":memory:" or path.startswith("file:"):
        return url
    file = folder / path
    if not file.is_file():
        raise Failure(f"there is no SQLite file {str(file)!r}")
    return url.set(database=str(file))
