"""Real files of every format that Pillow reads, made when the tests run, of one picture: a colour in each quarter."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image, ImageCms

Colour = tuple[int, ...]

SIZE = (64, 48)
QUARTERS: list[Colour] = [(220, 30, 30), (30, 200, 60), (40, 60, 220), (240, 220, 120)]
"""Upper left, upper right, lower left, lower right."""


def chart(size: tuple[int, int] = SIZE, colours: list[Colour] = QUARTERS) -> Image.Image:
    """The picture."""
    quarters = Image.new("RGB", (2, 2))
    for number, colour in enumerate(colours):
        quarters.putpixel((number % 2, number // 2), colour[:3])
    return quarters.resize(size, Image.Resampling.NEAREST)


def corners(image: Image.Image) -> list[Colour]:
    """The colours in the middle of the four quarters."""
    width, height = image.size
    places = [(x, y) for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]
    return [tuple(image.convert("RGB").getpixel(place)) for place in places]  # type: ignore[arg-type]


def grey(colour: Colour) -> Colour:
    """As ``convert("L")``."""
    return (round((299 * colour[0] + 587 * colour[1] + 114 * colour[2]) / 1000),) * 3


def similar(found: Sequence[Colour], expected: Sequence[Colour], tolerance: int) -> bool:
    """Whether no channel of any colour is further away."""
    pairs = [(a, b) for one, other in zip(found, expected, strict=True) for a, b in zip(one, other, strict=True)]
    return all(abs(a - b) <= tolerance for a, b in pairs)


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    """What Pillow writes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    """What Pillow reads, in whole."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@dataclass(frozen=True)
class Sample:
    """A file, and what it shows."""

    kind: str
    data: bytes
    shows: str = "colours"  # or "grey", "white and black", or "nothing" of the chart
    tolerance: int = 12

    @property
    def expected(self) -> list[Colour]:
        match self.shows:
            case "grey":
                return [grey(colour) for colour in QUARTERS]
            case "white and black":
                return [(255, 255, 255) if grey(colour)[0] > 110 else (0, 0, 0) for colour in QUARTERS]
        return QUARTERS


def _mode(mode: str) -> Image.Image:
    if mode == "P":
        return chart().quantize(16)
    if mode == "1":
        return chart().convert("L").point(lambda value: 255 if value > 110 else 0).convert("1")
    if mode in ("I;16", "I", "F"):
        wide = chart().convert("L").convert("I").point(lambda value: value * 257)
        return wide.convert(mode)
    if mode == "LAB":
        made = ImageCms.profileToProfile(
            chart(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        assert made is not None
        return made
    return chart().convert(mode)


_SHOWS = {
    "1": "white and black",
    "L": "grey",
    "LA": "grey",
    "I;16": "grey",
    "I": "grey",
    "F": "grey",
}

_WRITTEN: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "JPEG": [("L", {}), ("RGB", {}), ("RGB", {"progressive": True}), ("CMYK", {}), ("YCbCr", {})],
    "PNG": [(mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")],
    "GIF": [("L", {}), ("P", {}), ("RGB", {}), ("1", {})],
    "WEBP": [("RGB", {}), ("RGBA", {}), ("RGB", {"lossless": True})],
    "AVIF": [("RGB", {}), ("RGBA", {})],
    "TIFF": [
        *((mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F")),
        *(("RGB", {"compression": each}) for each in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        ("1", {"compression": "group4"}),
        ("I;16", {"compression": "tiff_lzw"}),
    ],
    "BMP": [(mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")],
    "DIB": [("RGB", {})],
    "ICO": [("RGBA", {"sizes": [SIZE]}), ("RGBA", {"sizes": [SIZE], "bitmap_format": "bmp"})],
    "JPEG2000": [(mode, {}) for mode in ("L", "LA", "RGB", "RGBA", "I;16")],
    "PPM": [("1", {}), ("L", {}), ("RGB", {}), ("I;16", {})],
    "PCX": [("1", {}), ("L", {}), ("P", {}), ("RGB", {})],
    "SGI": [("L", {}), ("RGB", {}), ("RGBA", {}), ("RGB", {"bpc": 2})],
    "TGA": [(mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")] + [("RGB", {"compression": "tga_rle"})],
    "DDS": [("L", {}), ("LA", {}), ("RGB", {}), ("RGBA", {}), ("RGBA", {"pixel_format": "DXT5"})],
    "MSP": [("1", {})],
    "SPIDER": [("F", {})],
    "QOI": [("RGB", {}), ("RGBA", {})],
    "XBM": [("1", {})],
}


def _floats() -> bytes:
    """A PFM: broken numbers from 0 to 1, from the lowest line up."""
    lines = chart().convert("L").transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes()
    return b"Pf\n64 48\n-1.0\n" + struct.pack(f"<{len(lines)}f", *(value / 255 for value in lines))


# Formats that Pillow only reads, by hand.


def _cur() -> bytes:
    icon = bytearray(written(chart(), "ICO", sizes=[SIZE], bitmap_format="bmp"))
    icon[2] = 2
    return bytes(icon)


def _dcx() -> bytes:
    return struct.pack("<III", 0x3ADE68B1, 12, 0) + written(chart(), "PCX")


def _fits() -> bytes:
    cards = ["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", f"NAXIS1  = {SIZE[0]}", f"NAXIS2  = {SIZE[1]}", "END"]
    header = "".join(card.ljust(80) for card in cards).ljust(2880).encode()
    return header + chart().convert("L").transpose(Image.Transpose.FLIP_TOP_BOTTOM).tobytes().ljust(2880 * 2, b"\0")


def fli(images: list[Image.Image]) -> bytes:
    """A film, with the palette of its first frame."""
    first = images[0].quantize(16)
    palette = bytes((first.getpalette("RGB") or []) + [0] * 768)[:768]
    colours = struct.pack("<IHHBB", 6 + 4 + 768, 4, 1, 0, 0) + palette
    frames = []
    for image in images:
        pixels = (
            struct.pack("<IH", 6 + SIZE[0] * SIZE[1], 16)
            + image.quantize(palette=first, dither=Image.Dither.NONE).tobytes()
        )
        frames.append(struct.pack("<IHH8x", 16 + len(colours) + len(pixels), 0xF1FA, 2) + colours + pixels)
    body = b"".join(frames)
    head = struct.pack("<IHHHHHHI", 128 + len(body), 0xAF12, len(frames), *SIZE, 8, 3, 70)
    return head.ljust(128, b"\0") + body


def _ftex() -> bytes:
    pixels = chart().tobytes()
    return (
        b"FTEX"
        + struct.pack("<iiiiiiii", 0, *SIZE, 1, 1, 1, 32, len(pixels))[:28]
        + struct.pack("<i", len(pixels))
        + pixels
    )


def _gbr() -> bytes:
    return struct.pack(">IIIII4sI", 33, 2, *SIZE, 4, b"GIMP", 10) + b"name\0" + chart().convert("RGBA").tobytes()


def _imt() -> bytes:
    head = b"width 64\nheight 48\npixel n8\n" + b"* " + b"-" * 90 + b"\n"
    return head + b"\x0c" + chart().convert("L").tobytes()


def _mcidas() -> bytes:
    words = [0] * 64
    words[1], words[8], words[9], words[10], words[13], words[33] = 4, SIZE[1], SIZE[0], 1, 1, 256
    return b"\0\0\0\0\0\0\0\4" + struct.pack("!64i", *words)[8:] + chart().convert("L").tobytes()


def _pcd() -> bytes:
    """A Photo CD has one size, and its colours apart: lines of luminance in twos, then one of each colour."""
    light = chart((768, 512)).convert("L").point([round(value / 1.3584) for value in range(256)]).tobytes()
    colours = bytes([156] * 384 + [137] * 384)  # none
    lines = [light[768 * line : 768 * (line + 2)] + colours for line in range(0, 512, 2)]
    return (bytes(2048) + b"PCD_IPI").ljust(96 * 2048, b"\0") + b"".join(lines)


def _pixar() -> bytes:
    head = bytearray(1024)
    head[:4] = b"\200\350\000\000"
    struct.pack_into("<HHxxxxHH", head, 416, SIZE[1], SIZE[0], 14, 2)
    return bytes(head) + chart().tobytes()


def _psd() -> bytes:
    planes = b"".join(chart().getchannel(channel).tobytes() for channel in range(3))
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, SIZE[1], SIZE[0], 8, 3)
    return head + struct.pack(">III", 0, 0, 0) + struct.pack(">H", 0) + planes


def _sun() -> bytes:
    return struct.pack(">IIIIIIII", 0x59A66A95, *SIZE, 24, 3 * SIZE[0] * SIZE[1], 3, 0, 0) + chart().tobytes()


def _xpm() -> bytes:
    letters = "abcd"
    colours = [f'"{letter} c #{bytes(colour).hex()}",' for letter, colour in zip(letters, QUARTERS, strict=True)]
    half = SIZE[0] // 2
    lines = [f'"{letters[row] * half}{letters[row + 1] * half}",' for row in [0] * 24 + [2] * 24]
    return "\n".join(["/* XPM */", "static char *chart[] = {", '"64 48 4 1",', *colours, *lines, "};"]).encode()


def _xv() -> bytes:
    """Three bits of red and green, two of blue."""
    pixels = chart().tobytes()
    packed = bytes(
        (pixels[at] >> 5) << 5 | (pixels[at + 1] >> 5) << 2 | pixels[at + 2] >> 6 for at in range(0, len(pixels), 3)
    )
    return b"P7 332\n#XVVERSION:3.10\n#END_OF_COMMENTS\n64 48 255\n" + packed


_BY_HAND: dict[str, tuple[Callable[[], bytes], str, int]] = {
    "CUR": (_cur, "colours", 2),
    "DCX": (_dcx, "colours", 2),
    "FITS": (_fits, "grey", 2),
    "FLI": (lambda: fli([chart()]), "colours", 8),
    "FTEX": (_ftex, "colours", 2),
    "GBR": (_gbr, "colours", 2),
    "IMT": (_imt, "grey", 2),
    "MCIDAS": (_mcidas, "grey", 2),
    "PCD": (_pcd, "grey", 4),
    "PIXAR": (_pixar, "colours", 2),
    "PSD": (_psd, "colours", 2),
    "SUN": (_sun, "colours", 2),
    "XPM": (_xpm, "colours", 2),
    "XVTHUMB": (_xv, "colours", 64),
}


@cache
def samples() -> dict[str, Sample]:
    """All of them, by a name for each."""
    found: dict[str, Sample] = {}
    for kind, ways in _WRITTEN.items():
        for mode, options in ways:
            name = "-".join([kind, mode, *(str(value) for key, value in options.items() if key != "sizes")])
            tolerance = 30 if kind in ("AVIF", "JPEG", "WEBP") or options.get("compression") == "jpeg" else 20
            found[name] = Sample(kind, written(_mode(mode), kind, **options), _SHOWS.get(mode, "colours"), tolerance)
    for kind, (make, shows, tolerance) in _BY_HAND.items():
        found[kind] = Sample(kind, make(), shows, tolerance)
    found["PPM-F"] = Sample("PPM", _floats(), "grey", 4)
    return found
