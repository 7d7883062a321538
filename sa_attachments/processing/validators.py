"""Validators: the steps that come with the library.

>>> from sa_attachments.attachment import Attachment
>>> from sa_attachments.processing.steps import run
>>> rules = (MaxSize(1000), Accept("image/*", "application/pdf"), MatchingExtension())
>>> run(rules, Attachment.upload(b"%PDF-1.7 ...", "cv.pdf"), "User.cv").content_type
'application/pdf'
>>> run(rules, Attachment.upload(b"%PDF-1.7 ...", "me.png", "image/png"), "User.cv")
Traceback (most recent call last):
sa_attachments.errors.Refused: User.cv: 'me.png' has the extension '.png', but its bytes are application/pdf
>>> run(rules, Attachment.upload(b"just text"), "User.cv")
Traceback (most recent call last):
sa_attachments.errors.Refused: User.cv: the file is text/plain, accepted are image/* and application/pdf

Traps
-----
``"image/*"`` does not let in SVG, ``"text/*"`` not HTML, and no pattern with ``*`` anything else that browsers run with
the rights of your pages: name such types in full, and serve them from another origin. ``Accept`` and
``MatchingExtension`` need the extra ``sniff``; without it no file is known by its bytes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from ..attachment import Attachment
from ..content import StoredSource
from ..errors import BadConfiguration, Refused
from ..filename import extension
from ..source import BytesSource
from .mediatype import UNKNOWN, canonical, extensions, is_active, is_kind_of, is_textual, of_filename
from .sniffing import HEAD, has_signature, require_signatures
from .steps import changed, upload_of

_ANYBODYS = {  # what formats of many makers and extensions are
    UNKNOWN,
    "application/gzip",
    "application/json",
    "application/vnd.sqlite3",
    "application/x-ole-storage",
    "application/xml",
    "application/zip",
    "text/plain",
}


@dataclass(frozen=True, slots=True)
class MaxSize:
    """At most ``limit_bytes`` bytes. Where the size is not known before, the bytes are counted while they stream."""

    limit_bytes: int

    def __post_init__(self) -> None:
        _check_size(self.limit_bytes)

    def __call__(self, attachment: Attachment, /) -> Attachment | None:
        body = upload_of(attachment)
        size = body.source.size()
        if size is not None and size > self.limit_bytes:
            raise self._refused(size, f"{size:,} bytes")
        if isinstance(body.source, BytesSource | StoredSource):
            return None
        # Other files can grow while they are read.
        return changed(attachment, guards=(*body.guards, self._guard))

    def _guard(self, size: int) -> None:
        if size > self.limit_bytes:
            raise self._refused(size, f"{size:,} bytes or more")

    def _refused(self, size: int, has: str) -> Refused:
        message = f"the file has {has}, allowed are {self.limit_bytes:,}"
        return Refused(message, rule="MaxSize", limit=self.limit_bytes, measured=size)


@dataclass(frozen=True, slots=True)
class MinSize:
    """At least ``limit_bytes`` bytes: ``MinSize(1)`` refuses empty files."""

    limit_bytes: int

    def __post_init__(self) -> None:
        _check_size(self.limit_bytes)

    def __call__(self, attachment: Attachment, /) -> None:
        source = upload_of(attachment).source
        size = source.size()
        if size is None and self.limit_bytes <= HEAD:
            size = len(source.head(self.limit_bytes))
        elif size is None:
            with attachment.open() as file:
                size = file.seek(0, io.SEEK_END)
        if size < self.limit_bytes:
            message = f"the file has {size:,} bytes, expected are at least {self.limit_bytes:,}"
            raise Refused(message, rule="MinSize", limit=self.limit_bytes, measured=size)


@dataclass(frozen=True, slots=True, init=False)
class Accept:
    """Only files that are of one of these types by their bytes: ``Accept("image/*", "application/pdf")``."""

    patterns: tuple[str, ...]

    def __init__(self, *patterns: str) -> None:
        """Raises MissingExtra without the extra ``sniff``, BadConfiguration for what is no type."""
        require_signatures("Accept")
        object.__setattr__(self, "patterns", tuple(_pattern(each) for each in patterns))
        if not patterns:
            raise BadConfiguration(
                "Accept() lets nothing in: give it types, as in Accept('image/*', 'application/pdf')"
            )

    def __call__(self, attachment: Attachment, /) -> None:
        found = attachment.content_type
        matches = any(each in self.patterns for each in ("*/*", found.partition("/")[0] + "/*"))
        if found in self.patterns or (matches and not is_active(found)):
            return
        message = f"the file is {found}, accepted are {' and '.join(self.patterns)}"
        if matches:
            message += f"; what browsers run has to be named in full, as {found!r}"
        raise Refused(message, rule="Accept", limit=self.patterns, measured=found)

    def __repr__(self) -> str:
        return f"Accept({', '.join(map(repr, self.patterns))})"

    def __reduce__(self) -> tuple[type[Accept], tuple[str, ...]]:
        return Accept, self.patterns


@dataclass(frozen=True, slots=True)
class MatchingExtension:
    """Only files whose extension fits their bytes: no ``photo.png`` that is a PDF. Names without extension pass."""

    def __post_init__(self) -> None:
        """Raises MissingExtra without the extra ``sniff``."""
        require_signatures("MatchingExtension")

    def __call__(self, attachment: Attachment, /) -> None:
        suffix, found = extension(attachment.filename), attachment.content_type
        if suffix and not _fits(of_filename(attachment.filename), found):
            message = f"{attachment.filename!r} has the extension {suffix!r}, but its bytes are {found}"
            limit = tuple(sorted(extensions(found)))
            raise Refused(message, rule="MatchingExtension", limit=limit, measured=suffix)


def _fits(meant: str | None, found: str) -> bool:
    """Whether a file whose extension stands for ``meant`` may be ``found``."""
    if meant is None:  # an extension that nobody knows, or that of a program, as in avatar.php
        return found in _ANYBODYS or not extensions(found)
    if found == "text/plain":
        return is_textual(meant) or is_active(meant) or not has_signature(meant)
    return meant in (found, UNKNOWN) or is_kind_of(found, meant) or is_kind_of(meant, found)


def _pattern(text: str) -> str:
    if not isinstance(text, str):
        raise BadConfiguration(f"Accept takes types, as Accept('image/*', 'application/pdf'), not {text!r}")
    kind, slash, rest = text.strip().lower().partition("/")
    if slash and rest == "*" and (kind == "*" or canonical(f"{kind}/x")):
        return f"{kind}/*"
    name = canonical(text)
    if name is None:
        raise BadConfiguration(f"Accept takes types, as 'image/*' or 'application/pdf', not {text!r}")
    return name


def _check_size(size: Any) -> None:
    if not isinstance(size, int | float) or size < 0:
        raise BadConfiguration(f"a size is a number of bytes from 0, as 5_000_000, not {size!r}")
