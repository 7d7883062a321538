"""Limits: the validators that look at a picture.

>>> from sa_attachments import Attachment
>>> from sa_attachments.processing.steps import run
>>> gif = bytes.fromhex("47494638376101000100800000ff000000000021f90400000000002c00000000010001000002024401003b")
>>> rules = [MaxDimensions(4000, 4000), AspectRatio("1:2", "2:1"), MaxPixels(12_000_000), MaxFrames(1), Intact()]
>>> run(rules, Attachment.upload(gif, "dot.gif"), "Photo.image").content_type
'image/gif'
>>> run([MinDimensions(400, 300)], Attachment.upload(gif, "dot.gif"), "Photo.image")
Traceback (most recent call last):
sa_attachments.errors.Refused: Photo.image: the image has 1 × 1 pixels, expected are at least 400 × 300

Each of them refuses what is no image. Width and height are those of the upright picture, as people see it.

Traps
-----
All but ``Intact`` look at the header only, which takes no time and no memory, and does not notice that the rest of the
file is missing. A transform decodes the picture, and needs no ``Intact`` before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from ...attachment import Attachment
from ...errors import BadConfiguration, Refused
from .geometry import Size, check_sides
from .gifblocks import MOST_FRAMES
from .options import MAX_PIXELS
from .pillow import require

_ROUNDING = Fraction(1, 100)


@dataclass(frozen=True)
class _Validator:
    def __post_init__(self) -> None:
        require(type(self).__name__)

    def _refused(self, message: str, limit: object, measured: object) -> Refused:
        return Refused(message, rule=type(self).__name__, limit=limit, measured=measured)

    def _opened(self, attachment: Attachment, max_pixels: int | None = None, turns: Any = None) -> Any:
        from .picture import opened  # here, so that Pillow is loaded by those who use it

        return opened(attachment, type(self).__name__, max_pixels, turns)


@dataclass(frozen=True)
class _Sides(_Validator):
    width: int
    height: int | None = None

    def __post_init__(self) -> None:
        check_sides(self, self.width, self.height)
        super().__post_init__()

    def _refused_size(self, size: Size, expected: str) -> Refused:
        sides = f"{self.width:,} in width" if self.height is None else f"{self.width:,} × {self.height:,}"
        message = f"the image has {size[0]:,} × {size[1]:,} pixels, {expected} {sides}"
        return self._refused(message, (self.width, self.height), size)


@dataclass(frozen=True)
class MaxDimensions(_Sides):
    """At most ``width`` × ``height`` pixels; None for a height that does not matter."""

    def __call__(self, attachment: Attachment, /) -> None:
        with self._opened(attachment) as picture:
            width, height = picture.size
        if width > self.width or (self.height is not None and height > self.height):
            raise self._refused_size((width, height), "allowed are")


@dataclass(frozen=True)
class MinDimensions(_Sides):
    """At least ``width`` × ``height`` pixels; None for a height that does not matter."""

    def __call__(self, attachment: Attachment, /) -> None:
        with self._opened(attachment) as picture:
            width, height = picture.size
        if width < self.width or (self.height is not None and height < self.height):
            raise self._refused_size((width, height), "expected are at least")


@dataclass(frozen=True)
class AspectRatio(_Validator):
    """Width to height from ``least`` to ``most``, as ``"16:9"`` or 1.78; without ``most`` exactly ``least``.

    A hundredth more or less is taken for rounding.
    """

    least: str | float
    most: str | float | None = None

    def __post_init__(self) -> None:
        if _ratio(self.least) > _ratio(self._most):
            raise BadConfiguration(
                f"AspectRatio goes from the narrow to the wide, not from {self.least} to {self.most}"
            )
        super().__post_init__()

    @property
    def _most(self) -> str | float:
        return self.least if self.most is None else self.most

    def __call__(self, attachment: Attachment, /) -> None:
        with self._opened(attachment) as picture:
            width, height = picture.size
        ratio = Fraction(width, height)
        if not _ratio(self.least) * (1 - _ROUNDING) <= ratio <= _ratio(self._most) * (1 + _ROUNDING):
            allowed = f"{self.least} to {self.most}" if self.most is not None else f"{self.least}"
            message = (
                f"the image has {width:,} × {height:,} pixels, a ratio of {float(ratio):.2f}, allowed is {allowed}"
            )
            raise self._refused(message, (self.least, self._most), float(ratio))


@dataclass(frozen=True)
class MaxPixels(_Validator):
    """At most so many pixels: width × height of each frame."""

    limit_pixels: int

    def __post_init__(self) -> None:
        if self.limit_pixels < 1:
            raise BadConfiguration(f"MaxPixels takes a number of pixels, not {self.limit_pixels!r}")
        super().__post_init__()

    def __call__(self, attachment: Attachment, /) -> None:
        with self._opened(attachment, self.limit_pixels):
            pass


@dataclass(frozen=True)
class MaxFrames(_Validator):
    """At most so many frames of an animation, or pages of a TIFF; ``MaxFrames(1)`` lets in what stands still."""

    limit_frames: int

    def __post_init__(self) -> None:
        if not 1 <= self.limit_frames <= MOST_FRAMES:
            raise BadConfiguration(f"MaxFrames takes a number from 1 to {MOST_FRAMES:,}, not {self.limit_frames!r}")
        super().__post_init__()

    def __call__(self, attachment: Attachment, /) -> None:
        with self._opened(attachment) as picture:
            frames = picture.frames(self.limit_frames)
        if frames > self.limit_frames:
            message = f"the image has {frames:,} frames or more, allowed are {self.limit_frames:,}"
            raise self._refused(message, self.limit_frames, frames)


@dataclass(frozen=True)
class Intact(_Validator):
    """Every frame can be decoded. ``max_pixels`` bounds all frames together, and so the time and the memory."""

    max_pixels: int = MAX_PIXELS
    keeps_busy: ClassVar[bool] = True

    def __call__(self, attachment: Attachment, /) -> None:
        from .cores import CORES

        with self._opened(attachment, self.max_pixels, CORES) as picture:
            frames = picture.frames()
            if frames > MOST_FRAMES:
                raise self._refused(f"the image has more than {MOST_FRAMES:,} frames", MOST_FRAMES, frames)
            picture.bound(frames)
            for frame in range(frames):
                picture.load(frame)


def _ratio(said: str | float) -> Fraction:
    match = re.fullmatch(r"\s*(\d+)\s*[:/]\s*(\d+)\s*", said) if isinstance(said, str) else None
    try:
        ratio = Fraction(int(match[1]), int(match[2])) if match else Fraction(said)
    except (ValueError, ZeroDivisionError, OverflowError, TypeError):
        ratio = Fraction(0)
    if ratio <= 0:
        raise BadConfiguration(f"a ratio is written as '16:9' or 1.78, not {said!r}")
    return ratio
