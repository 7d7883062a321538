"""Makes the pictures of docs/images.md, by the steps that the page shows: ``python docs/images/pictures.py``.

``sample.jpg`` is what they are made of. It is drawn too (``--draw``), so that it is nobody's.
"""

from __future__ import annotations

import argparse
import base64
import io
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageCms, ImageDraw, ImageFilter

from sa_attachments import Attachment
from sa_attachments.processing import (
    Convert,
    Cover,
    DominantColour,
    Fit,
    Limit,
    Placeholder,
    Step,
    Thumbnail,
)
from sa_attachments.processing.images.thumbhash import decode
from sa_attachments.processing.steps import run

HERE = Path(__file__).parent
SAMPLE = HERE / "sample.jpg"
GAP = 8
GROUND = "#808080"

HELD = [
    None,
    Image.Transpose.FLIP_LEFT_RIGHT,
    Image.Transpose.ROTATE_180,
    Image.Transpose.FLIP_TOP_BOTTOM,
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_90,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_270,
]
"""How a camera stores a picture, for orientations 1 to 8."""

# The pictures of one step on the sample: file, and step
SHOWN: dict[str, Step] = {
    "fit.jpg": Fit(240, 240),
    "limit.jpg": Limit(240, 240),
    "cover.jpg": Cover(240, 240),
    "cover-wide.jpg": Cover(240, 80),
    "cover-tall.jpg": Cover(80, 240),
    "thumbnail.webp": Thumbnail(120, 120),
    "width.jpg": Fit(180),
    "quality.jpg": Fit(240, 240, quality=10),
    "webp.webp": Fit(240, 240, format="WEBP"),
    "avif.avif": Fit(240, 240, format="AVIF"),
    "png.png": Fit(240, 240, format="PNG"),
    "gif.gif": Fit(240, 240, format="GIF"),
}


def made(step: Step, data: bytes) -> bytes:
    """What a step makes of a file."""
    return run([step], Attachment.upload(data), "Photo.image").read()


def facts(step: Step, data: bytes) -> dict[str, Any]:
    """What a step says of a file."""
    return dict(run([step], Attachment.upload(data), "Photo.image").metadata)


