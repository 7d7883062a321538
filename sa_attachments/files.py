"""Storages: the object that an application makes, usually called ``files``: its storages by name, and the care for
what is in them.

>>> from datetime import timedelta
>>> files = Storages({"default": "memory:", "avatars": "default"}, grace=timedelta(hours=1))
>>> staged = files.stage(Attachment.upload(b"hello"))      # before a transaction, for slow uploads
>>> files.bind(staged.to_json()) == staged                  # back from a queue or a cache of your own
True

It can be made empty beside the models, and be configured when the application starts, by ``configure``.

Traps
-----
Run ``sweep`` regularly, from a scheduler: it purges what crashed processes left behind, and what is due for other
reasons. Rows record the name of the storage their file is in, so keep a name configured as long as rows record it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, Engine, MetaData, Table, inspect, select
from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from . import statistics
from .attachment import Attachment, bind, body_of, make, set_origin
from .clock import milliseconds, now
from .column import AttachmentListType, AttachmentType
from .descriptor import decode
from .drops import encode_identity
from .errors import AttachmentWarning, BadConfiguration, FileMissing
from .frames import Frame
from .ledger import Ledger
from .moving import Move, MoveReport
from .moving import Progress as MoveProgress
from .places import Places
from .processing.steps import Step
from .processing.steps import run as run_steps
from .processing.storing import store
from .recovery import Purger
from .references import of_class
from .settling import Settler, run
from .staging import Scope, Token
from .storages.registry import Registry, Value
from .sweep import Progress, Sweep, SweepReport, Times
from .upload import Upload
from .verify import Verification, VerifyReport

log = logging.getLogger("sa_attachments")

A = TypeVar("A", bound=Attachment)


class Storages(Registry):
    """Names → storages, and what keeps their files and the rows together."""

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
        budget: timedelta = timedelta(milliseconds=50),
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
        if own_within >= tombstone_ttl:
            raise BadConfiguration(f"own_within ({own_within}) must be shorter than tombstone_ttl ({tombstone_ttl})")
        self.retain = retain
        self.own_within = own_within
        self._times = Times(grace, own_within, tombstone_ttl, stranger_retain)
        self._ledger = None if ledger is None else Ledger.of(ledger)
        self._columns: WeakSet[AttachmentType | AttachmentListType] = WeakSet()
        self._ready: WeakKeyDictionary[Engine, dict[Ledger, set[Hashable]]] = WeakKeyDictionary()
        self._places = Places()
        self._settler = Settler(self, self._places, budget)

    # Attachments

    def stage(self, attachment: A, attribute: Any = None, *, storage: str | None = None) -> A:
        """Store a new attachment before a transaction, so that a slow upload holds no connection. Assign the result.

        Name the ``attribute`` that it is for (``User.avatar``), so that its steps run now and not on assignment. What
        no row ever names is swept. Raises what a flush would.
        """
        if attachment.is_stored:
            return attachment
        body = body_of(attachment)
        column_type = None if attribute is None else attribute.type
        name = self.real(
            storage or (isinstance(body, Upload) and body.storage) or (column_type and column_type.storage)
        )
        label = "a staged attachment" if attribute is None else f"{attribute.class_.__name__}.{attribute.key}"

        def job() -> Attachment:
            ready = run_steps(() if column_type is None else column_type.steps, attachment, label)
            cls = type(attachment) if column_type is None else column_type.attachment_class
            binding = _Bound(self) if column_type is None else column_type
            return store(ready, name, self.resolve(name), started=lambda named: None, binding=binding, cls=cls)

        staged = run(job)
        given = body.source.path() if isinstance(body, Upload) and body.move else None
        set_origin(staged, Token(given))
        return cast(A, staged)

    async def astage(self, attachment: A, attribute: Any = None, *, storage: str | None = None) -> A:
        """``stage`` without blocking the event loop."""
        return cast(A, await greenlet_spawn(self.stage, attachment, attribute, storage=storage))

    def bind(self, attachment: A | str, attachment_class: type[A] = Attachment) -> A:  # type: ignore[assignment]
        """Let an attachment that comes out of your own cache or queue, pickled or by ``to_json``, know its storages.

        Never pass what a client sent: storage and key are capabilities.
        """
        if isinstance(attachment, str):
            attachment = make(attachment_class, decode(attachment, "a text"), None)
        bind(attachment, _Bound(self))
        return attachment

    def restore(self, session: Session, attribute: Any, primary_key: Any) -> Attachment:
        """Take back the file that a row dropped last from ``attribute`` (``User.avatar``), while it is retained.

        It is assigned to the row, if that exists (a list gets it at its end), and returned. FileMissing if nothing is
        kept.
        """
        mapper = attribute.parent
        reference = next((each for each in of_class(mapper.class_) if each.key == attribute.key), None)
        if reference is None:
            raise BadConfiguration(f"{mapper.class_.__name__}.{attribute.key} holds no attachments to be restored")
        identity = primary_key if isinstance(primary_key, tuple) else (primary_key,)
        connection = session.connection(bind_arguments={"mapper": mapper, "clause": reference.table})
        ledger = self.ledger_of(reference.table)
        facts = ledger.retained(
            connection, (reference.table.fullname, reference.column.name), encode_identity(identity)
        )
        if facts is None:
            raise FileMissing(
                f"{reference.target}: nothing is kept of what row {identity} dropped (see the option retain)"
            )
        restored = make(reference.type.attachment_class, dict(facts), reference.type)
        row = session.get(mapper.class_, primary_key)
        if row is not None:
            present = reference.type.items(getattr(row, attribute.key)) if reference.type.plural else ()
            setattr(row, attribute.key, reference.type.value([*present, restored]))
        return restored

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
        times = Times(
            self._times.grace if grace is None else grace,
            self.own_within,
            self._times.tombstone_ttl,
            self._times.stranger_retain if stranger_retain is None else stranger_retain,
        )
        report = SweepReport()
        for purger in self._purgers(engine):
            report.storages += Sweep(purger, times, progress, full).run(self._names(purger))
        return report

    async def asweep(self, engine: Any, **options: Any) -> SweepReport:
        """``sweep`` with an ``AsyncEngine``."""
        return await greenlet_spawn(lambda: self.sweep(engine.sync_engine, **options))

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
        for purger in self._purgers(engine, patience=5000):
            with purger.connection() as connection, purger.transaction(connection):
                clock = connection.scalar(select(now())) or 0
                columns = self._columns_in(connection, purger)
            verification = Verification(
                purger,
                columns,
                report,
                repair=repair,
                checksums=checksums,
                young=clock - milliseconds(self._times.grace),
                progress=progress,
            )
            verification.run(self._names(purger))
        return report

    async def averify(self, engine: Any, **options: Any) -> VerifyReport:
        """``verify`` with an ``AsyncEngine``."""
        return await greenlet_spawn(lambda: self.verify(engine.sync_engine, **options))

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
        source, target = self.real(source), self.real(target)
        report = MoveReport()
        for purger in self._purgers(engine, patience=5000):
            moving = Move(purger, report, source, target, retain=retain, part=part, dry_run=dry_run, progress=progress)
            with purger.connection() as connection, purger.transaction(connection):
                columns = self._columns_in(connection, purger)
                if not dry_run:
                    self.meet(purger.ledger, connection, target)
            moving.run(columns)
        return report

    async def amove(self, engine: Any, source: str, target: str, **options: Any) -> MoveReport:
        """``move`` with an ``AsyncEngine``."""
        return await greenlet_spawn(lambda: self.move(engine.sync_engine, source, target, **options))

    def takeover(self, engine: Engine, name: str = "default") -> None:
        """Make the place of a storage belong to this database; its former one deletes nothing from then on."""
        for purger in self._purgers(engine, patience=5000):
            with purger.connection() as connection, purger.transaction(connection):
                self._places.take_over(connection, purger.ledger, self.real(name), self.resolve(name), run)
            self._places.verdicts.pop((purger.scope, self.real(name)), None)

    def stats(self, engine: Engine) -> list[statistics.LedgerStats]:
        """Number and bytes of files, by storage and state of the ledger."""
        return [line for purger in self._purgers(engine) for line in statistics.read(purger)]

    def settled(self, timeout: float | None = None) -> bool:
        """Wait until this process has tried to clean up after ended transactions; False after ``timeout`` seconds."""
        return self._settler.idle(timeout)

    async def asettled(self) -> None:
        """``settled`` for asyncio."""
        await self._settler.aidle()

    # What columns and sessions ask for

    def ledger_of(self, table: Table) -> Ledger:
        """The ledger for files that a table names."""
        return self._ledger or Ledger.of(table.metadata)

    def attached(self, column_type: AttachmentType | AttachmentListType) -> None:
        """Note a column."""
        self._columns.add(column_type)

    def ready(self, ledger: Ledger, engine: Engine) -> set[Hashable]:
        """The schemas in which this database is known to have the ledger; to be added to."""
        return self._ready.setdefault(engine, {}).setdefault(ledger, set())

    def meet(self, ledger: Ledger, connection: Connection, name: str) -> None:
        """Mark the place of a storage as this database's, unless it is somebody else's."""
        storage = self.resolve(name)
        if storage.readonly:
            return
        problem = self._places.problem(connection, ledger, name, storage, run, register=False)
        if problem is not None:
            warnings.warn(f"nothing will be deleted: {problem}", AttachmentWarning, stacklevel=2)

    def settle(self, frame: Frame) -> None:
        """Clean up what an ended transaction left. Raises nothing, and waits for no longer than the budget."""
        self._settler.settle(frame)

    def _purgers(self, engine: Engine, patience: int = 1000) -> Iterator[Purger]:
        schemas = engine.get_execution_options().get("schema_translate_map") or {}
        found = [self.ledger_of(column.column.table) for column in self._columns if column.column is not None]
        found += [self._ledger] if self._ledger else []
        # The ledgers of several MetaData are one table in one database.
        for ledger in {ledger.lines.fullname: ledger for ledger in found}.values():
            purger = Purger(Scope(self, ledger, engine, tuple(schemas.items())), self._places, run)
            purger.patience = patience
            yield purger

    def _columns_in(self, connection: Connection, purger: Purger) -> list[AttachmentType | AttachmentListType]:
        """The columns whose files the ledger knows and which are in this database: not in another one, and not in a
        migration that is still to come. In the order of their names.
        """
        there, schemas, ledger = inspect(connection), dict(purger.scope.schemas), purger.ledger.lines.fullname
        found: dict[tuple[str, str], AttachmentType | AttachmentListType] = {}
        for each in self._columns:
            if each.column is not None and self.ledger_of(table := each.column.table).lines.fullname == ledger:
                schema = schemas.get(table.schema, table.schema)
                names = there.get_columns(table.name, schema) if there.has_table(table.name, schema) else []
                if each.column.name in [name["name"] for name in names]:
                    found[table.fullname, each.column.name] = each
        return [each for _, each in sorted(found.items())]

    def _names(self, purger: Purger) -> list[str]:
        """Storages with files of ours: those configured, and those of a pattern that the ledger knows."""
        names = set(self.names())
        if self.patterns():
            with purger.connection() as connection, purger.transaction(connection):
                used = connection.scalars(select(purger.ledger.lines.c.storage).distinct()).all()
            names |= {name for name in used if self.matches(name) and self.real(name) == name}
        for name in names:
            self.resolve(name)  # makes it known what is a part of another one, whose files it has
        return sorted(names - self.parts())


@dataclass(frozen=True, slots=True)
class _Bound:
    """An attachment that no column holds."""

    files: Storages
    label: str = "an attachment"
    steps: tuple[Step, ...] = ()

    def resolve(self, name: str) -> Any:
        return self.files.resolve(name)
