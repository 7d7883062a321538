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
memory that one core needs: sixteen bytes for each in the worst case (WebP; JPEG 2000 takes forty), and hardly any for a
large JPEG, unless it is progressive, as it is decoded at a fraction of its size. A file that says it is larger is
refused before it is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...attachment import Attachment
from .geometry import Plan, Size
from .options import Options


@dataclass(frozen=True, repr=False)
class Transform(Options):
    """A step that makes another picture.

    :param format: ``"JPEG"``, ``"PNG"``, ``"WEBP"``, ``"AVIF"``, ``"GIF"``; None keeps it, or takes PNG where browsers
        don't show it.
    :param quality: 1 to 100 for JPEG, WEBP and AVIF; None is 85, 80 and 70.
    :param animated: keep all frames; else the first one is taken.
    :param keep: metadata to keep: ``"copyright"`` (EXIF's artist and copyright), ``"exif"`` (all of EXIF but the place,
        the orientation and the preview), ``"gps"`` (the place), ``"xmp"`` (all of it but the orientation),
        ``"icc"`` (the profile, and the colours unchanged).
    :param background: what shows through transparent pixels where the format has none, as ``"#rrggbb"`` or a CSS name.
    :param max_pixels: refuse what has more of them, before it is decoded.
    """

    keeps_busy: ClassVar[bool] = True

    def __call__(self, attachment: Attachment, /) -> Attachment:
        """The new attachment. Raises Refused for what is no picture, is broken, or too large."""
        from .rendering import rendered  # here, so that Pillow is loaded by those who use it

        return rendered(attachment, self, self.plan)

    def plan(self, size: Size) -> Plan:
        """What becomes of a picture that is ``size`` when it stands upright."""
        raise NotImplementedError
