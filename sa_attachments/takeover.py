"""Takeover: which ledger a place is given to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import and_, exists, select

from .errors import BadConfiguration, listing
from .queries import OWNED
from .recovery import Purger


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
