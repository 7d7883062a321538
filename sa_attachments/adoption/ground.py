"""Ground: the files on which the value of a row relies that is given back, where they are not its own any more.

A row that was moved, or got a copy since it shares its file, says on the way back where a file lies that another line
of the ledger knows, or none:

- of a file without a line nobody will delete anything: the value can rely on it;
- a condemned one is named again, so its line has to go, in the transaction that says so;
- what another row owns, or is being purged, can't be relied on, however many kills and sweeps are to come: if its owner
  is of this column, it may come back itself, and the row waits for that; else it gets another value, for a copy.

The ledger is asked before the files are looked at, and again in the transaction: what lay there when it had no line, or
was condemned from the first to the second time, lies there still.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import select

from ..descriptor import Facts, named
from ..errors import UnknownStorage
from ..offload import gather
from ..queries import CONDEMNED
from .rows import Rows
from .spot import Spot
from .survey import LOOK, pages
from .taking import Reader, Unadoptable
from .workplace import Found, Workplace


@dataclass(frozen=True, slots=True)
class Ground:
    """That of one row."""

    spots: frozenset[Spot] = frozenset()
    """Of all files that the row named before it was adopted."""
    lines: dict[Spot, frozenset[Found]] = field(default_factory=dict)
    """Of those that are not its own, and that it can rely on: condemned, if there are any."""
    avoid: frozenset[Spot] = frozenset()
    """Those that it can't rely on."""
    owners: frozenset[tuple[str | None, str | None]] = frozenset()
    """The columns of those."""

    @property
    def condemned(self) -> set[Found]:
        """The lines that have to go."""
        return {line for found in self.lines.values() for line in found}


def look(place: Workplace, reader: Reader, rows: Sequence[list[Facts]]) -> list[Ground]:
    """The ground of each of these rows, known by what it names now."""
    outcomes = gather([partial(spots, reader, items) for items in rows], 8)
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    found = [outcome.value or frozenset() for outcome in outcomes]
    if not any(found):
        return [Ground()] * len(rows)
    with place.begin() as connection:
        lines = place.at(connection, frozenset().union(*found))
    return [_ground(items, each, lines) for items, each in zip(rows, found, strict=True)]


def _ground(items: Sequence[Facts], spots: frozenset[Spot], lines: dict[Spot, frozenset[Found]]) -> Ground:
    own = {file.name for facts in items for file in named(facts)}
    others = {spot: lines[spot] for spot in spots if not any(line[:2] in own for line in lines[spot])}
    firm = {spot: found for spot, found in others.items() if all(line.state == CONDEMNED for line in found)}
    avoid = others.keys() - firm.keys()
    owners = {line.owner for spot in avoid for line in others[spot] if line.state != CONDEMNED}
    return Ground(spots, firm, frozenset(avoid), frozenset(owners))


def spots(reader: Reader, items: Sequence[Facts]) -> frozenset[Spot]:
    """Where the files lay that a row named before it was adopted."""
    adopted = [each for facts in items if isinstance(each := facts.get("adopted"), dict)]
    values = [each.get("value", each.get("path")) for each in adopted]
    return frozenset().union(*(named_by(reader, value) for value in values if isinstance(value, str)))


def named_by(reader: Reader, value: str) -> set[Spot]:
    """Where the files lie that a value of the old column names; none if it can't be understood."""
    try:
        return reader.spots(value)
    except (Unadoptable, UnknownStorage):
        return set()


def spare(place: Workplace, rows: Rows, reader: Reader) -> None:
    """Remove the lines of files that were dropped and that the old column names, whoever dropped them."""
    owner, c = (rows.plan.fullname, rows.plan.into), place.ledger.lines.c
    mine = c.owner_table == owner[0], c.owner_column == owner[1], c.state == CONDEMNED
    with place.begin() as connection:
        if connection.scalar(select(c.key).where(*mine).limit(1)) is None:
            return
    for values in _said(place, rows):
        with place.begin() as connection:
            place.ledger.begin_write(connection)
            found = place.at(connection, {spot for value in values for spot in named_by(reader, value)})
            lines = {line for some in found.values() for line in some}
            place.keep(connection, {each for each in lines if (each.state, each.owner) == (CONDEMNED, owner)})


def _said(place: Workplace, rows: Rows) -> Iterator[list[str]]:
    """What the old column says."""
    for page in pages(place, rows.page, LOOK):
        yield [row.value or "" for row in page]
    for left in pages(place, rows.adopted, LOOK):
        yield [said or "" for _, _, said in left]
