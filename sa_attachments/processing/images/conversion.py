"""Conversion: the same picture as another kind of file.

>>> Convert("WEBP"), Convert("avif", quality=60), Convert()
(Convert('WEBP'), Convert('AVIF', quality=60), Convert())
>>> from sa_attachments.processing.steps import run
>>> from sa_attachments import Attachment
>>> gif = bytes.fromhex("47494638376101000100800000ff000000000021f90400000000002c00000000010001000002024401003b")
>>> done = run([Convert("PNG")], Attachment.upload(gif, "dot.gif"), "Photo.image")
>>> done.filename, done.content_type
('dot.png', 'image/png')
>>> Convert("TIFF")
Traceback (most recent call last):
sa_attachments.errors.BadConfiguration: Convert writes 'AVIF', 'GIF', 'JPEG', 'PNG', 'WEBP', not 'TIFF'

``Convert()`` changes nothing that one sees: it turns the picture upright and takes off what else is in the file, where
it was taken for instance.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .geometry import Plan, Size
from .transform import Transform


@dataclass(frozen=True, repr=False)
class Convert(Transform):
    """The whole picture, in its size, as ``format``; without one the format stays."""

    format: str | None = field(default=None, kw_only=False)

    def plan(self, size: Size) -> Plan:
        return Plan(size)
