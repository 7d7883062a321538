"""Statistics: how many files a ledger knows, and how many bytes, by storage and state."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import case, func, select

from .recovery import Purger


class LedgerStats(NamedTuple):
    """How many files, and how many bytes in all, a storage has in one state."""

    storage: str
    state: str
    files: int
    size: int
    held: int = 0
    """How many of the files belong to an adoption that is not finished, and are not purged before."""


def read(purger: Purger) -> list[LedgerStats]:
    """The statistics of one ledger."""
    c = purger.ledger.lines.c
    held = func.sum(case((c.held.is_(True), 1), else_=0))
    statement = select(c.storage, c.state, func.count(), func.coalesce(func.sum(c.size), 0), held)
    with purger.begin() as connection:
        rows = connection.execute(statement.group_by(c.storage, c.state).order_by(c.storage, c.state)).all()
    return [LedgerStats(storage, state, files, int(size), int(held)) for storage, state, files, size, held in rows]
