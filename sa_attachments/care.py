"""Care: what operators do for the files of an application (sweep, verify, move, take over, count), and what its columns
and sessions ask of ``Storages`` behind the scenes.

>>> from sa_attachments import Storages
>>> isinstance(Storages("memory:"), Care)
True

Everything is done once for each ledger that the mapped columns use in one database.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, Engine, MetaData, Pool, Table, inspect, select
from sqlalchemy.util import greenlet_spawn

from . import statistics, takeover
from .clock import durations, milliseconds, now
from .column import ColumnType, ledger_owner
from .custody import Custody
from .errors import AttachmentError, AttachmentWarning, BadConfiguration, StorageFailed
from .frames import Frame
from .hooks import announce
from .ledger import Ledger, Owner
from .moving import Move, MoveReport
from .moving import Progress as MoveProgress
from .offload import run
from .places import Places, holds, marked_above, read_marker
from .rebuilding import Rebuild, RebuildReport
from .recovery import Purger
from .scope import Scope
from .settling import Override, Settler
from .storages.registry import Registry, Value
from .sweep import Progress, Sweep, SweepReport, Times
from .tables import translated
from .verify import Verification, VerifyReport
from .workshop import Workshop

UNHURRIED = 5000
"""Milliseconds that work which operators begin, and no user waits for, may wait for SQLite's one writer."""


