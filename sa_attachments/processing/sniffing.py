"""Sniffing: what the first bytes of a file say it is.

>>> content_type(b"\\x89PNG\\r\\n\\x1a\\n\\0\\0\\0\\rIHDR", "cv.pdf", "application/pdf")
'image/png'
>>> content_type(b"a,b\\n1,2\\n", "table.csv"), content_type(b"<svg onload=...>", "table.csv", "text/csv")
('text/csv', 'image/svg+xml')
>>> content_type(b"", "empty.png")
'application/octet-stream'

The bytes decide. A name or a client's claim only makes their answer more specific, and never makes a file one that
browsers run:

- a known signature is the type; where it is that of a container, a claimed kind of it is taken, as DOCX of ZIP;
- markup is HTML, XHTML, SVG or XML by its own first tags;
- other text is what name or claim say if that is text that nothing runs, else ``text/plain``;
- of other bytes name or claim are believed only where the bytes could not have contradicted: for applications' own
  formats without a known signature, not for images, audio, video or fonts.

Signatures come from puremagic's table (extra ``sniff``). It holds many that are short, or plain words: those of less
than three telling bytes (five if they are not at the beginning) count only where name or claim agree, and in a file
that is all text only those of formats that begin with text. Without puremagic nothing contradicts, and name or claim
are believed unless browsers run such files.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import starmap
from typing import Any, NamedTuple

from ..errors import MissingExtra
from .mediatype import UNKNOWN, canonical, is_active, is_kind_of, is_textual, of_filename

HEAD = 8192
"""Bytes that sniffing looks at."""

# Signatures of these name the container only, whatever the table says of its contents.
_CONTAINERS = (
    "application/zip",
    "application/x-ole-storage",
    "application/ogg",
    "application/zstd",
    "video/x-matroska",
    "video/x-ms-asf",
)
# A signature needs as many telling bytes to be believed without anybody's word.
_TELLING, _TELLING_LATER = 3, 5

_BEGIN_WITH_TEXT = {"application/pdf", "application/postscript", "application/rtf", "image/gif"}
_TEXTS = ("text/", "message/", "multipart/")
_HAVE_SIGNATURES = ("image/", "audio/", "video/", "font/", *_TEXTS)

_CONTROLS = bytes([*range(0x09), 0x0B, *range(0x0E, 0x1B), *range(0x1C, 0x20)])  # WHATWG mimesniff: binary data bytes
_OURS = (b"<", codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # markup and text are known without the table

# What stands before the first tag; the first tag; and the tags by which WHATWG mimesniff knows HTML.
_PROLOG = re.compile(rb"<\?.*?\?>|<!--.*?-->|<!doctype\s[^\[>]*(?:\[.*?\]\s*)?>", re.IGNORECASE | re.DOTALL)
_DOCTYPE = re.compile(rb"<!doctype\s+([\w:]+)", re.IGNORECASE)
_TAG = re.compile(rb"<(?:[\w.-]+:)?([\w.-]+)[\s/>]")
_HTML = frozenset(b"html head script iframe h1 div font table a style title b body br p".split())

# Wrong in the table, by its extension and type; and what it lacks.
_WRONG = {
    (".jp2", "image/jpeg"): "image/jp2",
    (".fdf", "application/vnd.fdf"): "application/pdf",
    (".heif", "image/heif"): "image/heic",
    (".sys", "text/plain"): "",
    (".exe", UNKNOWN): "application/vnd.microsoft.portable-executable",
}
_MORE = [
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"\xff\xf2", "audio/mpeg"),
    (0, b"ttcf\x00", "font/collection"),
    (4, b"ftypmif1", "image/heif"),
    (4, b"ftypiso5", "video/mp4"),
    (4, b"ftypiso6", "video/mp4"),
    (4, b"ftypmp41", "video/mp4"),
]


_Place = tuple[int, bytes, tuple[int, bytes] | None]
"""Offset and bytes of a signature, and of the second part that some have."""


class _Signature(NamedTuple):
    offset: int
    part: bytes
    also: tuple[int, bytes] | None  # offset and bytes that must be there too
    telling: int  # bytes that are not zero: how hard they are to meet by chance
    wordy: bool  # nothing but printable characters
    names: frozenset[str]  # the types that it may be
    base: str | None  # the one that contains all of them

    def fits(self, head: bytes) -> bool:
        return head.startswith(self.part, self.offset) and (
            not self.also or head.startswith(self.also[1], self.also[0])
        )

    def among(self, wanted: Iterable[str]) -> str | None:
        """The first of ``wanted`` that files with this signature may be."""
        return next((name for name in wanted if any(is_kind_of(name, each) for each in self.names)), None)


class _Table(NamedTuple):
    strong: dict[bytes, list[_Signature]]  # at the beginning, by the two to four first bytes; the most telling first
    later: dict[int, dict[bytes, list[_Signature]]]  # the same by offset
    weak: dict[str, list[_Signature]]  # by the names that they agree with
    names: frozenset[str]

    def beginning_like(self, head: bytes) -> Iterable[_Signature]:
        return self.strong.get(head[:4]) or self.strong.get(head[:3]) or self.strong.get(head[:2]) or ()


def content_type(head: bytes, filename: str | None = None, claimed: str | None = None) -> str:
    """The type of a file that begins with ``head``: ``HEAD`` bytes, or all there are."""
    if not head:
        return UNKNOWN
    said = (of_filename(filename), canonical(claimed))
    wanted = [name for name in said if name and name != UNKNOWN]
    table = _table()
    return (
        _signed(table.beginning_like(head), head, wanted)
        or _markup(head, wanted)
        or _text(head, wanted)
        or _signed_later(table, head, wanted)
        or _weakly_signed(table, head, wanted)
        or _unsigned(table, wanted)
    )


def require_signatures(who: str) -> None:
    """Raises MissingExtra where no signatures are known."""
    if not _table().names:
        raise MissingExtra(f"{who} needs puremagic, to know files by their bytes: install sa-attachments[sniff]")


def _signed(signatures: Iterable[_Signature], head: bytes, wanted: list[str]) -> str | None:
    nameless = None
    for signature in signatures:
        if signature.fits(head):
            if signature.wordy and signature.base not in _BEGIN_WITH_TEXT and not _has_controls(head):
                continue
            base = signature.base
            if base == "application/zip":
                base = _declared(head) or base
            if base:
                return next((name for name in wanted if is_kind_of(name, base)), base)
            nameless = UNKNOWN
            if signature.names:
                return signature.among(wanted) or UNKNOWN
    return nameless


def _signed_later(table: _Table, head: bytes, wanted: list[str]) -> str | None:
    for offset, signatures in table.later.items():
        found = _signed(signatures.get(head[offset : offset + 4], ()), head, wanted)
        if found:
            return found
    if head[4:8] == b"ftyp":  # ISO 14496-12: the brands that it is compatible with follow the one it is of
        brands = table.later.get(4, {}).get(b"ftyp", ())
        for at in range(16, min(int.from_bytes(head[:4], "big"), 256), 4):
            found = _signed(brands, head[:8] + head[at : at + 4], wanted)
            if found:
                return found
    return None


def _weakly_signed(table: _Table, head: bytes, wanted: list[str]) -> str | None:
    return next((name for name in wanted if any(each.fits(head) for each in table.weak.get(name, ()))), None)


def _declared(head: bytes) -> str | None:
    """The type that ODF and EPUB put into a ZIP's first entry, uncompressed (OpenDocument 1.3 part 2, §3.3)."""
    if head[30:38] != b"mimetype":
        return None
    size = min(int.from_bytes(head[22:26], "little"), 128)
    name = canonical(head[38 : 38 + size].decode("latin-1"))
    return name if name and is_kind_of(name, "application/zip") else None


