"""Birth: when a file of this machine was made. A copy has another one, even where it gets the number (inode) that the
file had; whoever moves a file, or writes into it, does not change it.

>>> import tempfile
>>> with tempfile.NamedTemporaryFile() as file:
...     born(Path(file.name)) == born(Path(file.name))
True

The file is not opened: a process that closes a file of SQLite a second time loses its locks.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_HERE = -100
"""AT_FDCWD: a relative path counts from the working directory."""
_BTIME = 0x800
"""STATX_BTIME, the bit that says that the time of birth is asked for, and known."""


def born(path: Path) -> str | None:
    """When a file was made, in a form of the system's own; None where the system or the file system does not tell."""
    known = getattr(path.stat(), "st_birthtime", None)  # macOS and the BSDs
    return _statx(path) if known is None else str(known)


def _statx(path: Path) -> str | None:
    """What Linux tells, see statx(2); Python asks for less."""
    statx = getattr(ctypes.CDLL(None), "statx", None)
    found = ctypes.create_string_buffer(256)
    if statx is None or statx(_HERE, os.fsencode(path), 0, _BTIME, found) != 0:
        return None
    known, seconds, nanoseconds = struct.unpack_from("=I76xqI", found)
    return f"{seconds}.{nanoseconds:09}" if known & _BTIME else None
