"""The blocks of a GIF: how many frames there are, and how far they reach, without decoding any of them.

>>> import io
>>> screen = b"GIF89a" + bytes([4, 0, 2, 0, 0, 0, 0])
>>> frame = b"," + bytes([0, 0, 0, 0, 6, 0, 2, 0, 0]) + b"\\x02\\x01\\x00\\x00"
>>> survey(io.BytesIO(screen + frame + frame + b";"), most=10)
Survey(frames=2, size=(6, 2))

Pillow finds out both while it decodes. See GIF89a, §18 to §27.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

MOST_FRAMES = 10_000
"""Frames that anybody counts."""


class Seekable(Protocol):
    """What is needed of a file."""

    def read(self, size: int, /) -> bytes:
        """The next bytes."""
        ...

    def seek(self, offset: int, whence: int, /) -> int:
        """Go elsewhere."""
        ...


class Survey(NamedTuple):
    """Number of frames, and the width and height that hold all of them."""

    frames: int
    size: tuple[int, int]


def survey(file: Seekable, most: int = MOST_FRAMES) -> Survey:
    """Look at the frames of a GIF, at ``most`` and one more; what comes after a broken block is not seen."""
    file.seek(0, 0)
    head = file.read(13)
    width, height = _number(head, 6), _number(head, 8)
    frames = 0
    _skip_table(file, head[10:11])
    while frames <= most:
        match file.read(1):
            case b"!":
                file.read(1)  # its label
            case b",":
                place = file.read(9)
                if len(place) < 9:
                    break
                frames += 1
                width = max(width, _number(place, 0) + _number(place, 4))
                height = max(height, _number(place, 2) + _number(place, 6))
                _skip_table(file, place[8:9])
                file.read(1)  # bits of a code
            case b"\0":  # some encoders leave one between blocks
                continue
            case _:
                break
        while size := int.from_bytes(file.read(1), "big"):
            file.seek(size, 1)
    return Survey(frames, (width, height))


def _skip_table(file: Seekable, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << ((flags[0] & 7) + 1), 1)


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "little")
