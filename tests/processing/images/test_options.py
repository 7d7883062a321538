"""Options say no more than what was said, and refuse nonsense where it is said."""

from __future__ import annotations

from typing import Any

import pytest

from sa_attachments import BadConfiguration
from sa_attachments.processing.images.options import Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "TIFF"}, "Options writes 'AVIF', 'GIF', 'JPEG', 'PNG', 'WEBP', not 'TIFF'"),
        ({"format": "JPEG", "animated": True}, "Options: JPEG can't be animated; AVIF, GIF, PNG and WEBP can"),
        ({"quality": 0}, "Options: quality goes from 1 to 100, and is not 0"),
        ({"quality": 101}, "Options: quality goes from 1 to 100, and is not 101"),
        ({"keep": ("exif", "iptc")}, "Options keeps 'copyright', 'exif', 'gps', 'icc', 'xmp', and knows no 'iptc'"),
        ({"background": "#12"}, "Options: background is a colour as '#rrggbb' or 'white', not '#12'"),
        ({"background": "blurred"}, "not 'blurred'"),
        ({"max_pixels": 0}, "Options: max_pixels is at least 1, and not 0"),
    ],
)
def test_nonsense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfiguration, match=message):
        Options(**options)


@pytest.mark.parametrize(("said", "meant"), [("webp", "WEBP"), ("jpg", "JPEG"), ("JPG", "JPEG"), ("Avif", "AVIF")])
def test_formats_go_by_their_usual_names(said: str, meant: str) -> None:
    assert Options(format=said).format == meant
    assert Options(format=said) == Options(format=meant)


def test_the_order_of_what_is_kept_does_not_matter() -> None:
    assert Options(keep=("xmp", "gps", "gps")) == Options(keep=["gps", "xmp"])  # type: ignore[arg-type]
    assert Options(keep="gps").keep == ("gps",)
    assert Options(keep=("xmp", "icc", "gps", "exif", "copyright")).keep == ("copyright", "exif", "gps", "icc", "xmp")


def test_only_what_was_said_is_in_it() -> None:
    assert repr(Options(format=None, quality=None, keep=())) == "Options()"
    assert repr(Options(format="webp", keep="gps")) == "Options(format='WEBP', keep=('gps',))"
