"""The directory of an icon is not believed."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_attachments.processing.images.icons import largest

from .bombs import icon_that_lies, png
from .samples import chart, samples, written


@pytest.mark.parametrize("way", ["png", "bmp"])
def test_the_largest_of_a_real_icon(way: str) -> None:
    data = written(chart((200, 120)), "ICO", sizes=[(20, 12), (200, 120), (50, 30)], bitmap_format=way)
    assert largest(io.BytesIO(data)) == (200, 120)


@pytest.mark.parametrize("name", ["ICO-RGBA", "ICO-RGBA-bmp", "CUR"])
def test_the_samples(name: str) -> None:
    assert largest(io.BytesIO(samples()[name].data)) == (64, 48)


def test_what_is_inside_counts() -> None:
    assert largest(io.BytesIO(icon_that_lies(png(9_000, 8_000)))) == (9_000, 8_000)
    bitmap = struct.pack("<IHH", 12, 4_000, 2 * 3_000)
    assert largest(io.BytesIO(icon_that_lies(bitmap))) == (4_000, 3_000)
    upside_down = struct.pack("<Iii", 40, 4_000, -2 * 3_000)
    assert largest(io.BytesIO(icon_that_lies(upside_down))) == (4_000, 3_000)


@given(st.binary(max_size=100))
def test_garbage_comes_to_an_end(data: bytes) -> None:
    largest(io.BytesIO(b"\0\0\1\0" + data))
