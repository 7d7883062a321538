"""The fixture ``world``: on a SQLite file, and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from .world import World


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]) -> Iterator[World]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/test.db"
        engine = open_engine(url)
    else:
        url = request.getfixturevalue("postgres_url")
        # A lock that another session of the same thread holds is not released while this one waits for it.
        engine = open_engine(url, connect_args={"options": "-c lock_timeout=30"})
    made = World(engine, open_engine(url))
    made.begin()
    yield made
    made.end()
