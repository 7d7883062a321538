"""Contests of the unit of work: insert, replace, delete, roll back.

What counts is the time until commit or rollback returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from contest import Contest, Run
from rows import ByHand, Database, Ours, contents
from sqlalchemy import select
from sqlalchemy.orm import Session

BATCH = 100
"""Rows per commit."""
SIZE = 10 * 1024
"""Bytes per file."""

Side = Ours | ByHand
Work = Callable[[Side, Run, list[bytes]], None]


def insert(side: Side, run: Run, data: list[bytes]) -> None:
    """Rows with new files, a commit per batch."""
    with Session(side.engine) as session, run.timed():
        for first in range(0, len(data), BATCH):
            session.add_all([side.new(number, data[number]) for number in range(first, first + BATCH)])
            side.commit(session)


def replace(side: Side, run: Run, data: list[bytes]) -> None:
    """Each row gets another file, and the old one goes."""
    insert(side, Run(), data)
    with Session(side.engine) as session, run.timed():
        for rows, some in zip(batches(session, side), chunks(data[::-1]), strict=True):
            for row, each in zip(rows, some, strict=True):
                side.replace(row, each)
            side.commit(session)


def delete(side: Side, run: Run, data: list[bytes]) -> None:
    """Rows go, and their files."""
    insert(side, Run(), data)
    with Session(side.engine) as session, run.timed():
        for rows in batches(session, side):
            side.delete(session, rows)


def roll_back(side: Side, run: Run, data: list[bytes]) -> None:
    """Rows with new files are flushed, and rolled back."""
    with Session(side.engine) as session, run.timed():
        for number, some in enumerate(chunks(data)):
            session.add_all([side.new(number, each) for each in some])
            session.flush()
            side.rollback(session)


def request(change: Callable[[Side, Session, int, bytes], None], side: Side, run: Run, data: list[bytes]) -> None:
    """What an application does in one request: a session, one row with its file, a commit."""
    insert(side, Run(), data)
    for number, each in enumerate(data, 1):
        with run.timed(), Session(side.engine) as session:
            change(side, session, number, each)


def insert_one(side: Side, session: Session, number: int, data: bytes) -> None:
    session.add(side.new(number, data))
    side.commit(session)


def replace_one(side: Side, session: Session, number: int, data: bytes) -> None:
    side.replace(session.get_one(side.model, number), data[::-1])
    side.commit(session)


def delete_one(side: Side, session: Session, number: int, data: bytes) -> None:
    side.delete(session, [session.get_one(side.model, number)])


def batches(session: Session, side: Side) -> Iterable[list[Any]]:
    """All rows, a batch at a time, as an application loads them before it changes them."""
    last = 0
    while rows := session.scalars(
        select(side.model).where(side.model.id > last).order_by(side.model.id).limit(BATCH)
    ).all():
        last = rows[-1].id
        yield list(rows)


def chunks(data: list[bytes]) -> Iterable[list[bytes]]:
    return (data[first : first + BATCH] for first in range(0, len(data), BATCH))


def compare(
    work: Work,
    count: int,
    contest: Contest,
    rounds: int,
    where: Path | None,
    *,
    durable: bool = True,
    beside: Mapping[str, Callable[..., Any]] | None = None,
    **options: Any,
) -> Contest:
    """Hold one contest, with more sides ``beside``; ``options`` are ``url`` and ``journal``."""
    data = contents(count, SIZE)

    def side(make: Callable[..., Side], folder: Path) -> Run:
        with Database(folder, **options) as database:
            made = make(folder, database, durable)
            made.base.metadata.create_all(made.engine)
            run = Run()
            work(made, run, data)
            made.finish(run)
            return run

    sides = {"ours": partial(side, Ours), "floor": partial(side, ByHand)}
    if durable:
        sides["floor without fsync of the folder"] = partial(side, partial(ByHand, flush_folder=False))
    sides |= {name: partial(side, make) for name, make in (beside or {}).items()}
    contest.hold(sides, rounds, where)
    return contest


def contests(rounds: int, where: Path | None, scale: float = 1.0, **options: Any) -> Iterable[Contest]:
    """The rows of this group; those that are not durable only on SQLite as it is by default."""
    plain = not any(options.values())
    n2, n1 = max(BATCH, int(2000 * scale)), max(BATCH, int(1000 * scale))
    yield compare(insert, n2, Contest("insert, commit per 100", f"{n2:,} × 10 KB", 1.0), rounds, where, **options)
    if plain:
        contest = Contest("insert, durable=false", f"{n2:,} × 10 KB", 1.1)
        yield compare(insert, n2, contest, rounds, where, durable=False)
    yield compare(replace, n1, Contest("replace", f"{n1:,}", 1.3), rounds, where, **options)
    yield compare(delete, n1, Contest("delete", f"{n1:,}", 1.6), rounds, where, **options)
    yield compare(roll_back, n1, Contest("roll back", f"{n1:,}", 1.2), rounds, where, **options)
    for name, change in {"insert": insert_one, "replace": replace_one, "delete": delete_one}.items():
        contest = Contest(f"a request: {name} one", f"{BATCH} × 10 KB")
        yield compare(partial(request, change), BATCH, contest, rounds, where, **options)
