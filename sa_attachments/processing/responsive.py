"""Responsive images: one picture in several widths, for browsers to choose from; ready for a template.

>>> from sa_attachments.attachment import Attachment
>>> sorted(widths(320, 1280, lazy=True))                    # for a column: AttachmentType(files, variants=widths(...))
['w1280', 'w320']

A template of Jinja writes ``{{ responsive(user.photo, sizes="50vw").html(alt=user.name) }}``, or takes the parts:

>>> image = Responsive("/a.webp", "/b.webp 320w, /a.webp 640w", "50vw", 640, 480, None)
>>> print(image.html(alt='The "gate"'))
<img src="/a.webp" srcset="/b.webp 320w, /a.webp 640w" sizes="50vw" width="640" height="480" alt="The &quot;gate&quot;">

Traps
-----
How wide a variant is, it says in its metadata: a recipe of your own ends with ``Dimensions()``, as those of ``widths``
do. Variants that say nothing are left out, and so are those that are not there; a picture without any is served as it
is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from ..attachment import Attachment
from ..errors import VariantMissing
from .images.facts import Dimensions
from .images.resizing import Limit
from .images.thumbhash import data_url
from .variants import Variant


def widths(*pixels: int, lazy: bool = False, **options: Any) -> dict[str, Variant]:
    """Variants ``w320``, ``w640``, … no wider than so many pixels; ``options`` are those of every ``Transform``.

    Raises MissingExtra without Pillow, BadConfiguration.
    """
    return {f"w{each}": Variant(Limit(each, **options), Dimensions(), lazy=lazy) for each in pixels}


@dataclass(frozen=True, slots=True)
class Responsive:
    """The attributes of an ``img``."""

    src: str
    """For browsers that choose nothing: the widest."""
    srcset: str
    sizes: str
    width: int | None
    """That of ``src``, so that the page has room for it before it is there."""
    height: int | None
    placeholder: str | None
    """A blurred picture as a ``data:`` URI, to be shown as background meanwhile."""

    @property
    def attributes(self) -> dict[str, str]:
        """By name, unescaped: for Jinja's ``xmlattr`` and its like."""
        found = {"src": self.src}
        if self.srcset:
            found |= {"srcset": self.srcset, "sizes": self.sizes}
        if self.width and self.height:
            found |= {"width": str(self.width), "height": str(self.height)}
        if self.placeholder:
            found["style"] = f"background: url({self.placeholder}) center / cover no-repeat"
        return found

    def html(self, alt: str, **attributes: str) -> Html:
        """The element, escaped. More ``attributes`` replace those of the same name."""
        said = {**self.attributes, "alt": alt, **attributes}
        return Html("<img" + "".join(f' {name}="{escape(value)}"' for name, value in said.items()) + ">")


class Html(str):
    """HTML that template engines take as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        """See MarkupSafe."""
        return str(self)


def responsive(
    attachment: Attachment,
    sizes: str = "100vw",
    *,
    names: Iterable[str] | None = None,
    url: Callable[[Attachment], str] = Attachment.url,
) -> Responsive:
    """What a page says of a stored picture, from the widths of its variants.

    :param sizes: how wide the picture is on the page, as HTML's ``sizes``.
    :param names: the variants to ask for, made here and now if need be; None takes those that are there.
    :param url: the address of a file; else the storage's signed one.
    """
    found = attachment.variants if names is None else _asked_for(attachment, names)
    by_width: dict[int, Attachment] = {}
    for variant in found.values():
        if (width := _pixels(variant, "width")) is not None:
            by_width.setdefault(width, variant)  # a small picture has several of the same width
    best = by_width[max(by_width)] if by_width else attachment
    addresses = {width: url(by_width[width]) for width in sorted(by_width)}
    hashed = attachment.metadata.get("thumbhash")
    return Responsive(
        addresses[max(addresses)] if addresses else url(attachment),
        ", ".join(f"{address} {width}w" for width, address in addresses.items()),
        sizes,
        _pixels(best, "width"),
        _pixels(best, "height"),
        data_url(base64.b64decode(hashed)) if isinstance(hashed, str) else None,
    )


def _asked_for(attachment: Attachment, names: Iterable[str]) -> Mapping[str, Attachment]:
    found: dict[str, Attachment] = {}
    for name in names:
        try:
            found[name] = attachment.variant(name)
        except VariantMissing:
            continue
    return found


def _pixels(attachment: Attachment, name: str) -> int | None:
    value = attachment.metadata.get(name)
    return value if isinstance(value, int) and value > 0 else None
