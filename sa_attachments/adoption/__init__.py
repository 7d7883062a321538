"""Adoption: turn what a column holds into attachments, and back: bytes, paths, and the files of other libraries.

>>> from sqlalchemy import MetaData, create_engine, text
>>> from sa_attachments import Storages
>>> engine, files, metadata = create_engine("sqlite://"), Storages("memory:"), MetaData()
>>> ledger = Ledger.of(metadata)
>>> metadata.create_all(engine)
>>> with engine.begin() as connection:
...     _ = connection.execute(text("CREATE TABLE docs (id INTEGER PRIMARY KEY, data BLOB, file JSON)"))
...     _ = connection.execute(text("INSERT INTO docs (data) VALUES (CAST('hello' AS BLOB))"))
>>> plan = Plan("docs", "data", "file", Blobs())
>>> with engine.connect() as connection:
...     print(adopt(connection, files, plan))
...     print(restore(connection, files, plan))
1 row, 1 file, 5 bytes
1 row, 1 file, 5 bytes

A migration does the same by ``op.adopt_blob_column`` and its like, a terminal by ``sa-attachments adopt``. Work is
done in batches, each committed by itself: kill it at any moment, and begin it again.

Traps
-----
Adopted files that lie where they were, and those of paths, are *held*: not purged before ``finish`` says that nothing
else uses them. While the application runs, it has to write both columns: see docs/migrations.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, MetaData, Table

from ..errors import BadConfiguration
from ..files import Storages
from ..ledger import Ledger
from ..moving import Progress
from ..tables import require_transactions
from .adopting import Adopting
from .blobs import BlobReader
from .finishing import Finishing
from .foreign import ForeignReader
from .paths import PathReader
from .plan import AdvancedAlchemy, Blobs, Depot, Paths, Plan, SQLAlchemyFile
from .report import AdoptionReport, Unadopted
from .restoring import Restoring
from .rows import Rows
from .taking import Reader
from .workplace import Workplace, workplace

__all__ = [
    "AdoptionReport",
    "AdvancedAlchemy",
    "Blobs",
    "Depot",
    "Paths",
    "Plan",
    "SQLAlchemyFile",
    "Unadopted",
    "adopt",
    "finish",
    "hold",
    "restore",
]


def adopt(
    connection: Connection, files: Storages, plan: Plan, progress: Progress = lambda rows, total: None
) -> AdoptionReport:
    """Adopt a column, on a connection that is in no transaction.

    Raises BadConfiguration, UnknownStorage, LedgerMissing, StorageFailed, and AdoptionFailed for rows that can't be
    adopted, if the plan's policy is ``fail``.
    """
    with _working(connection, files, plan) as (place, rows, report):
        Adopting(place, rows, _reader(plan, files), report, progress).run()
        return report


def restore(
    connection: Connection, files: Storages, plan: Plan, progress: Progress = lambda rows, total: None
) -> AdoptionReport:
    """The reverse of ``adopt``: the column says again what it said, and what is not needed for that is purged."""
    with _working(connection, files, plan, back=True) as (place, rows, report):
        Restoring(place, rows, _reader(plan, files), report, progress).run()
        return report


def finish(
    connection: Connection,
    files: Storages,
    table: str,
    into: str,
    *,
    source: str | None = None,
    schema: str | None = None,
    ledger_schema: str | None = None,
) -> AdoptionReport:
    """Say that nothing else uses the files that ``table.into`` adopted: they are purged when they are dropped, as all
    others are.

    With the ``source`` that they were adopted from, AdoptionFailed if rows of it are not adopted yet.
    """
    plan = Plan(table, source or "", into, Depot(), schema=schema, ledger_schema=ledger_schema)  # or of another library
    with _working(connection, files, plan, types=False) as (place, rows, report):
        Finishing(place, rows, report).finish()
        return report


def hold(
    connection: Connection,
    files: Storages,
    table: str,
    into: str,
    *,
    schema: str | None = None,
    ledger_schema: str | None = None,
) -> AdoptionReport:
    """The reverse of ``finish``, for the files that rows still name."""
    plan = Plan(table, "", into, Blobs(), schema=schema, ledger_schema=ledger_schema)
    with _working(connection, files, plan, types=False) as (place, rows, report):
        Finishing(place, rows, report).hold()
        return report


@contextmanager
def _working(
    connection: Connection, files: Storages, plan: Plan, *, back: bool = False, types: bool = True
) -> Iterator[tuple[Workplace, Rows, AdoptionReport]]:
    with workplace(connection, files, Ledger.of(MetaData(schema=plan.ledger_schema))) as place:
        with place.begin() as working:
            rows = Rows(working, plan, back=back, types=types)
            require_transactions(working, [Table(plan.table, MetaData(), schema=plan.schema)])
        yield place, rows, AdoptionReport(path=None if plan.report is None else _writable(Path(plan.report)))


def _writable(report: Path) -> Path:
    """Before the first row has to be reported."""
    try:
        report.open("a").close()
    except OSError as error:
        raise BadConfiguration(f"no report can be written to {str(report)!r}: {error.strerror}") from error
    return report


def _reader(plan: Plan, files: Storages) -> Reader:
    origin = plan.origin
    if isinstance(origin, Blobs):
        return BlobReader(plan, files)
    return PathReader(plan, files) if isinstance(origin, Paths) else ForeignReader(plan, files)
