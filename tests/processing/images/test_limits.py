"""The validators measure the upright picture by its header, and say what they met."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from sa_attachments import Attachment, BadConfiguration, Refused
from sa_attachments.processing import Step
from sa_attachments.processing.images import (
    AspectRatio,
    Intact,
    MaxDimensions,
    MaxFrames,
    MaxPixels,
    MinDimensions,
)
from sa_attachments.processing.steps import run

from .samples import chart, samples, written


def photo(width: int, height: int, orientation: int = 1, kind: str = "JPEG") -> bytes:
    """As it stands upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    size = (height, width) if orientation > 4 else (width, height)
    return written(Image.new("L", size), kind, exif=exif)


def film(frames: int) -> bytes:
    shades = [chart((10, 10), [(20 * n, 9, 9)] * 4) for n in range(frames)]
    return written(shades[0], "GIF", save_all=True, append_images=shades[1:])


PASSES: list[tuple[Step, bytes]] = [
    (MaxDimensions(40, 30), photo(40, 30)),
    (MaxDimensions(40), photo(40, 3000)),
    (MaxDimensions(40, 30), photo(40, 30, orientation=6)),
    (MinDimensions(40, 30), photo(40, 30)),
    (MinDimensions(40), photo(40, 1)),
    (AspectRatio("4:3"), photo(40, 30)),
    (AspectRatio(4 / 3), photo(40, 30)),
    (AspectRatio("16:9"), photo(1920, 1081)),
    (AspectRatio("1:2", "2:1"), photo(40, 20)),
    (AspectRatio("1:2", "2:1"), photo(20, 40)),
    (AspectRatio("3/4"), photo(30, 40, orientation=8)),
    (MaxPixels(1200), photo(40, 30)),
    (MaxFrames(1), photo(40, 30)),
    (MaxFrames(3), film(3)),
    (Intact(), film(3)),
    (Intact(300), film(3)),
]
FAILS: list[tuple[Step, bytes, Any, Any, str]] = [
    (MaxDimensions(40, 30), photo(41, 30), (40, 30), (41, 30), "has 41 × 30 pixels, allowed are 40 × 30"),
    (MaxDimensions(40, 30), photo(40, 31), (40, 30), (40, 31), "has 40 × 31 pixels, allowed are 40 × 30"),
    (MaxDimensions(40, 30), photo(30, 40, 6), (40, 30), (30, 40), "has 30 × 40 pixels, allowed are 40 × 30"),
    (MaxDimensions(40), photo(41, 1), (40, None), (41, 1), "has 41 × 1 pixels, allowed are 40 in width"),
    (MinDimensions(40, 30), photo(40, 29), (40, 30), (40, 29), "has 40 × 29 pixels, expected are at least 40 × 30"),
    (MinDimensions(40, 30), photo(39, 30), (40, 30), (39, 30), "has 39 × 30 pixels, expected are at least 40 × 30"),
    (AspectRatio("4:3"), photo(40, 29), ("4:3", "4:3"), 40 / 29, "a ratio of 1.38, allowed is 4:3"),
    (AspectRatio("1:2", 2), photo(41, 20), ("1:2", 2), 2.05, "a ratio of 2.05, allowed is 1:2 to 2"),
    (MaxPixels(1199), photo(40, 30), 1199, 1200, "has 40 × 30 pixels, allowed are 1,199"),
    (MaxFrames(2), film(3), 2, 3, "has 3 frames or more, allowed are 2"),
    (MaxFrames(2), film(9), 2, 3, "has 3 frames or more, allowed are 2"),
    (Intact(299), film(3), 299, 300, "has 3 frames of 10 × 10 pixels, allowed are 299 together"),
]


@pytest.mark.parametrize(
    ("step", "data"), PASSES, ids=lambda value: repr(value) if not isinstance(value, bytes) else ""
)
def test_lets_in(step: Step, data: bytes) -> None:
    attachment = Attachment.upload(data, "a.jpg", metadata={"n": 1})
    done = run([step], attachment, "Photo.image")
    assert done.read() == data
    assert dict(done.metadata) == {"n": 1}


@pytest.mark.parametrize(("step", "data", "limit", "measured", "message"), FAILS, ids=[repr(each[0]) for each in FAILS])
def test_refuses(step: Step, data: bytes, limit: Any, measured: Any, message: str) -> None:
    with pytest.raises(Refused, match=r"Photo\.image: the image ") as refused:
        run([step], Attachment.upload(data, "a.jpg"), "Photo.image")
    error = refused.value
    assert (error.rule, error.limit, error.measured) == (type(step).__name__, limit, measured)
    assert message in str(error)


@pytest.mark.parametrize("name", samples())
def test_knows_every_format(name: str) -> None:
    size = (768, 512) if name == "PCD" else (64, 48)
    rules: list[Step] = [
        MaxDimensions(*size),
        MinDimensions(*size),
        AspectRatio(size[0] / size[1]),
        MaxPixels(size[0] * size[1]),
        MaxFrames(1),
        Intact(),
    ]
    run(rules, Attachment.upload(samples()[name].data), "Photo.image")
    for rule in (MaxDimensions(size[0] - 1), MinDimensions(size[0] + 1), AspectRatio(9), MaxPixels(64 * 48 - 1)):
        with pytest.raises(Refused):
            run([rule], Attachment.upload(samples()[name].data), "Photo.image")


def test_only_the_header_is_looked_at() -> None:
    data = photo(4000, 3000)
    run(
        [MaxDimensions(4000, 3000), MinDimensions(4000), AspectRatio("4:3"), MaxPixels(12_000_000), MaxFrames(1)],
        Attachment.upload(data[: len(data) // 2]),
        "",
    )
    with pytest.raises(Refused, match="the image is broken"):
        run([Intact()], Attachment.upload(data[: len(data) // 2]), "")


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaxDimensions(0),
        lambda: MinDimensions(10, -1),
        lambda: AspectRatio("wide"),
        lambda: AspectRatio("16:0"),
        lambda: AspectRatio(0),
        lambda: AspectRatio(-1.5),
        lambda: AspectRatio(float("nan")),
        lambda: AspectRatio(2, 1),
        lambda: MaxPixels(0),
        lambda: MaxFrames(0),
        lambda: MaxFrames(10_001),
    ],
)
def test_nonsense_is_refused_where_it_is_said(make: Any) -> None:
    with pytest.raises(BadConfiguration):
        make()
