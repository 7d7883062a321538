"""Sweep: find staged files that nobody will ever own, condemn them, and purge all that is due.

A key is a stranger if no line of the ledger knows it although it is older than ``grace``. Strangers are condemned one
by one, in the order of their keys, and purged by a later sweep, ``stranger_retain`` after. The watermark remembers
how far all is known, so that a sweep costs what the new files cost; it never passes a key that was skipped.

>>> watermark(horizon=1000, skipped=[700, 300]), watermark(horizon=1000, skipped=[])
(300, 1000)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, func, literal_column, select, update
from sqlalchemy.exc import DBAPIError

from .chunks import CHUNK, chunked, insert_ignoring
from .clock import milliseconds, now
from .errors import StorageFailed, storage_errors
from .key import floor, is_key, moment
from .patience import Busy, raise_unless_held
from .queries import CONDEMNED, PURGING
from .recovery import Purger
from .storage import Unfinished

Progress = Callable[[str, int], None]
"""Told ``(what, how many)`` while work goes on."""

LATE = timedelta(days=1)
"""What is due for so long, and in no storage that is swept, nobody else sweeps either."""


@dataclass(slots=True)
class SweptStorage:
    """What a sweep did in one storage; all numbers are files."""

    name: str
    listed: int = 0
    strangers: int = 0
    """Condemned now; purged by a sweep after ``stranger_retain``."""
    skipped: int = 0
    """Too young, or held by a transaction that is still open."""
    purged: int = 0
    failed: int = 0
    unfinished: int = 0
    """Left-overs of puts that were killed, removed."""
    problem: str | None = None
    """Why nothing was deleted here."""
    waiting: bool = False
    """Somebody's transaction was in the way: the next sweep does the rest."""


@dataclass(slots=True)
class SweepReport:
    """What a sweep did."""

    storages: list[SweptStorage] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not any(storage.failed or storage.problem for storage in self.storages)

    def __getitem__(self, name: str) -> SweptStorage:
        return {storage.name: storage for storage in self.storages}[name]

    def __str__(self) -> str:
        return "\n".join(str(storage) for storage in self.storages)


@dataclass(frozen=True, slots=True)
class Times:
    """How long what is waited for; see ``Storages``."""

    grace: timedelta
    own_within: timedelta
    tombstone_ttl: timedelta
    stranger_retain: timedelta


