"""What a format can't hold is refused or flattened, and quality is what was asked for."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from sa_attachments import Refused
from sa_attachments.processing.images.encoding import QUALITY, Frame, Output, encoded

from .samples import chart, corners, opened, similar


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    return encoded([Frame(image)], Output(kind, **options), "Convert")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_each_format_takes_each_mode(kind: str, mode: str) -> None:
    image = chart().convert(mode)
    done = opened(encode(image, kind))
    assert done.format == kind
    assert similar(corners(done), corners(image), 40)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_see_through_pixels_show_the_background_in_jpeg(mode: str) -> None:
    image = Image.new(mode, (16, 16), (0,) * len(mode))
    for background, colour in {"white": (255, 255, 255), "#ff8000": (255, 128, 0), "black": (0, 0, 0)}.items():
        done = opened(encode(image, "JPEG", background=background))
        assert similar(corners(done), [colour] * 4, 6)


def test_half_of_the_background_shows_through_half() -> None:
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    assert similar(corners(opened(encode(image, "JPEG"))), [(127, 127, 127)] * 4, 3)


def test_gif_knows_see_through_or_not() -> None:
    image = Image.new("RGBA", (16, 16), (200, 0, 0, 255))
    image.paste((200, 0, 0, 60), (0, 0, 8, 16))
    done = opened(encode(image, "GIF")).convert("RGBA")
    assert [done.getpixel((x, 5))[3] for x in (3, 12)] == [0, 255]  # type: ignore[index]


@pytest.mark.parametrize("kind", QUALITY)
def test_quality_is_what_was_asked_for(kind: str) -> None:
    image = Image.effect_noise((128, 128), 60).convert("RGB")
    sizes = [len(encode(image, kind, quality=quality)) for quality in (10, 50, 95)]
    assert sizes == sorted(sizes)
    assert encode(image, kind) == encode(image, kind, quality=QUALITY[kind])


@pytest.mark.parametrize(("kind", "limit"), [("WEBP", 16_383), ("JPEG", 65_500), ("GIF", 65_535), ("AVIF", 32_768)])
def test_a_side_that_is_too_long_is_refused(kind: str, limit: int) -> None:
    assert opened(encode(Image.new("L", (limit, 1)), kind)).size == (limit, 1)
    with pytest.raises(Refused, match=f"the image becomes 1 × {limit + 1:,} pixels, {kind} holds {limit:,}") as refused:
        encode(Image.new("L", (1, limit + 1)), kind)
    assert (refused.value.rule, refused.value.limit, refused.value.measured) == ("Convert", limit, limit + 1)


@pytest.mark.parametrize("error", [OSError("encoder error -2"), RuntimeError("codec"), MemoryError(), ValueError()])
def test_whatever_an_encoder_raises_is_a_refusal(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setitem(Image.SAVE, "PNG", broken)
    with pytest.raises(Refused, match="the image can't be written as PNG") as refused:
        encode(chart(), "PNG")
    assert refused.value.__cause__ is error
    assert refused.value.limit == "PNG"
    assert type(error).__name__ in str(refused.value.measured)
    monkeypatch.undo()
    assert Image.SAVE["PNG"] is PngImagePlugin._save


def test_what_the_picture_carries_with_it_is_not_written() -> None:
    image = chart()
    image.info = {
        "comment": b"secret",
        "dpi": (300, 300),
        "exif": b"secret",
        "icc_profile": b"secret",
        "xmp": b"secret",
    }
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF"):
        data = encode(image, kind)
        assert b"secret" not in data
        assert "dpi" not in opened(data).info
    assert image.info["comment"] == b"secret"


@pytest.mark.parametrize("part", ["exif", "xmp"])
def test_metadata_that_has_no_room_in_a_jpeg_is_left_out(part: str) -> None:
    exif = Image.Exif()
    exif[0x9286 if part == "exif" else 0x010E] = "A comment " * 7_000
    much = {"exif": exif.tobytes(), "xmp": b"<x:xmpmeta>" + b" " * 70_000 + b"</x:xmpmeta>"}[part]
    assert part not in opened(encode(chart(), "JPEG", **{part: much})).info
    assert opened(encode(chart(), "WEBP", **{part: much})).info[part][-100:] == much[-100:]
    little = much[:11] + much[-12:] if part == "xmp" else Image.Exif().tobytes()
    assert part in opened(encode(chart(), "JPEG", **{part: little})).info
