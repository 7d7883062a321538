"""Disk: a file system whose power can be cut.

::

    disk = Disk.make(tmp_path / "disk")
    (disk.folder / "a").write_text("hello")
    after = disk.cut(tmp_path / "after")         # what would have survived
    assert list(after.folder.iterdir()) == []    # for nothing was flushed

It is ext4 in an image on a loop device, mounted so that the kernel writes nothing back by itself for minutes. The
image, copied while it is mounted, is what the disk would have held at that moment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

SIZE = 16 << 20


def need_loop_devices() -> None:
    """Skip the test where file systems can't be mounted."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists() or shutil.which("mkfs.ext4") is None:
        pytest.skip("cutting the power of a disk needs root, loop devices and mkfs.ext4")


@dataclass
class Disk:
    """See the module. ``folder`` is where it is mounted."""

    image: Path
    folder: Path

    @classmethod
    def make(cls, place: Path) -> Self:
        """A new one, empty; its image and mount point are made beside ``place``."""
        image = place.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(SIZE)
        _run("mkfs.ext4", "-q", "-O", "^resize_inode", "-m", "0", str(image))
        disk = cls(image, place)
        disk.mount()
        shutil.rmtree(disk.folder / "lost+found")
        os.sync()
        return disk

    def cut(self, place: Path) -> Self:
        """The disk after a power cut at this moment: another one, that is mounted when it is asked for."""
        image = place.with_suffix(".img")
        _run("cp", "--sparse=always", str(self.image), str(image))
        return type(self)(image, place)

    def mount(self) -> Path:
        """Mount it; returns the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            _run("mount", "-t", "ext4", "-o", "loop,commit=300", str(self.image), str(self.folder))
        except RuntimeError as error:
            pytest.skip(f"cutting the power of a disk needs loop devices: {error}")
        return self.folder

    def flush(self) -> None:
        """Write back all of it, and of no other disk."""
        _run("sync", "-f", str(self.folder))

    def remove(self) -> None:
        """Unmount it and forget what was on it."""
        if self.folder.is_mount():
            _run("umount", str(self.folder))
        self.image.unlink()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
