"""Each scene really checks: whatever is broken, the scenes that show it notice, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sa_attachments.cli.demo import original
from sa_attachments.cli.demo.performance import Performance, perform
from sa_attachments.cli.demo.playground import Playground
from sa_attachments.cli.demo.scenes import SCENES, Cast

from .sabotage import SABOTAGES, Break


@pytest.fixture
def cast() -> Iterator[Cast]:
    with ExitStack() as stack:
        samples = original.packaged(stack)
        yield Cast(samples, samples[0], samples[1])


@pytest.fixture
def playground(tmp_path: Path) -> Iterator[Playground]:
    folder = tmp_path / "playground"
    folder.mkdir()
    playground = Playground(folder)
    yield playground
    playground.close()


def said(performance: Performance) -> set[str]:
    """The checks that do not hold, and the kind of error."""
    failed = {check.text for check in performance.checks if not check.holds}
    return failed | ({performance.error.partition(":")[0]} if performance.error else set())


@pytest.mark.filterwarnings("ignore::sa_attachments.AttachmentWarning")
@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda sabotage: sabotage.__name__)
def test_sabotage_is_noticed(
    sabotage: Break, playground: Playground, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch, playground)
    performances = dict(enumerate(perform(playground, cast), 1))
    monkeypatch.undo()
    assert {number: said(each) for number, each in performances.items() if not each.ok} == SABOTAGES[sabotage]


def test_all_hold_and_each_check_is_one_that_some_sabotage_breaks(playground: Playground, cast: Cast) -> None:
    performances = list(perform(playground, cast))
    assert len(performances) == len(SCENES)
    assert all(performance.ok and len(performance.checks) >= 3 for performance in performances)
    checked = {(number, check.text) for number, each in enumerate(performances, 1) for check in each.checks}
    broken = {(number, text) for scenes in SABOTAGES.values() for number, texts in scenes.items() for text in texts}
    assert checked - broken == set()
