"""The worlds of the scenarios, where everything around the database fails or hangs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.scenarios.conftest import pytest_pyfunc_call, world, world_class
from tests.scenarios.models import files

from .patience import BUDGET
from .site import begin_immediately

__all__ = ["pytest_pyfunc_call", "world", "world_class"]


@pytest.fixture(autouse=True)
def _usual_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenarios wait long for cleaning, these tests as long as applications do."""
    monkeypatch.setattr(files._settler, "_budget", BUDGET)


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]) -> Engine:
    """Those of all tests, and ``sqlite-immediate``, for writers at the same time."""
    name = request.param
    if name == "sqlite-immediate":
        return begin_immediately(
            open_engine(f"sqlite:///{tmp_path}/test.db", legacy=True, connect_args={"timeout": 30})
        )
    if name == "sqlite-memory":
        return open_engine("sqlite://")
    if name.startswith("sqlite"):
        return open_engine(f"sqlite:///{tmp_path}/test.db", legacy=name == "sqlite-legacy")
    return open_engine(request.getfixturevalue(f"{name}_url"))
