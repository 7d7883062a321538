# ruff: noqa: PTH115
# Descriptors have no pathlib.
"""What a storage does to the disk, in order: the flushes and the publications."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest


class Journal:
    """Records ``fsync``, ``link``, ``unlink``, ``rmdir`` as ``flush file``, ``flush 2026/01``, ``link 2026/01/a``, …"""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.lines: list[str] = []
        fsync, link, unlink, rmdir = os.fsync, os.link, os.unlink, os.rmdir

        def record_fsync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            self.lines.append(f"flush {self._name(path) if is_folder else 'file'}")
            fsync(descriptor)

        def record_link(source: str, target: str, **options: object) -> None:
            link(source, target, **options)  # type: ignore[arg-type]
            self.lines.append(f"link {self._name(target)}")

        def record_unlink(path: str) -> None:
            unlink(path)
            self.lines.append(f"unlink {self._name(path)}")

        def record_rmdir(path: str) -> None:
            rmdir(path)
            self.lines.append(f"rmdir {self._name(path)}")

        monkeypatch.setattr(os, "fsync", record_fsync)
        monkeypatch.setattr(os, "link", record_link)
        monkeypatch.setattr(os, "unlink", record_unlink)
        monkeypatch.setattr(os, "rmdir", record_rmdir)

    def take(self) -> list[str]:
        """What happened since the last time."""
        lines, self.lines = self.lines, []
        return lines

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self.root)
