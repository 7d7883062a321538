"""The fixtures of the scenarios, whose databases count names by triggers here."""

from __future__ import annotations

from zlib import crc32

import pytest

from tests.alembic_ext.counting_world import CountingWorld
from tests.sampling import leave
from tests.scenarios.conftest import aworld, pytest_pyfunc_call, world  # noqa: F401
from tests.scenarios.test_binds import follower  # noqa: F401
from tests.scenarios.test_engines_in_sessions import binds, pair  # noqa: F401
from tests.scenarios.test_given_paths import folders, path  # noqa: F401
from tests.scenarios.test_schemas import tenants  # noqa: F401
from tests.scenarios.test_settling import storage  # noqa: F401


@pytest.fixture
def world_class() -> type[CountingWorld]:
    return CountingWorld


SAMPLED = ("test_scenarios.py", "test_variants.py", "test_counting.py")
# Whose statements change what rows name; the others look at what goes on around them.
TELLING = ("bulk", "lists", "owners", "retention", "savepoints", "upserts")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The torture runs everything. By default every other one of the telling scenarios runs once, on a database as its
    name picks; and of what is counted, each way of losing or keeping a name ends in one way, on each database.
    """
    mine = [item for item in items if item.path.parent.name == "with_triggers" and item.path.name in SAMPLED]
    groups: dict[str, list[pytest.Item]] = {}
    for item in mine:
        groups.setdefault(_group(item), []).append(item)
    chosen = {id(group[crc32(name.encode()) % len(group)]) for name, group in groups.items() if name}
    leave(item for item in mine if id(item) not in chosen)


def _group(item: pytest.Item) -> str:
    """Tests of which one stands for all; empty if none is to run."""
    function = item.name.partition("[")[0]
    if item.path.name == "test_scenarios.py":
        told = function.removeprefix("test_").startswith(TELLING) and (crc32(function.encode()) >> 8) % 2 == 0
        return function if told else ""
    if item.path.name == "test_variants.py":
        return function
    parameters: dict[str, object] = item.callspec.params  # type: ignore[attr-defined]
    return function + str({name: value for name, value in parameters.items() if name != "end"})
