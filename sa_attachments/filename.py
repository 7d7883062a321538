"""Display names: what a client calls a file, cleaned so that it can be shown, sent in a header and saved under.

A filename is data and never a path: no part of it enters a key.

>>> clean("../../etc/passwd"), clean("a\\r\\nb\\x00.txt"), clean("CON.txt"), clean("  ")
('passwd', 'ab.txt', '_CON.txt', 'unnamed')
"""

from __future__ import annotations

import re
import unicodedata

MAX_BYTES = 255
"""The longest name that common file systems take, in UTF-8 bytes."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def clean(name: str) -> str:
    """The last part of ``name`` without control characters, direction marks and lone surrogates.

    It has at most 255 bytes, its extension kept. Names that Windows reserves for devices get a leading underscore;
    nothing left is ``"unnamed"``.
    """
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    name = unicodedata.normalize("NFC", name)
    name = "".join(c for c in name if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    name = name.strip().rstrip(". ")
    if not name:
        return "unnamed"
    if _RESERVED.fullmatch(name):
        name = f"_{name}"
    return _shorten(name)


def extension(name: str | None) -> str:
    """The lower-case extension with its dot, or ``""``.

    >>> extension("a.tar.GZ"), extension(".bashrc"), extension(None)
    ('.gz', '', '')
    """
    stem, dot, suffix = (name or "").rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def _shorten(name: str) -> str:
    if len(name.encode()) <= MAX_BYTES:
        return name
    suffix = extension(name)
    if not 1 < len(suffix.encode()) <= 32:
        suffix = ""
    kept = name[len(name) - len(suffix) :]
    return name.encode()[: MAX_BYTES - len(suffix.encode())].decode(errors="ignore") + kept
