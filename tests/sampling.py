"""What the default suite leaves to the torture, of tests that are multiplied by parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from math import ceil
from zlib import crc32

import pytest


def leave(items: Iterable[pytest.Item]) -> None:
    """These run in the torture only."""
    for item in items:
        item.add_marker(pytest.mark.torture)


def leave_all_but_a_sample(
    items: Iterable[pytest.Item], parameter: str, most: int | None = None, always: object = None
) -> None:
    """Each case of a test, which is what its other parameters say, runs with the first value of ``parameter`` and with
    one more, dealt in turn; with several more where there are fewer cases than values, so that each value runs.

    With ``most``, no case runs with more than so many others, which begin where the name of the test says: each value
    runs with some of the tests, and ``always`` with each of them.
    """
    tests: dict[str, dict[str, list[pytest.Item]]] = defaultdict(lambda: defaultdict(list))
    for item in (item for item in items if item.get_closest_marker("torture") is None):
        parameters: dict[str, object] = item.callspec.params  # type: ignore[attr-defined]
        case = repr({name: value for name, value in parameters.items() if name != parameter})
        tests[item.nodeid.partition("[")[0]][case].append(item)
    for name, cases in tests.items():
        run = False
        for number, (_, *others) in enumerate(cases.values()):
            each, first = ceil(len(others) / len(cases)), 0
            if most is not None and each > most:
                each, first = most, crc32(name.encode())
            dealt = {(first + number * each + turn) % len(others) for turn in range(each)}
            wanted = [position for position, item in enumerate(others) if _value(item, parameter) == always]
            run = run or not wanted or wanted[0] in dealt
            if not run and number == len(cases) - 1:
                dealt.add(wanted[0])
            leave(item for position, item in enumerate(others) if position not in dealt)


def _value(item: pytest.Item, parameter: str) -> object:
    return item.callspec.params[parameter]  # type: ignore[attr-defined]


def take_out(config: pytest.Config, items: list[pytest.Item], out: Collection[pytest.Item]) -> None:
    """These do not run at all."""
    if out:
        gone = set(map(id, out))
        config.hook.pytest_deselected(items=list(out))
        items[:] = [item for item in items if id(item) not in gone]
