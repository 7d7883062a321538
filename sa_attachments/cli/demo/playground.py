"""Playground: a folder with an application of its own, in which the demo may commit, roll back and be killed.

It holds ``documents.py`` (the application, as it is run and shown), ``documents.db``, ``files/``, and a
``pyproject.toml``, so that ``sa-attachments`` works in there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from types import ModuleType
from typing import Any

from sqlalchemy import event

import sa_attachments
from sa_attachments.cli.failure import Failure

from .inventory import Inventory, on_disk, sha256, take

PATIENCE = 60
"""Seconds that the process which is to be killed may take until it has stored its file."""

_CONFIGURATION = """\
[tool.sa_attachments]
storages = "documents:files"
database = "sqlite:///documents.db"
"""


class Playground:
    """See the module. ``application`` is the module ``documents``, ``source`` its text."""

    def __init__(self, folder: Path) -> None:
        """Build it in an empty folder. Raises Failure where there is no local storage, as on Windows."""
        self.folder = folder.resolve()
        path = self.folder / "documents.py"
        self.source = Path(__file__).with_name("documents.py").read_text("utf-8")
        path.write_text(self.source, "utf-8")
        (self.folder / "pyproject.toml").write_text(_CONFIGURATION, "utf-8")
        self.application: Any = _run(path, self.source)
        self.application.Base.metadata.create_all(self.application.engine)

    @property
    def files(self) -> Path:
        """The folder of the storage."""
        return self.folder / "files"

    @property
    def database(self) -> Path:
        """SQLite's file."""
        return self.folder / "documents.db"

    def take_stock(self) -> Inventory:
        """What is there, when the application has finished cleaning."""
        self.application.files.settled(PATIENCE)
        return take(self.files, self.database)

    def sha256(self, key: str) -> str:
        """Of the bytes on disk."""
        return sha256(self.files / key)

    @contextmanager
    def watching(self, moment: str) -> Iterator[dict[str, str]]:
        """What appears on disk until just before the first engine event of that name, as ``rollback``: SHA-256 by
        key.
        """
        before = on_disk(self.files)
        appeared: dict[str, str] = {}

        def look(*_: object) -> None:
            appeared.update({key: self.sha256(key) for key in on_disk(self.files) if key not in before})

        event.listen(self.application.engine, moment, look, once=True)
        yield appeared

    def kill(self, source: Path) -> int:
        """Run ``be_killed`` in a process, and kill that when it has stored its file; returns how it ended.

        ``subprocess`` tells a signal by a negative number. RuntimeError if it did not come that far.
        """
        # Where we are imported from, it may import from: the working directory counts for nobody in there.
        paths = [str(Path(sa_attachments.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "documents.py", str(source)],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process, _limit(process):
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                stored = process.stdout.readline().strip() == b"stored"
                if not stored:
                    said = process.stderr.read().decode(errors="replace").strip().splitlines()
                    raise RuntimeError(f"the process stored nothing: {said[-1] if said else 'it said nothing'}")
            finally:
                process.kill()
            return process.wait()

    def close(self) -> None:
        """Let go of the database."""
        self.application.engine.dispose()


@contextmanager
def _limit(process: subprocess.Popen[bytes]) -> Iterator[None]:
    timer = Timer(PATIENCE, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _run(path: Path, source: str) -> ModuleType:
    """A module of its own for each playground, which leaves no bytecode in there."""
    module = ModuleType("documents")
    module.__file__ = str(path)
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    except ModuleNotFoundError as error:
        if error.name != "fcntl":
            raise
        raise Failure("the demo needs the storage 'local:', which works on Linux, macOS and other Unixes") from error
    return module
