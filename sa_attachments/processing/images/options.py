"""Options: what all transforms can be told, checked where it is said.

>>> Options(format="webp", keep="gps")
Options(format='WEBP', keep=('gps',))
>>> Options(quality=101)
Traceback (most recent call last):
sa_attachments.errors.BadConfiguration: Options: quality goes from 1 to 100, and is not 101
"""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY, dataclass

from ...errors import BadConfiguration, listing
from .pillow import require

MAX_PIXELS = 50_000_000
"""Pixels that a picture may have unless told otherwise: photos of today's phones, and no posters."""

ANIMATED = ("AVIF", "GIF", "PNG", "WEBP")
"""Formats that can be animated."""

PARTS = ("copyright", "exif", "gps", "icc", "xmp")
"""Metadata that can be kept."""


@dataclass(frozen=True, repr=False)
class Options:
    """See ``Transform``."""

    _: KW_ONLY
    format: str | None = None
    quality: int | None = None
    animated: bool = False
    keep: str | tuple[str, ...] = ()
    background: str = "white"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        """Raises BadConfiguration; MissingExtra without Pillow."""
        who = type(self).__name__
        if self.format is not None:
            object.__setattr__(self, "format", "JPEG" if self.format.upper() == "JPG" else self.format.upper())
        object.__setattr__(self, "keep", tuple(sorted({self.keep} if type(self.keep) is str else set(self.keep))))
        require(who, self.format)
        if self.animated and self.format == "JPEG":
            raise BadConfiguration(f"{who}: JPEG can't be animated; {', '.join(ANIMATED[:-1])} and {ANIMATED[-1]} can")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise BadConfiguration(f"{who}: quality goes from 1 to 100, and is not {self.quality!r}")
        if unknown := set(self.keep) - set(PARTS):
            raise BadConfiguration(f"{who} keeps {listing(PARTS)}, and knows no {listing(unknown)}")
        if self.max_pixels < 1:
            raise BadConfiguration(f"{who}: max_pixels is at least 1, and not {self.max_pixels!r}")
        _check_colour(who, self.background)

    def __repr__(self) -> str:
        said = [
            f"{each.name}={value!r}" if each.kw_only else repr(value)
            for each in sorted(dataclasses.fields(self), key=lambda each: each.kw_only is True)
            if (value := getattr(self, each.name)) != each.default
        ]
        return f"{type(self).__name__}({', '.join(said)})"


def _check_colour(who: str, colour: str) -> None:
    from PIL import ImageColor

    try:
        ImageColor.getrgb(colour)
    except (ValueError, AttributeError):
        raise BadConfiguration(f"{who}: background is a colour as '#rrggbb' or 'white', not {colour!r}") from None
