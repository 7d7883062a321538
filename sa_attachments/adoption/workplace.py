"""Workplace: one connection on which a column is adopted, batch by batch, each in a transaction of its own.

It is the caller's connection, a migration's perhaps: so the search path, the schema names and whatever else it was
set up with hold for the ledger and for the rows alike.

>>> from sqlalchemy import MetaData, create_engine
>>> from sa_attachments import Storages
>>> engine, metadata = create_engine("sqlite://"), MetaData()
>>> ledger = Ledger.of(metadata)
>>> metadata.create_all(engine)
>>> with engine.connect() as connection, workplace(connection, Storages("memory:"), ledger) as place:
...     with place.begin() as same:
...         same is connection, same.in_transaction()
(True, True)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, MetaData, Table, and_, delete, false, func, select, text, update

from ..care import UNHURRIED
from ..chunks import chunked, lockable
from ..clock import now
from ..descriptor import Name, Named
from ..errors import AttachmentError, NoTransaction, OwnershipLost
from ..files import Storages
from ..ledger import Ledger, Line
from ..offload import run
from ..patience import impatient, isolation_level
from ..queries import CONDEMNED, OWNED, PURGING
from ..recovery import Purger
from ..scope import Scope
from ..sight import Sight
from .plan import Plan
from .spot import Spot


class Found(NamedTuple):
    """A line of the ledger."""

    storage: str
    key: str
    state: str
    owner: tuple[str | None, str | None]
    """Table and column."""


class Workplace(Purger):
    """Purges too, on the connection that it was given; ``connection()`` must not be entered twice."""

    def __init__(self, connection: Connection, files: Storages, ledger: Ledger) -> None:
        super().__init__(Scope.seen_by(connection, files, ledger), files.places, run, UNHURRIED)
        self.files = files
        self._given = connection

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """The one that was given."""
        with impatient(self._given, self.patience):
            yield self._given

    def column_of(self, connection: Connection, plan: Plan) -> Any:
        """The condition that a line is of the column that the ledger knows by this name; false where it may be another
        one's, of a tenant that shares the ledger perhaps, or rows that name its file may be hidden.
        """
        c, owner = self.ledger.lines.c, (plan.fullname, plan.into)
        column: Column[Any] = Table(plan.table, MetaData(), Column(plan.into), schema=plan.schema).c[plan.into]
        is_told = plan.schema is not None and plan.schema not in dict(self.scope.schemas)
        if not is_told and Sight(connection, self.ledger, [column], [owner]).doubt(owner):
            return false()
        return and_(c.owner_table == owner[0], c.owner_column == owner[1])

    # Lines of files that are adopted

    def at(self, connection: Connection, spots: Collection[Spot]) -> dict[Spot, frozenset[Found]]:
        """The lines of the files that lie there, under whatever names."""
        c = self.ledger.lines.c
        by_key: dict[str, list[Spot]] = {}
        for spot in spots:
            for key in spot.aliases():
                by_key.setdefault(key, []).append(spot)
        found: dict[Spot, set[Found]] = {spot: set() for spot in spots}
        for chunk in chunked(by_key):
            statement = select(c.storage, c.key, c.state, c.owner_table, c.owner_column).where(c.key.in_(chunk))
            for row in connection.execute(statement):
                try:
                    storage = self.files.resolve(row.storage)
                except (AttachmentError, ImportError):
                    continue  # nothing is purged there
                for spot in by_key[row.key]:
                    if spot.has(row.storage, storage, row.key):
                        owner = row.owner_table, row.owner_column
                        found[spot].add(Found(row.storage, row.key, row.state, owner))
        return {spot: frozenset(lines) for spot, lines in found.items()}

    def adopt(self, connection: Connection, lines: Sequence[tuple[Line, list[str]]]) -> None:
        """Insert held lines of files that were there before us, with the keys of what lies beside them. One that was
        dropped since it was adopted before is owned again. OwnershipLost if it is being purged.
        """
        known = self.ledger.states(connection, (line.named for line, _ in lines))
        for line, _ in lines:
            if line.named.name in known and not self.ledger.reclaim(connection, line):
                raise OwnershipLost(f"{line.named.storage}:{line.named.key} is being purged, or somebody else's")
        self.hold(connection, [line.named for line, _ in lines if line.named.name in known])
        insert = self.ledger.lines.insert().values(state=OWNED, since=now(), held=True, names=text("0"))
        values = [
            {
                "key": line.named.key,
                "storage": line.named.storage,
                "owner_table": line.owner_table,
                "owner_column": line.owner_column,
                "size": line.named.size,
                "descriptor": {"adopted": {"beside": beside}} if beside else None,
            }
            for line, beside in lines
            if line.named.name not in known
        ]
        if values:
            connection.execute(insert, values)

    def hold(self, connection: Connection, names: Sequence[Named]) -> None:
        """Never purge these, until somebody lets go of them."""
        for chunk in lockable(connection, names):
            connection.execute(update(self.ledger.lines).where(self.ledger.among(chunk)).values(held=True))

    def held(self, connection: Connection, names: Sequence[Named]) -> list[Named]:
        """Those of these files that are held."""
        c = self.ledger.lines.c
        found: set[Name] = set()
        for chunk in chunked(names):
            held = select(c.storage, c.key).where(self.ledger.among(chunk), c.held.is_(True))
            found |= {(row.storage, row.key) for row in connection.execute(held)}
        return [file for file in names if file.name in found]

    def disown(self, connection: Connection, names: Sequence[Named]) -> None:
        """Remove the lines of files that are nobody's business any more, and leave the files."""
        for chunk in lockable(connection, names):
            connection.execute(delete(self.ledger.lines).where(self.ledger.among(chunk)))

    def keep(self, connection: Connection, files: Collection[Found]) -> bool:
        """Remove the lines of condemned files, which something else names, and leave the files; False if one of them is
        not condemned any more.
        """
        c, count = self.ledger.lines.c, 0
        for chunk in lockable(connection, sorted(files)):
            condemned = and_(self.ledger.among([line[:2] for line in chunk]), c.state == CONDEMNED)
            count += connection.execute(delete(self.ledger.lines).where(condemned)).rowcount
        return count == len(files)

    def doom(self, connection: Connection, names: Sequence[Named]) -> None:
        """Claim files for purging, in the transaction that takes their last name: nobody can own them after it."""
        c = self.ledger.lines.c
        for chunk in lockable(connection, names):
            # What triggers say that another row names is left alone.
            unnamed = and_(c.state.in_([OWNED, CONDEMNED]), func.coalesce(c.names, 0) <= 0)
            values = {"state": PURGING, "since": now(), "purge_after": now(), "held": False}
            connection.execute(update(self.ledger.lines).where(self.ledger.among(chunk), unnamed).values(values))


