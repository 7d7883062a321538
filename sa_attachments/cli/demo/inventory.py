"""Inventory: what lies on disk, what the ledger says and what the rows name, at one moment.

It is taken without the library: by walking the folder, and by SQLite itself.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARKER = ".sa-attachments-place"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the ledger. ``purge_after`` is in milliseconds since the epoch."""

    state: str
    owner: str | None
    purge_after: int | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """See the module; all by key, but ``rows``, which are by primary key and hold descriptors."""

    disk: dict[str, int]
    """Sizes in bytes."""
    lines: dict[str, Line]
    rows: dict[int, dict[str, Any]]
    names: dict[str, str]
    """Display names, of those files whose row, or whose dropped row, is known."""

    @property
    def named(self) -> list[str]:
        """The keys that rows name."""
        return [row["key"] for row in self.rows.values()]

    def states(self) -> dict[str, str]:
        """What the ledger calls each file."""
        return {key: line.state for key, line in self.lines.items()}

    def changed(self, before: Inventory | None) -> set[str]:
        """The keys of files that came, went, or changed their state or their row since then."""
        if before is None:
            return set()

        def facts(of: Inventory) -> set[tuple[str, object]]:
            named = {(row["key"], number) for number, row in of.rows.items()}
            return {*of.disk.items(), *of.lines.items(), *named}

        return {key for key, _ in facts(self) ^ facts(before)}


def take(folder: Path, database: Path) -> Inventory:
    """Take stock of a folder of files and of the database that they belong to."""
    with closing(sqlite3.connect(database)) as connection:
        rows = {number: json.loads(file) for number, file in connection.execute("SELECT id, file FROM documents")}
        lines, names = {}, {}
        for key, state, table, column, due, dropped in connection.execute(
            "SELECT key, state, owner_table, owner_column, purge_after, descriptor FROM attachment_ledger"
        ):
            lines[key] = Line(state, f"{table}.{column}" if table else None, due)
            if dropped:
                names[key] = json.loads(dropped)["filename"]
    names |= {row["key"]: row["filename"] for row in rows.values()}
    return Inventory(on_disk(folder), lines, rows, names)


def on_disk(folder: Path) -> dict[str, int]:
    """The files in a folder, by their paths inside it, and their sizes; without the marker of the place."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {key: path.stat().st_size for key, path in found.items() if key != MARKER}


def sha256(path: Path) -> str:
    """Of a file's bytes; ``"missing"`` if there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return "missing"
