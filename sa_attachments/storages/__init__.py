"""Storages: the registry that names them, and one module per backend.

What all of them promise is written in ``sa_attachments.storage``; this page adds what keys look like. Any
``/``-separated printable ASCII will do, as long as it can't be mistaken for a way through folders:

>>> checked("2026/01/01/00/a"), checked("old files/a.b")
('2026/01/01/00/a', 'old files/a.b')
>>> checked("../a")
Traceback (most recent call last):
ValueError: '../a' is not a key: expected segments of printable ASCII between slashes, none of them empty, '.' or '..'

A key with a segment that begins with a dot is *hidden*: the plain verbs take it, ``keys()`` leaves it out.

>>> hidden(".sa-attachments-place"), hidden("a/.b/c"), hidden("a.b/c.d")
(True, True, False)
"""

from __future__ import annotations

from sa_attachments.key import well_formed

from .url import StorageURL

__all__ = ["StorageURL", "checked", "hidden", "well_formed"]

UNFINISHED = ".unfinished"
"""The folder of files that ``local:`` is still writing, where the file system can't do without a name."""


def checked(key: str) -> str:
    """The key itself; ValueError if it is none."""
    if not well_formed(key):
        expected = "expected segments of printable ASCII between slashes, none of them empty, '.' or '..'"
        raise ValueError(f"{key[:300]!r} is not a key: {expected}")
    return key


def hidden(key: str) -> bool:
    """Whether listings leave this key out."""
    return key.startswith(".") or "/." in key
