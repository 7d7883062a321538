"""How many pieces a JPEG 2000 is cut into is found in its headers, wherever they say it."""

from __future__ import annotations

import io
import struct

import pytest
from PIL import Image

from sa_attachments.processing.images.jpeg2000 import count_pieces

from .bombs import jpeg2000_in_pieces
from .samples import written


def count(data: bytes) -> int:
    return count_pieces(io.BytesIO(data))


def test_blocks_precincts_and_tiles() -> None:
    assert count(jpeg2000_in_pieces(64)) == 16 + 2 * 16  # a tile, and one of each for each of 16 bands
    assert count(jpeg2000_in_pieces(64, tile=32)) == 4 * 48
    assert count(jpeg2000_in_pieces(64, block=0)) == 16 + 16 + 3 * (64 + 16 + 4 + 1 + 1) + 1
    assert count(jpeg2000_in_pieces(64, precincts=b"\x11" * 6)) > 2 * 3 * 32 * 32


def test_what_a_tile_says_counts() -> None:
    assert count(jpeg2000_in_pieces(64, block=0, in_tile=True)) == count(jpeg2000_in_pieces(64, block=0))


def test_in_boxes() -> None:
    plain = count(jpeg2000_in_pieces(64))
    signature, long = struct.pack(">I4sI", 12, b"jP  ", 0x0D0A870A), struct.pack(">I4sQ", 1, b"free", 20) + bytes(4)
    for last in (struct.pack(">I4s", 0, b"jp2c"), struct.pack(">I4sQ", 1, b"jp2c", 1000)):
        assert count(jpeg2000_in_pieces(64, boxes=signature + long + last)) == plain
    picture = Image.new("RGB", (300, 200))
    assert count(written(picture, "JPEG2000")) == count(written(picture, "JPEG2000", no_jp2=True)) > 0


@pytest.mark.parametrize("data", [jpeg2000_in_pieces(64), written(Image.new("L", (9, 9)), "JPEG2000"), bytes(99)])
def test_what_is_broken_is_counted_as_far_as_it_goes(data: bytes) -> None:
    for length in range(len(data)):
        assert count(data[:length]) >= 0
    assert count(b"\0\0\0\7free" + data) == 0
