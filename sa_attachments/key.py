"""Keys: opaque names of files inside a storage, unique, ordered by time, never reused.

A key is ``YYYY/MM/DD/HH/<uuid7>``, the UTC hour of the UUID's own time. It contains nothing that a user sent.

>>> key = mint(now=1_700_000_000_123)
>>> key[:13], is_key(key), moment(key)
('2023/11/14/22', True, 1700000000123)
>>> floor(1_700_000_000_123) <= key < floor(1_700_000_000_124)
True

Storages take keys of other forms, too, see ``sa_attachments.storages``: ``well_formed`` tells.
"""

from __future__ import annotations

import os
import re
import time
from functools import lru_cache

_FORM = re.compile(
    r"\d{4}/\d{2}/\d{2}/\d{2}/([0-9a-f]{8}-[0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)

# Printable ASCII but / and \, which is a slash to some systems. Possessive: each row that is touched comes by here.
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[ -.0-\[\]-~]{1,255}+"
_ANY_FORM = re.compile(f"{_SEGMENT}(?:/{_SEGMENT})*+", re.ASCII)


def mint(now: int | None = None) -> str:
    """A fresh key for the time ``now`` (milliseconds since the epoch; default: this machine's clock).

    The UUID is version 7 of RFC 9562; its 74 random bits come from the kernel, so that forked processes never agree.
    """
    ms = time.time_ns() // 1_000_000 if now is None else now
    random = int.from_bytes(os.urandom(10), "big")
    value = (ms << 80) | 0x7 << 76 | (random >> 68) << 64 | 0b10 << 62 | random & 0x3FFF_FFFF_FFFF_FFFF
    hour, digits = _hour(ms // 3_600_000), f"{value:032x}"
    return f"{hour}/{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def well_formed(text: str) -> bool:
    """Whether ``text`` can be a key at all."""
    return _ANY_FORM.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether ``text`` has the form that ``mint`` gives, its folders agreeing with its UUID's time."""
    return minted(text) is not None


def moment(key: str) -> int:
    """When ``key`` was minted, in milliseconds since the epoch; ValueError if it is not of our form."""
    ms = minted(key)
    if ms is None:
        raise ValueError(f"{key!r} is not a key of the form YYYY/MM/DD/HH/<uuid7>")
    return ms


def floor(ms: int) -> str:
    """A text that sorts at or before every key minted at ``ms`` or later, and after all earlier ones."""
    digits = f"{max(ms, 0):012x}"
    return f"{_hour(max(ms, 0) // 3_600_000)}/{digits[:8]}-{digits[8:]}-7"


def minted(text: str) -> int | None:
    """``moment``, but None if it is not of our form."""
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    ms = int(match[1].replace("-", ""), 16)
    return ms if text.startswith(f"{_hour(ms // 3_600_000)}/") else None


@lru_cache(maxsize=64)
def _hour(hours: int) -> str:
    return time.strftime("%Y/%m/%d/%H", time.gmtime(hours * 3600))
