"""Colours come out in sRGB as a colour manager has them, grey and alpha stay what they are, broken profiles fail."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from PIL import Image, ImageCms

from sa_attachments import Attachment, Refused
from sa_attachments.processing.images import Convert, Fit, Intact
from sa_attachments.processing.images.colour import dominant, fits, plain, srgb
from sa_attachments.processing.steps import run

from .samples import QUARTERS, chart, corners, opened, samples, similar, written


def swapped() -> bytes:
    """A profile of a screen that shows red where others show green: what it does can't be missed."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    places = {bytes(profile[132 + 12 * n : 136 + 12 * n]): 136 + 12 * n for n in range(count)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    return bytes(profile)


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SWAPPED = swapped()
EXCHANGED = [(green, red, blue) for red, green, blue in QUARTERS]

BROKEN = {
    "text": b"this is no profile",
    "empty": b"\0",
    "cut off": SRGB[:300],
    "its head alone": SRGB[:128],
    "pointing out of itself": SRGB.replace(b"rXYZ" + SRGB[SRGB.index(b"rXYZ") + 4 :][:4], b"rXYZ\xff\xff\xff\xff", 1),
}


def converted(data: bytes, **options: Any) -> Image.Image:
    return opened(run([Convert("PNG", **options)], Attachment.upload(data), "Photo.image").read())


TAGGED = [
    *(("PNG", mode) for mode in ("RGB", "RGBA", "P")),
    *(("TIFF", mode) for mode in ("RGB", "RGBA", "P")),
    *((kind, mode) for kind in ("WEBP", "AVIF") for mode in ("RGB", "RGBA")),
    ("JPEG", "RGB"),
]


@pytest.mark.parametrize(("kind", "mode"), TAGGED)
def test_a_profile_is_applied_and_not_kept(kind: str, mode: str) -> None:
    image = chart().quantize(16) if mode == "P" else chart().convert(mode)
    done = converted(written(image, kind, icc_profile=SWAPPED))
    assert similar(corners(done), EXCHANGED, 30 if kind in ("JPEG", "WEBP", "AVIF") else 6)
    assert "icc_profile" not in done.info


def test_without_a_profile_or_with_srgbs_own_nothing_changes() -> None:
    for options in ({}, {"icc_profile": SRGB}):
        assert similar(corners(converted(written(chart(), "PNG", **options))), QUARTERS, 1)


