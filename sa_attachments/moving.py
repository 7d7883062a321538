"""Moving: take the files of one storage to another one, row by row, while the application reads and writes.

Each page of rows goes through three steps, with no transaction open while bytes are copied:

1. every file is copied to a fresh key of the target, and its SHA-256 compared with what the row says;
2. in one transaction, the rows are locked and read again; those that still name the file get the new name in their
   descriptor, the ledger a line for it, and the old line is condemned, to be purged after ``retain``;
3. copies that no row took, because it was changed or deleted meanwhile, are deleted again.

A move can be killed at any moment and begun again: rows that are done name the target and are passed over, and copies
without a row are strangers to the next sweep. Rows that somebody else holds are passed over and tried again at the end.

Traps
-----
New files go where columns say: let the column, or its alias, name the target before moving. Attachments that the
application still holds in memory are read from the source, so keep ``retain`` longer than it holds any.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Connection, Text, and_, cast
from sqlalchemy.exc import DBAPIError

from .attachment import Attachment, facts_of
from .clock import milliseconds
from .column import ColumnType, ledger_owner
from .descriptor import Name, Named, described, named
from .errors import (
    AttachmentError,
    BadConfiguration,
    DescriptorDamaged,
    FileDamaged,
    FileMissing,
    OwnershipLost,
    storage_errors,
)
from .key import is_key, mint, moment
from .ledger import Drop, Line
from .offload import gather, run
from .patience import is_perhaps_committed, raise_unless_held
from .processing.storing import Meter
from .recovery import Purger, discard
from .references import Identity
from .rows import Page, Rows, check_part, renamed_items, tried_again

Progress = Callable[[int, int], None]
"""Told ``(rows, of how many)``: how many were done since it was told before, and how many there are in all."""

_PASSES = 5


@dataclass(slots=True)
class MoveReport:
    """What a move did; ``size`` in bytes."""

    rows: int = 0
    """Rows that named files of the source."""
    files: int = 0
    """Files that are, or in a dry run would be, at the target now."""
    size: int = 0
    overtaken: int = 0
    """Files that their row gave up meanwhile."""
    busy: int = 0
    """Rows that somebody held until the end: move again."""
    failed: list[str] = field(default_factory=list)
    """Why a file could not be moved: lost or damaged at the source, refused by a storage or the database."""

    @property
    def ok(self) -> bool:
        """Whether all that was met is at the target. What a row gets after it was passed, another move finds."""
        return not self.failed and not self.busy


@dataclass(slots=True)
class _Row:
    identity: Identity
    copies: dict[Name, Named] = field(default_factory=dict)
    """By old name."""


class _Wanted(NamedTuple):
    """A file to copy, and what is known of it."""

    row: _Row
    file: Named
    content_type: str
    sha256: str | None


class Move:
    """One move, over one ledger."""

    def __init__(
        self,
        purger: Purger,
        report: MoveReport,
        source: str,
        target: str,
        *,
        retain: timedelta,
        part: tuple[int, int],
        dry_run: bool,
        progress: Progress,
    ) -> None:
        """``part``: ``(2, 4)`` moves the second quarter of the rows, so that four processes can share the work.

        Raises BadConfiguration.
        """
        files = purger.scope.files
        if source == target:
            raise BadConfiguration(f"{source!r} can't be moved to itself: name another storage, not an alias")
        check_part(part)
        self._from, self._to = files.resolve(source), files.resolve(target)
        if self._to.readonly:
            raise BadConfiguration(f"{target!r} is read-only")
        self._purger = purger
        self._report = report
        self._source = source
        self._target = target
        self._retain = milliseconds(retain)
        self._part = part
        self._dry_run = dry_run
        self._progress = progress
        self._known: dict[Any, Rows] = {}
        self._told: set[Identity] = set()
        """Rows of the column that is moved of which something was reported."""

    def run(self, columns: Sequence[ColumnType]) -> None:
        """Move what these columns name."""
        total = self._count(columns)
        if total and not self._dry_run:  # else another ledger, that moves files there, is to have the place
            with self._purger.begin() as connection:
                self._purger.scope.files.meet(self._purger.ledger, connection, self._target)
        began = time.time_ns() // 1_000_000  # by this machine's clock, as keys are minted
        for each in columns:
            self._told = set()
            met = self._pass(each, total, None)
            # A row that was passed over is met by another pass; what the application stores meanwhile is left to it.
            for _ in range(_PASSES):
                if met and not self._dry_run:
                    met = self._pass(each, total, began)
            if met and not self._dry_run:
                why = f"{met:,} rows name files of {self._source!r} still: their primary keys don't lead to them"
                self._report.failed.append(f"{each.label}: {why}")

    def _pass(self, each: ColumnType, total: int, before: int | None) -> int:
        """Move files, or those stored ``before``. Returns how many rows named some, but those that were reported."""
        left: list[_Row] = []
        met = 0
        for page in self._rows_of(each).pages(self._mentions(each), self._part):
            page = [(identity, items) for identity, items in page if identity not in self._told]
            wanted = [want for want in self._wanted_in(each, page) if before is None or _is_older(want.file, before)]
            left += self._move(each, wanted)
            met += len({want.row.identity for want in wanted} - self._told)
            self._progress(len(page), total)
        left = tried_again(left, partial(self._switch, each))
        self._report.busy += len(left)
        self._discard([copy for row in left for copy in row.copies.values()])
        busy = {row.identity for row in left} - self._told
        self._told |= busy
        return met - len(busy)

    def _count(self, columns: Sequence[ColumnType]) -> int:
        """How many rows there are to move, about."""
        total = sum(self._rows_of(each).count(self._mentions(each)) for each in columns)
        return -(-total // self._part[1])

    # Rows

    def _rows_of(self, each: ColumnType) -> Rows:
        return self._known.setdefault(each.column, Rows(self._purger, each))  # tables of two schemas have one label

    def _mentions(self, each: ColumnType) -> Any:
        """A cheap condition that holds for every row that names the source, and perhaps for others."""
        assert each.column is not None
        return and_(
            each.column.is_not(None), cast(each.column, Text).contains(json.dumps(self._source), autoescape=True)
        )

    # One page

    def _wanted_in(self, each: ColumnType, page: Page) -> list[_Wanted]:
        """The files of the source that rows name."""
        wanted: list[_Wanted] = []
        for identity, items in page:
            try:
                wanted += self._wanted(_Row(identity), items)
            except DescriptorDamaged as error:
                self._fail(each, identity, error)
        return wanted

    def _fail(self, each: ColumnType, identity: Identity, why: object) -> None:
        self._told.add(identity)
        self._report.failed.append(f"{each.label} {identity}: {why}")

    def _move(self, each: ColumnType, wanted: Sequence[_Wanted]) -> list[_Row]:
        """Copy and switch; returns the rows that somebody holds."""
        rows = list({id(want.row): want.row for want in wanted}.values())
        self._report.rows += len(rows)
        if self._dry_run:
            for want in wanted:
                self._moved(want.file)
            return []
        outcomes = gather([partial(self._copy, want) for want in wanted], min(self._from.parallel, self._to.parallel))
        for want, outcome in zip(wanted, outcomes, strict=True):
            if outcome.value is not None:
                want.row.copies[want.file.name] = outcome.value
            elif isinstance(outcome.error, FileMissing) and not self._still_named(each, want):
                self._report.overtaken += 1
            elif isinstance(outcome.error, AttachmentError):
                self._fail(each, want.row.identity, outcome.error)
            elif outcome.error is not None:
                raise outcome.error
        return self._switch(each, [row for row in rows if row.copies])

    def _still_named(self, each: ColumnType, want: _Wanted) -> bool:
        """Whether a file that is not there is still due, or was given up by its row meanwhile."""
        rows = self._rows_of(each)
        copies = {want.file.name: want.file}
        found = rows.find(rows.is_one(want.row.identity))
        return any(renamed_items(each, items, copies)[1] for _, items in found)

    def _wanted(self, row: _Row, items: Sequence[Attachment]) -> list[_Wanted]:
        """The files of the source that a row names."""
        found = []
        for item in items:
            facts = facts_of(item)
            for file in named(facts):
                if file.storage == self._source:
                    known = described(facts, file)
                    content_type = known.get("content_type", "application/octet-stream")
                    found.append(_Wanted(row, file, content_type, known.get("sha256")))
        return found

    def _copy(self, want: _Wanted) -> Named:
        """Copy the bytes to a fresh key of the target. FileMissing, FileDamaged, StorageFailed."""
        key, file = mint(), want.file
        with storage_errors(self._source, "open", file.key):
            stream = self._from.open(file.key)
        meter = Meter(stream, ())
        with stream, storage_errors(self._target, "put", key):
            try:
                self._to.put(key, meter, size=file.size, content_type=want.content_type)
            except Exception as error:
                if meter.error is not error:
                    raise
                with storage_errors(self._source, "read", file.key):
                    raise
        copied = Named(self._target, key, meter.size)
        if meter.size != file.size or want.sha256 not in (None, meter.sha256):
            self._discard([copied])
            raise FileDamaged(
                f"{file.storage}:{file.key} is not what was stored: {meter.size:,} bytes, SHA-256 {meter.sha256}"
            )
        return copied

    def _switch(self, each: ColumnType, rows: Sequence[_Row]) -> list[_Row]:
        """Give the rows their new names, where they still have the old ones; returns those that somebody holds."""
        if not rows:
            return []
        try:
            with self._purger.begin() as connection:
                taken, met = self._rename(each, connection, rows)
        except (DBAPIError, BadConfiguration, OwnershipLost) as error:
            if is_perhaps_committed(error):
                raise
            if len(rows) > 1:
                return [left for row in rows for left in self._switch(each, [row])]
            return list(rows) if self._is_held(each, rows[0], error) else []
        for row in rows:
            if row.identity in met:
                for old, copy in row.copies.items():
                    if (row.identity, old) in taken:
                        self._moved(copy)
                    else:
                        self._report.overtaken += 1
                        self._discard([copy])
        return [row for row in rows if row.identity not in met]

    def _is_held(self, each: ColumnType, row: _Row, error: Exception) -> bool:
        """Whether somebody else holds a row that can't be switched; what the database refuses is reported."""
        try:
            if not isinstance(error, DBAPIError):
                raise error
            raise_unless_held(error)
        except (DBAPIError, BadConfiguration, OwnershipLost):
            self._fail(each, row.identity, getattr(error, "orig", error))
            self._discard(list(row.copies.values()))
            return False
        return True

    def _rename(
        self, each: ColumnType, connection: Connection, rows: Sequence[_Row]
    ) -> tuple[set[tuple[Identity, Name]], set[Identity]]:
        """In one transaction; returns which copies were taken, and which rows were met (a deleted one counts)."""
        ledger, rows_of = self._purger.ledger, self._rows_of(each)
        by_identity = {row.identity: row for row in rows}
        locked, met = rows_of.lock(connection, list(by_identity))
        changed: dict[Identity, tuple[list[Attachment], dict[Name, Named]]] = {}
        for identity, present in locked.items():
            items, used = renamed_items(each, present, by_identity[identity].copies)
            if used:
                changed[identity] = items, used
        if changed:
            new = [copy for _, used in changed.values() for copy in used.values()]
            lines = [Line(copy, *ledger_owner(each)) for copy in new]
            ledger.own(connection, lines, self._purger.scope.files.own_within)
            rows_of.write(connection, {identity: items for identity, (items, _) in changed.items()})
            old = [Named(*name, 0) for _, used in changed.values() for name in used]
            ledger.drop(connection, [Drop(file, self._retain) for file in old])
        return {(identity, name) for identity, (_, used) in changed.items() for name in used}, met

    def _moved(self, file: Named) -> None:
        self._report.files += 1
        self._report.size += file.size

    def _discard(self, copies: Sequence[Named]) -> None:
        """Delete copies that no row names."""
        run(partial(discard, self._purger.scope.files.resolve, copies))


def _is_older(file: Named, moment_: int) -> bool:
    return not is_key(file.key) or moment(file.key) < moment_
