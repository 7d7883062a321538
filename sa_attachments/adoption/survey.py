"""Survey: a look at all rows before anything is changed.

It refuses a column that can't be adopted, and, unless rows may be passed over, rows that can't be. ``pages`` and
``note`` serve whoever adopts them then, or takes them back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from ..descriptor import Facts, Named, named, parse, split
from ..errors import BadConfiguration
from ..offload import gather
from .columns import is_text
from .plan import Plan
from .report import AdoptionReport, Unadopted
from .rows import Adopted, Identity, Row, Rows
from .taking import Reader, Unadoptable
from .workplace import Workplace

R = TypeVar("R", Row, Adopted)

LOOK = 500
"""Rows that are looked at together."""


class Survey:
    """See the module."""

    def __init__(self, place: Workplace, rows: Rows, reader: Reader, report: AdoptionReport) -> None:
        self._place = place
        self._rows = rows
        self._reader = reader
        self._plan: Plan = rows.plan
        self._report = report

    def run(self) -> int:
        """Returns how many rows there are to adopt. Raises AdoptionFailed, UnknownStorage, BadConfiguration."""
        with self._place.begin() as connection:
            total = self._rows.count(connection)
        self._check_target()
        is_strict = self._plan.policy == "fail"
        after: Identity | None = None
        for page in pages(self._place, self._rows.page, LOOK):
            self._check_keys(page, after)
            after = page[-1].identity
            for outcome, row in zip(gather([partial(self._reader.look, row) for row in page], 8), page, strict=True):
                if isinstance(outcome.error, Unadoptable):
                    if is_strict:
                        note(self._report, self._plan, row, outcome.error)
                elif outcome.error is not None:
                    raise outcome.error
        if is_strict:
            self._check_doubles()
            if not self._report.ok:
                raise self._report.refuse(
                    self._plan.label,
                    "nothing was changed, since rows can't be adopted",
                    "mend them, or say by policy= (--policy) what becomes of them: 'skip' leaves them alone",
                )
        return total

    def _check_target(self) -> None:
        """Refuse a column that holds something that is not an attachment of ours, as another run's."""
        where = f"{self._plan.fullname}.{self._plan.into}"
        for page in pages(self._place, self._rows.adopted, LOOK):
            names: dict[Named, tuple[Identity, str]] = {}
            for identity, text, _ in page:
                items = items_of(text)
                if items is None:
                    raise BadConfiguration(
                        f"{where} is not empty: row {identity} holds {text[:60]!r}, which is no attachment"
                    )
                names.update((file, (identity, text)) for facts in items for file in named(facts))
            with self._place.begin() as connection:
                known = self._place.ledger.states(connection, names)
                unknown = {file: row for file, row in names.items() if file.name not in known}
                if unknown:  # perhaps a row gave it up since
                    says = self._rows.says(connection, [identity for identity, _ in unknown.values()])
                    unknown = {file: row for file, row in unknown.items() if says.get(row[0], ("",))[0] == row[1]}
            for file, (identity, _) in unknown.items():
                raise BadConfiguration(
                    f"{where} is not empty: row {identity} names {file.storage}:{file.key}, of which the ledger "
                    "of this database knows nothing"
                )

    def _check_keys(self, page: Sequence[Row], after: Identity | None) -> None:
        """Refuse keys that don't lead back to their rows: NULL and text that is no UTF-8, which SQLite takes, and
        numbers that are not exact.
        """
        with self._place.begin() as connection:
            for row in page:
                if not all(is_text(part) for part in row.identity if isinstance(part, str)):
                    raise self._astray(row.identity)
            if astray := self._rows.astray(connection, [row.identity for row in page]):
                # Deleted meanwhile, they are not there again.
                for row in self._rows.page(connection, after, LOOK):
                    if row.identity in astray:
                        raise self._astray(row.identity)

    def _astray(self, identity: Identity) -> BadConfiguration:
        return BadConfiguration(
            f"the primary key {identity} of table {self._plan.fullname!r} does not lead back to its row"
        )

    def _check_doubles(self) -> None:
        origin = self._plan.origin
        if getattr(origin, "mode", "copy") == "in_place" and getattr(origin, "fallback", None) is None:
            with self._place.begin() as connection:
                for value, number in self._rows.doubles(connection, 20):
                    problem = Unadoptable("shared", f"{number} rows name {value[:120]!r}: say fallback='copy'")
                    note(self._report, self._plan, Row(("...",), value), problem)


def pages(
    place: Workplace, read: Callable[[Connection, Identity | None, int], list[R]], size: int
) -> Iterator[list[R]]:
    """What ``Rows.page`` or ``Rows.adopted`` reads, so many rows at a time."""
    after: Identity | None = None
    while True:
        with place.begin() as connection:
            page = read(connection, after, size)
        if page:
            yield page
        if len(page) < size:
            return
        after = page[-1].identity


def note(report: AdoptionReport, plan: Plan, row: Row, problem: Unadoptable) -> None:
    """Tell of a row that can't be adopted; durably, if its column is going to be emptied."""
    value = row.value if row.value is not None else f"<{row.size} bytes>"
    noted = Unadopted(row.identity, problem.kind, value[:120], str(problem))
    report.note(noted, value, plan.fullname, plan.source, durable=plan.policy == "null")


def items_of(text: str) -> list[Facts] | None:
    """The descriptors that a column's text holds; None if it holds anything else."""
    if text.lstrip().startswith("["):
        found = split(text)
        return (
            None if any(isinstance(each, str) for each in found) else [each for each in found if isinstance(each, dict)]
        )
    facts = parse(text)
    return None if facts is None else [facts]
