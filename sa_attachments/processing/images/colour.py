"""Colour: pictures of any mode as 8 bits per channel in sRGB, with or without alpha.

>>> from PIL import Image
>>> [plain(Image.new(mode, (1, 1))).mode for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16", "LAB")]
['L', 'L', 'RGB', 'RGB', 'RGBA', 'CMYK', 'L', 'RGB']
>>> srgb(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), None).getpixel((0, 0))
(255, 0, 0)

``plain`` comes before resizing, which palettes don't survive, and ``srgb`` after it, when there is less to convert.
"""

from __future__ import annotations

import io
from math import inf
from typing import Any

from PIL import Image, ImageCms

from ...errors import Refused

# Modes by what they become: all but CMYK are RGB or grey, with or without alpha.
_PLAIN = {
    "1": "L", "P": "RGB", "La": "LA", "PA": "RGBA", "RGBX": "RGB", "RGBa": "RGBA", "YCbCr": "RGB", "HSV": "RGB",
}  # fmt: skip
_WITH_ALPHA = {"1": "LA", "L": "LA", "P": "RGBA", "RGB": "RGBA"}
_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
_SHADES = 8
_FLAGS = ImageCms.Flags.BLACKPOINTCOMPENSATION


def plain(image: Image.Image) -> Image.Image:
    """As L, LA, RGB, RGBA or CMYK, 8 bits per channel."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _from_wide(image)
    mode = image.mode
    if mode in _WITH_ALPHA and image.has_transparency_data:
        return image.convert(_WITH_ALPHA[mode])
    if mode == "LAB":
        return _from_lab(image)
    return image.convert(_PLAIN[mode]) if mode in _PLAIN else image


def srgb(image: Image.Image, profile: bytes | None, rule: str = "colour") -> Image.Image:
    """A plain picture with its colours in sRGB. Refused if the profile is broken, or one for other pictures."""
    if profile:
        return _converted(image, profile, rule)
    return image.convert("RGB") if image.mode == "CMYK" else image


def dominant(rgba: bytes) -> str | None:
    """The colour of most pixels, if similar ones count as one, as ``"#rrggbb"``; None if all are transparent."""
    opaque = b"".join(rgba[at : at + 3] for at in range(0, len(rgba), 4) if rgba[at + 3] >= 128)
    if not opaque:
        return None
    row = Image.frombytes("RGB", (len(opaque) // 3, 1), opaque).quantize(_SHADES, Image.Quantize.MEDIANCUT)
    palette = row.getpalette() or []
    counts = row.histogram()
    at = 3 * counts.index(max(counts))
    red, green, blue = palette[at : at + 3]
    return f"#{red:02x}{green:02x}{blue:02x}"


def fits(profile: bytes, mode: str, kind: str) -> bool:
    """Whether a file of that kind can hold a picture of this mode together with its profile, which is not broken."""
    if kind == "GIF" or (mode == "RGBA" and kind == "JPEG"):
        return False
    kinds = {"RGB": ("RGB", "RGBA"), "GRAY": ("L",) if kind in ("JPEG", "PNG") else (), "CMYK": ("CMYK",)}
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = _space(source)
        if mode not in kinds.get(space, ()) or (mode == "CMYK" and kind != "JPEG"):
            return False
        ImageCms.buildTransform(source, _srgb(), _SPACES[space], "RGB")
    except (ImageCms.PyCMSError, OSError):
        return False
    return True


def _converted(image: Image.Image, profile: bytes, rule: str) -> Image.Image:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = _space(source)
        if space == "Lab":  # ``plain`` has converted it
            return image
        if space == "RGB" and image.mode in ("L", "LA"):  # grey that somebody took the colours out of
            image = image.convert("RGBA" if image.mode == "LA" else "RGB")
        alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
        colours = image.convert(_SPACES.get(space, image.mode)) if alpha is not None else image
        done = ImageCms.profileToProfile(
            colours, source, _srgb(), ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB", flags=_FLAGS
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        told = str(error) or type(error).__name__
        message = f"the colour profile is broken, or none for this image ({image.mode}): {told}"
        raise Refused(message, rule=rule, limit="a colour profile that fits", measured=told) from error
    assert done is not None
    if alpha is not None:
        done.putalpha(alpha)
    return done


def _from_wide(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, or of whole or broken numbers that nobody told the range of: by the largest."""
    if image.mode.startswith("I;16"):
        image, factor = image.convert("I"), 1 / 256
    else:
        factor = _factor(image.mode, image.getextrema()[1])  # type: ignore[arg-type]
    return image.point(lambda value: value * factor + 0).convert("L")


def _factor(mode: str, most: float) -> float:
    if mode == "F" and 0 < most <= 1:
        return 255.0
    if 255 < most <= 65535:
        return 1 / 256
    return 255 / most if 65535 < most < inf else 1.0


def _from_lab(image: Image.Image) -> Image.Image:
    done = ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), _srgb(), outputMode="RGB")
    assert done is not None
    return done


def _space(profile: ImageCms.ImageCmsProfile) -> str:
    """``RGB``, ``GRAY``, ``CMYK``, ``Lab``, …"""
    inner: Any = profile.profile
    return str(inner.xcolor_space).strip()


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
