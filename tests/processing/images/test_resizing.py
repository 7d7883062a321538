"""The four transforms that resize take the same arguments, and each does what its name says."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from sa_attachments import Attachment, BadConfiguration
from sa_attachments.processing.images import Cover, Fit, Limit, Thumbnail, Transform
from sa_attachments.processing.steps import run

from .samples import chart, opened, written

KINDS: list[type[Fit | Limit | Cover | Thumbnail]] = [Fit, Limit, Cover, Thumbnail]


def size(step: Transform, width: int, height: int) -> tuple[int, int]:
    return opened(run([step], Attachment.upload(written(chart((width, height)), "PNG")), "").read()).size


def test_they_have_one_signature() -> None:
    parameters = {tuple(inspect.signature(kind).parameters) for kind in KINDS}
    assert parameters == {("width", "height", "format", "quality", "animated", "keep", "background", "max_pixels")}


@pytest.mark.parametrize(
    ("step", "large", "small", "tall"),
    [
        (Fit(40, 30), (40, 20), (40, 20), (15, 30)),
        (Limit(40, 30), (40, 20), (20, 10), (15, 30)),
        (Cover(40, 30), (40, 30), (40, 30), (40, 30)),
        (Thumbnail(40, 30), (40, 20), (20, 10), (15, 30)),
        (Fit(40), (40, 20), (40, 20), (40, 80)),
        (Limit(40), (40, 20), (20, 10), (40, 80)),
        (Cover(40), (40, 20), (40, 20), (40, 80)),
    ],
    ids=repr,
)
def test_sizes(step: Transform, large: tuple[int, int], small: tuple[int, int], tall: tuple[int, int]) -> None:
    assert size(step, 200, 100) == large
    assert size(step, 20, 10) == small
    assert size(step, 100, 200) == tall


def test_to_cover_takes_the_middle() -> None:
    image = chart((200, 100))
    image.paste((0, 0, 0), (0, 0, 45, 100))
    image.paste((0, 0, 0), (155, 0, 200, 100))
    done = opened(run([Cover(50, 50)], Attachment.upload(written(image, "PNG")), "").read())
    assert (0, 0, 0) not in [done.getpixel((x, 25)) for x in (1, 48)]


def test_a_thumbnail_is_a_small_webp() -> None:
    done = run([Thumbnail(40, 30)], Attachment.upload(written(chart((400, 300)), "TIFF"), "a.tif"), "")
    assert (done.filename, done.content_type) == ("a.webp", "image/webp")
    assert Thumbnail(40, 30, format="JPEG").format == "JPEG"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sides", [(0, 10), (10, 0), (-1, None), ((200, 200),), ("200", "200")])
def test_what_is_no_size_is_refused_at_once(kind: type[Fit], sides: Any) -> None:
    with pytest.raises(BadConfiguration, match=f"{kind.__name__} takes a width and a height in pixels, not"):
        kind(*sides)
