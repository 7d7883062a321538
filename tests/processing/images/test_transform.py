"""A transform says what it does, is equal to those that do the same, and refuses nonsense where it is made."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest

from sa_attachments import Attachment, BadConfiguration
from sa_attachments.processing.images import Convert, Cover, Fit, Thumbnail, Transform
from sa_attachments.processing.images.geometry import Plan, Size
from sa_attachments.processing.steps import run

from .samples import chart, opened, written


@pytest.mark.parametrize(
    "step",
    [
        Fit(10, 20),
        Fit(10),
        Cover(10, 20, format="WEBP", quality=70, animated=True, keep=("gps",), background="#000000", max_pixels=9),
        Thumbnail(10, 20),
        Convert("AVIF"),
        Convert(),
    ],
    ids=repr,
)
def test_what_it_says_makes_it_again(step: Transform) -> None:
    assert eval(repr(step), {"Fit": Fit, "Cover": Cover, "Thumbnail": Thumbnail, "Convert": Convert}) == step
    assert pickle.loads(pickle.dumps(step)) == step
    assert len({step, eval(repr(step))}) == 1


def test_only_what_was_said_is_in_it() -> None:
    assert repr(Fit(10, 20, format=None, quality=None, keep=())) == "Fit(10, 20)"
    assert repr(Thumbnail(10, 20, format="WEBP")) == "Thumbnail(10, 20)"
    assert repr(Fit(10, 20, format="webp", keep="gps")) == "Fit(10, 20, format='WEBP', keep=('gps',))"


def test_transforms_differ_by_what_they_do() -> None:
    steps: list[Any] = [Fit(1, 1), Cover(1, 1), Fit(1, 2), Fit(1, 1, animated=True), Fit(1, 1, quality=3)]
    assert len(set(steps)) == len(steps)


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Fit(1, 1).width = 2  # type: ignore[misc]


def test_nonsense_is_refused_where_it_is_said() -> None:
    with pytest.raises(BadConfiguration, match="Fit: quality goes from 1 to 100, and is not 0"):
        Fit(10, 10, quality=0)


def test_one_of_your_own_has_a_plan() -> None:
    @dataclass(frozen=True, repr=False)
    class LeftHalf(Transform):
        def plan(self, size: Size) -> Plan:
            width, height = size
            return Plan((width // 2, height), (0, 0, width / 2, height))

    done = run([LeftHalf(format="PNG")], Attachment.upload(written(chart((40, 20)), "BMP"), "a.bmp"), "")
    assert opened(done.read()).tobytes() == chart((40, 20)).crop((0, 0, 20, 20)).tobytes()
    assert done.filename == "a.png"
