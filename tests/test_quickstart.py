"""The quickstarts of the README: they are short, and they run. ``test_typed`` has them checked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
NAMES = ["app.py", "main.py"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new project with the two programs in it."""
    folder = tmp_path_factory.mktemp("quickstart")
    write_quickstarts(folder)
    return folder


def write_quickstarts(folder: Path) -> list[str]:
    """The two programs, as files; returns their names."""
    for name, program in zip(NAMES, programs(), strict=True):
        (folder / name).write_text(program)
    return NAMES


def programs() -> list[str]:
    quickstart = README.read_text().partition("## Quickstart")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", quickstart, re.DOTALL)


def run(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("program", programs(), ids=NAMES)
def test_has_at_most_15_lines(program: str) -> None:
    assert len([line for line in program.splitlines() if line.strip()]) <= 15


def test_runs(folder: Path) -> None:
    run(folder, "app.py")
    assert run(folder, "main.py") == "hello.txt 6 b'Hello!'\n"
    files = [path for path in (folder / "files").rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert [path.read_bytes() for path in files] == [b"Hello!", b"Hello!"]
