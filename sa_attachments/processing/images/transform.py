"""Transform: what all steps that make another picture have in common.

Whatever comes in, a picture of today comes out, of pixels alone: upright (the EXIF orientation is applied), 8 bits per
channel, its colours in sRGB (embedded profiles are applied, CMYK is separated), without metadata but those parts that
``keep`` names. The file keeps its name, with another extension if it becomes another format.

>>> from sa_attachments.processing.images import Fit
>>> Fit(1200, 1200, format="WEBP", quality=70, keep=("copyright", "gps"))
Fit(1200, 1200, format='WEBP', quality=70, keep=('copyright', 'gps'))
>>> Fit(1200, 1200, format="JPEG", animated=True)
Traceback (most recent call last):
sa_attachments.errors.BadConfiguration: Fit: JPEG can't be animated; AVIF, GIF, PNG and WEBP can

A transform's ``repr`` names all that makes its result, and no more than what was said: equal ones do the same, in this
process and in the next.

Traps
-----
``max_pixels`` counts what is decoded and what is made: width × height × frames, where ``animated``. It bounds the
memory that one core needs: sixteen bytes for each in the worst case (WebP), and hardly any for a large JPEG, which is
decoded at a fraction of its size. A file that says it is larger is refused before it is decoded.
"""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from ...attachment import Attachment
from ...errors import BadConfiguration, listing
from .geometry import Plan, Size
from .pillow import require

MAX_PIXELS = 50_000_000
"""Pixels that a picture may have unless told otherwise: photos of today's phones, and no posters."""

ANIMATED = ("AVIF", "GIF", "PNG", "WEBP")
"""Formats that can be animated."""

PARTS = ("copyright", "exif", "gps", "icc", "xmp")
"""Metadata that can be kept."""


@dataclass(frozen=True, repr=False)
class Transform:
    """A step that makes another picture.

    :param format: ``"JPEG"``, ``"PNG"``, ``"WEBP"``, ``"AVIF"``, ``"GIF"``; None keeps it, or takes PNG where browsers
        don't show it.
    :param quality: 1 to 100 for JPEG, WEBP and AVIF; None is 85, 80 and 70.
    :param animated: keep all frames; else the first one is taken.
    :param keep: metadata to keep: ``"copyright"`` (EXIF's artist and copyright), ``"exif"`` (all of EXIF but the place,
        the orientation and the preview), ``"gps"`` (the place), ``"xmp"`` (as it is, whatever is in it),
        ``"icc"`` (the profile, and the colours unchanged).
    :param background: what shows through transparent pixels where the format has none, as ``"#rrggbb"`` or a CSS name.
    :param max_pixels: refuse what has more of them, before it is decoded.
    """

    _: KW_ONLY
    format: str | None = None
    quality: int | None = None
    animated: bool = False
    keep: str | tuple[str, ...] = ()
    background: str = "white"
    max_pixels: int = MAX_PIXELS

    keeps_busy: ClassVar[bool] = True

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

    def __call__(self, attachment: Attachment, /) -> Attachment:
        """The new attachment. Raises Refused for what is no picture, is broken, or too large."""
        from .rendering import rendered  # here, so that Pillow is loaded by those who use it

        return rendered(attachment, self)

    def plan(self, size: Size) -> Plan:
        """What becomes of a picture that is ``size`` when it stands upright."""
        raise NotImplementedError

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
