"""Facts: what a picture says of itself, added to the attachment's metadata, where queries find it.

>>> from sa_attachments import Attachment
>>> from sa_attachments.processing.steps import run
>>> gif = bytes.fromhex("47494638376101000100800000ff000000000021f90400000000002c00000000010001000002024401003b")
>>> photo = Attachment.upload(gif, "dot.gif", metadata={"caption": "A dot"})
>>> done = run([Dimensions(), Capture(), DominantColour(), Placeholder()], photo, "Photo.image")
>>> for name, value in done.metadata.items():
...     print(name, value)
caption A dot
width 1
height 1
frames 1
orientation 1
dominant_colour #ff0000
thumbhash ...

Then ``Photo.image.metadata["width"] > 1000`` or ``Photo.image.metadata["taken_at"].as_string().startswith("2026-07")``
choose rows.

Traps
-----
A fact replaces what the application said under its name. Facts are of the picture as it is when it comes to the step:
``Capture`` belongs before transforms, which take off what cameras write, and ``Dimensions`` after them. What a camera
writes is not checked by anybody; a time without an offset is that of the camera's clock, wherever it was.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...attachment import Attachment
from .geometry import Size, limit
from .gifblocks import MOST_FRAMES
from .options import MAX_PIXELS
from .pillow import require

if TYPE_CHECKING:
    from .picture import Picture

SMALL = 48
"""Pixels on the longer side of what colours and placeholders are made of."""


@dataclass(frozen=True)
class _Extractor:
    def __post_init__(self) -> None:
        require(type(self).__name__)

    def __call__(self, attachment: Attachment, /) -> Attachment:
        return attachment.replace(metadata={**attachment.metadata, **self._facts(attachment)})

    def _facts(self, attachment: Attachment) -> Mapping[str, Any]:
        raise NotImplementedError

    def _opened(
        self, attachment: Attachment, max_pixels: int | None = None, turns: AbstractContextManager[None] | None = None
    ) -> AbstractContextManager[Picture]:
        from .picture import opened  # here, so that Pillow is loaded by those who use it

        return opened(attachment, type(self).__name__, max_pixels, turns)


@dataclass(frozen=True)
class Dimensions(_Extractor):
    """``width`` and ``height`` of the upright picture, and ``frames``, of which most have 1."""

    def _facts(self, attachment: Attachment) -> Mapping[str, Any]:
        with self._opened(attachment) as picture:
            width, height = picture.size
            return {"width": width, "height": height, "frames": min(picture.frames(), MOST_FRAMES)}


@dataclass(frozen=True)
class Capture(_Extractor):
    """``orientation``, EXIF's 1 to 8, and ``taken_at``, an ISO time, if the camera wrote one."""

    def _facts(self, attachment: Attachment) -> Mapping[str, Any]:
        from .exif import taken_at

        with self._opened(attachment) as picture:
            time = taken_at(picture.exif)
            return {"orientation": picture.orientation, **({"taken_at": time} if time else {})}


@dataclass(frozen=True)
class _Look(_Extractor):
    max_pixels: int = MAX_PIXELS
    keeps_busy: ClassVar[bool] = True

    def _small(self, attachment: Attachment) -> tuple[Size, bytes]:
        """The picture at the size of a stamp: its size, and four bytes for each pixel."""
        from .cores import CORES
        from .rendering import still

        with self._opened(attachment, self.max_pixels, CORES) as picture:
            image = still(picture, limit(picture.size, (SMALL, SMALL))).convert("RGBA")
            return image.size, image.tobytes()


@dataclass(frozen=True)
class DominantColour(_Look):
    """``dominant_colour``, as ``"#rrggbb"``: what most of the picture is like; ``None`` if all of it is transparent."""

    def _facts(self, attachment: Attachment) -> Mapping[str, Any]:
        from .colour import dominant

        return {"dominant_colour": dominant(self._small(attachment)[1])}


@dataclass(frozen=True)
class Placeholder(_Look):
    """``thumbhash``: the picture as some 25 bytes, in Base64, from which a blurred one is made while it loads."""

    def _facts(self, attachment: Attachment) -> Mapping[str, Any]:
        from .thumbhash import encode

        (width, height), rgba = self._small(attachment)
        return {"thumbhash": base64.b64encode(encode(width, height, rgba)).decode()}