@contextmanager
def workplace(connection: Connection, files: Storages, ledger: Ledger) -> Iterator[Workplace]:
    """A workplace on a connection that is in no transaction; it is given back as it came. Raises LedgerMissing,
    NoTransaction.
    """
    if connection.in_transaction():
        raise NoTransaction("the connection is in a transaction: commit first, as each batch is committed by itself")
    dialect = connection.dialect
    before = isolation_level(connection)
    if change := dialect.name != "sqlite" or before == "AUTOCOMMIT":
        wanted = "SERIALIZABLE" if dialect.name == "sqlite" else "READ COMMITTED"
        connection.execution_options(isolation_level=wanted)
    place = Workplace(connection, files, ledger)
    try:
        with place.begin() as working:
            ledger.require(working)
            ledger.begin_write(working)
            driver: Any = connection.connection.driver_connection
            if dialect.name == "sqlite" and not driver.in_transaction:
                raise NoTransaction(
                    "the driver commits each statement: emit BEGIN in an engine event, or don't tell it to"
                )
        with _lenient(connection):
            yield place
    finally:
        if change and not connection.closed and not connection.invalidated and not connection.in_transaction():
            connection.execution_options(isolation_level=before or connection.default_isolation_level)


@contextmanager
def _lenient(connection: Connection) -> Iterator[None]:
    """Let SQLite's driver read texts that are no UTF-8, each as what is no text: else one stops the whole page."""
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name != "sqlite" or getattr(driver, "text_factory", None) is not str:
        yield
        return
    driver.text_factory = partial(str, encoding="utf-8", errors="surrogateescape")
    try:
        yield
    finally:
        with suppress(ValueError):  # closed
            driver.text_factory = str