def _markup(head: bytes, wanted: list[str]) -> str | None:
    text = _unmarked(head)
    if not text.startswith(b"<"):
        return None
    declared = False
    while skipped := _PROLOG.match(text):
        declared |= text[:5].lower() == b"<?xml"
        if doctype := _DOCTYPE.match(text):
            name = doctype[1].lower()
            if name == b"svg":
                return "image/svg+xml"
            if name == b"html":
                return "application/xhtml+xml" if declared else "text/html"
        text = text[skipped.end() :].lstrip()
    root = _TAG.match(text)
    name = root[1].lower() if root else b""
    if name == b"svg":
        return "image/svg+xml"
    if declared:
        return "application/xhtml+xml" if name == b"html" else _xml(wanted) or "application/xml"
    if name in _HTML or text.startswith(b"<!--"):
        return "text/html"
    return _xml(wanted) if root else None


def _xml(wanted: list[str]) -> str | None:
    proved = ("image/svg+xml", "application/xhtml+xml")  # by their own tags, or not at all
    return next((name for name in wanted if is_kind_of(name, "application/xml") and name not in proved), None)


def _unmarked(head: bytes) -> bytes:
    """Without byte order mark and leading white space, as ASCII bytes if it was UTF-16."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        head = head.decode("utf-16", "ignore").encode()
    return head.removeprefix(codecs.BOM_UTF8).lstrip()


def _text(head: bytes, wanted: list[str]) -> str | None:
    is_text = _is_text(head)
    if is_text is False:
        return None
    textual = next((name for name in wanted if is_textual(name)), None)
    return textual or ("text/plain" if is_text else None)


def _is_text(head: bytes) -> bool | None:
    """None if it may be text in an encoding of old."""
    try:
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            text, _ = codecs.utf_16_decode(head, "strict", False)
            return not _has_controls(text.encode())
        if _has_controls(head):
            return False
        codecs.utf_8_decode(head, "strict", False)  # the last character may be cut off
    except UnicodeError:
        return None
    return True


def _has_controls(head: bytes) -> bool:
    return 0 in head or len(head.translate(None, _CONTROLS)) != len(head)


def _unsigned(table: _Table, wanted: list[str]) -> str:
    for name in wanted:
        if is_active(name) or is_textual(name):
            continue
        if not table.names or not has_signature(name):
            return name
    return UNKNOWN


@lru_cache(maxsize=256)
def has_signature(name: str) -> bool:
    """Whether files of a type are known by their bytes, or should be."""
    return name.startswith(_HAVE_SIGNATURES) or any(is_kind_of(name, each) for each in _table().names)


@lru_cache(maxsize=1)
def _table() -> _Table:
    rows: dict[_Place, set[str]] = {}
    for place, name in _rows():
        rows.setdefault(place, set()).add(name)
    table = _Table({}, {}, {}, frozenset(name for names in rows.values() for name in names if name))
    for signature in sorted(starmap(_signature, rows.items()), key=lambda each: (each.offset, -each.telling)):
        if signature.telling < (_TELLING_LATER if signature.offset else _TELLING):
            for name in signature.names:
                table.weak.setdefault(name, []).append(signature)
        else:
            places = table.later.setdefault(signature.offset, {}) if signature.offset else table.strong
            places.setdefault(signature.part[:4], []).append(signature)
    for start in sorted(table.strong, key=len):  # shorter ones may fit too, where a longer one does not
        shorter = start[: len(start) - 1]
        table.strong[start] += table.strong.get(shorter) or table.strong.get(shorter[:2]) or ()
    return table


def _signature(place: _Place, names: set[str]) -> _Signature:
    offset, part, also = place
    whole = part + also[1] if also else part
    named = frozenset(filter(None, names))
    base = next((name for name in sorted(named) if all(is_kind_of(each, name) for each in named)), None)
    wordy = whole.isascii() and not _has_controls(whole)
    return _Signature(offset, part, also, len(whole) - whole.count(0), wordy, named, base)


def _rows() -> Iterator[tuple[_Place, str]]:
    """All that puremagic's table and ours know; the type is "" where they have no name for it."""
    try:
        from puremagic.main import magic_header_array, multi_part_dict
    except ImportError:
        return
    for row in magic_header_array:
        # A box that is as long as that of some MP4 says nothing; the brand in it does, and has a row of its own.
        if row.byte_match.startswith(_OURS) or row.byte_match[4:8] == b"ftyp":
            continue
        name = _named(row)
        if name is not None:
            yield (row.offset, row.byte_match, None), name
        for part in multi_part_dict.get(row.byte_match, ()):
            name = _named(part)
            if name is not None and part.offset >= 0:
                yield (row.offset, row.byte_match, (part.offset, part.byte_match)), name
    for offset, match, name in _MORE:
        yield (offset, match, None), name


def _named(row: Any) -> str | None:
    """The type of a row of puremagic's; None if the row is of no use."""
    name = canonical(_WRONG.get((row.extension, row.mime_type), row.mime_type)) or UNKNOWN
    if is_textual(name) or is_kind_of(name, "application/xml") or name.startswith(_TEXTS):
        return None
    if name == UNKNOWN:
        # Plain words without a name say nothing.
        return None if row.byte_match.isascii() and not _has_controls(row.byte_match) else ""
    return next((container for container in _CONTAINERS if is_kind_of(name, container)), name)
