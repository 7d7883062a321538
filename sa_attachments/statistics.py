"""Statistics: how many files a ledger knows, and how many bytes, by storage and state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import and_, case, exists, func, select

from .errors import BadConfiguration, listing
from .ledger import OWNED
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


def keeper(purgers: Sequence[Purger], name: str) -> Purger:
    """Of several ledgers in one database, the one that has files in a storage: to another one, if the place were its
    own, they would be strangers. BadConfiguration if there are several, or none.
    """
    if len(purgers) == 1:
        return purgers[0]
    if not purgers:
        raise BadConfiguration("no mapped column uses these Storages: import the modules with the models")
    found = [each for each in purgers if _has(each, _owned_in(each, name))]
    found = found or [each for each in purgers if _has(each, each.ledger.places.c.name == name)]
    if len(found) == 1:
        return found[0]
    ledgers = listing([each.ledger.lines.fullname for each in found or purgers])
    if found:
        raise BadConfiguration(
            f"the ledgers {ledgers} have files in {name!r}, whose place belongs to one: give each a storage of its "
            "own, or let them be one ledger: Storages(ledger=...)"
        )
    raise BadConfiguration(f"none of the ledgers {ledgers} has files in {name!r}: store one first")


def _owned_in(purger: Purger, name: str) -> Any:
    c = purger.ledger.lines.c
    return and_(c.storage == name, c.state == OWNED)


def _has(purger: Purger, condition: Any) -> bool:
    with purger.begin() as connection:
        return bool(connection.scalar(select(exists().where(condition))))
