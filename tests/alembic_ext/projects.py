"""A copy of the project folder, whose migrations are run as a user runs them."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from multiprocessing import get_context
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from textwrap import indent

import alembic.command  # noqa: F401
import mako.runtime
import mako.template  # noqa: F401
from sqlalchemy import Engine
from sqlalchemy.exc import SAWarning

FOLDER = Path(__file__).parent / "project"


class Project:
    def __init__(self, folder: Path, engine: Engine) -> None:
        self.folder = folder
        self.engine = engine
        self.url = engine.url.render_as_string(hide_password=False)
        shutil.copytree(FOLDER, folder)
        (folder / "migrations" / "versions").mkdir(exist_ok=True)

    def alembic(self, *arguments: str) -> str:
        """``alembic ...`` in the folder; returns what it prints, and raises AssertionError if it fails."""
        code, printed = self.try_alembic(*arguments)
        assert code == 0, printed
        return printed

    def try_alembic(self, *arguments: str) -> tuple[int, str]:
        """``(exit code, what it prints)``; in a process that has all modules already, so that it takes no second."""
        context = get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_alembic, args=(self.folder, self.url, arguments, theirs))
        process.start()
        theirs.close()
        try:
            code, printed = ours.recv()
        except EOFError:
            code, printed = 1, "it died"
        process.join()
        return code, printed

    def shell(self, *arguments: str) -> str:
        """``alembic ...`` as a program of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=self.folder,
            env={**os.environ, "DATABASE_URL": self.url},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def edit(self, old: str, new: str, file: str = "models.py") -> None:
        """Change the application."""
        path = self.folder / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def autogenerate(self) -> str:
        """The text of a new migration."""
        before = set(self.versions())
        self.alembic("revision", "--autogenerate", "-m", "change")
        (new,) = set(self.versions()) - before
        return new.read_text()

    def write(self, upgrade: str, downgrade: str = "pass") -> None:
        """A migration that somebody wrote."""
        before = set(self.versions())
        self.alembic("revision", "-m", "by hand")
        (new,) = set(self.versions()) - before
        text = new.read_text()
        for name, body in (("upgrade", upgrade), ("downgrade", downgrade)):
            text = re.sub(rf"(def {name}\(\) -> None:\n)    pass", rf"\1{indent(body, '    ')}", text)
        new.write_text(text)

    def versions(self) -> list[Path]:
        return sorted((self.folder / "migrations" / "versions").glob("*.py"), key=lambda path: path.stat().st_mtime_ns)

    def revisions(self) -> list[str]:
        """In the order in which they were made."""
        return [path.stem.partition("_")[0] for path in self.versions()]


def _alembic(folder: Path, url: str, arguments: tuple[str, ...], pipe: Pipe) -> None:
    os.environ["DATABASE_URL"] = url
    os.chdir(folder)
    output = StringIO()
    code = 0
    # Of indexes that the operation made.
    warnings.filterwarnings("ignore", "Skipped unsupported reflection of expression-based index", SAWarning)
    with redirect_stdout(output), redirect_stderr(output):
        sys.modules.pop("alembic.config", None)  # It prints where it printed when it was imported.
        main = importlib.import_module("alembic.config").main
        try:
            main(argv=list(arguments))
        except SystemExit as error:
            code = int(error.code or 0)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is printed
            code = 1
            print(f"{type(error).__name__}: {error}")
    pipe.send((code, output.getvalue()))
    pipe.close()
