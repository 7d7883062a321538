"""Encoding: rendered frames as the bytes of a file.

>>> from PIL import Image
>>> encoded([Frame(Image.new("RGB", (8, 8)))], Output("PNG"), "Convert")[:4]
b'\\x89PNG'
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image, PngImagePlugin

from ...errors import Refused

QUALITY = {"JPEG": 85, "WEBP": 80, "AVIF": 70}
"""Unless told otherwise."""

_LONGEST = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535, "AVIF": 32_768}
"""Most pixels on a side. AVIF may have more, which libavif writes and does not read."""
_SEGMENT = 65_500


class Frame(NamedTuple):
    """One picture, L, LA, RGB or RGBA (or as the profile that is kept wants it), and for how many milliseconds."""

    image: Image.Image
    duration: float = 0


@dataclass(frozen=True, slots=True)
class Output:
    """What file is to be made."""

    kind: str
    quality: int | None = None
    background: str = "white"
    plays: int = 0
    """How often the animation runs; 0 is without end."""
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None


def encoded(frames: Sequence[Frame], output: Output, rule: str) -> bytes:
    """The file. Raises Refused for what the format can't hold."""
    _check_sides(frames[0].image, output.kind, rule)
    images = [_fitting(frame.image, output) for frame in frames]
    options: dict[str, Any] = {"exif": _held(output.exif, output.kind), "icc_profile": output.icc}
    if output.xmp and output.kind == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", output.xmp.decode(errors="replace"))
    elif output.xmp:
        options["xmp"] = _held(output.xmp, output.kind)
    if output.kind in QUALITY:
        options["quality"] = output.quality or QUALITY[output.kind]
    if len(images) > 1:
        options |= {
            "save_all": True,
            "append_images": images[1:],
            "duration": [round(each.duration) for each in frames],
        }
        options |= _repeating(output, images)
    file = io.BytesIO()
    try:
        images[0].save(file, output.kind, **{name: value for name, value in options.items() if value is not None})
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        message = f"the image can't be written as {output.kind}: {told}"
        raise Refused(message, rule=rule, limit=output.kind, measured=told) from error
    return file.getvalue()


def _held(metadata: bytes | None, kind: str) -> bytes | None:
    """What there is room for: a segment of a JPEG has 64 kB."""
    return None if metadata and kind == "JPEG" and len(metadata) > _SEGMENT else metadata


def _check_sides(image: Image.Image, kind: str, rule: str) -> None:
    longest = _LONGEST.get(kind)
    if longest is not None and max(image.size) > longest:
        message = f"the image becomes {image.width:,} × {image.height:,} pixels, {kind} holds {longest:,} a side"
        raise Refused(message, rule=rule, limit=longest, measured=max(image.size))


def _fitting(image: Image.Image, output: Output) -> Image.Image:
    """In a mode that the format takes, with no word of where it comes from."""
    if output.kind == "JPEG" and image.mode in ("LA", "RGBA"):
        image = _flat(image, output.background)
    elif output.kind in ("WEBP", "AVIF") and image.mode in ("L", "LA"):
        image = image.convert("RGB" if image.mode == "L" else "RGBA")
    elif output.kind == "GIF" and image.mode in ("LA", "RGBA"):
        image = image.convert("RGBA")
        image.putalpha(image.getchannel("A").point([0] * 128 + [255] * 128))  # all or nothing
    bare = image.copy()
    bare.info = {}
    return bare


def _flat(image: Image.Image, background: str) -> Image.Image:
    ground = Image.new("RGBA", image.size, background)
    ground.alpha_composite(image.convert("RGBA"))
    return ground.convert("L" if image.mode == "LA" and background in ("white", "black") else "RGB")


def _repeating(output: Output, images: Sequence[Image.Image]) -> dict[str, Any]:
    match output.kind:
        case "GIF":
            # Its number is of repetitions after the first time; without any, once. See-through frames must not pile up.
            see_through = any(image.mode == "RGBA" for image in images)
            repeats = {} if output.plays == 1 else {"loop": max(output.plays - 1, 0)}
            return {**repeats, "disposal": 2 if see_through else 0}
        case "WEBP" | "PNG":
            return {"loop": output.plays}
    return {}
