"""Files of a few bytes that say they have 50,000 × 50,000 pixels, one for each format that can say so."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

from PIL import Image

from .samples import chart, samples, written

SIDE = 50_000
PIXELS = SIDE * SIDE


@cache
def png(width: int = SIDE, height: int = SIDE) -> bytes:
    """With pixels that are all there: zeros take a thousandth of their space, and are packed again."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(1)
    line = bytes(1 + width // 8)
    pixels = b"".join(packer.compress(line * 1000) for _ in range(height // 1000)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _patched(name: str, **at: int) -> bytes:
    """A sample with other numbers: ``little_18`` is a word of four bytes at 18, ``big2_7`` one of two at 7."""
    data = bytearray(samples()[name].data)
    for key, value in at.items():
        order, place = key.split("_")
        size = 2 if order.endswith("2") else 4
        data[int(place) : int(place) + size] = value.to_bytes(size, "big" if order.startswith("big") else "little")
    return bytes(data)


def _jpeg() -> bytes:
    data = bytearray(samples()["JPEG-RGB"].data)
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", SIDE, SIDE)
    return bytes(data)


def _jpeg2000() -> bytes:
    data = bytearray(samples()["JPEG2000-RGB"].data)
    head = data.index(b"ihdr")
    data[head + 4 : head + 12] = struct.pack(">II", SIDE, SIDE)
    size = data.index(b"\xff\x4f\xff\x51")
    data[size + 8 : size + 16] = struct.pack(">II", SIDE, SIDE)
    data[size + 24 : size + 32] = struct.pack(">II", SIDE, SIDE)
    return bytes(data)


def _tiff() -> bytes:
    file = io.BytesIO(written(Image.new("1", (8, 8)), "TIFF", compression="group4"))
    data = bytearray(file.getvalue())
    directory = int.from_bytes(data[4:8], "little")
    for entry in range(int.from_bytes(data[directory : directory + 2], "little")):
        at = directory + 2 + 12 * entry
        if int.from_bytes(data[at : at + 2], "little") in (256, 257):
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, SIDE)
    return bytes(data)


def _gif() -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", SIDE, SIDE, 0x80, 0, 0) + bytes(6) + samples()["GIF-P"].data[13:]


def gif_that_grows() -> bytes:
    """A screen of one pixel, and a second frame that reaches far over it."""
    red = written(chart((1, 1)).quantize(2), "GIF")
    body = red[:-1]
    frame = b"," + struct.pack("<HHHHB", 0, 0, SIDE, SIDE, 0) + b"\x02\x02\x4c\x01\x00"
    return body + frame + b";"


def icon_that_lies(inside: bytes, side: int = 16) -> bytes:
    """An icon of 16 × 16 pixels, with a PNG in it."""
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", side, side, 0, 0, 1, 32, len(inside), 22) + inside


def tiff_with_a_tile(side: int = SIDE) -> bytes:
    """One pixel, in a tile of many."""
    file = io.BytesIO()
    packed = zlib.compress(bytes(1000))
    tags = {256: 1, 257: 1, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: len(packed)}
    file.write(b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)))
    file.writelines(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return file.getvalue() + bytes(4)


def jpeg2000_in_pieces(
    side: int, tile: int = 0, block: int = 4, precincts: bytes = b"", in_tile: bool = False, boxes: bytes = b""
) -> bytes:
    """Grey, its sizes as exponents; the cut is said in the header, or in that of the first tile."""

    def segment(mark: int, data: bytes) -> bytes:
        return bytes([0xFF, mark]) + struct.pack(">H", len(data) + 2) + data

    def coding(block: int, precincts: bytes) -> bytes:
        return segment(0x52, bytes([bool(precincts), 0, 0, 1, 0, 5, block, block, 0, 1]) + precincts)

    tile = tile or side
    size = segment(0x51, struct.pack(">HIIIIIIIIH", 0, side, side, 0, 0, tile, tile, 0, 0, 1) + bytes([7, 1, 1]))
    steps = segment(0x5C, bytes([0x40]) + bytes([8 << 3]) * 16)
    main, local = coding(4, b"") if in_tile else coding(block, precincts), coding(block, precincts) if in_tile else b""
    part = segment(0x90, struct.pack(">HIBB", 0, 12 + len(local) + 2 + 100, 0, 1)) + local + b"\xff\x93" + bytes(100)
    return boxes + b"\xff\x4f" + size + main + steps + part + b"\xff\xd9"


def _webp() -> bytes:
    """As large as WebP can say, 16,383 a side: a canvas that its one frame does not fill."""
    frame = samples()["WEBP-RGB"].data[12:]
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16_382).to_bytes(3, "little") * 2
    return b"RIFF" + struct.pack("<I", 4 + len(canvas) + len(frame)) + b"WEBP" + canvas + frame


BOMBS: dict[str, Callable[[], bytes]] = {
    "AVIF": lambda: samples()["AVIF-RGB"].data.replace(
        b"ispe" + struct.pack(">III", 0, 64, 48), b"ispe" + struct.pack(">III", 0, 16_000, 16_000)
    ),
    "BMP": lambda: _patched("BMP-RGB", little_18=SIDE, little_22=SIDE),
    "DDS": lambda: _patched("DDS-RGB", little_12=SIDE, little_16=SIDE),
    "FITS": lambda: samples()["FITS"].data.replace(b"= 64   ", b"= 50000").replace(b"= 48   ", b"= 50000"),
    "FLI": lambda: _patched("FLI", little2_8=SIDE, little2_10=SIDE),
    "FTEX": lambda: _patched("FTEX", little_8=SIDE, little_12=SIDE),
    "GBR": lambda: _patched("GBR", big_8=SIDE, big_12=SIDE),
    "GIF": _gif,
    "IMT": lambda: samples()["IMT"].data.replace(b"width 64", b"width 50000").replace(b"height 48", b"height 50000"),
    "JPEG": _jpeg,
    "JPEG2000": _jpeg2000,
    "MCIDAS": lambda: _patched("MCIDAS", big_32=SIDE, big_36=SIDE),
    "PCX": lambda: _patched("PCX-RGB", little2_8=SIDE - 1, little2_10=SIDE - 1),
    "PIXAR": lambda: _patched("PIXAR", little2_416=SIDE, little2_418=SIDE),
    "PNG": png,
    "PPM": lambda: b"P6 50000 50000 255\n" + bytes(100),
    "PSD": lambda: _patched("PSD", big_14=SIDE, big_18=SIDE),
    "QOI": lambda: _patched("QOI-RGB", big_4=SIDE, big_8=SIDE),
    "SGI": lambda: _patched("SGI-RGB", big2_6=SIDE, big2_8=SIDE),
    "SUN": lambda: _patched("SUN", big_4=SIDE, big_8=SIDE),
    "TGA": lambda: _patched("TGA-RGB", little2_12=SIDE, little2_14=SIDE),
    "TIFF": _tiff,
    "WEBP": _webp,
    "XBM": lambda: samples()["XBM-1"].data.replace(b" 64\n", b" 50000\n").replace(b" 48\n", b" 50000\n"),
    "XPM": lambda: samples()["XPM"].data.replace(b"64 48 4 1", b"50000 50000 4 1"),
    "XVTHUMB": lambda: samples()["XVTHUMB"].data.replace(b"64 48 255", b"50000 50000 255"),
}
