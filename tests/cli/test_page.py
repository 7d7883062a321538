"""The transcripts of docs/cli.md are true: each command is run as it stands there, and says what stands there."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from sa_attachments.cli.program import program as commands

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Said(NamedTuple):
    command: str
    output: str


def transcripts(page: str) -> list[Said]:
    """The commands in its ``console`` blocks, and what they print."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", "".join(blocks), re.MULTILINE)
    return [Said(*each) for each in found]


class Shell:
    """Runs commands one after the other: it knows ``cd`` and ``$?``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exit_code = 0
        programs = folder / "bin"
        programs.mkdir()
        program = programs / "sa-attachments"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m sa_attachments.cli "$@"\n')
        program.chmod(0o755)
        self.environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONUTF8": "1"}

    def run(self, command: str) -> str:
        if command.startswith("cd "):
            self.folder /= command.removeprefix("cd ")
            return ""
        command = command.replace("$?", str(self.exit_code))
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        self.exit_code = done.returncode
        return done.stdout


@pytest.mark.timeout(400)  # some twenty processes
def test_transcripts_are_true(tmp_path: Path) -> None:
    shell, checker = Shell(tmp_path), doctest.OutputChecker()
    said = transcripts(PAGE.read_text("utf-8"))
    assert len(said) > 10
    for command, expected in said:
        output = shell.run(command)
        if not checker.check_output(expected, output, FLAGS):
            pytest.fail(f"$ {command}\n" + checker.output_difference(doctest.Example("", expected), output, FLAGS))


def test_explains_all_options() -> None:
    page = PAGE.read_text("utf-8")
    for name, command in commands.commands.items():
        assert f"## `sa-attachments {name}" in page
        for parameter in command.params:
            for option in parameter.opts:
                assert not option.startswith("--") or f"`{option}" in page, f"{name} {option}"


def test_reads_transcripts() -> None:
    page = "```console\n$ a\n1\n\n2\n$ b\n```\n```python\n$ c\n```\n```console\n$ d\n3\n```\n"
    assert transcripts(page) == [Said("a", "1\n\n2\n"), Said("b", ""), Said("d", "3\n")]