class Care(Registry):
    """The storages of an application, and the care for their files; see ``Storages``."""

    def __init__(
        self,
        mapping: Value | Mapping[str, Value] | None = None,
        *,
        ledger: MetaData | None = None,
        retain: timedelta = timedelta(0),
        grace: timedelta = timedelta(hours=24),
        own_within: timedelta = timedelta(days=3),
        tombstone_ttl: timedelta = timedelta(days=7),
        stranger_retain: timedelta = timedelta(days=7),
        budget: timedelta = timedelta(milliseconds=5),
    ) -> None:
        """
        :param mapping: URLs, storages or aliases by name; one alone is ``"default"``.
        :param ledger: the ``MetaData`` that the ledger joins; None is that of each table with attachment columns.
        :param retain: how long dropped files are kept, unless a column says otherwise.
        :param grace: a file that no transaction owns is left alone so long.
        :param own_within: a stored file can be owned no later than this after it was stored.
        :param tombstone_ttl: how long a purged stranger is remembered, so that a late owner fails. Longer than
            ``own_within``.
        :param stranger_retain: how long a sweep waits between condemning a stranger and purging it.
        :param budget: how long a commit waits at most for cleaning.
        """
        super().__init__(mapping)
        durations(retain=retain, grace=grace, own_within=own_within, tombstone_ttl=tombstone_ttl)
        durations(stranger_retain=stranger_retain, budget=budget)
        if own_within >= tombstone_ttl:
            raise BadConfiguration(f"own_within ({own_within}) must be shorter than tombstone_ttl ({tombstone_ttl})")
        self.retain = retain
        self.own_within = own_within
        self.times = Times(grace, own_within, tombstone_ttl, stranger_retain)
        self._ledger = None if ledger is None else Ledger.of(ledger)
        self.columns: WeakSet[ColumnType] = WeakSet()
        """Those that are mapped with it."""
        self._ready: WeakKeyDictionary[Pool, dict[Ledger, set[Hashable]]] = WeakKeyDictionary()
        self.places = Places()
        self._settler = Settler(self, self.places, budget)
        self.custodies: WeakKeyDictionary[Connection, Custody] = WeakKeyDictionary()
        self._workshop = Workshop(self.columns, self._purgers)

    def override(self, target: Value | Mapping[str, Value] = "memory:") -> Override:
        """See ``Registry.override``. Before it ends, it waits for cleaning, for some seconds at most; for what tasks
        of asyncio clean only as ``async with``. What is late cleans inside all the same.
        """
        return Override(self._settler, super().override(target))

    # Care

    def sweep(
        self,
        engine: Engine,
        *,
        full: bool = False,
        grace: timedelta | None = None,
        stranger_retain: timedelta | None = None,
        progress: Progress = lambda storage, files: None,
    ) -> SweepReport:
        """Condemn files that nobody will ever own, and purge what is due. ``full`` looks at old files too."""
        said = {"grace": grace, "stranger_retain": stranger_retain}
        times = replace(self.times, **{name: value for name, value in said.items() if value is not None})
        durations(grace=times.grace, stranger_retain=times.stranger_retain)
        report = SweepReport()
        for purger in self._purgers(engine):
            report.storages += Sweep(purger, times, progress, full).run(self._names(purger))
        return report

    async def asweep(self, engine: Any, **options: Any) -> SweepReport:
        """``sweep`` with an ``AsyncEngine``."""
        return await greenlet_spawn(lambda: self.sweep(_awaited(engine), **options))

    def verify(
        self,
        engine: Engine,
        *,
        repair: bool = False,
        checksums: bool = False,
        progress: Progress = lambda what, how_many: None,
    ) -> VerifyReport:
        """Compare rows, ledger and storages, all three ways.

        ``repair`` mends what is safe to mend; ``checksums`` reads all bytes.
        """
        report = VerifyReport()
        for purger in self._purgers(engine, UNHURRIED):
            with purger.begin() as connection:
                young = (connection.scalar(select(now())) or 0) - milliseconds(self.times.grace)
            columns = self._columns_of(purger)
            verification = Verification(
                purger, columns, report, repair=repair, checksums=checksums, young=young, progress=progress
            )
            verification.run(self._names(purger))
        return report

    async def averify(self, engine: Any, **options: Any) -> VerifyReport:
        """``verify`` with an ``AsyncEngine``."""
        return await greenlet_spawn(lambda: self.verify(_awaited(engine), **options))

    def move(
        self,
        engine: Engine,
        source: str,
        target: str,
        *,
        retain: timedelta = timedelta(days=7),
        part: tuple[int, int] = (1, 1),
        dry_run: bool = False,
        progress: MoveProgress = lambda rows, total: None,
    ) -> MoveReport:
        """Take the files of one storage to another, while the application goes on; see ``sa_attachments.moving``.

        The files at the source are purged by a sweep after ``retain``. ``part=(2, 4)`` moves the second quarter of the
        rows. Raises UnknownStorage, BadConfiguration.
        """
        durations(retain=retain)
        source, target = self.real(source), self.real(target)
        report = MoveReport()
        for purger in self._purgers(engine, UNHURRIED):
            moving = Move(purger, report, source, target, retain=retain, part=part, dry_run=dry_run, progress=progress)
            moving.run(self._columns_of(purger))
        return report

    async def amove(self, engine: Any, source: str, target: str, **options: Any) -> MoveReport:
        """``move`` with an ``AsyncEngine``."""
        return await greenlet_spawn(lambda: self.move(_awaited(engine), source, target, **options))

    def rebuild(
        self,
        engine: Engine,
        *,
        variants: Collection[str] = (),
        lazy: bool = False,
        part: tuple[int, int] = (1, 1),
        dry_run: bool = False,
        progress: MoveProgress = lambda rows, total: None,
    ) -> RebuildReport:
        """Bring variants in line with what columns declare, while the application goes on; see
        ``sa_attachments.rebuilding``.

        Only those named in ``variants``, if there are any; with ``lazy``, those too that nobody asked for yet.
        ``part=(2, 4)`` does the second quarter of the rows. Raises BadConfiguration.
        """
        report = RebuildReport()
        for purger in self._purgers(engine, UNHURRIED):
            rebuild = Rebuild(purger, report, names=variants, lazy=lazy, part=part, dry_run=dry_run, progress=progress)
            rebuild.run(self._columns_of(purger))
        return report

    async def arebuild(self, engine: Any, **options: Any) -> RebuildReport:
        """``rebuild`` with an ``AsyncEngine``."""
        return await greenlet_spawn(lambda: self.rebuild(_awaited(engine), **options))

    def takeover(self, engine: Engine, name: str = "default") -> None:
        """Make the place of a storage belong to this database; its former one deletes nothing from then on."""
        purger = takeover.keeper(list(self._purgers(engine, UNHURRIED)), self.real(name))
        with purger.begin() as connection:
            self.places.take_over(connection, purger.ledger, self.real(name), self.resolve(name), run)
        self.places.known(purger.scope).verdicts.pop(self.real(name), None)

    def stats(self, engine: Engine) -> list[statistics.LedgerStats]:
        """Number and bytes of files, by storage and state of the ledger."""
        return [line for purger in self._purgers(engine) for line in statistics.read(purger)]

    def settled(self, timeout: float | None = None) -> bool:
        """Wait until this process has tried to clean up after ended transactions; False after ``timeout`` seconds."""
        return self._settler.idle(timeout)

    async def asettled(self) -> None:
        """``settled`` for asyncio; may be cancelled, by ``asyncio.timeout`` too."""
        await self._settler.aidle()

    # What columns and sessions ask for

    def ledger_of(self, table: Table) -> Ledger:
        """The ledger for files that a table names."""
        return self._ledger or Ledger.of(table.metadata)

    def ledgers(self) -> list[Ledger]:
        """Those of all columns. The ledgers of several MetaData are one table in one database."""
        found = [self.ledger_of(column.column.table) for column in self.columns if column.column is not None]
        found += [self._ledger] if self._ledger else []
        return list({ledger.lines.fullname: ledger for ledger in found}.values())

    def attached(self, column_type: ColumnType) -> None:
        """Note a column."""
        self.columns.add(column_type)

    def ready(self, ledger: Ledger, engine: Engine) -> set[Hashable]:
        """For which tables, in which schemas, this database is known to have the ledger; to be added to."""
        return self._ready.setdefault(engine.pool, {}).setdefault(ledger, set())

    def holder_of(self, path: Path) -> str | None:
        """The name of the storage in whose folder a path leads, symbolic links followed, or that folder, if nobody here
        knows whose it is; None if it is nobody's.
        """
        for name in self.names():
            with suppress(AttachmentError, ImportError):  # of one that can't be made, or is not installed
                self.resolve(name)
        real = path.resolve()
        known = next((name for name, storage in self.made().items() if holds(storage, real)), None)
        folder = marked_above(real) if known is None else None
        return known if folder is None else str(folder)

    def meet(self, ledger: Ledger, connection: Connection, name: str) -> None:
        """Mark the place of a storage as this database's, unless it is somebody else's."""
        storage = self.resolve(name)
        if storage.readonly:
            return
        problem = self.places.problem(lambda: nullcontext(connection), ledger, name, storage, run, register=False)
        if problem is not None:
            warnings.warn(f"nothing is deleted: {problem}", AttachmentWarning, stacklevel=2)

    def settle(self, frame: Frame) -> None:
        """Clean up what an ended transaction left. Raises nothing, and waits for no longer than the budget."""
        announce(frame, self)
        self._settler.settle(frame)

    def derived(self, attachment: Any, name: str) -> Any:
        """The variant of that name of an attachment that does not hold it; see ``Attachment.variant``."""
        return self._workshop.derived(attachment, name)

    async def aderived(self, attachment: Any, name: str) -> Any:
        """``derived`` without blocking the event loop."""
        return await self._workshop.aderived(attachment, name)

    def _purgers(self, engine: Any, patience: int = 1000) -> Iterator[Purger]:
        if not isinstance(engine, Engine):
            if hasattr(engine, "sync_engine"):
                raise BadConfiguration(
                    "an AsyncEngine wants to be awaited: await files.asweep(engine), for example; or, for what has no "
                    "such twin, await connection.run_sync(lambda connection: files.stats(connection.engine))"
                )
            raise BadConfiguration(f"expected an Engine, not {engine!r}")
        for ledger in self.ledgers():
            yield Purger(Scope.seen_by(engine, self, ledger), self.places, run, patience)

    def _columns_of(self, purger: Purger) -> list[ColumnType]:
        """The columns whose files the ledger knows and which are in this database: not in another one, and not in a
        migration that is still to come. In the order of their names.
        """
        ledger = purger.ledger.lines.fullname
        found: dict[Owner, ColumnType] = {}
        with purger.begin() as connection:
            there = inspect(connection)
            for each in self.columns:
                if each.column is not None and self.ledger_of(table := each.column.table).lines.fullname == ledger:
                    schema = translated(connection, table.schema)
                    names = there.get_columns(table.name, schema) if there.has_table(table.name, schema) else []
                    if each.column.name in [name["name"] for name in names]:
                        found[ledger_owner(each)] = each
        return [each for _, each in sorted(found.items())]

    def _names(self, purger: Purger) -> list[str]:
        """Storages with files of ours: those configured, and those of a pattern that the ledger knows, or knew once: a
        process that was killed may have left the only file there.
        """
        names = set(self.names())
        if self.patterns():
            with purger.begin() as connection:
                used = set(connection.scalars(select(purger.ledger.lines.c.storage).distinct()))
                known = set(connection.scalars(select(purger.ledger.places.c.name)))
            names |= {name for name in used if self._is_real(name)}
            # Not those that somebody removed, marker and all.
            names |= {name for name in known - names if self._is_real(name) and self._is_marked(name)}
        for name in names:
            self.resolve(name)  # makes it known what is a part of another one, whose files it has
        return sorted(names - self.parts())

    def _is_real(self, name: str) -> bool:
        return self.matches(name) and self.real(name) == name

    def _is_marked(self, name: str) -> bool:
        """Whether a place is there; one that can't be asked may be."""
        try:
            return run(partial(read_marker, name, self.resolve(name))) is not None
        except StorageFailed:
            return True


def _awaited(engine: Any) -> Engine:
    """The Engine in an AsyncEngine, told by what it has: its module needs greenlet."""
    if not hasattr(engine, "sync_engine"):
        raise BadConfiguration(f"expected an AsyncEngine, not {engine!r}")
    plain: Engine = engine.sync_engine
    return plain
