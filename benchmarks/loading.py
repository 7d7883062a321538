"""Contests of loading: many rows as objects, their attachments untouched or asked for a filename.

The floor is a plain JSON column. Beside it, on SQLite, stands a text column, which nothing can be loaded for less than.
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
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments.key import mint

Touch = Callable[[Any], object]


def load(side: Ours | ByHand | Text, touch: Touch | None) -> Run:
    """Load all rows as objects."""
    run = Run()
    with Session(side.engine) as session, run.timed():
        rows = session.scalars(select(side.model)).all()
        if touch is not None:
            for row in rows:
                touch(row)
    return run


class Text:
    """The rows of ours, mapped as plain text."""

    def __init__(self, ours: Ours) -> None:
        class Base(DeclarativeBase):
            pass

        class Doc(Base):
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]
            file: Mapped[str]

        self.model, self.engine = Doc, ours.engine


def contests(rounds: int, where: Path | None, scale: float = 1.0, url: str | None = None) -> Iterable[Contest]:
    """Both rows of this group; all rounds read the same two databases, which hold the same descriptors."""
    count = int(50_000 * scale)
    facts = [descriptor(mint(), f"photo-{number}.jpg", 10_240, f"{number:064x}") for number in range(count)]
    with ExitStack() as stack:
        sides: dict[str, Any] = {}
        for name, make in (("ours", Ours), ("floor", ByHand)):
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=where)))
            sides[name] = make(folder, stack.enter_context(Database(folder, url)))
            _fill(sides[name], facts)
        del facts  # The collector would look at them in each round.
        if url is None:
            sides["text column"] = Text(sides["ours"])
        for work, target, touches in (
            ("load, untouched", 0.6, {"ours": None, "floor": None, "text column": None}),
            ("load, filename touched", 1.0, {"ours": _filename, "floor": _filename_by_hand}),
        ):
            contest = Contest(work, f"{count:,} rows", target)
            turns = {
                name: lambda _, side=sides[name], touch=touch: load(side, touch)
                for name, touch in touches.items()
                if name in sides
            }
            contest.hold(turns, rounds, where)
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