class Sweep:
    """One sweep over one ledger."""

    def __init__(self, purger: Purger, times: Times, progress: Progress, full: bool = False) -> None:
        self._purger = purger
        self._times = times
        self._progress = progress
        self._full = full

    def run(self, names: Iterable[str]) -> Iterator[SweptStorage]:
        """Sweep these storages, then purge what is due in them."""
        swept = [self._strangers(name) for name in names]
        forgotten: list[SweptStorage] = []
        resolve = self._purger.resolve
        mine = {each.name: each for each in swept if each.problem is None and not resolve(each.name).readonly}
        try:
            self._purge(mine)
            forgotten += self._forgotten([each.name for each in swept])
        except (Busy, DBAPIError) as error:
            raise_unless_held(error)
            for report in mine.values():
                report.waiting = True
        yield from [*swept, *forgotten]

    def _forgotten(self, names: Sequence[str]) -> Iterator[SweptStorage]:
        """Storages that are swept no more, although something is due in them."""
        c = self._purger.ledger.lines.c
        late = c.purge_after <= now() - milliseconds(LATE)
        due = select(c.storage, func.count()).where(c.state.in_([CONDEMNED, PURGING]), late, c.storage.not_in(names))
        with self._purger.begin() as connection:
            found = connection.execute(due.group_by(c.storage).order_by(c.storage)).all()
        for name, count in found:
            yield SweptStorage(
                name,
                problem=f"{count} dropped files are due, but no storage of its own has this name any more: configure it"
                " again, until a sweep purged them",
            )

    def _purge(self, mine: dict[str, SweptStorage]) -> None:
        ttl = milliseconds(self._times.tombstone_ttl)
        for claimed, failed in self._purger.purge_due(list(mine), ttl) if mine else ():
            for file in claimed:
                report = mine[file.storage]
                if file in failed:
                    report.failed += 1
                else:
                    report.purged += 1
                self._progress(file.storage, 1)

    def _strangers(self, name: str) -> SweptStorage:
        report = SweptStorage(name)
        try:
            self._look_for_strangers(report)
        except StorageFailed as error:
            report.problem = str(error)  # One that fails does not keep the others from being swept.
        except (Busy, DBAPIError) as error:
            raise_unless_held(error)
            report.waiting = True
        return report

    def _look_for_strangers(self, report: SweptStorage) -> None:
        name = report.name
        storage = self._purger.resolve(name)
        places = self._purger.ledger.places
        if storage.readonly:
            return
        with self._purger.begin() as connection:
            clock = connection.scalar(select(now())) or 0
            found = connection.execute(select(places.c.watermark).where(places.c.name == name)).first()
        # A place that is nobody's, and empty, is left to who first stores there: to another ledger or database of the
        # application, perhaps, whose files would be strangers here.
        is_left = found is None and next(listed(self._purger, name), None) is None
        report.problem = self._purger.problem(name, again=True, mark=not is_left)
        if report.problem:
            return
        mark = None if found is None else found.watermark
        horizon = clock - milliseconds(self._times.grace)
        if isinstance(storage, Unfinished):
            with storage_errors(name, "discard what is unfinished"):
                before = datetime.fromtimestamp(horizon / 1000, UTC)
                report.unfinished = self._purger.io(lambda: storage.discard_unfinished(before))
        start = None if mark is None or self._full else floor(mark - milliseconds(self._times.own_within))
        skipped = self._condemn_unknown(report, start, horizon)
        with self._purger.begin() as connection:
            connection.execute(
                update(places).where(places.c.name == name).values(watermark=watermark(horizon, skipped))
            )

    def _condemn_unknown(self, report: SweptStorage, start: str | None, horizon: int) -> list[int]:
        """Condemn strangers; returns when those were minted that had to be skipped."""
        skipped: list[int] = []
        for chunk in listed(self._purger, report.name, start, floor(horizon)):
            report.listed += len(chunk)
            self._progress(report.name, len(chunk))
            candidates = [(key, modified) for key, modified in chunk if is_key(key)]
            unknown = self._unknown([key for key, _ in candidates])
            for key, modified in candidates:
                if key not in unknown:
                    continue
                if modified.timestamp() * 1000 <= horizon and self._condemn(report.name, key):
                    report.strangers += 1
                else:
                    report.skipped += 1
                    skipped.append(moment(key))
        return skipped

    def _unknown(self, keys: Sequence[str]) -> set[str]:
        """Keys that no line knows, under whatever storage name."""
        lines = self._purger.ledger.lines
        with self._purger.begin() as connection:
            return set(keys) - set(connection.scalars(select(lines.c.key).where(lines.c.key.in_(keys))))

    def _condemn(self, name: str, key: str) -> bool:
        """Insert a stranger's line; False if somebody's open transaction is in the way. One key per transaction, so
        that one does not fail many.
        """
        try:
            with self._purger.begin() as connection:
                if connection.dialect.name in ("mysql", "mariadb"):
                    # Its least patience, a second, is too much for each of thousands of files of one that is prepared.
                    connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 0")
                self._insert(connection, name, key)
        except DBAPIError as error:
            raise_unless_held(error)
            if self._purger.scope.engine.dialect.name == "sqlite":
                raise  # It has one writer: for all other keys too.
            return False
        return True

    def _insert(self, connection: Connection, name: str, key: str) -> None:
        lines = self._purger.ledger.lines
        due = now() + milliseconds(self._times.stranger_retain)
        statement = insert_ignoring(connection.dialect.name, lines)
        connection.execute(
            statement.values(
                storage=name, key=key, state=literal_column(f"'{CONDEMNED}'"), since=now(), purge_after=due
            )
        )


def listed(
    purger: Purger, name: str, start: str | None = None, end: str | None = None
) -> Iterator[list[tuple[str, datetime]]]:
    """What a storage holds, by ``CHUNK`` keys. Its listing is lazy, and so each chunk is work of the storage."""
    storage = purger.resolve(name)
    with storage_errors(name, "list"):
        chunks = purger.io(lambda: chunked(storage.keys(start, end), CHUNK))
        while chunk := purger.io(lambda: next(chunks, None)):
            yield chunk


def watermark(horizon: int, skipped: Sequence[int]) -> int:
    """How far everything is known, in milliseconds since the epoch."""
    return min([horizon, *skipped])
