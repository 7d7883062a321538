"""Adopting: give the files that a column holds to a column of attachments, batch by batch.

First a survey, which changes nothing: table and columns, the storages, what the new column holds already, and, unless
rows may be passed over, a look at each row. Then each batch goes through three steps, with no transaction open while
files are read and written:

1. the rows are read, by primary key, and their files stored, or read where they are, in parallel, with their SHA-256;
2. in one transaction, the rows are locked and read again; those that are as they were get their descriptor, and the
   ledger the lines of their files;
3. copies that no row took are deleted again.

So it can be killed at any moment and begun again: rows that are done are passed over, and copies without a row are
strangers to the next sweep. Rows that somebody holds or changes are tried again at the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, IntegrityError

from ..descriptor import Facts, Named, named
from ..errors import BadConfiguration, OwnershipLost
from ..ledger import Line
from ..moving import Progress
from ..offload import gather
from ..patience import is_perhaps_committed
from ..queries import CONDEMNED
from ..recovery import discard
from ..rows import PAGE, tried_again
from ..source import BytesSource, PathSource
from .passes import passes
from .plan import Plan
from .report import AdoptionReport
from .rows import Held, Identity, Row, Rows
from .spot import Spot, spot_of
from .survey import Survey, items_of, note, pages
from .taking import File, Made, Reader, Unadoptable, noted, refused
from .workplace import Workplace

MEMORY = 8 * 1024 * 1024
"""Bytes of blobs that are in memory at a time; larger ones go by a temporary file."""


class Adopting:
    """One adoption; see the module."""

    def __init__(
        self, place: Workplace, rows: Rows, reader: Reader, report: AdoptionReport, progress: Progress
    ) -> None:
        self._place = place
        self._rows = rows
        self._reader = reader
        self._plan: Plan = rows.plan
        self._where = f"{rows.plan.fullname}.{rows.plan.into}"
        self._report = report
        self._progress = progress
        self._total = 0
        self._left_alone: set[Identity] = set()

    def run(self) -> None:
        """Adopt all rows. Raises AdoptionFailed, UnknownStorage, BadConfiguration, StorageFailed."""
        self._total = Survey(self._place, self._rows, self._reader, self._report).run()
        with self._place.begin() as connection:
            for name in sorted(self._reader.storages()):
                self._place.files.meet(self._place.ledger, connection, name)
        for _ in passes(self._report, self._plan.label, self._left):
            self._pass()

    def _left(self) -> int:
        """How many rows are still to be adopted, but those that were reported."""
        with self._place.begin() as connection:
            return self._rows.count(connection) - len(self._left_alone)

    def _pass(self) -> None:
        left: list[Row] = []
        for page in pages(self._place, self._rows.page, PAGE):
            rows = [row for row in page if row.identity not in self._left_alone]
            left += self._adopt(rows)
            self._progress(len(rows), self._total)
        for row in tried_again(left, lambda rows: self._adopt(self._again(rows))):
            self._refuse(row, Unadoptable("overtaken", "somebody held or changed it all the time"))

    # One page

    def _again(self, rows: Sequence[Row]) -> list[Row]:
        with self._place.begin() as connection:
            return self._rows.again(connection, [row.identity for row in rows])

    def _adopt(self, page: Sequence[Row], copying: bool = False) -> list[Row]:
        """Returns the rows that are to be tried again."""
        left: list[Row] = []
        if not self._rows.binary:
            return self._take(page, copying)
        for group in grouped(page, MEMORY):
            with ExitStack() as stack:
                gone = self._read(group, stack)
                left += gone + self._take([row for row in group if row not in gone], copying)
            for row in group:
                row.source = None
        return left

    def _read(self, group: Sequence[Row], stack: ExitStack) -> list[Row]:
        """Read blobs: all of a group at once, or one that is large into a temporary file; returns rows that have none
        any more.
        """
        with self._place.begin() as connection:
            if len(group) == 1 and group[0].size > MEMORY:
                path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sa-attachments-"))) / "blob"
                with path.open("xb") as file:
                    for part in self._rows.slices(connection, group[0].identity):
                        if isinstance(part, str):
                            break
                        file.write(part)
                    else:
                        group[0].source = PathSource(path)
                        return []
            values = self._rows.blobs(connection, [row.identity for row in group])
        for row in group:
            value = values.get(row.identity)
            if isinstance(value, bytes | bytearray | memoryview):
                row.source = BytesSource(value)
            elif value is not None:
                row.value = str(value)  # for the report
        return [row for row in group if values.get(row.identity) is None]

    def _take(self, rows: Sequence[Row], copying: bool) -> list[Row]:
        outcomes = gather([partial(self._reader.make, row, copying) for row in rows], self._parallel())
        made = [outcome.value for outcome in outcomes if outcome.value is not None]
        left: list[Row] = []
        broken = [each.error for each in outcomes if each.error and not isinstance(each.error, Unadoptable)]
        try:
            if broken:
                raise broken[0]
            for row, outcome in zip(rows, outcomes, strict=True):
                if isinstance(outcome.error, Unadoptable) and outcome.error.kind == "overtaken":
                    left.append(row)
                elif isinstance(outcome.error, Unadoptable):
                    left += self._refuse(row, outcome.error)
        except BaseException:
            self._discard(*made)
            raise
        return left + self._switch(made)  # from here on, only it knows which copies a row took

    def _parallel(self) -> int:
        resolve = self._place.files.resolve
        return max([resolve(name).parallel for name in self._reader.storages()], default=8)

    # One transaction

    def _switch(self, made: list[Made]) -> list[Row]:
        """Let the rows name their files, where they still hold what was read; returns those to be tried again."""
        if not made:
            return []
        try:
            with self._place.begin() as connection:
                verdicts = self._write(connection, made)
        except BadConfiguration:
            self._discard(*made)
            raise
        except (DBAPIError, OwnershipLost, Unadoptable) as error:
            if is_perhaps_committed(error):
                raise  # Perhaps it was committed: copies that no row took are left to the sweep.
            if len(made) > 1:
                return [left for each in made for left in self._switch([each])]
            self._discard(*made)
            if isinstance(error, OwnershipLost) or self._is_taken_meanwhile(error):
                return [made[0].row]
            refusal = refused(error, self._where)
            return [made[0].row] if refusal is None else self._refuse(made[0].row, refusal)
        left, shared = [], []
        for each, verdict in zip(made, verdicts, strict=True):
            if verdict == "taken":
                self._report.rows += 1
                self._report.files += len(each.files)
                self._report.size += sum(file.named.size for file in each.files)
                continue
            self._discard(each)
            if verdict == "again":
                left.append(each.row)
            elif verdict == "shared":
                shared.append(each.row)
        return left + self._share(shared)

    def _is_taken_meanwhile(self, error: DBAPIError | Unadoptable) -> bool:
        """Whether another run has just given the file to another row."""
        # MariaDB's message does not name the table.
        return isinstance(error, IntegrityError) and self._place.ledger.lines.name in str(error.statement)

    def _share(self, rows: list[Row]) -> list[Row]:
        """Rows that name a file that another one owns get a copy of it, if that is wanted."""
        if rows and getattr(self._plan.origin, "fallback", None) == "copy":
            return self._take(rows, copying=True)
        problem = "another row names {!r}: say fallback='copy'"
        return [left for row in rows for left in self._refuse(row, Unadoptable("shared", problem.format(row.value)))]

    def _write(self, connection: Connection, made: Sequence[Made]) -> list[str]:
        """Tells of each: ``taken``; ``again``, as somebody held or changed it; ``shared``; or ``gone``."""
        place = self._place
        place.ledger.begin_write(connection)
        held, there = self._rows.lock(connection, [each.row.identity for each in made])
        owned = self._owned(connection, [file.named for each in made for file in each.files if not file.fresh])
        verdicts: list[str] = []
        taken: list[Made] = []
        for each in made:
            verdict = self._verdict(each, held, there, owned)
            verdicts.append(verdict)
            if verdict == "taken":
                taken.append(each)
                owned.update(self._spots(each))
        files = [file for each in taken for file in each.files]
        fresh = [self._line(file) for file in files if file.fresh]
        if fresh:
            place.ledger.own(connection, fresh, place.files.own_within)
            place.hold(connection, [file.named for file in files if file.fresh and file.held])
        if lines := [(self._line(file), list(file.beside)) for file in files if not file.fresh]:
            place.adopt(connection, lines)
        if taken:
            self._rows.name(connection, {each.row.identity: noted(each) for each in taken})
            self._prove(connection, taken)
        return verdicts

    def _owned(self, connection: Connection, files: Sequence[Named]) -> set[Spot]:
        """Where those of these files lie that a row has already, or had by another storage's name: one's folder may
        lie in the other's.
        """
        names = {self._spot(file): file.name for file in files}
        found = self._place.at(connection, names)
        return {
            spot
            for spot, lines in found.items()
            if any(line.state != CONDEMNED or line[:2] != names[spot] for line in lines)
        }

    def _spots(self, made: Made) -> list[Spot]:
        return [self._spot(file.named) for file in made.files if not file.fresh]

    def _spot(self, file: Named) -> Spot:
        return spot_of(file.storage, self._place.files.resolve(file.storage), file.key)

    def _prove(self, connection: Connection, taken: Sequence[Made]) -> None:
        """See that rows name their files: what a trigger of somebody's, or a database that cuts, made of it."""
        says = self._rows.says(connection, [each.row.identity for each in taken])
        for each in taken:
            items = items_of(says.get(each.row.identity, ("",))[0] or "") or []
            given = each.value if isinstance(each.value, list) else [each.value]
            if _files(items) != _files(given):
                raise Unadoptable("unreadable", f"{self._where} does not keep what it is given")

    def _verdict(self, made: Made, held: Mapping[Identity, Held], there: set[Identity], owned: set[Spot]) -> str:
        found = held.get(made.row.identity)
        if found is None:
            return "again" if made.row.identity in there else "gone"
        if found.into not in (None, "null", "[]"):
            return "gone"  # the application stored something meanwhile, or another run adopted it
        if found.token != made.token:
            return "again"
        mine = self._spots(made)
        return "shared" if owned.intersection(mine) or len(set(mine)) < len(mine) else "taken"

    def _line(self, file: File) -> Line:
        return Line(file.named, self._plan.fullname, self._plan.into)

    # Rows that can't be adopted

    def _refuse(self, row: Row, problem: Unadoptable) -> list[Row]:
        """Do what the policy says; returns the row if it is to be tried again."""
        fallback = getattr(self._plan.origin, "fallback", None) == "copy"
        if fallback and problem.kind == "name" and not row.tries:
            row.tries = 1
            return self._take([row], copying=True)
        note(self._report, self._plan, row, problem)
        if self._plan.policy == "fail":
            raise self._report.refuse(self._plan.label, "stopped; what was adopted so far stays, run it again")
        if self._plan.policy == "null" and problem.kind != "overtaken":
            with self._place.begin() as connection:
                self._place.ledger.begin_write(connection)
                if self._rows.empty(connection, row.identity, row.value):
                    return []
        self._left_alone.add(row.identity)
        return []

    def _discard(self, *made: Made) -> None:
        """Delete copies that no row took."""
        discard(self._place.files.resolve, [file for each in made for file in each.fresh])


def _files(items: Sequence[Facts]) -> set[Named]:
    return {file for facts in items for file in named(facts)}


def grouped(rows: Sequence[Any], most: int) -> Iterator[list[Any]]:
    """Rows whose values fit into memory together; what is too large comes alone.

    >>> [[row.size for row in group] for group in grouped([Row((n,), size=n) for n in (3, 4, 9, 2)], 8)]
    [[3, 4], [9], [2]]
    """
    group: list[Any] = []
    for row in rows:
        if group and sum(each.size for each in group) + row.size > most:
            yield group
            group = []
        group.append(row)
    if group:
        yield group
