"""Display names: what a client calls a file, cleaned so that it can be shown, sent in a header and saved under.

A filename is data and never a path: no part of it enters a key.

>>> clean("../../etc/passwd"), clean("a\\r\\nb\\x00.txt"), clean("CON.txt"), clean("  ")
('passwd', 'ab.txt', '_CON.txt', 'unnamed')
"""

from __future__ import annotations

import re
import unicodedata

from .errors import BadSource

MAX_BYTES = 255
"""The longest name that common file systems take, in UTF-8 bytes."""

_LOOKED_AT = 4096
"""Characters that are looked at: normalizing takes quadratic time where somebody wants it to."""

_JOINERS = "\u200c\u200d"
_INVISIBLE = f" {_JOINERS}"

_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])( *\..*)?", re.IGNORECASE)


def clean(name: str) -> str:
    """The last part of ``name`` without control characters, direction marks and lone surrogates: all is printable, but
    for the joiners inside of it that Persian is written with, and emoji are made of.

    It has at most 255 bytes, its extension kept. ``:`` becomes ``_``, as it would name a drive or a hidden stream on
    Windows; names that Windows reserves for devices get a leading underscore; nothing left is ``"unnamed"``.
    Raises BadSource for what is no text.
    """
    if not isinstance(name, str):
        raise BadSource(f"a filename is text, not {type(name).__name__}")
    name = name.replace("\\", "/").rsplit("/", 1)[-1]
    if len(name) > _LOOKED_AT:
        name = name[: _LOOKED_AT // 2] + name[-_LOOKED_AT // 2 :]
    if not name.isprintable():
        name = "".join(map(_printable, name))
    name = name.replace(":", "_")
    name = unicodedata.normalize("NFC", name).strip(_INVISIBLE).rstrip(f".{_INVISIBLE}")
    if not name:
        return "unnamed"
    if _RESERVED.fullmatch(name):
        name = f"_{name}"
    return name if len(name.encode()) <= MAX_BYTES else _shortened(name)


def extension(name: str | None) -> str:
    """The lower-case extension with its dot, or ``""``.

    >>> extension("a.tar.GZ"), extension(".bashrc"), extension(None)
    ('.gz', '', '')
    """
    stem, dot, suffix = (name or "").rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""


def _printable(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if unicodedata.category(character) == "Zs" else ""  # as before AM and PM in the names of screenshots


def _shortened(name: str) -> str:
    _, dot, suffix = name.rpartition(".")
    kept = f".{suffix}" if dot and len(suffix.encode()) < 32 else ""
    stem = name.encode()[: MAX_BYTES - len(kept.encode())].decode(errors="ignore")
    return stem + kept if kept else stem.rstrip(f".{_INVISIBLE}")
