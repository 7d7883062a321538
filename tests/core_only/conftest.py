"""The worlds of the scenarios, with tables that no class maps."""

from __future__ import annotations

from zlib import crc32

import pytest

from tests.sampling import leave
from tests.scenarios.conftest import aworld, pytest_pyfunc_call, world, world_class

from .models import Bench, aworld_bench, bench

__all__ = ["Bench", "aworld", "aworld_bench", "bench", "pytest_pyfunc_call", "world", "world_class"]

OTHERS = ("sqlite-legacy", "sqlite-memory", "mariadb", "aiosqlite", "asyncpg")
"""Worlds in which, by default, one of so many tests runs; the torture runs all of them."""
SAMPLE = 4


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    leave(item for item in items if item.path.parent.name == "core_only" and _is_left_out(item))


def _is_left_out(item: pytest.Item) -> bool:
    world = item.callspec.params.get("world") if hasattr(item, "callspec") else None
    if world == "mariadb" and item.path.name == "test_triggers.py":  # which are written in another language there
        return False
    return world in OTHERS and crc32(item.name.encode()) % SAMPLE > 0
