"""Plans are within their bounds, keep the ratio, and never come down to nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_attachments.processing.images.geometry import Plan, cover, fit, limit

sides = st.integers(1, 60_000)
bounds = st.tuples(sides, st.none() | sides)


@given(st.tuples(sides, sides), bounds)
def test_what_is_fitted_touches_a_bound_and_crosses_none(size: tuple[int, int], within: tuple[int, int | None]) -> None:
    (wide, high), box = fit(size, within)
    assert box is None
    assert wide <= within[0]
    assert within[1] is None or high <= within[1]
    assert wide == within[0] or high == within[1]
    assert min(wide, high) >= 1
    # The other side is as long as the ratio says, to half a pixel, or one where that is less.
    misses = [abs(high - max(wide * size[1] / size[0], 1)), abs(wide - max(high * size[0] / size[1], 1))]
    assert min(misses) <= 0.5 + 1e-6


@given(st.tuples(sides, sides), bounds)
def test_what_is_limited_is_fitted_or_left_alone(size: tuple[int, int], within: tuple[int, int | None]) -> None:
    plan = limit(size, within)
    larger = size[0] > within[0] or (within[1] is not None and size[1] > within[1])
    assert plan == (fit(size, within) if larger else Plan(size))
    assert plan.size[0] <= size[0]
    assert plan.size[1] <= size[1]


@given(st.tuples(sides, sides), st.tuples(sides, sides))
def test_what_covers_is_a_part_in_the_middle_of_the_same_ratio(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    plan = cover(size, wanted)
    assert plan.size == wanted
    assert plan.box is not None
    left, upper, right, lower = plan.box
    assert 0 <= left < right <= size[0] + 1e-6
    assert 0 <= upper < lower <= size[1] + 1e-6
    assert left == pytest.approx(size[0] - right, abs=1e-6)
    assert upper == pytest.approx(size[1] - lower, abs=1e-6)
    assert (right - left) / (lower - upper) == pytest.approx(wanted[0] / wanted[1])
    assert left == pytest.approx(0, abs=1e-6) or upper == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("size", "within", "expected"),
    [
        ((4000, 3000), (400, 400), (400, 300)),
        ((3000, 4000), (400, 400), (300, 400)),
        ((100, 50), (400, 400), (400, 200)),
        ((1000, 1), (400, 400), (400, 1)),
        ((1, 1000), (400, 400), (1, 400)),
        ((3, 2), (2, None), (2, 1)),
    ],
)
def test_sizes_are_rounded_to_the_nearest(
    size: tuple[int, int], within: tuple[int, int | None], expected: tuple[int, int]
) -> None:
    assert fit(size, within).size == expected


def test_a_picture_on_its_side_is_cut_on_its_side() -> None:
    assert Plan((4, 3), (1.0, 2.0, 3.0, 4.0)).turned() == Plan((3, 4), (2.0, 1.0, 4.0, 3.0))
    assert Plan((4, 3)).turned() == Plan((3, 4))


def test_without_a_height_nothing_is_cut_off() -> None:
    assert cover((400, 300), (200, None)) == Plan((200, 150))
