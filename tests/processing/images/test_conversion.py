"""Converting keeps the size and changes the format, or nothing that one sees."""

from __future__ import annotations

import pytest

from sa_attachments import Attachment
from sa_attachments.processing.images import Convert
from sa_attachments.processing.steps import run

from .samples import QUARTERS, chart, corners, opened, similar, written


@pytest.mark.parametrize("kind", ["WEBP", "AVIF", "JPEG", "PNG", "GIF"])
def test_converts_to(kind: str) -> None:
    done = run([Convert(kind)], Attachment.upload(written(chart((33, 21)), "BMP"), "a.bmp"), "")
    image = opened(done.read())
    assert (image.format, image.size) == (kind, (33, 21))
    assert done.content_type == f"image/{kind.lower()}"
    assert similar(corners(image), QUARTERS, 40)


def test_without_a_format_it_stays() -> None:
    done = run([Convert()], Attachment.upload(written(chart(), "WEBP", lossless=True), "a.webp"), "")
    assert (done.filename, done.content_type) == ("a.webp", "image/webp")
