"""The contest of adoption: bytes of a column become files beside their rows.

Ours is ``sa_attachments.adoption.adopt``, which a migration calls, with its survey, its checksums, its ledger and its
comparison of each row under lock; the floor is the loop that a careful programmer writes for it: a page of rows by
primary key, each file stored durably, the page's rows updated, a commit.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from contest import Contest, Run
from floor import Floor
from rows import Database, contents
from sqlalchemy import JSON, Column, Integer, LargeBinary, MetaData, String, Table, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import JSONB

from sa_attachments import Storages
from sa_attachments.adoption import Blobs, Plan, adopt
from sa_attachments.ledger import Ledger

BATCH = 100
"""Rows per commit."""
SIZE = 20 * 1024
"""Bytes per file."""

metadata = MetaData()
docs = Table(
    "docs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100)),
    Column("data", LargeBinary),
    Column("file", JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")),
)
Ledger.of(metadata)


def ours(database: Database, folder: Path, run: Run) -> None:
    """As ``op.adopt_blob_column`` does it."""
    files = Storages(f"local:{folder}/files")
    with database.engine.connect() as connection, run.timed():
        adopt(connection, files, Plan("docs", "data", "file", Blobs(filename="name")))


def by_hand(database: Database, folder: Path, run: Run) -> None:
    """As one writes it oneself."""
    floor = Floor(folder / "files")
    write = update(docs).where(docs.c.id == bindparam("row")).values(file=bindparam("new"))
    with database.engine.connect() as connection, run.timed():
        last = 0
        while True:
            page = select(docs.c.id, docs.c.name, docs.c.data).where(docs.c.id > last, docs.c.data.is_not(None))
            rows = connection.execute(page.order_by(docs.c.id).limit(BATCH)).all()
            if not rows:
                return
            new = [{"row": row.id, "new": floor.store(row.data, row.name)} for row in rows]
            connection.execute(write, new)
            connection.commit()
            last = rows[-1].id


def contests(rounds: int, where: Path | None, scale: float = 1.0, url: str | None = None) -> Iterable[Contest]:
    """The row of this group."""
    count = max(BATCH, int(10_000 * scale))
    data = contents(count, SIZE)

    def side(work: object, folder: Path) -> Run:
        with Database(folder, url) as database:
            metadata.create_all(database.engine)
            for first in range(0, count, BATCH):
                some = [
                    {"id": number + 1, "name": f"photo-{number}.jpg", "data": data[number]}
                    for number in range(first, min(first + BATCH, count))
                ]
                with database.engine.begin() as connection:
                    connection.execute(docs.insert(), some)
            run = Run()
            assert callable(work)
            work(database, folder, run)
            _check(database, folder, count)
            return run

    contest = Contest("adopt blobs, commit per 100", f"{count:,} × 20 KB", 1.3)
    contest.hold({"ours": partial(side, ours), "floor": partial(side, by_hand)}, rounds, where)
    yield contest


def _check(database: Database, folder: Path, count: int) -> None:
    """There is a file for each row."""
    with database.engine.connect() as connection:
        rows = connection.scalar(select(func.count()).select_from(docs).where(docs.c.file.is_not(None)))
    there = sum(1 for path in (folder / "files").rglob("*-*") if path.is_file() and not path.name.startswith("."))
    assert there == rows == count, f"{there} files and {rows} rows of {count}"
