"""The files inside of a Windows icon: how large they are, without decoding any of them.

>>> import io, struct
>>> entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, 40, 22)
>>> bitmap = struct.pack("<Iii", 40, 700, 2 * 500) + bytes(28)
>>> largest(io.BytesIO(struct.pack("<HHH", 0, 1, 1) + entry + bitmap))
(700, 500)

Pillow decodes the largest as soon as it opens an icon, and takes its directory's word for it, which may say 16 × 16 of
a PNG of any size.
"""

from __future__ import annotations

from .geometry import Size
from .gifblocks import Seekable

LARGEST = 1024
"""Pixels on a side of an icon; the directory can't even say more than 256."""


def largest(file: Seekable) -> Size:
    """The width and height that hold all of them."""
    file.seek(0, 0)
    head = file.read(6)
    directory = file.read(16 * int.from_bytes(head[4:6], "little"))
    width = height = 0
    for at in range(0, len(directory) - 15, 16):
        file.seek(int.from_bytes(directory[at + 12 : at + 16], "little"), 0)
        wide, high = _size(file.read(24))
        width, height = max(width, wide), max(height, high)
    return width, height


def _size(head: bytes) -> Size:
    if head.startswith(b"\x89PNG"):
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    # A bitmap without its file header: the picture, and under it a mask of the same size.
    wide, high = (4, 6), (6, 8)
    if int.from_bytes(head[:4], "little") > 12:
        wide, high = (4, 8), (8, 12)
    return abs(_signed(head[slice(*wide)])), abs(_signed(head[slice(*high)])) // 2


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)
