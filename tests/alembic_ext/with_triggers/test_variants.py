"""Variants, in databases that count names by triggers."""

from __future__ import annotations

from types import FunctionType

from tests.scenarios import test_variants
from tests.scenarios.test_variants import world  # noqa: F401

for _name, _value in vars(test_variants).items():
    if _name.startswith("test_") and isinstance(_value, FunctionType):
        globals()[_name] = _value
