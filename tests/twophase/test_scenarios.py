"""The scenarios of the core, with two-phase sessions: ``conftest`` says which of them, and on which databases."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import FunctionType

from tests import scenarios

for _path in sorted(Path(scenarios.__file__).parent.glob("test_*.py")):
    for _name, _value in vars(importlib.import_module(f"{scenarios.__name__}.{_path.stem}")).items():
        if _name.startswith("test_") and isinstance(_value, FunctionType):
            globals()[f"{_path.stem}__{_name.removeprefix('test_')}"] = _value
