"""The public API is typed: ``tests/typed/program.py`` passes mypy strict and pyright strict, and so do the quickstarts
of the README and the views of the page on serving; mistakes do not. Most of the seconds that a checker takes are those
for SQLAlchemy: it is asked once.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_quickstart import write_quickstarts
from tests.test_serving_page import write_views

PROGRAM = Path(__file__).parent / "typed" / "program.py"
STUBS = Path(__file__).parent / "typed" / "stubs"
"""Of Pyramid and WebOb, which have no types of their own, what the page on serving calls."""
CHECKERS = {
    "mypy": ["mypy", "--strict", "--cache-dir", os.devnull],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}


MISTAKES = [
    "def wrong(doc: Doc) -> None:",
    "    doc.file = None",
    "    doc.pages.append(Attachment.upload(b''))",
    "    doc.photo = Attachment.upload(b'')",
    "    doc.file.size = 1",
    "    AttachmentType(files, steps=[print, 1])",
]


@pytest.mark.timeout(300)  # a minute where nothing else runs
@pytest.mark.parametrize("checker", CHECKERS)
def test_nothing_is_wrong_but_for_mistakes(checker: str, tmp_path: Path) -> None:
    program = PROGRAM.read_text()
    (tmp_path / "program.py").write_text(program)
    (tmp_path / "mistaken.py").write_text(program + "\n\n" + "\n".join(MISTAKES) + "\n")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "stubPath": str(STUBS)}))
    names = ["program.py", "mistaken.py", *write_quickstarts(tmp_path), *write_views(tmp_path)]
    command = [sys.executable, "-m", *CHECKERS[checker], *names]
    environment = os.environ | {"MYPYPATH": str(STUBS)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, env=environment)
    said = done.stdout + done.stderr
    found = {(name, int(line)) for name, line in re.findall(r"(\w+\.py):(\d+):.*?error", said)}
    first = len(program.splitlines()) + 4
    expected = {("mistaken.py", line) for line in range(first, first + len(MISTAKES) - 1)}
    assert found == expected, said
    assert done.returncode == 1, said
