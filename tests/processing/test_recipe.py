"""A recipe has the same digest in every process, and another one when a step says something else of itself."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from sa_attachments import Attachment, BadConfiguration
from sa_attachments.processing import MaxSize
from sa_attachments.processing.images import Cover, Fit
from sa_attachments.processing.recipe import digest


def stamp(attachment: Attachment, text: str = "") -> None: ...


def other(attachment: Attachment) -> None: ...


def versioned(attachment: Attachment) -> None: ...


@dataclass
class Sepia:
    strength: int

    def __call__(self, attachment: Attachment, /) -> None: ...

    def softly(self, attachment: Attachment, /) -> None: ...


class Silent:
    def __call__(self, attachment: Attachment, /) -> None: ...


RECIPES: list[list[Any]] = [
    [],
    [Fit(400, 400)],
    [Fit(400, 401)],
    [Fit(400, 400, format="WEBP")],
    [Cover(400, 400)],
    [Fit(400, 400), Cover(10, 10)],
    [Cover(10, 10), Fit(400, 400)],
    [MaxSize(3)],
    [stamp],
    [other],
    [partial(stamp, text="a")],
    [partial(stamp, text="b")],
    [partial(other)],
    [Sepia(1)],
    [Sepia(2)],
    [Sepia(2).softly],
]


def test_recipes_that_differ_have_different_digests() -> None:
    assert len({digest(each) for each in RECIPES}) == len(RECIPES)


def test_the_digest_is_the_same_in_another_process() -> None:
    program = "from tests.processing.test_recipe import *; print(*map(digest, RECIPES))"
    run = [sys.executable, "-W", "ignore", "-c", program]
    there = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    assert there == [digest(each) for each in RECIPES]


def test_what_a_transform_does_by_default_is_not_in_its_digest() -> None:
    """A release that gives transforms one more option must not have all variants of the world made again."""
    assert digest([Fit(400, 400)]) == digest([Fit(400, 400, format=None, animated=False, quality=None)])
    assert digest([Fit(400, 400)]) == "2fc01628af348039"


def test_the_order_of_keywords_does_not_matter() -> None:
    assert digest([partial(stamp, text="a", size=1)]) == digest([partial(stamp, size=1, text="a")])


def test_a_step_may_say_what_it_is() -> None:
    before = digest([versioned])
    versioned.digest = "2"  # type: ignore[attr-defined]
    try:
        assert digest([versioned]) != before
    finally:
        del versioned.digest  # type: ignore[attr-defined]


@pytest.mark.parametrize("step", [lambda attachment: None, Silent(), Silent().__call__, partial(other, object())])
def test_a_step_without_a_lasting_name_is_refused(step: Any) -> None:
    with pytest.raises(BadConfiguration, match="has no name that is the same tomorrow"):
        digest([step])
