"""Report: what an adoption, or its reverse, did, and which rows it left alone.

>>> report = AdoptionReport()
>>> report.note(Unadopted((7,), "missing", "a/b.png", "there is no file 'a/b.png'"))
>>> report.ok, dict(report.counts), report.unadopted[0].row
(False, {'missing': 1}, (7,))
>>> print(report)
0 rows, 0 files, 0 bytes; 1 row not adopted: 1 missing

The kinds of rows that can't be adopted:

``missing``     there is no file at that path or key
``outside``     the path leads out of its root, perhaps by a link, or to what a storage keeps there for itself
``empty``       the value is an empty text
``unreadable``  the value is not what the column should hold, or the file is no regular file or can't be opened
``shared``      another row names the same file
``name``        it can't be adopted in place: its name can't be a key, or a link lies on the way
``damaged``     the bytes are not those that the row describes
``changed``     on the way back: the old column says something else than what was adopted
``overtaken``   somebody kept changing the row, or held it all the time
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import AdoptionFailed

KEPT = 100
"""Rows that are kept in memory; the file of the report has all."""


@dataclass(frozen=True, slots=True)
class Unadopted:
    """A row that could not be adopted, or taken back; ``row`` is its primary key."""

    row: tuple[Any, ...]
    kind: str
    value: str
    """What the column holds, shortened if it is long."""
    message: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.message}"


@dataclass(slots=True)
class AdoptionReport:
    """What was done; ``size`` in bytes."""

    rows: int = 0
    """Rows that name attachments now, or, taken back, what they named before."""
    files: int = 0
    size: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Rows that could not be adopted, by kind."""
    unadopted: list[Unadopted] = field(default_factory=list)
    """The first hundred of them."""
    path: Path | None = None
    """The file that has all of them."""

    @property
    def ok(self) -> bool:
        """Whether nothing is left."""
        return not self.counts

    def note(
        self,
        unadopted: Unadopted,
        value: str | None = None,
        table: str = "",
        column: str = "",
        *,
        durable: bool = False,
    ) -> None:
        """Take note of a row; in the file too, with all of its ``value``, and durably if that is to be emptied."""
        self.counts[unadopted.kind] += 1
        if len(self.unadopted) < KEPT:
            self.unadopted.append(unadopted)
        if self.path is not None:
            line = {
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "table": table,
                "column": column,
                "row": [each if isinstance(each, int | str) else str(each) for each in unadopted.row],
                "kind": unadopted.kind,
                "value": unadopted.value if value is None else value,
                "message": unadopted.message,
            }
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                if durable:
                    file.flush()
                    os.fsync(file.fileno())

    def refuse(self, label: str, why: str, cure: str = "") -> AdoptionFailed:
        """The error that says which rows stand in the way, and what to do."""
        first = "; ".join(str(each) for each in self.unadopted[:3])
        more = f" and {self.counts.total() - 3:,} more" if self.counts.total() > 3 else ""
        rows = f": {first}{more}" if first else ""
        return AdoptionFailed(f"{label}: {why}{rows}{cure and f'; {cure}'}", report=self)

    def __str__(self) -> str:
        done = f"{counted(self.rows, 'row')}, {counted(self.files, 'file')}, {counted(self.size, 'byte')}"
        if self.ok:
            return done
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(self.counts.items()))
        return f"{done}; {counted(self.counts.total(), 'row')} not adopted: {kinds}"


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "row"), counted(1000, "row")
    ('1 row', '1,000 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
