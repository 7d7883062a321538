"""Images: steps that look at pictures and make others of them, with Pillow (extra ``images``).

>>> from sa_attachments.processing.images import Cover, Fit
>>> Fit(2048, 2048), Cover(400, 400, format="WEBP")
(Fit(2048, 2048), Cover(400, 400, format='WEBP'))

Nothing of a file is decoded before its size is known to be within bounds, and only pixels come through: see
``Transform`` for what all transforms do. Without Pillow, such a step can't be made: ``MissingExtra`` says what to
install where the column is declared, not when the first photo comes in.
"""

from .conversion import Convert
from .facts import Capture, Dimensions, DominantColour, Placeholder
from .geometry import Plan
from .limits import AspectRatio, Intact, MaxDimensions, MaxFrames, MaxPixels, MinDimensions
from .resizing import Cover, Fit, Limit, Thumbnail
from .transform import Transform

__all__ = [
    "AspectRatio",
    "Capture",
    "Convert",
    "Cover",
    "Dimensions",
    "DominantColour",
    "Fit",
    "Intact",
    "Limit",
    "MaxDimensions",
    "MaxFrames",
    "MaxPixels",
    "MinDimensions",
    "Placeholder",
    "Plan",
    "Thumbnail",
    "Transform",
]
