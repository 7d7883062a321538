"""Processing: what a new attachment goes through before it is stored.

>>> from sa_attachments import Attachment
>>> from sa_attachments.processing import Accept, MaxSize
>>> Accept("image/*", "application/pdf"), MaxSize(5_000_000)
(Accept('image/*', 'application/pdf'), MaxSize(limit_bytes=5000000))

They are given to a column, ``AttachmentType(files, steps=[MaxSize(5_000_000), Accept("image/*")])``, and any callable
that takes an attachment can stand beside them: see ``Step``. Those for pictures need Pillow (extra ``images``), and are
explained in ``sa_attachments.processing.images``.
"""

from .images import (
    AspectRatio,
    Capture,
    Convert,
    Cover,
    Dimensions,
    DominantColour,
    Fit,
    Intact,
    Limit,
    MaxDimensions,
    MaxFrames,
    MaxPixels,
    MinDimensions,
    Placeholder,
    Thumbnail,
    Transform,
)
from .steps import Step
from .validators import Accept, MatchingExtension, MaxSize, MinSize
from .variants import Recipe, Variant

__all__ = [
    "Accept",
    "AspectRatio",
    "Capture",
    "Convert",
    "Cover",
    "Dimensions",
    "DominantColour",
    "Fit",
    "Intact",
    "Limit",
    "MatchingExtension",
    "MaxDimensions",
    "MaxFrames",
    "MaxPixels",
    "MaxSize",
    "MinDimensions",
    "MinSize",
    "Placeholder",
    "Recipe",
    "Step",
    "Thumbnail",
    "Transform",
    "Variant",
]
