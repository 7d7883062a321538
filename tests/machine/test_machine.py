"""Runs of the machine: a sample in the default suite, thousands of examples in the torture session."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy.util import greenlet_spawn

from .core import CoreMachine
from .machine import Machine
from .world import World

EXAMPLES = int(os.environ.get("SA_ATTACHMENTS_MACHINE_EXAMPLES", "2000"))
PARTS = 4
"""The torture is cut into parts, so that workers share it."""

SETTINGS = settings(
    deadline=None, database=None, stateful_step_count=30, suppress_health_check=list(HealthCheck), print_blob=False
)


def run(world: World, options: settings, number: int, machine: type[Machine] = CoreMachine) -> None:
    run_state_machine_as_test(seed(number)(type("Machine", (machine,), {"world": world})), settings=options)


@pytest.mark.timeout(300)
def test_a_sample(world: World) -> None:
    """The same examples each time, so that nobody's change fails by another's bad luck."""
    run(world, settings(SETTINGS, max_examples=25 if world.has_one_writer else 12), 1)


@pytest.mark.timeout(300)
async def test_a_sample_under_asyncio(aworld: World) -> None:
    await greenlet_spawn(run, aworld, settings(SETTINGS, max_examples=10), 2)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_many_examples(world: World, part: int) -> None:
    run(world, settings(SETTINGS, max_examples=EXAMPLES // PARTS), 1000 + part)


@pytest.mark.torture
@pytest.mark.timeout(3600)
async def test_many_examples_under_asyncio(aworld: World) -> None:
    await greenlet_spawn(run, aworld, settings(SETTINGS, max_examples=EXAMPLES // PARTS), 2000)
