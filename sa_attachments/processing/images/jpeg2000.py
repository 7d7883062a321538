"""The pieces of a JPEG 2000: how many it is cut into, without decoding any of them.

>>> import io, struct
>>> size = struct.pack(">HIIIIIIIIH", 0, 512, 512, 0, 0, 512, 512, 0, 0, 1) + bytes([7, 1, 1])
>>> coding = bytes([0, 0, 0, 1, 0, 0, 4, 4, 0, 1])
>>> segments = [(b"\\xff\\x51", size), (b"\\xff\\x52", coding)]
>>> stream = b"\\xff\\x4f" + b"".join(mark + struct.pack(">H", len(data) + 2) + data for mark, data in segments)
>>> count_pieces(io.BytesIO(stream))                                  # 8 × 8 blocks, one precinct, and a tile
81

OpenJPEG takes some three hundred bytes for each code-block and each precinct before it reads what is in them, and a
header of a hundred bytes may ask for more of them than there are pixels. See ISO 15444-1, annexes A, B and I.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .gifblocks import Seekable

PIXELS_PER_PIECE, LEAST_PIECES = 25, 10_000
"""A piece for so many pixels is more than anybody makes, where there are many."""

_TILE_COSTS = 16
"""A tile takes as much as so many pieces, for each of its components."""
_SIZE, _CODING, _COMPONENT, _TILE_PART, _DATA = 0x51, 0x52, 0x53, 0x90, 0x93


class _Coding(NamedTuple):
    """How a component is cut."""

    levels: int
    block: tuple[int, int]  # exponents of width and height
    precincts: bytes  # exponents of each resolution; none are the largest there is

    def pieces(self, width: int, height: int) -> int:
        """Of a tile of that size."""
        count = 0
        for level in range(self.levels + 1):
            bands, scale = (3, self.levels - level + 1) if level else (1, self.levels)
            wide, high = _parts(width, scale), _parts(height, scale)
            both = self.precincts[level] if level < len(self.precincts) else 0xFF
            precinct = max(0, (both & 15) - (level > 0)), max(0, (both >> 4) - (level > 0))
            block = min(self.block[0], precinct[0]), min(self.block[1], precinct[1])
            for across, down in (precinct, block):
                count += bands * _parts(wide, across) * _parts(high, down)
        return count


def count_pieces(file: Seekable) -> int:
    """Code-blocks, precincts and tiles, about; as if the finest cut that is said anywhere were that of all."""
    if not _find_stream(file):
        return 0
    width = height = tile_width = tile_height = components = most = 0
    for mark, data in _segments(file):
        if mark == _SIZE and len(data) >= 36:
            right, lower, left, upper, tile_width, tile_height = (_number(data[at : at + 4]) for at in range(2, 26, 4))
            width, height, components = right - left, lower - upper, _number(data[34:36])
        elif mark in (_CODING, _COMPONENT):
            style = 0 if mark == _CODING else 1 if components < 257 else 2
            coding = data[style + 1 + 4 * (mark == _CODING) :]
            if len(coding) >= 5 and tile_width and tile_height and width > 0 and height > 0:
                block = (coding[1] & 15) + 2, (coding[2] & 15) + 2
                found = _Coding(min(coding[0], 32), block, coding[5:] if data[style] & 1 else b"")
                most = max(most, found.pieces(min(width, tile_width), min(height, tile_height)))
    tiles = -(-width // tile_width) * -(-height // tile_height) if tile_width and tile_height else 0
    return tiles * components * (_TILE_COSTS + most)


def _find_stream(file: Seekable) -> bool:
    """Go behind the first mark of the codestream, in whatever boxes it is."""
    file.seek(0, 0)
    head = file.read(2)
    if head == b"\xff\x4f":
        return True
    head += file.read(6)
    while len(head) == 8:
        size, start = _number(head[:4]), 8
        if size == 1:
            size, start = _number(file.read(8)), 16
        if head[4:] == b"jp2c":
            return file.read(2) == b"\xff\x4f"
        if size < start or size >= 1 << 62:
            return False
        file.seek(size - start, 1)
        head = file.read(8)
    return False


def _segments(file: Seekable) -> Iterator[tuple[int, bytes]]:
    """The marks of the headers, those of tiles too, with what follows them."""
    left = 0  # of a tile's part
    while len(mark := file.read(2)) == 2 and mark[0] == 0xFF:
        if mark[1] == _DATA:
            if left < 2:
                return  # it goes on to the end
            file.seek(left - 2, 1)
            left = 0
            continue
        size = _number(file.read(2))
        data = file.read(size - 2) if size > 2 else b""
        left = _number(data[2:6]) - 2 - size if mark[1] == _TILE_PART else left - 2 - size
        yield mark[1], data


def _parts(length: int, exponent: int) -> int:
    """How many of 2 ** exponent there are in a length, the last one perhaps not whole."""
    return -(-length >> exponent)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")
