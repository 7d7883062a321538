"""A process whose sessions zope.sqlalchemy manages is killed at every step, as in ``tests.crash.test_kill``."""

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

from .application import ZopeApplication


class ZopeGround(Ground):
    application = ZopeApplication


@pytest.fixture(params=["sqlite", "postgres"])
def ground(request: pytest.FixtureRequest, open_engine: Callable[..., Engine]) -> Iterator[ZopeGround]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as root, ForkServer() as server:
        folder = Path(root) / "ground"
        if request.param == "postgres":
            engine = open_engine(request.getfixturevalue("postgres_url"), pool_size=1, max_overflow=0)
        else:
            engine = open_engine(f"sqlite:///{folder}/test.db", poolclass=NullPool)
        yield ZopeGround(server, engine, folder)


@pytest.mark.timeout(600)
def test_a_small_workload(ground: ZopeGround) -> None:
    kill_at_each(ground, "small", every=67, sweeps=43)


@pytest.mark.timeout(600)
def test_all_operations(ground: ZopeGround) -> None:
    kill_at_each(ground, "all", every=509, sweeps=41)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_small_workload_at_every_step_and_every_third_step_of_its_sweeps(ground: ZopeGround) -> None:
    kill_at_each(ground, "small", every=1, sweeps=3)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_all_operations_at_every_step(ground: ZopeGround) -> None:
    kill_at_each(ground, "all", every=1, sweeps=7)
