"""The fixture ``world``: on a SQLite file, and on PostgreSQL; and ``aworld``, for tests that are coroutines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.util import greenlet_spawn

from tests import engines

from .world import World

PATIENCE = "30"
"""Milliseconds: a lock that another session of the same thread holds is not released while this one waits for it."""


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]) -> Iterator[World]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/test.db"
        engine = open_engine(url)
    else:
        url = request.getfixturevalue("postgres_url")
        engine = open_engine(url, connect_args={"options": f"-c lock_timeout={PATIENCE}"})
    made = World(engine, open_engine(url))
    made.begin()
    yield made
    made.end()


@pytest.fixture(params=["aiosqlite", "asyncpg"])
async def aworld(
    request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]
) -> AsyncIterator[World]:
    url, options = f"sqlite:///{tmp_path}/test.db", {}
    if request.param == "asyncpg":
        url = request.getfixturevalue("postgres_url")
        options = {"connect_args": {"server_settings": {"lock_timeout": PATIENCE}}}
    engine = engines.open_async_engine(engines.with_driver(url, request.param), **options)
    made = World(engine.sync_engine, open_engine(url))
    made.begin()
    yield made
    await greenlet_spawn(made.end)
    await engine.dispose()
