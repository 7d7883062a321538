"""Of tests that are multiplied by parameters, the sample that runs by default has each case and each value."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from .sampling import leave_all_but_a_sample


class Item:
    """As much of a collected test as is asked for."""

    def __init__(self, world: str, case: int) -> None:
        self.nodeid = f"test_file.py::test[{world}-{case}]"
        self.world = world
        self.case = case
        self.callspec = SimpleNamespace(params={"world": world, "case": case})
        self.marks: list[Any] = []

    def add_marker(self, mark: Any) -> None:
        self.marks.append(mark)

    def get_closest_marker(self, name: str) -> Any:
        return next((mark for mark in self.marks if mark.name == name), None)


@pytest.mark.parametrize("cases", [1, 2, 3, 6, 7, 20])
@pytest.mark.parametrize("worlds", [1, 2, 3, 7])
def test_each_case_runs_twice_and_each_value_once(cases: int, worlds: int) -> None:
    names = [f"w{number}" for number in range(worlds)]
    items = [Item(world, case) for case in range(cases) for world in names]
    leave_all_but_a_sample(cast(Any, items), "world")
    run = [item for item in items if not item.marks]
    assert {item.world for item in run} == set(names)
    for case in range(cases):
        mine = [item.world for item in run if item.case == case]
        assert mine[0] == "w0"
        assert len(mine) >= min(2, worlds)
    assert len(run) <= cases + max(cases, worlds - 1 + cases - 1)


@pytest.mark.parametrize("cases", [1, 2, 3, 20])
def test_with_a_limit_each_test_runs_with_some_values_and_all_of_them_with_each(cases: int) -> None:
    worlds = ["first", "a", "b", "always", "c", "d", "e"]
    seen: set[str] = set()
    for test in range(40):
        items = [Item(world, case) for case in range(cases) for world in worlds]
        for item in items:
            item.nodeid = item.nodeid.replace("test[", f"test_{test}[")
        leave_all_but_a_sample(cast(Any, items), "world", most=2, always="always")
        run = [item for item in items if not item.marks]
        assert [item.case for item in run if item.world == "first"] == list(range(cases))
        assert {"always"} < {item.world for item in run}
        assert 2 * cases <= len(run) <= 3 * cases + 1
        seen |= {item.world for item in run}
    assert seen == set(worlds)


def test_what_is_left_to_the_torture_already_takes_no_turn() -> None:
    items = [Item(world, case) for case in range(3) for world in ("a", "b", "c")]
    left = [item for item in items if item.world == "b"]
    for item in left:
        item.add_marker(pytest.mark.torture)
    leave_all_but_a_sample(cast(Any, items), "world")
    assert [item.world for item in items if not item.marks] == ["a", "c"] * 3
