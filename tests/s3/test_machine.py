"""The machine of ``tests/machine``, with its files in a bucket: fewer examples, for each step asks the server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from hypothesis import settings
from sqlalchemy import Engine
from sqlalchemy.engine import URL

from tests.machine.test_machine import EXAMPLES, SETTINGS, run
from tests.machine.world import World

from .conftest import Make


@pytest.fixture
def world(postgres_url: URL, open_engine: Callable[..., Engine], make: Make) -> Iterator[World]:
    engine = open_engine(postgres_url, connect_args={"options": "-c lock_timeout=30"})
    made = World(engine, open_engine(postgres_url), lambda: make(prefix=uuid4().hex))
    made.begin()
    yield made
    made.end()


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_some_examples(world: World) -> None:
    run(world, settings(SETTINGS, max_examples=max(EXAMPLES // 50, 1)), 2000)
