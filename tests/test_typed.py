"""The public API is typed: ``tests/typed/program.py`` passes mypy strict and pyright strict, and mistakes do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "typed" / "program.py"
CHECKERS = {
    "mypy": ["mypy", "--strict", "program.py"],
    "pyright": ["pyright", "--pythonpath", sys.executable, "program.py"],
}


def check(folder: Path, checker: str, program: str) -> str:
    (folder / "program.py").write_text(program)
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    command = [sys.executable, "-m", *CHECKERS[checker]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_nothing_is_wrong_with_the_program(checker: str, tmp_path: Path) -> None:
    assert check(tmp_path, checker, PROGRAM.read_text()) == ""


@pytest.mark.parametrize("checker", CHECKERS)
def test_mistakes_are_found(checker: str, tmp_path: Path) -> None:
    mistakes = [
        "def wrong(doc: Doc) -> None:",
        "    doc.file = None",
        "    doc.pages.append(Attachment.upload(b''))",
        "    doc.photo = Attachment.upload(b'')",
        "    doc.file.size = 1",
        "    AttachmentType(files, steps=[print, 1])",
    ]
    found = check(tmp_path, checker, PROGRAM.read_text() + "\n\n" + "\n".join(mistakes) + "\n")
    first = len(PROGRAM.read_text().splitlines()) + 4
    missed = [mistake for line, mistake in enumerate(mistakes[1:], first) if f"program.py:{line}:" not in found]
    assert not missed, found
