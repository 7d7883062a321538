"""Resizing: the transforms that make pictures of another size.

>>> Fit(400, 300).plan((4000, 2000)).size        # all of it, as large as fits
(400, 200)
>>> Limit(400, 300).plan((100, 50)).size         # the same, but never larger than it was
(100, 50)
>>> Cover(400, 300).plan((4000, 2000)).size      # exactly that size, the middle of it
(400, 300)
>>> Thumbnail(400, 300)                          # Limit, as a small WebP
Thumbnail(400, 300)
>>> Fit(400).plan((4000, 2000)).size             # no height: as high as it becomes
(400, 200)

All take a width, a height, and what every ``Transform`` takes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .geometry import Plan, Size, check_sides, cover, fit, limit
from .transform import Transform


@dataclass(frozen=True, repr=False)
class _Resize(Transform):
    width: int
    height: int | None = None

    def __post_init__(self) -> None:
        check_sides(self, self.width, self.height)
        super().__post_init__()

    @property
    def _bounds(self) -> tuple[int, int | None]:
        return self.width, self.height


@dataclass(frozen=True, repr=False)
class Fit(_Resize):
    """As large as fits into ``width`` × ``height`` pixels, all of it; small ones are enlarged."""

    def plan(self, size: Size) -> Plan:
        return fit(size, self._bounds)


@dataclass(frozen=True, repr=False)
class Limit(_Resize):
    """No larger than ``width`` × ``height`` pixels, all of it; small ones keep their size."""

    def plan(self, size: Size) -> Plan:
        return limit(size, self._bounds)


@dataclass(frozen=True, repr=False)
class Cover(_Resize):
    """Exactly ``width`` × ``height`` pixels: what stands over is cut off on both sides; small ones are enlarged."""

    def plan(self, size: Size) -> Plan:
        return cover(size, self._bounds)


@dataclass(frozen=True, repr=False)
class Thumbnail(Limit):
    """A ``Limit`` for lists and grids: WebP unless told otherwise, whatever comes in."""

    format: str | None = field(default="WEBP", kw_only=True)
