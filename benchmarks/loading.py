"""Contests of loading: many rows as objects, their attachments untouched or asked for a filename.

The floor is a plain JSON column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contest import Contest, Run
from floor import descriptor
from rows import ByHand, Database, Ours
from sqlalchemy import JSON, column, insert, select, table
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from sa_attachments.key import mint

Touch = Callable[[Any], object]


def load(side: Ours | ByHand, touch: Touch | None) -> Run:
    """Load all rows as objects."""
    run = Run()
    with Session(side.engine) as session, run.timed():
        rows = session.scalars(select(side.model)).all()
        if touch is not None:
            for row in rows:
                touch(row)
    return run


def contests(rounds: int, where: Path | None, scale: float = 1.0, url: str | None = None) -> Iterable[Contest]:
    """Both rows of this group; all rounds read the same two databases, which hold the same descriptors."""
    count = int(50_000 * scale)
    facts = [descriptor(mint(), f"photo-{number}.jpg", 10_240, f"{number:064x}") for number in range(count)]
    with ExitStack() as stack:
        sides: dict[str, Ours | ByHand] = {}
        for name, make in (("ours", Ours), ("floor", ByHand)):
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=where)))
            sides[name] = make(folder, stack.enter_context(Database(folder, url)))
            _fill(sides[name], facts)
        for work, target, touches in (
            ("load, untouched", 0.6, {"ours": None, "floor": None}),
            ("load, filename touched", 1.0, {"ours": _filename, "floor": _filename_by_hand}),
        ):
            contest = Contest(work, f"{count:,} rows", target)
            contest.hold(
                {name: lambda _, side=side, touch=touches[name]: load(side, touch) for name, side in sides.items()},
                rounds,
                where,
            )
            yield contest


def _filename(row: Any) -> object:
    return row.file.filename


def _filename_by_hand(row: Any) -> object:
    return row.file["filename"]


def _fill(side: Ours | ByHand, facts: list[dict[str, Any]]) -> None:
    """Insert rows below the ORM: only loading is the work."""
    side.base.metadata.create_all(side.engine)
    kind = JSON().with_variant(JSONB(), "postgresql")
    docs = table("docs", column("title"), column("file", kind))
    with side.engine.begin() as connection:
        rows = [{"title": f"photo {number}", "file": each} for number, each in enumerate(facts)]
        connection.execute(insert(docs), rows)
