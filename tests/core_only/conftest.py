"""The worlds of the scenarios, with tables that no class maps."""

from __future__ import annotations

from tests.scenarios.conftest import aworld, pytest_pyfunc_call, world, world_class

from .models import Bench, aworld_bench, bench

__all__ = ["Bench", "aworld", "aworld_bench", "bench", "pytest_pyfunc_call", "world", "world_class"]
