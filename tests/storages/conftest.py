"""Disks of their own for the tests: small, full, cut off. They need root; elsewhere their tests are left out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """``mount("-t", "tmpfs", "tmpfs")`` gives the folder; it is unmounted after the test."""
    if os.geteuid() != 0:
        pytest.skip("mounting a disk needs root")
    with ExitStack() as mounted:

        def mount(*arguments: str) -> Path:
            folder = tmp_path / f"disk-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            done = subprocess.run(["mount", *arguments, str(folder)], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"mount {' '.join(arguments)}: {done.stderr.strip()}")
            mounted.callback(subprocess.run, ["umount", str(folder)], check=True)
            return folder

        yield mount


@pytest.fixture
def tiny_disk(mount: Callable[..., Path]) -> Path:
    """A file system of 1 MiB."""
    return mount("-t", "tmpfs", "-o", "size=1m", "tmpfs")
