"""Geometry: which part of a picture becomes how large. Pure arithmetic.

>>> fit((4000, 3000), (400, 400))
Plan(size=(400, 300), box=None)
>>> cover((4000, 3000), (400, 400))
Plan(size=(400, 400), box=(500.0, 0.0, 3500.0, 3000.0))
>>> limit((200, 100), (400, 400)), limit((4000, 3000), (400, None))
(Plan(size=(200, 100), box=None), Plan(size=(400, 300), box=None))
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ...errors import BadConfiguration

Size = tuple[int, int]
"""Width and height, in pixels."""

Bounds = tuple[int, int | None]
"""A width, and a height; None bounds nothing."""

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge."""


class Plan(NamedTuple):
    """The new size, and the part that is taken; None is all of it."""

    size: Size
    box: Box | None = None

    def turned(self) -> Plan:
        """The same for the picture that lies on its side."""
        box = self.box and (self.box[1], self.box[0], self.box[3], self.box[2])
        return Plan((self.size[1], self.size[0]), box)


def check_sides(step: object, width: Any, height: Any) -> None:
    """Raises BadConfiguration for what a step was given that is no number of pixels."""
    if not all(isinstance(side, int) and side >= 1 for side in (width, 1 if height is None else height)):
        raise BadConfiguration(
            f"{type(step).__name__} takes a width and a height in pixels, not {width!r} and {height!r}"
        )


def fit(size: Size, bounds: Bounds) -> Plan:
    """As large as possible within the bounds, all of it."""
    (width, height), (most_wide, most_high) = size, bounds
    if most_high is None or width * most_high >= most_wide * height:
        return Plan((most_wide, max(1, _rounded(height * most_wide, width))))
    return Plan((max(1, _rounded(width * most_high, height)), most_high))


def limit(size: Size, bounds: Bounds) -> Plan:
    """As ``fit``, but never larger than it is."""
    if size[0] <= bounds[0] and (bounds[1] is None or size[1] <= bounds[1]):
        return Plan(size)
    return fit(size, bounds)


def cover(size: Size, bounds: Bounds) -> Plan:
    """Exactly as large as the bounds, which it fills; what stands over is cut off on both sides."""
    (width, height), (wide, high) = size, bounds
    if high is None:
        return fit(size, bounds)
    if width * high >= wide * height:
        taken = height * wide / high
        return Plan((wide, high), ((width - taken) / 2, 0.0, (width + taken) / 2, float(height)))
    taken = width * high / wide
    return Plan((wide, high), (0.0, (height - taken) / 2, float(width), (height + taken) / 2))


def _rounded(dividend: int, divisor: int) -> int:
    """The nearest whole number; halves go up."""
    return (2 * dividend + divisor) // (2 * divisor)
