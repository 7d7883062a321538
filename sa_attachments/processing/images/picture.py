"""Picture: an image file, opened by Pillow behind a fence.

>>> from sa_attachments import Attachment
>>> with opened(Attachment.upload(b"no image"), "Fit", 1000) as picture:
...     pass
Traceback (most recent call last):
sa_attachments.errors.Refused: the file is no image that can be read: it is application/octet-stream

Whatever Pillow raises about a file becomes ``Refused``; what the file's own source raises stays what it is. Opening
reads the header. No pixel is decoded before the size that the header tells is known to be within bounds, and no more
bytes are read than pictures of that size take.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin

from ...attachment import Attachment
from ...errors import Refused
from ..mediatype import is_active
from .geometry import Size
from .gifblocks import MOST_FRAMES, survey
from .icons import LARGEST, largest
from .jpeg2000 import LEAST_PIECES, PIXELS_PER_PIECE, count_pieces
from .pillow import READABLE, initialized
from .reading import Exceeded, Watched

HEADER = 64 * 1024 * 1024
"""Bytes that opening may read: a whole WebP, a camera's metadata."""
PER_PIXEL = 16
"""Bytes for each pixel that decoding may read on top of that: more than any format needs."""
MOST_EXIF = 1024 * 1024
"""Bytes of EXIF: each that is read takes twenty in memory, and a microsecond. Cameras write 64 kB; more is damaged."""
HEADER_SECONDS, FRAME_SECONDS = 10, 60
"""How long Pillow may go on reading; a header takes milliseconds."""

_ONE = {"JPEG", "PSD"}
"""Formats where what Pillow calls frames are previews, a map of the highlights, or layers of the first one."""

_DEPTHS = {"L;2": 85, "L;4": 17, "I;16B": 1 / 256, "RGB;16B": 1 / 256}
"""Of PNG, as Pillow names them, and what makes eight bits of them."""

ORIENTATION = 0x0112
_TILE = (322, 323)
"""Width and length of a TIFF's tiles, each of which is decoded in whole."""


class Picture:
    """An open image file. ``rule`` is the step that looks at it, for refusals; any size will do without a limit."""

    def __init__(self, image: ImageFile.ImageFile, file: Watched, rule: str, max_pixels: int | None) -> None:
        self.image = image
        self._file = file
        self.rule = rule
        self._most = max_pixels
        self.exif = _exif(image)
        """EXIF, empty where there is none or it is damaged."""
        self.orientation = _orientation(self.exif)
        """EXIF's or XMP's, 1 to 8; what is damaged counts as 1."""
        self.full = image.size
        """Width and height as they are stored, which ``draft`` does not change."""
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow turns it by itself
            if self.orientation > 4 and ORIENTATION not in image.tag_v2:  # and does not know before
                self.full = image.size[1], image.size[0]
            self.orientation = 1
        self._decoded = 0
        _scale_key(image)

    @property
    def kind(self) -> str:
        """Pillow's name of the format."""
        return {"MPO": "JPEG", "DIB": "BMP"}.get(str(self.image.format), str(self.image.format))

    @property
    def size(self) -> Size:
        """Width and height of the upright picture."""
        width, height = self.full
        return (height, width) if self.orientation > 4 else (width, height)

    def frames(self, most: int = MOST_FRAMES) -> int:
        """How many there are; ``most + 1`` if there are more than ``most``."""
        with explained(self._file, self.rule):
            self._file.allow(HEADER, HEADER_SECONDS)
            if self.kind in _ONE:
                return 1
            if self.kind == "GIF":
                return max(1, survey(self._file, most).frames)  # Pillow reads some that are broken before the first
            if self.kind == "TIFF":
                return self._seekable(most)
            return min(int(getattr(self.image, "n_frames", 1)), most + 1)

    def _seekable(self, most: int) -> int:
        """One by one: to count them, Pillow would read them all."""
        count = 1
        try:
            while count <= most:
                self.image.seek(count)
                count += 1
        except EOFError:
            pass
        self.image.seek(0)
        return count

    def bound(self, frames: int = 1) -> None:
        """Refuse more pixels than allowed."""
        self.count(self.full, frames, "has")

    def count(self, size: Size, frames: int, verb: str) -> None:
        """Refuse so many pixels if they are more than allowed."""
        many = f"{frames:,} frames of " if frames > 1 else ""
        self._bounded(size[0] * size[1] * frames, f"{verb} {many}{size[0]:,} × {size[1]:,} pixels")

    def _bounded(self, pixels: int, has: str) -> None:
        if self._most is not None and pixels > self._most:
            message = f"the image {has}, allowed are {self._most:,} together"
            raise Refused(message, rule=self.rule, limit=self._most, measured=pixels)

    def draft(self, size: Size) -> tuple[float, float, float, float] | None:
        """Decode no more than a picture of ``size`` needs; returns the part of it that is the whole."""
        with explained(self._file, self.rule):
            drafted = self.image.draft(None, size)
        return drafted[1] if drafted else None

    def load(self, frame: int = 0) -> Image.Image:
        """Decode a frame. Refused if it is broken."""
        with explained(self._file, self.rule):
            self._allow()
            if frame:  # PSD counts from 1, and knows no 0
                self.image.seek(frame)
                self.full = self.image.size  # pages of a TIFF, and frames of a GIF that reach further
            self._decoded += self.full[0] * self.full[1]
            self._bounded(self._decoded, f"has {self._decoded:,} pixels in {frame + 1:,} frames")
            self._check_pieces()
            self._allow()
            self.image.load()
        return self.image

    def _check_pieces(self) -> None:
        """What is decoded of a small picture may be large."""
        if isinstance(self.image, TiffImagePlugin.TiffImageFile):
            width, height = (side if isinstance(side := self.image.tag_v2.get(tag), int) else 1 for tag in _TILE)
            self.count((width, height), 1, "has tiles of")
        elif self.kind == "JPEG2000":
            pieces, most = count_pieces(self._file), LEAST_PIECES + self.full[0] * self.full[1] // PIXELS_PER_PIECE
            if pieces > most:
                message = f"the image is cut into {pieces:,} pieces, allowed are {most:,}"
                raise Refused(message, rule=self.rule, limit=most, measured=pieces)

    def _allow(self) -> None:
        self._file.allow(HEADER + PER_PIXEL * self.full[0] * self.full[1], FRAME_SECONDS)


