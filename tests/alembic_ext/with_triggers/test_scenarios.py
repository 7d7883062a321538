"""The scenarios of the core, in databases that count names by triggers: ``conftest`` says which, and on which ones."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import FunctionType

from tests import scenarios

LIFTED = {
    # These tell of limits that triggers lift; what is true then is in test_counting.
    "test_cascades__a_bulk_delete_of_parents_leaves_the_children_to_verify",
    "test_cascades__what_the_database_deletes_by_itself_is_found_by_verify",
    "test_queries__a_damaged_descriptor_is_met_when_it_is_touched_and_can_be_replaced",
    "test_queries__a_row_with_a_damaged_descriptor_can_be_deleted",
    "test_refusals__bulk_update_mappings_leak_and_are_found_by_verify",
    "test_refusals__files_that_core_takes_from_rows_are_found_by_verify",
}
OTHERWISE = {
    # SQLite may run the trigger there before the one that counts: see test_counting.
    "test_unseen__a_trigger_that_keeps_the_old_file",
}

for _path in sorted(Path(scenarios.__file__).parent.glob("test_*.py")):
    _module = vars(importlib.import_module(f"{scenarios.__name__}.{_path.stem}"))
    if "world" in _module:
        continue  # It makes its own of ours: see test_variants.
    for _name, _value in _module.items():
        _whole_name = f"{_path.stem}__{_name.removeprefix('test_')}"
        if _name.startswith("test_") and isinstance(_value, FunctionType) and _whole_name not in LIFTED | OTHERWISE:
            globals()[_whole_name] = _value
