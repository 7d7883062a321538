"""The hashes are those of the algorithm's other implementations, and come back as the picture, blurred."""

from __future__ import annotations

import base64
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sa_attachments.processing.images.thumbhash import data_url, decode, encode

from .samples import chart, corners, similar


def waves(width: int, height: int, transparent: bool) -> bytes:
    pixels = []
    for y in range(height):
        for x in range(width):
            alpha = (x * 9 + y * 5) % 256 if transparent else 255
            pixels += [int(127 + 127 * math.sin(x / 5)), int(127 + 127 * math.cos(y / 7)), (x * y) % 256, alpha]
    return bytes(pixels)


# As the package thumbhash-python 1.0.1 hashes the same pixels
KNOWN = {
    (2, 1, False): "201e418cb977088888888780788777887078f8",
    (10, 10, False): "25ee092f0e6077778a88888778887878888857f676507209",
    (30, 17, False): "dfb905649c1f81767d89879367878f8ff91687",
    (17, 30, True): "60f9862b0e18057e8a48997a6fac03695078506aa58666",
    (40, 40, True): "9f5886251018d95078768f3968cb7baf5e0798738440668577",
    (100, 3, False): "630c053984859afeb08877888e5ff76a87",
    (1, 1, False): "df0d3d7f3f08f708888788708f7088f80888808008f7870f",
    (1, 1, True): "00088205000000000000000000000000000000000000000000",
}


@pytest.mark.parametrize("case", KNOWN)
def test_hashes_as_others_do(case: tuple[int, int, bool]) -> None:
    found, known = encode(case[0], case[1], waves(*case)), bytes.fromhex(KNOWN[case])
    assert found[:5] == known[:5]
    # A coefficient in the middle between two of the sixteen steps may fall to either side.
    halves = zip(found[5:].hex(), known[5:].hex(), strict=True)
    assert all(abs(int(a, 16) - int(b, 16)) <= 1 for a, b in halves)


# As the same package decodes these: nine pixels, from corner to corner
DECODED = {
    (10, 10, False): (
        (32, 32),
        bytes.fromhex("83ff00fff1ff00ffffff08ff6fe000ffe6e212ffffe826ff729501ffe69822ffffaa49ff"),
    ),
    (30, 17, False): (
        (32, 18),
        bytes.fromhex("d4f900ff8aff1aff00ff44ffd8891aff919f8cff00beafffe3192affa23c9fff0058b5ff"),
    ),
    (17, 30, True): (
        (19, 32),
        bytes.fromhex("c4932f31ec95455fa4b63d7dbd366062f43b8891a94b80b4c8264a82ff2a81b4b929768b"),
    ),
}


@pytest.mark.parametrize("case", DECODED)
def test_decodes_as_others_do(case: tuple[int, int, bool]) -> None:
    size, pixels = DECODED[case]
    width, height, rgba = decode(bytes.fromhex(KNOWN[case]))
    assert (width, height) == size
    found = [rgba[4 * (y * width + x) :][:4] for y in (2, height // 2, height - 3) for x in (2, width // 2, width - 3)]
    assert max(abs(a - b) for a, b in zip(b"".join(found), pixels, strict=True)) <= 1


def test_a_photo_comes_back_blurred() -> None:
    image = chart((64, 48)).convert("RGBA")
    width, height, rgba = decode(encode(64, 48, image.tobytes()))
    assert (width, height) == (32, 23)  # of the ratio, seven by five are kept
    assert similar(corners(Image.frombytes("RGBA", (width, height), rgba)), corners(image), 70)


def test_transparency_comes_back() -> None:
    image = chart((40, 40)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((40, 40)))
    width, height, rgba = decode(encode(40, 40, image.tobytes()))
    alpha = [rgba[4 * width * (height * n // 8) + 3] for n in range(8)]
    assert alpha == sorted(alpha)
    assert alpha[0] < 60
    assert alpha[-1] > 190


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_any_picture_comes_back_in_about_its_shape(width: int, height: int, data: st.DataObject) -> None:
    rgba = data.draw(st.binary(min_size=4 * width * height, max_size=4 * width * height))
    hashed = encode(width, height, rgba)
    assert 15 <= len(hashed) <= 30
    wide, high, pixels = decode(hashed)
    assert max(wide, high) == 32
    assert len(pixels) == 4 * wide * high


@given(st.binary(max_size=40))
def test_garbage_is_no_hash_or_some_picture(data: bytes) -> None:
    try:
        width, height, pixels = decode(data)
    except ValueError:
        return
    assert len(pixels) == 4 * width * height <= 4 * 32 * 32


@pytest.mark.parametrize("pixels", [(0, 1, b""), (101, 1, bytes(404)), (2, 2, bytes(15))])
def test_what_is_no_picture_is_refused(pixels: tuple[int, int, bytes]) -> None:
    with pytest.raises(ValueError, match="pixels of four bytes"):
        encode(*pixels)


def test_the_address_is_a_picture() -> None:
    image = chart((64, 48)).convert("RGBA")
    address = data_url(encode(64, 48, image.tobytes()))
    kind, _, data = address.partition(",")
    assert kind == "data:image/png;base64"
    shown = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (shown.format, shown.size, shown.mode) == ("PNG", (32, 23), "RGBA")
    assert similar(corners(shown), corners(image), 70)
