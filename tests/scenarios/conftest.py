"""The fixture ``world``: each scenario runs on SQLite, on PostgreSQL and on one or two more of the databases and
drivers that it can run on, as its name picks; each of its cases on SQLite and on one more. The torture runs them all.

On ``aiosqlite`` and ``asyncpg`` the test function itself runs inside SQLAlchemy's greenlet, on a running event loop,
with a session of an async engine: exactly what ``AsyncSession.run_sync`` does.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.util import greenlet_spawn

from tests import engines
from tests.databases import PostgresDatabase
from tests.sampling import leave_all_but_a_sample

from .models import files
from .world import AsyncWorld, World

SYNC = engines.ENGINES
Made = TypeVar("Made", bound=World)
EVERYWHERE = [*SYNC, *engines.ASYNC_ENGINES]
WORLDS = ("world", "tenants")
"""Fixtures whose tests are no coroutines: on a database of asyncio they run inside of the greenlet."""


@pytest.fixture
def world_class() -> type[World]:
    """Which sessions a world has: a suite of other ones takes ``world`` from here, and overrides this."""
    return World


@pytest.fixture(params=EVERYWHERE)
def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    open_engine: Callable[..., Engine],
    world_class: type[World],
) -> Iterator[World]:
    """Fewer databases by ``@pytest.mark.parametrize("world", ["sqlite", "postgres"], indirect=True)``."""
    name = request.param
    path = f"{tmp_path}/test.db"
    database: PostgresDatabase | None = None
    match name:
        case "sqlite" | "sqlite-legacy":
            engine, observer = (
                open_engine(f"sqlite:///{path}", legacy=name != "sqlite"),
                open_engine(f"sqlite:///{path}"),
            )
        case "sqlite-memory":
            engine = observer = open_engine("sqlite://")
        case "aiosqlite":
            engine = engines.open_async_engine(f"sqlite+aiosqlite:///{path}").sync_engine
            observer = open_engine(f"sqlite:///{path}")
        case "asyncpg":
            database = request.getfixturevalue("postgres_database")
            engine = engines.open_async_engine(engines.with_driver(database.url, name)).sync_engine
            observer = open_engine(database.url)
        case "postgres":
            database = request.getfixturevalue("postgres_database")
            engine, observer = open_engine(database.url), open_engine(database.url)
        case "mariadb":
            url = request.getfixturevalue("mariadb_url")
            engine, observer = open_engine(url), open_engine(url)
        case other:
            raise ValueError(f"no world {other!r}; there are {EVERYWHERE}")
    made = _on(database, world_class, name, engine, observer)
    with files.override(made.storages):
        yield made
        made.heal()


@pytest.fixture(params=engines.ASYNC_ENGINES)
async def aworld(
    request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]
) -> AsyncIterator[AsyncWorld]:
    """For tests that are coroutines."""
    url: str | URL = f"sqlite:///{tmp_path}/test.db"
    database: PostgresDatabase | None = None
    if request.param == "asyncpg":
        database = request.getfixturevalue("postgres_database")
        url = database.url
    engine = engines.open_async_engine(engines.with_driver(url, request.param))
    made = _on(database, AsyncWorld, request.param, engine, open_engine(url))
    with files.override(made.storages):
        yield made
        made.heal()
    await engine.dispose()


def _on(database: PostgresDatabase | None, of: type[Made], name: str, engine: Any, observer: Engine) -> Made:
    """A new world in the tables of the one before, if nothing but rows was changed there."""
    if database is None:
        return of(name, engine, observer)
    made = of(name, engine, observer, prepared=database.clear(of.TABLES))
    if not made.prepared:
        database.remember(of.TABLES)
    return made


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if item.path.parent.name == "scenarios" and "world" in _parameters(item)]
    leave_all_but_a_sample(here, "world", most=2, always="postgres")


def _parameters(item: pytest.Item) -> Collection[str]:
    return item.callspec.params if hasattr(item, "callspec") else ()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    made = next((pyfuncitem.funcargs[name] for name in WORLDS if name in pyfuncitem.funcargs), None)
    if not isinstance(made, World) or not made.is_async or inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments: dict[str, Any] = {
        argument: pyfuncitem.funcargs[argument] for argument in pyfuncitem._fixtureinfo.argnames
    }

    async def run() -> None:
        try:
            await greenlet_spawn(pyfuncitem.obj, **arguments)
        finally:
            made.heal()
            await greenlet_spawn(made.engine.dispose)

    asyncio.run(run())
    return True
