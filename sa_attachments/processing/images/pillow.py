"""Pillow: whether it is here, what it may read, and what it can write.

>>> require("Fit")
>>> "JPEG" in READABLE, "EPS" in READABLE
(True, False)
"""

from __future__ import annotations

from functools import cache

from ...errors import BadConfiguration, MissingExtra, listing

# What Pillow decodes by itself, and HEIF, the format of iPhones, where the application has pillow-heif register it.
# Left out are EPS, which runs Ghostscript; IPTC, ICNS and BLP, which contain files of other formats (IPTC even EPS)
# that are decoded before anybody can ask for their size; those that Pillow only recognises (WMF, MPEG, BUFR, GRIB,
# HDF5); and IM, which it is about to drop.
READABLE = (
    "JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "ICO", "CUR", "JPEG2000", "PPM", "PSD", "QOI", "SGI",
    "SUN", "PCX", "DCX", "DDS", "FTEX", "FITS", "FLI", "GBR", "IMT", "MCIDAS", "MSP", "PCD", "PIXAR", "SPIDER",
    "XBM", "XPM", "XVTHUMB", "HEIF", "TGA",
)  # fmt: skip
"""In the order in which they are tried: TGA, which has no signature, comes last."""

WRITABLE = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "AVIF": ".avif", "GIF": ".gif"}
"""What transforms write, and the extension of each."""


def require(who: str, writes: str | None = None) -> None:
    """Raises MissingExtra without Pillow, BadConfiguration if it can't write the format that ``who`` is to write."""
    try:
        from PIL import features
    except ImportError as error:
        raise MissingExtra(f"{who} needs Pillow: install sa-attachments[images]") from error
    if writes is not None and writes not in WRITABLE:
        raise BadConfiguration(f"{who} writes {listing(WRITABLE)}, not {writes!r}")
    if writes in ("WEBP", "AVIF") and not features.check(writes.lower()):
        raise MissingExtra(
            f"the installed Pillow was built without {writes}, which {who} is to write: install its wheel"
        )


@cache
def initialized() -> None:
    """Have all of Pillow's formats loaded, once."""
    from PIL import Image

    Image.init()
