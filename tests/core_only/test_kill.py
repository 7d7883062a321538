"""A process that works without the ORM is killed at every step, as in ``tests.crash.test_kill``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.pool import NullPool

from tests.crash.forks import ForkServer
from tests.crash.test_kill import Ground, kill_at_each

from .application import PlainApplication


class PlainGround(Ground):
    application = PlainApplication


@pytest.fixture(params=["sqlite", "postgres"])
def ground(request: pytest.FixtureRequest, open_engine: Callable[..., Engine]) -> Iterator[PlainGround]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as root, ForkServer() as server:
        folder = Path(root) / "ground"
        if request.param == "postgres":
            engine = open_engine(request.getfixturevalue("postgres_url"), pool_size=1, max_overflow=0)
        else:
            engine = open_engine(f"sqlite:///{folder}/test.db", poolclass=NullPool)
        yield PlainGround(server, engine, folder)


@pytest.mark.timeout(600)
def test_a_sample_of_the_steps(ground: PlainGround) -> None:
    kill_at_each(ground, "plain", every=199, sweeps=61)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_every_step(ground: PlainGround) -> None:
    kill_at_each(ground, "plain", every=1, sweeps=7)
