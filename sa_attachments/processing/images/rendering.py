"""Rendering: a transform, carried out on an attachment.

>>> from sa_attachments import Attachment
>>> from sa_attachments.processing.images import Fit
>>> gif = bytes.fromhex("47494638376101000100800000ff000000000021f90400000000002c00000000010001000002024401003b")
>>> step = Fit(2, 2, format="PNG")
>>> done = rendered(Attachment.upload(gif, "dot.gif"), step, step.plan)
>>> done.filename, done.read(0, 4)
('dot.png', b'\\x89PNG')
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

from PIL import Image

from ...attachment import Attachment, body_of
from ...errors import Refused
from ...upload import Upload
from ..mediatype import of_filename
from . import exif
from .colour import fits, plain, srgb
from .cores import CORES
from .encoding import Frame, Output, encoded
from .geometry import Box, Plan, Size
from .gifblocks import MOST_FRAMES
from .options import ANIMATED, Options
from .picture import Picture, opened
from .pillow import WRITABLE

MOVING = (*ANIMATED, "FLI")
"""Formats whose frames follow each other in time, and are no pages or layers."""

GAP = 2
"""How many times as large as the result a picture is decoded at least, as in Pillow's ``thumbnail``."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)[2-8]")


def rendered(attachment: Attachment, step: Options, planned: Callable[[Size], Plan]) -> Attachment:
    """The picture that a step makes of a new attachment; ``planned`` says how large. Raises Refused."""
    rule = type(step).__name__
    with opened(attachment, rule, step.max_pixels, CORES) as picture:
        kind = step.format or (picture.kind if picture.kind in WRITABLE else "PNG")
        numbers = _numbers(picture, rule) if step.animated and kind in ANIMATED else range(1)
        plan = planned(picture.size)
        picture.bound(len(numbers))
        picture.count(plan.size, len(numbers), "becomes")
        information = picture.image.info
        metadata: dict[str, Any] = {
            "exif": exif.kept(picture.exif, step.keep),
            "xmp": _xmp(information) if "xmp" in step.keep else None,
        }
        profile = information.get("icc_profile")
        frames = list(_frames(picture, plan, numbers))
        if "icc" in step.keep and profile and fits(profile, frames[0].image.mode, kind):
            metadata["icc"] = profile
        else:
            frames = [frame._replace(image=srgb(frame.image, profile, rule)) for frame in frames]
        plays = _plays(picture)
        output = Output(kind, step.quality, step.background, plays, **metadata)
        return Attachment.upload(encoded(frames, output, rule), _named(attachment, kind))


def still(picture: Picture, plan: Plan) -> Image.Image:
    """The first frame, upright and in sRGB."""
    picture.count(plan.size, 1, "becomes")
    (frame,) = _frames(picture, plan, range(1))
    return srgb(frame.image, picture.image.info.get("icc_profile"), picture.rule)


def _numbers(picture: Picture, rule: str) -> range:
    """The numbers of the frames that are shown one after the other."""
    count = picture.frames() if picture.kind in MOVING else 1
    if count > MOST_FRAMES:
        message = f"the image has more than {MOST_FRAMES:,} frames"
        raise Refused(message, rule=rule, limit=MOST_FRAMES, measured=count)
    # An animated PNG may begin with a picture for programs that show no more.
    return range(1 if count > 1 and getattr(picture.image, "default_image", False) else 0, count)


def _frames(picture: Picture, plan: Plan, numbers: range) -> Iterator[Frame]:
    orientation = picture.orientation
    size, box = plan.turned() if orientation > 4 else plan
    shrunk = _draft(picture, size, box)
    for number in numbers:
        image = picture.load(number)
        part = _part(box, picture.full, shrunk or (0, 0, *image.size))
        small = plain(image).resize(size, Image.Resampling.BICUBIC, part, reducing_gap=GAP)
        turned = small.transpose(_UPRIGHT[orientation]) if orientation > 1 else small
        yield Frame(turned, image.info.get("duration", 0))


def _draft(picture: Picture, size: Size, box: Box | None) -> Box | None:
    """Have a large JPEG decoded at half, a quarter or an eighth of its size; where all of it is then."""
    width, height = picture.full
    left, upper, right, lower = box or (0, 0, width, height)
    scale = max(size[0] / (right - left), size[1] / (lower - upper)) * GAP
    return picture.draft((ceil(width * scale), ceil(height * scale))) if scale < 1 else None


def _part(box: Box | None, full: Size, whole: Box) -> Box:
    """``box`` of the full picture, in one where all of it is ``whole``."""
    if box is None:
        return whole
    across, down = whole[2] / full[0], whole[3] / full[1]
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _plays(picture: Picture) -> int:
    """How often an animation runs; 0 is without end."""
    loop = picture.image.info.get("loop")
    if picture.kind == "GIF":  # which counts how often it is repeated
        return 1 if loop is None else loop + 1 if loop else 0
    return loop or 0


def _xmp(information: dict[Any, Any]) -> bytes | None:
    """As it is, but for the orientation: whoever reads the picture next would turn it once more."""
    found = information.get("xmp") or information.get("XML:com.adobe.xmp")
    packet = found.encode() if isinstance(found, str) else found
    return _TURNED.sub(rb"\g<1>1", packet) if isinstance(packet, bytes) else None


def _named(attachment: Attachment, kind: str) -> str | None:
    """The name that it had, with an extension that fits."""
    body = body_of(attachment)
    name = body.filename if isinstance(body, Upload) else attachment.filename
    suffix = WRITABLE[kind]
    if name is None or of_filename(name) == of_filename(f"a{suffix}"):
        return name
    stem, dot, _ = name.rpartition(".")
    return (stem if stem and dot and of_filename(name) else name) + suffix
