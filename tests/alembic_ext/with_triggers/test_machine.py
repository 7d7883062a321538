"""The machine of the core, in databases that count names by triggers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from sqlalchemy import Engine, text

from tests.alembic_ext.installing import install
from tests.machine.models import Base
from tests.machine.test_machine import EXAMPLES, PARTS, SETTINGS, run
from tests.machine.world import World


class CountingWorld(World):
    """What it says of the ledger is true only if the triggers have counted right."""

    def __init__(self, engine: Engine, observer: Engine) -> None:
        super().__init__(engine, observer)
        install(observer, Base.metadata)

    def end(self) -> None:
        with self.observer.connect() as connection:
            rows = connection.execute(text("SELECT state, names FROM attachment_ledger")).all()
        super().end()
        # The ORM names each file once; what is not owned has no name.
        right = {("owned", 1), *((state, names) for state in ("condemned", "purging", "gone") for names in (None, 0))}
        assert {tuple(row) for row in rows} <= right


@pytest.fixture(params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]) -> Iterator[Any]:
    url = f"sqlite:///{tmp_path}/test.db"
    options: dict[str, Any] = {}
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        options = {"connect_args": {"options": "-c lock_timeout=30"}}
    made = CountingWorld(open_engine(url, **options), open_engine(url))
    made.begin()
    yield made
    made.end()


@pytest.mark.timeout(300)
def test_a_sample(world: CountingWorld) -> None:
    run(world, settings(SETTINGS, max_examples=8 if world.has_one_writer else 4), 1)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_many_examples(world: CountingWorld, part: int) -> None:
    run(world, settings(SETTINGS, max_examples=EXAMPLES // PARTS), 5000 + part)
