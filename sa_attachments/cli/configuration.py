"""Configuration: where a command finds the application, told by options, the environment, or ``pyproject.toml``.

The nearest ``pyproject.toml`` of the working directory and its parents that has this table counts:

    [tool.sa_attachments]
    storages = "myapp.files:files"         # the module, and the name of the Storages in it
    database = "postgresql+psycopg:///app" # SQLAlchemy's URL; better left to the environment if it holds a password
    import = ["myapp.models"]              # where the models are, if importing the storages doesn't import them

Options come first (``--storages``, ``--database``, ``--import``), then the environment (``SA_ATTACHMENTS_STORAGES``,
``SA_ATTACHMENTS_DATABASE``, ``SA_ATTACHMENTS_IMPORT``: modules separated by blanks), then the table.

>>> import tempfile
>>> with tempfile.TemporaryDirectory() as folder:
...     _ = Path(folder, "pyproject.toml").write_text('[tool.sa_attachments]\\nstorages = "myapp:files"')
...     Path(folder, "src").mkdir()
...     read(Path(folder, "src")).storages
'myapp:files'

Traps
-----
A relative path in the table's SQLite URL counts from the table's folder; in an option or the environment, and in the
application's own ``local:./files``, it counts from the working directory.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sa_attachments.errors import listing

from .failure import Failure

_KEYS = ("storages", "database", "import")


@dataclass(frozen=True, slots=True)
class Table:
    """What ``[tool.sa_attachments]`` says; ``folder`` is that of its file, None if there is none."""

    storages: str | None = None
    database: str | None = None
    imports: tuple[str, ...] = ()
    folder: Path | None = None


def read(start: Path) -> Table:
    """The nearest table, looked for from ``start`` upwards; an empty one if there is none. Raises Failure."""
    for folder in (start, *start.parents):
        path = folder / "pyproject.toml"
        try:
            document = tomllib.loads(path.read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise Failure(f"{str(path)!r} can't be read: {error}") from error
        tools = document.get("tool")
        if isinstance(tools, dict) and "sa_attachments" in tools:
            return _table(tools["sa_attachments"], path)
    return Table()


def _table(said: Any, path: Path) -> Table:
    where = f"{str(path)!r}, [tool.sa_attachments]"
    if not isinstance(said, Mapping):
        raise Failure(f"{where}: expected a table")
    if unknown := set(said) - set(_KEYS):
        raise Failure(f"{where}: no key {listing(unknown)}; there are {listing(_KEYS)}")
    for key in ("storages", "database"):
        if not isinstance(said.get(key, ""), str):
            raise Failure(f"{where}: {key} is {said[key]!r}, expected a text")
    imports = said.get("import", [])
    if isinstance(imports, str):
        imports = [imports]
    if not isinstance(imports, list) or not all(isinstance(name, str) for name in imports):
        raise Failure(f"{where}: import is {imports!r}, expected a list of module names")
    return Table(said.get("storages"), said.get("database"), tuple(imports), path.parent)