def shown(data: bytes) -> Image.Image:
    """As programs show it that know nothing of orientations and profiles."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def written(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# Pictures of several: how they come in, above how they come out


def pairs(before: Sequence[Image.Image], after: Sequence[Image.Image]) -> bytes:
    """Two rows, in fields of one size."""
    wide, high = (max(size) for size in zip(*(image.size for image in (*before, *after)), strict=True))
    sheet = Image.new("RGB", ((wide + GAP) * len(before) + GAP, (high + GAP) * 2 + GAP), GROUND)
    for row, images in enumerate((before, after)):
        for column, image in enumerate(images):
            left = GAP + column * (wide + GAP) + (wide - image.width) // 2
            upper = GAP + row * (high + GAP) + (high - image.height) // 2
            sheet.paste(image, (left, upper), image if image.mode == "RGBA" else None)
    return written(sheet, "WEBP", quality=85)


def orientations(sample: bytes) -> bytes:
    """All eight ways to hold a camera."""
    small = shown(made(Fit(84, 84), sample))
    before, after = [], []
    for orientation, way in enumerate(HELD, 1):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = written(small.transpose(way) if way is not None else small, "PNG", exif=exif)
        before.append(shown(data))
        after.append(shown(made(Fit(84, 84), data)))
    return pairs(before, after)


def colours(sample: bytes) -> bytes:
    """A profile that exchanges red and green; separated colours; grey of 16 bits; a palette that is see-through."""
    small = shown(made(Fit(150, 150), sample))
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    tags = {bytes(profile[132 + 12 * n : 136 + 12 * n]): 136 + 12 * n for n in range(count)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    profile[red : red + 8], profile[green : green + 8] = profile[green : green + 8], profile[red : red + 8]
    channels = small.split()
    exchanged = Image.merge("RGB", (channels[1], channels[0], channels[2]))
    grey = small.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
    palette = small.quantize(8)
    files = [
        written(exchanged, "PNG", icc_profile=bytes(profile)),
        written(small.convert("CMYK"), "TIFF"),
        written(grey, "PNG"),
        written(palette, "PNG", transparency=palette.getpixel((75, 5))),
    ]
    return pairs([shown(each) for each in files], [shown(made(Convert("PNG"), each)) for each in files])


def backgrounds(sample: bytes) -> bytes:
    """See-through in a format that knows it, and in one that does not."""
    small = shown(made(Cover(150, 100), sample)).convert("RGBA")
    hole = Image.new("L", small.size, 0)
    ImageDraw.Draw(hole).ellipse((15, 5, 135, 95), fill=255)
    small.putalpha(hole.filter(ImageFilter.GaussianBlur(6)))
    data = written(small, "PNG")
    steps = [Convert("WEBP"), Convert("JPEG"), Convert("JPEG", background="#ffcc00"), Convert("GIF")]
    return pairs([shown(data)] * len(steps), [shown(made(step, data)) for step in steps])


def placeholders(sample: bytes) -> bytes:
    """The picture, its 25 bytes, and its colour."""
    small = shown(made(Fit(150, 150), sample))
    blurred = Image.frombytes("RGBA", *_sized(decode(base64.b64decode(facts(Placeholder(), sample)["thumbhash"]))))
    colour = Image.new("RGB", small.size, facts(DominantColour(), sample)["dominant_colour"])
    images = [small, blurred.resize(small.size, Image.Resampling.BICUBIC).convert("RGB"), colour]
    wide, high = small.size
    sheet = Image.new("RGB", ((wide + GAP) * len(images) + GAP, high + 2 * GAP), GROUND)
    for number, image in enumerate(images):
        sheet.paste(image, (GAP + number * (wide + GAP), GAP))
    return written(sheet, "WEBP", quality=85)


def _sized(decoded: tuple[int, int, bytes]) -> tuple[tuple[int, int], bytes]:
    return decoded[:2], decoded[2]


def film(sample: bytes) -> bytes:
    """The boat sails, in a GIF."""
    small = shown(made(Fit(320, 320), sample))
    frames = []
    for number in range(12):
        frame = small.copy()
        _boat(ImageDraw.Draw(frame), 70 + 15 * number, 160, 26)
        frames.append(frame.quantize(64))
    return written(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=120, loop=0)


def moving(sample: bytes) -> bytes:
    return made(Fit(160, 160, format="WEBP", animated=True), film(sample))


def standing(sample: bytes) -> bytes:
    return made(Fit(160, 160, format="WEBP"), film(sample))


SHEETS: dict[str, Callable[[bytes], bytes]] = {
    "orientations.webp": orientations,
    "colours.webp": colours,
    "backgrounds.webp": backgrounds,
    "placeholders.webp": placeholders,
    "moving.webp": moving,
    "standing.webp": standing,
}


def pictures(sample: bytes) -> Iterator[tuple[str, bytes]]:
    """All of them, by their names."""
    for name, step in SHOWN.items():
        yield name, made(step, sample)
    for name, make in SHEETS.items():
        yield name, make(sample)


# The sample


def draw(size: tuple[int, int] = (1200, 800)) -> bytes:
    """An evening at a lake, with something different in each corner."""
    wide, high = size
    dice = random.Random(7)
    shore = high * 11 // 20
    image = Image.new("RGB", size)
    pen = ImageDraw.Draw(image)
    for y in range(shore):
        pen.line((0, y, wide, y), _between((38, 70, 130), (255, 190, 120), (y / shore) ** 1.5))
    sun = Image.new("L", size, 0)
    ImageDraw.Draw(sun).ellipse((780, shore - 150, 920, shore - 10), fill=255)
    glow = sun.filter(ImageFilter.GaussianBlur(90)).point([min(255, value * 2) for value in range(256)])
    image.paste((255, 214, 150), (0, 0), glow)
    image.paste((255, 246, 214), (0, 0), sun.filter(ImageFilter.GaussianBlur(3)))
    for depth, colour in enumerate([(112, 108, 150), (70, 78, 118), (36, 52, 78)]):
        base, steep = shore - 190 + 75 * depth, 120 - 25 * depth
        tops = [(x, base + _hill(x, dice.random() * 9, steep, depth)) for x in range(0, wide + 30, 30)]
        pen.polygon([(0, shore), *tops, (wide, shore)], fill=colour)
    pen.ellipse((90, 70, 130, 110), fill=(244, 240, 226))  # the moon
    pen.ellipse((102, 64, 138, 100), fill=image.getpixel((150, 90)))
    water = image.crop((0, 0, wide, shore)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    water = water.resize((wide, high - shore)).filter(ImageFilter.GaussianBlur(3))
    image.paste(Image.blend(water, Image.new("RGB", water.size, (24, 52, 88)), 0.35), (0, shore))
    for _ in range(260):
        x, y = dice.randrange(wide), shore + int((high - shore) * dice.random() ** 0.7)
        length = 10 + (y - shore) // 5
        tone: Any = image.getpixel((x, y))
        pen.line((x, y, x + length, y), fill=tuple(min(255, value + 26) for value in tone), width=2)
    _boat(pen, 430, shore + 95, 95)
    for _ in range(150):  # reeds
        x = int(wide - abs(dice.gauss(0, 130)))
        pen.line((x, high, x + dice.randrange(-25, 12), high - 60 - dice.randrange(170)), fill=(30, 46, 30), width=4)
    for number in range(7):  # stones
        x = 20 + 55 * number
        pen.ellipse((x, high - 55 - 9 * (number % 3), x + 75, high + 20), fill=(70 + 9 * number, 66, 62))
    grain = Image.effect_noise(size, 18)
    soft = image.filter(ImageFilter.GaussianBlur(0.8))
    return written(Image.blend(soft, Image.merge("RGB", [grain] * 3), 0.06), "JPEG", quality=82)


def _between(one: tuple[int, ...], other: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(round(a + (b - a) * share) for a, b in zip(one, other, strict=True))


def _hill(x: int, rough: float, steep: int, depth: int) -> float:
    return steep * (math.sin(x / (170 - 30 * depth) + depth) * 0.5 + math.sin(x / 61 + 2 * depth) * 0.22) + rough


def _boat(pen: ImageDraw.ImageDraw, x: int, y: int, size: int) -> None:
    pen.polygon(
        [(x - size, y), (x + size, y), (x + size * 0.7, y + size * 0.3), (x - size * 0.7, y + size * 0.3)],
        (122, 44, 38),
    )
    pen.line((x, y, x, y - size * 2), fill=(60, 40, 30), width=max(1, size // 20))
    pen.polygon(
        [(x + 3, y - size * 0.15), (x + 3, y - size * 1.95), (x + size * 0.9, y - size * 0.15)], (246, 240, 228)
    )
    pen.polygon([(x - 3, y - size * 0.15), (x - 3, y - size * 1.5), (x - size * 0.6, y - size * 0.15)], (214, 92, 70))


def main() -> None:
    """Write them beside this file."""
    parser = argparse.ArgumentParser(description="The pictures of docs/images.md.")
    parser.add_argument("--draw", action="store_true", help="draw sample.jpg, too")
    if parser.parse_args().draw:
        SAMPLE.write_bytes(draw())
    for name, data in pictures(SAMPLE.read_bytes()):
        (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
