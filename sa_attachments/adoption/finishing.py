"""Finishing: nothing else uses the adopted files any more; from now on they are purged when they are dropped.

Until then their lines are *held*: files that were dropped meanwhile lie where they are. ``hold`` is the way back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, null, or_, select, update

from ..chunks import lockable
from ..descriptor import Facts, Name, Named, named, named_by, variants_of
from ..errors import storage_errors
from .report import AdoptionReport, counted
from .rows import Rows
from .survey import LOOK, items_of, pages
from .workplace import Workplace


class Finishing:
    """The end of one adoption."""

    def __init__(self, place: Workplace, rows: Rows, report: AdoptionReport) -> None:
        self._place = place
        self._rows = rows
        self._report = report
        self._plan = rows.plan

    def finish(self) -> None:
        """Let go of the column's files, and delete what other libraries kept beside them."""
        with self._place.begin() as connection:
            first = self._rows.first(connection, 3)
            left = max(self._rows.count(connection) if first else 0, len(first))  # others may adopt meanwhile
        if first:
            why = f"{counted(left, 'row')} not adopted, adopt or empty {'it' if left == 1 else 'them'} first"
            which = "; ".join(f"row {key}" for key in first) + (f" and {left - 3:,} more" if left > 3 else "")
            raise self._report.refuse(self._plan.label, f"{why}: {which}")
        for items in self._adopted():
            clear(self._place, [(file.storage, key) for facts in items for file, key in beside(facts)])
        lines = self._place.ledger.lines
        c = lines.c
        with self._place.begin() as connection:
            mine = and_(self._place.column_of(connection, self._plan), c.held.is_(True))
        after = ("", "")
        while True:
            later = or_(c.key > after[0], and_(c.key == after[0], c.storage > after[1]))
            statement = select(c.storage, c.key, c.size, c.descriptor).where(mine, later).order_by(c.key, c.storage)
            with self._place.begin() as connection:
                found = connection.execute(statement.limit(LOOK)).all()
            if not found:
                break
            clear(self._place, [(row.storage, key) for row in found for key in noted_beside(row.descriptor)])
            self._let_go([Named(row.storage, row.key, row.size or 0) for row in found])
            after = found[-1].key, found[-1].storage
        rows = self._report.rows
        for items in self._adopted():  # lines may know table and column by names that they had before
            with self._place.begin() as connection:
                held = self._place.held(connection, [file for facts in items for file in named(facts)])
            self._let_go(held)
        self._report.rows = rows

    def _let_go(self, files: Sequence[Named]) -> None:
        lines = self._place.ledger.lines
        with self._place.begin() as connection:
            self._place.ledger.begin_write(connection)
            for chunk in lockable(connection, files):
                among = self._place.ledger.among(chunk)
                connection.execute(update(lines).where(among).values(held=False))
                forgetful = and_(among, lines.c.owner_pk.is_(None))
                connection.execute(update(lines).where(forgetful).values(descriptor=null()))
        self._report.files += len(files)
        self._report.size += sum(file.size for file in files)

    def hold(self) -> None:
        """Hold the adopted files again, those that rows name."""
        for items in self._adopted():
            files = [file for facts in items if _lay_there(facts) for file in named(facts)]
            with self._place.begin() as connection:
                self._place.ledger.begin_write(connection)
                self._place.hold(connection, files)
            self._report.files += len(files)
            self._report.size += sum(file.size for file in files)

    def _adopted(self) -> Iterator[list[Facts]]:
        for page in pages(self._place, self._rows.adopted, LOOK):
            self._report.rows += len(page)
            yield [facts for _, text, _ in page for facts in items_of(text) or []]


def clear(place: Workplace, files: Sequence[Name]) -> None:
    """Delete what lies beside files, but in a place of another database."""
    mine = [name for name in {name for name, _ in files} if place.problem(name) is None]
    for name in mine:
        with storage_errors(name, "delete"):
            place.files.resolve(name).delete([key for other, key in files if other == name])


def beside(facts: Facts) -> Iterator[tuple[Named, str]]:
    """The keys of what another library kept beside the files of an attachment.

    >>> facts = {"storage": "s", "key": "7/file", "size": 1, "adopted": {"beside": ["7/metadata.json"]}}
    >>> [key for file, key in beside(facts)]
    ['7/metadata.json']
    """
    for each in (facts, *variants_of(facts).values()):
        if "key" in each:
            yield from ((named_by(each, facts), key) for key in noted_beside(each))


def _lay_there(facts: Facts) -> bool:
    """Whether it was adopted from a path, or another library, and not from bytes."""
    adopted = facts.get("adopted")
    return isinstance(adopted, Mapping) and not adopted.keys() <= {"row"}


def noted_beside(said: Any) -> list[str]:
    """The keys of what lies beside one file, as its line or its descriptor notes them."""
    adopted = said.get("adopted") if isinstance(said, Mapping) else None
    keys = adopted.get("beside") if isinstance(adopted, Mapping) else None
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