@contextmanager
def opened(
    attachment: Attachment, rule: str, max_pixels: int | None, turns: AbstractContextManager[None] | None = None
) -> Iterator[Picture]:
    """Open the bytes of a new attachment as a picture. Raises Refused, and what reading the source raises.

    Where pixels are to be decoded, that waits for its turn among ``turns``.
    """
    initialized()
    # The source comes first: it may be an upload that arrives while others wait.
    with attachment.open() as source, turns or nullcontext():
        file = Watched(source)
        file.allow(HEADER, HEADER_SECONDS)
        with explained(file, rule):
            image = None if is_active(attachment.content_type) else _identified(file, rule)
        if image is None:
            raise Refused(
                f"the file is no image that can be read: it is {attachment.content_type}",
                rule=rule,
                limit=READABLE,
                measured=attachment.content_type,
            )
        with image:
            picture = Picture(image, file, rule, max_pixels)
            picture.bound()
            if picture.kind == "GIF":  # which grows with its frames
                with explained(file, rule):
                    reach = survey(file).size
                picture.count(reach, 1, "has frames of")
            yield picture


@contextmanager
def explained(file: Watched, rule: str) -> Iterator[None]:
    """What Pillow raises about a file becomes Refused; what the source raised comes out as it was, even if Pillow has
    swallowed it.
    """
    try:
        yield
    except Refused:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit, which some formats ask for while they open
        pixels = re.search(r"(\d+) pixels\)", str(error))
        found, limit = int(pixels[1]) if pixels else 0, 2 * (Image.MAX_IMAGE_PIXELS or 0)
        message = f"the image has {found:,} pixels, Pillow allows {limit:,}"
        raise Refused(message, rule=rule, limit=limit, measured=found) from error
    except Exception as error:
        _blame(file, rule)
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise Refused(f"the image is broken: {told}", rule=rule, limit="an intact image", measured=told) from error
    else:
        _blame(file, rule)


def _blame(file: Watched, rule: str) -> None:
    if isinstance(file.error, Exceeded):
        message = f"the image takes more than an image of its size needs: {file.error}"
        raise Refused(message, rule=rule, limit=file.error.limit, measured=str(file.error))
    if file.error is not None:
        raise file.error


def _identified(file: Watched, rule: str) -> ImageFile.ImageFile | None:
    """As ``Image.open``, but without the limits and warnings that are global to the process: ours are stricter."""
    file.seek(0)
    prefix = file.read(16)
    for kind in READABLE:
        if kind not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[kind]
        if accept is not None and accept(prefix) is not True:
            continue
        if kind == "ICO":
            _check_icon(file, rule)
        try:
            file.seek(0)
            image: Any = (_Photo if kind == "JPEG" else factory)(cast(Any, file), "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # as they say that it is another format
        if any(tile[0] == "fits_gzip" for tile in image.tile):
            return None  # unpacks any number of bytes at once
        return cast(ImageFile.ImageFile, image)
    return None


class _Photo(JpegImagePlugin.JpegImageFile):
    """Without what Pillow looks for in EXIF of any size as soon as it opens one; its further pictures are not shown."""

    def _read_dpi_from_exif(self) -> None:
        pass


def _check_icon(file: Watched, rule: str) -> None:
    width, height = largest(file)
    if max(width, height) > LARGEST:
        message = f"the icon contains a picture of {width:,} × {height:,} pixels, icons have {LARGEST:,} a side at most"
        raise Refused(message, rule=rule, limit=LARGEST, measured=max(width, height))


def _scale_key(image: ImageFile.ImageFile) -> None:
    """Pillow gives pixels eight bits, and leaves the one grey or colour that is see-through in a PNG as it was."""
    key, scale = image.info.get("transparency"), _DEPTHS.get(str(image.tile[0].args)) if image.tile else None
    if image.format == "PNG" and scale and isinstance(key, int):
        image.info["transparency"] = int(key * scale)
    elif image.format == "PNG" and scale and isinstance(key, tuple):
        image.info["transparency"] = tuple(int(each * scale) for each in key)


def _exif(image: ImageFile.ImageFile) -> Image.Exif:
    if len(image.info.get("exif") or b"") > MOST_EXIF:
        return Image.Exif()
    try:
        # Not PNG's own method, which decodes all pixels to see whether EXIF follows them.
        return Image.Image.getexif(image)
    except Exception:  # noqa: BLE001 - it parses whatever cameras and editors wrote
        return Image.Exif()


def _orientation(exif: Image.Exif) -> int:
    try:
        found = exif.get(ORIENTATION)
    except Exception:  # noqa: BLE001 - as above: values are parsed when they are asked for
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1