def test_it_is_what_the_colour_manager_says() -> None:
    data = written(chart(), "PNG", icc_profile=SWAPPED)
    expected = ImageCms.profileToProfile(
        chart(),
        ImageCms.ImageCmsProfile(io.BytesIO(SWAPPED)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert expected is not None
    assert converted(data).tobytes() == expected.tobytes()


def test_alpha_passes_through_a_profile() -> None:
    image = chart().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    done = converted(written(image, "PNG", icc_profile=SWAPPED))
    assert done.mode == "RGBA"
    assert done.getchannel("A").tobytes() == image.getchannel("A").tobytes()
    assert similar(corners(done), EXCHANGED, 6)


def test_grey_with_a_profile_of_colours_is_converted_as_colours() -> None:
    done = converted(written(chart().convert("L"), "PNG", icc_profile=SWAPPED))
    assert similar(corners(done), [(grey, grey, grey) for grey, _, _ in corners(chart().convert("L"))], 2)


def test_lab_is_converted_once() -> None:
    assert "icc_profile" in opened(samples()["TIFF-LAB"].data).info
    assert similar(corners(converted(samples()["TIFF-LAB"].data)), QUARTERS, 12)


def test_separated_colours_without_a_profile_are_mixed() -> None:
    done = converted(samples()["JPEG-CMYK"].data)
    assert done.mode == "RGB"
    assert similar(corners(done), QUARTERS, 20)


def test_a_profile_of_other_colours_than_the_pictures_is_refused() -> None:
    data = written(chart().convert("CMYK"), "JPEG", icc_profile=SRGB)
    with pytest.raises(Refused, match=r"the colour profile is broken, or none for this image \(CMYK\)") as refused:
        converted(data)
    assert refused.value.limit == "a colour profile that fits"


@pytest.mark.parametrize("profile", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_broken_profile_is_refused(kind: str, profile: bytes) -> None:
    data = written(chart(), kind, icc_profile=profile)
    for keep in ((), ("icc",)):
        with pytest.raises(Refused, match=r"Photo\.image: the colour profile is broken") as refused:
            converted(data, keep=keep)
        assert (refused.value.rule, refused.value.target) == ("Convert", "Photo.image")
        assert refused.value.measured
    run([Intact()], Attachment.upload(data), "Photo.image")  # the pixels are intact


# Keeping the profile


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_profile_that_is_kept_leaves_the_colours_alone(kind: str) -> None:
    data = written(chart(), "PNG", icc_profile=SWAPPED)
    done = opened(run([Convert(kind, keep="icc")], Attachment.upload(data), "").read())
    assert done.info["icc_profile"] == SWAPPED
    assert similar(corners(done), QUARTERS, 30)


def test_a_format_that_holds_no_profile_gets_the_colours_converted() -> None:
    data = written(chart(), "PNG", icc_profile=SWAPPED)
    done = opened(run([Convert("GIF", keep="icc")], Attachment.upload(data), "").read())
    assert similar(corners(done), EXCHANGED, 20)


def test_what_fits_into_which_file() -> None:
    assert fits(SRGB, "RGB", "JPEG")
    assert fits(SRGB, "RGBA", "WEBP")
    assert not fits(SRGB, "RGBA", "JPEG")  # flattened, over a background in sRGB
    assert not fits(SRGB, "L", "PNG")
    assert not fits(SRGB, "CMYK", "JPEG")
    assert not fits(b"no profile", "RGB", "JPEG")


# Modes


def wide(mode: str, *values: float) -> list[int]:
    image = Image.new(mode, (len(values), 1))
    for place, value in enumerate(values):
        image.putpixel((place, 0), value)
    return list(plain(image).tobytes())


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bits_become_eight(mode: str) -> None:
    assert wide(mode, 0, 256, 32_768, 65_535) == [0, 1, 128, 255]


def test_numbers_of_other_ranges_become_eight_bits() -> None:
    assert wide("I", 0, 100, 255) == [0, 100, 255]
    assert wide("I", 0, 2**30, 2**31 - 1) == [0, 127, 255]
    assert wide("F", 0.0, 0.5, 1.0) == [0, 127, 255]
    assert wide("F", 0.0, 128.0, 255.0) == [0, 128, 255]
    assert wide("F", -5.0, 0.25, 1.0) == [0, 63, 255]
    assert len(wide("F", float("nan"), 0.0, 1.0)) == len(wide("F", float("inf"), 0.0, 1.0)) == 3


def test_see_through_palettes_and_colours_become_alpha() -> None:
    image = chart().quantize(4)
    data = written(image, "PNG", transparency=image.getpixel((0, 0)))
    done = plain(opened(data))
    assert done.mode == "RGBA"
    assert [done.getpixel(place)[3] for place in ((5, 5), (60, 5), (5, 40), (60, 40))] == [0, 255, 255, 255]  # type: ignore[index]
    keyed = opened(written(chart(), "PNG", transparency=QUARTERS[1]))
    assert plain(keyed).mode == "RGBA"
    assert plain(keyed).getpixel((60, 5))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize(
    ("bits", "kind", "values"),
    [(1, 0, [0, 1]), (2, 0, [0, 1, 3]), (4, 0, [0, 7, 15]), (8, 0, [0, 7, 255]), (16, 0, [0, 7000, 65535]),
     (8, 2, [0, 7, 255]), (16, 2, [0, 7000, 65535])],
)  # fmt: skip
def test_the_grey_or_colour_that_is_see_through_in_a_png_of_any_depth(bits: int, kind: int, values: list[int]) -> None:
    """Eight pixels of two values, one of which is transparent."""
    channels = 3 if kind else 1
    for key in values:
        other = values[key == values[0]]
        line = int("".join(f"{value:0{bits}b}" * channels for value in [key, other] * 4), 2)
        rows = b"\0" + line.to_bytes(bits * channels, "big")
        parts = [
            (b"IHDR", struct.pack(">IIBBBBB", 8, 1, bits, kind, 0, 0, 0)),
            (b"tRNS", struct.pack(">H", key) * channels),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ]
        chunks = [
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in parts
        ]
        done = converted(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).convert("RGBA")
        shown: list[Any] = [done.getpixel((x, 0)) for x in (0, 1)]
        assert [pixel[3] for pixel in shown] == [0, 255]
        assert [pixel[0] for pixel in shown] == [255 * value // ((1 << bits) - 1) for value in (key, other)]


def test_grey_stays_grey() -> None:
    assert srgb(plain(chart().convert("L")), None).mode == "L"
    assert srgb(plain(chart().convert("LA")), None).mode == "LA"
    data = written(chart().convert("L"), "PNG")
    assert opened(run([Fit(20, 20)], Attachment.upload(data), "").read()).mode == "L"


# The dominant colour


def test_the_dominant_colour_is_that_of_most_pixels() -> None:
    assert dominant(bytes([1, 2, 3, 255] * 3 + [200, 200, 200, 255])) == "#010203"
    assert dominant(bytes([200, 200, 200, 0] * 3 + [1, 2, 3, 255])) == "#010203"
    assert dominant(bytes([9, 9, 9, 0])) is None
