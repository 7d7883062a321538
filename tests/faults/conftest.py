"""The worlds of the scenarios, where everything around the database fails or hangs."""

from __future__ import annotations

import pytest

from tests.scenarios.conftest import pytest_pyfunc_call, world
from tests.scenarios.models import files

from .patience import BUDGET

__all__ = ["pytest_pyfunc_call", "world"]


@pytest.fixture(autouse=True)
def _usual_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenarios wait long for cleaning, these tests as long as applications do."""
    monkeypatch.setattr(files._settler, "_budget", BUDGET)
