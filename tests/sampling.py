"""What the default suite leaves to the torture, of tests that are multiplied by parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from math import ceil

import pytest


def leave(items: Iterable[pytest.Item]) -> None:
    """These run in the torture only."""
    for item in items:
        item.add_marker(pytest.mark.torture)


def leave_all_but_a_sample(items: Iterable[pytest.Item], parameter: str) -> None:
    """Each case of a test, which is what its other parameters say, runs with the first value of ``parameter`` and with
    one more, dealt in turn; with several more where there are fewer cases than values, so that each value runs.
    """
    tests: dict[str, dict[str, list[pytest.Item]]] = defaultdict(lambda: defaultdict(list))
    for item in (item for item in items if item.get_closest_marker("torture") is None):
        parameters: dict[str, object] = item.callspec.params  # type: ignore[attr-defined]
        case = repr({name: value for name, value in parameters.items() if name != parameter})
        tests[item.nodeid.partition("[")[0]][case].append(item)
    for cases in tests.values():
        for number, (_, *others) in enumerate(cases.values()):
            each = ceil(len(others) / len(cases))
            dealt = {(number * each + turn) % len(others) for turn in range(each)}
            leave(item for position, item in enumerate(others) if position not in dealt)


def take_out(config: pytest.Config, items: list[pytest.Item], out: Collection[pytest.Item]) -> None:
    """These do not run at all."""
    if out:
        gone = set(map(id, out))
        config.hook.pytest_deselected(items=list(out))
        items[:] = [item for item in items if id(item) not in gone]
