"""ThumbHash: a picture as some 25 bytes, from which a blurred one is made while the real one loads.

>>> hashed = encode(2, 1, bytes([255, 0, 0, 255, 0, 0, 255, 255]))
>>> hashed.hex()
'...'
>>> width, height, rgba = decode(hashed)
>>> width, height, len(rgba)
(32, 18, 2304)
>>> data_url(hashed)[:22]
'data:image/png;base64,'

The algorithm is that of https://github.com/evanw/thumbhash. A colour is luminance, yellow against blue (p) and red
against green (q); of each, and of the opacity (a), the lowest frequencies of a cosine transform are kept, in four bits
each. The libraries that were to be had took twenty times as long in Python, or were young and compiled.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import starmap
from math import cos, floor, pi
from operator import mul
from typing import NamedTuple

MOST = 100
"""Most pixels on a side of what is encoded; more would only take longer."""


class _Channel(NamedTuple):
    mean: float
    rest: list[float]  # 0 to 1
    scale: float


def encode(width: int, height: int, rgba: bytes) -> bytes:
    """The hash of a picture of four bytes for each pixel, row by row."""
    if not (1 <= width <= MOST and 1 <= height <= MOST and len(rgba) == 4 * width * height):
        raise ValueError(f"{width} × {height} pixels of four bytes, {MOST} a side at most, are not {len(rgba)} bytes")
    red, green, blue, alpha = ([byte / 255 for byte in rgba[channel::4]] for channel in range(4))
    opacity = sum(alpha)
    transparent = opacity < width * height
    if transparent:  # over the mean colour, so that the hidden ones don't matter
        red, green, blue = (_over_mean(channel, alpha, opacity) for channel in (red, green, blue))
    longest = max(width, height)
    most = 5 if transparent else 7
    across, down = (max(1, _round(most * side / longest)) for side in (width, height))
    luminance = [(r + g + b) / 3 for r, g, b in zip(red, green, blue, strict=True)]
    yellow = [(r + g) / 2 - b for r, g, b in zip(red, green, blue, strict=True)]
    reddish = [r - g for r, g in zip(red, green, strict=True)]
    grey = _Waves(max(3, across), max(3, down)).found(luminance, width, height)
    p = _Waves(3, 3).found(yellow, width, height)
    q = _Waves(3, 3).found(reddish, width, height)
    landscape = width > height
    head = (
        _round(63 * grey.mean)
        | _round(31.5 + 31.5 * p.mean) << 6
        | _round(31.5 + 31.5 * q.mean) << 12
        | _round(31 * grey.scale) << 18
        | transparent << 23
    )
    tail = (down if landscape else across) | _round(63 * p.scale) << 3 | _round(63 * q.scale) << 9 | landscape << 15
    channels = [grey, p, q]
    more = b""
    if transparent:
        a = _Waves(5, 5).found(alpha, width, height)
        more = bytes([_round(15 * a.mean) | _round(15 * a.scale) << 4])
        channels.append(a)
    halves = [_round(15 * value) for channel in channels for value in channel.rest]
    halves += [0] * (len(halves) % 2)
    packed = bytes(low | high << 4 for low, high in zip(halves[::2], halves[1::2], strict=True))
    return head.to_bytes(3, "little") + tail.to_bytes(2, "little") + more + packed


def decode(hashed: bytes) -> tuple[int, int, bytes]:
    """Width, height, and four bytes for each pixel; the longer side has 32. ValueError for what is no hash."""
    if len(hashed) < 5:
        raise ValueError(f"{hashed!r} is no ThumbHash")
    head, tail = int.from_bytes(hashed[:3], "little"), int.from_bytes(hashed[3:5], "little")
    transparent, landscape = bool(head >> 23), bool(tail >> 15)
    most, less = 5 if transparent else 7, max(1, tail & 7)
    across, down = (most, less) if landscape else (less, most)
    width, height = (32, _round(32 * down / across)) if across > down else (_round(32 * across / down), 32)
    # The colours a little stronger than they were: what is left out would have added to them.
    channels = [
        (_Waves(max(3, across), max(3, down)), (head & 63) / 63, (head >> 18 & 31) / 31),
        (_Waves(3, 3), (head >> 6 & 63) / 31.5 - 1, (tail >> 3 & 63) / 63 * 1.25),
        (_Waves(3, 3), (head >> 12 & 63) / 31.5 - 1, (tail >> 9 & 63) / 63 * 1.25),
    ]
    if transparent and len(hashed) > 5:
        channels.append((_Waves(5, 5), (hashed[5] & 15) / 15, (hashed[5] >> 4) / 15))
    halves = [half / 7.5 - 1 for byte in hashed[6 if transparent else 5 :] for half in (byte & 15, byte >> 4)]
    if len(halves) < sum(waves.count for waves, _, _ in channels):
        raise ValueError(f"{hashed!r} is no whole ThumbHash")
    planes = []
    for waves, mean, scale in channels:
        rest, halves = [scale * half for half in halves[: waves.count]], halves[waves.count :]
        planes.append(waves.restored(mean, rest, width, height))
    if not transparent:
        planes.append([1.0] * (width * height))
    return width, height, b"".join(starmap(_pixel, zip(*planes, strict=True)))


@lru_cache(maxsize=1024)
def data_url(hashed: bytes) -> str:
    """A PNG of the blurred picture, for ``src`` or ``background-image``: a few thousand characters. ValueError."""
    width, height, rgba = decode(hashed)
    rows = b"".join(b"\0" + rgba[4 * width * row : 4 * width * (row + 1)] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    png = [
        b"\x89PNG\r\n\x1a\n",
        *starmap(_chunk, [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]),
    ]
    return "data:image/png;base64," + base64.b64encode(b"".join(png)).decode()


class _Waves:
    """The lowest frequencies of a channel, ``across`` × ``down`` of them, less those of the far corner."""

    def __init__(self, across: int, down: int) -> None:
        # How many go with each one of those that go down.
        self._lines = [len([x for x in range(across) if x * down < across * (down - y)]) for y in range(down)]
        self.count = sum(self._lines) - 1  # the first is the mean

    def found(self, channel: Sequence[float], width: int, height: int) -> _Channel:
        """Taken from the pixels: first along the lines, then along the columns."""
        across, down = _cosines(width, self._lines[0]), _cosines(height, len(self._lines))
        rows = [channel[width * y : width * (y + 1)] for y in range(height)]
        by_row = [[_dot(row, wave) for row in rows] for wave in across]
        values = [
            _dot(by_row[x], down[y]) / (width * height) for y, count in enumerate(self._lines) for x in range(count)
        ]
        scale = max(map(abs, values[1:]))
        rest = [0.5 + 0.5 / scale * value for value in values[1:]] if scale else values[1:]
        return _Channel(values[0], rest, scale)

    def restored(self, mean: float, rest: Sequence[float], width: int, height: int) -> list[float]:
        """The pixels again, row by row."""
        across, down = _cosines(width, self._lines[0]), _cosines(height, len(self._lines))
        following = iter([mean / 2, *rest])
        columns: list[list[float]] = []
        for count in self._lines:
            values = [2 * next(following) for _ in range(count)]
            columns.append([_dot(values, [across[x][at] for x in range(count)]) for at in range(width)])
        return [
            _dot([line[at] for line in columns], [wave[row] for wave in down])
            for row in range(height)
            for at in range(width)
        ]


def _cosines(length: int, count: int) -> list[list[float]]:
    return [[cos(pi / length * wave * (at + 0.5)) for at in range(length)] for wave in range(count)]


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(map(mul, left, right), 0.0)


def _over_mean(channel: Sequence[float], alpha: Sequence[float], opacity: float) -> list[float]:
    mean = _dot(channel, alpha) / opacity if opacity else 0.0
    return [mean * (1 - a) + c * a for c, a in zip(channel, alpha, strict=True)]


def _pixel(grey: float, yellow: float, reddish: float, alpha: float) -> bytes:
    blue = grey - 2 / 3 * yellow
    red = (3 * grey - blue + reddish) / 2
    return bytes(_round(255 * min(1.0, max(0.0, value))) for value in (red, red - reddish, blue, alpha))


def _chunk(name: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _round(value: float) -> int:
    """As JavaScript does: halves go up."""
    return floor(value + 0.5)
