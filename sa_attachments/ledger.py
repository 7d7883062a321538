"""The ledger: a table with one line per stored file, in the database of the rows. It is the truth about who owns what.

A line is ``owned`` from the transaction that stored the file; ``condemned`` when a transaction dropped it, or when a
staged file turned out to have no owner; ``purging`` while its bytes are deleted; ``gone`` when a late owner must
still be kept from naming it. Only ``condemned`` may become ``owned`` again. All times are milliseconds since the
epoch by the database's clock.

The table joins the ``MetaData`` of the tables with attachment columns by itself:

>>> from sqlalchemy import MetaData
>>> metadata = MetaData()
>>> Ledger.of(metadata) is Ledger.of(metadata), sorted(metadata.tables)
(True, ['attachment_ledger', 'attachment_storage'])

Traps
-----
The primary key leads with ``key``, not with ``storage``: a sweep must recognise a file under whatever name the ledger
knows it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    and_,
    inspect,
    null,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.exc import DBAPIError, IntegrityError

from .chunks import by_storage, chunked, lockable, one_of
from .clock import milliseconds, now
from .descriptor import Name, Named
from .errors import LedgerMissing, OwnershipLost
from .key import minted
from .queries import CONDEMNED, OWNED, Queries
from .tables import identity_of, make_room, require_transactions, schema_of, translated

Owner = tuple[str, str]
"""What the ledger calls a column: the names of its table, with the schema that its mapping says, and of itself."""


def owner_of(column: Column[Any]) -> Owner:
    """
    >>> owner_of(Table("docs", MetaData(), Column("file"), schema="archive").c.file)
    ('archive.docs', 'file')
    """
    # Plain text: to drivers SQLAlchemy's own kind, that knows how it is quoted, is something to look at twice.
    return str(column.table.fullname), str(column.name)


class Line(NamedTuple):
    """What the ledger is told about a staged file: its name, and the column that will own it."""

    named: Named
    owner_table: str
    owner_column: str


class Drop(NamedTuple):
    """A file that a row no longer names: kept for ``retain`` milliseconds, with what a restore needs if that is more
    than none.
    """

    named: Named
    retain: int = 0
    descriptor: dict[str, Any] | None = None
    owner_pk: str | None = None


class Ledger:
    """The two tables of one ``MetaData``, and the statements that a user's own transaction runs on them."""

    def __init__(self, metadata: MetaData) -> None:
        make_room(metadata, "attachment_ledger", "attachment_storage")
        self.lines = Table(
            "attachment_ledger",
            metadata,
            Column("key", _binary(255), primary_key=True),
            Column("storage", _binary(100), primary_key=True),
            Column("state", String(10), nullable=False),
            Column("held", Boolean, nullable=False, server_default="0"),
            Column("owner_table", String(255)),
            Column("owner_column", String(255)),
            Column("size", BigInteger),
            Column("since", BigInteger, nullable=False),
            Column("purge_after", BigInteger),
            Column("attempts", Integer, nullable=False, server_default="0"),
            Column("last_error", Text),
            Column("names", Integer),
            Column("descriptor", JSON(none_as_null=True)),
            Column("owner_pk", Text),
            sqlite_with_rowid=False,
        )
        due = self.lines.c.purge_after
        Index("ix_attachment_ledger_due", due, postgresql_where=due.is_not(None), sqlite_where=due.is_not(None))
        self.places = Table(
            "attachment_storage",
            metadata,
            Column("name", _binary(100), primary_key=True),
            Column("place", String(36), nullable=False),
            Column("fingerprint", String(255), nullable=False),
            Column("watermark", BigInteger),
            sqlite_with_rowid=False,
        )
        self.queries = Queries(self.lines)
        metadata.info[_INFO] = self

    @classmethod
    def of(cls, metadata: MetaData) -> Ledger:
        """The ledger of a ``MetaData``, added to it the first time."""
        found = metadata.info.get(_INFO)
        return found if isinstance(found, Ledger) else cls(metadata)

    # In the transaction of the rows

    def own(self, connection: Connection, lines: Sequence[Line], own_within: timedelta) -> int | str:
        """Insert ``owned`` lines for files that were just put. Returns which ledger that was (see ``identity``).

        OwnershipLost if one of them was condemned meanwhile, or was put longer ago than ``own_within`` by the
        database's clock; LedgerMissing if there is no table.
        """
        within = milliseconds(own_within)
        parameters = [
            {
                "key": line.named.key,
                "storage": line.named.storage,
                "owner_table": line.owner_table,
                "owner_column": line.owner_column,
                "size": line.named.size,
                "deadline": 1 << 62 if (put := minted(line.named.key)) is None else put + within,
            }
            for line in lines
        ]
        try:
            if connection.dialect.name == "postgresql" and connection.dialect.use_insertmanyvalues:
                told: Sequence[int] = connection.execute(self.queries.own_and_tell, parameters).scalars().all()
                return told[0]
            connection.execute(self.queries.own, parameters)
        except IntegrityError as error:
            raise OwnershipLost(
                f"{lines[0].named.key!r} (or one of {len(lines) - 1} more) came too late: a sweep condemned it, "
                f"or it was stored longer than {own_within} ago, or this machine's clock is slow, or a row has it "
                "already, as after a commit whose answer was lost; assign a fresh upload"
            ) from error
        except DBAPIError as error:
            raise self._explained(error) from error
        return self.identity(connection)

    def adopt(self, connection: Connection, line: Line) -> None:
        """Insert an ``owned`` line for a file that a row names already, however old it is."""
        connection.execute(
            self.lines.insert().values(
                key=line.named.key,
                storage=line.named.storage,
                state=OWNED,
                owner_table=line.owner_table,
                owner_column=line.owner_column,
                size=line.named.size,
                since=now(),
            )
        )

    def retained(self, connection: Connection, owner: Owner, owner_pks: Collection[str]) -> dict[str, Any] | None:
        """The descriptor of the file that a row dropped last, if it is kept; locked until the transaction ends. Its
        primary key may be written in several ways.
        """
        c = self.lines.c
        mine = and_(c.owner_table == owner[0], c.owner_column == owner[1], c.owner_pk.in_(owner_pks))
        mine = and_(mine, c.state == CONDEMNED, c.descriptor.is_not(None))
        # Without a lock at first: MySQL locks all that it looks at, and no index leads there.
        latest = select(c.storage, c.key).where(mine).order_by(c.since.desc(), c.key.desc()).limit(1)
        found = connection.execute(latest).first()
        if found is None:
            return None
        return connection.scalar(select(c.descriptor).where(self.among([tuple(found)]), mine).with_for_update())

    def tenant(self, connection: Connection, table: Table) -> tuple[str, ...]:
        """The schema of a table that the ledger knows by a name which it may share with those of other schemas, by
        ``schema_translate_map``, a search path or USE; nothing if it is in the ledger's own, or as the mapping says.
        """
        schema = schema_of(connection, table)
        return () if schema in (table.schema, schema_of(connection, self.lines)) else (schema,)

    def identity(self, connection: Connection) -> int | str:
        """Which of the ledgers that may go by the same name this connection sees."""
        return identity_of(connection, self.lines)

    def reclaim(self, connection: Connection, line: Line) -> bool:
        """Make a condemned file owned again; False if it is not condemned (any more)."""
        return self._claim(connection, line, CONDEMNED)

    def transfer(self, connection: Connection, line: Line) -> bool:
        """Note the new owner of a file that moves; False if it is not owned."""
        return self._claim(connection, line, OWNED)

    def _claim(self, connection: Connection, line: Line, state: str) -> bool:
        c = self.lines.c
        changed = connection.execute(
            update(self.lines)
            .where(c.key == line.named.key, c.storage == line.named.storage, c.state == state)
            .values(
                state=OWNED,
                since=now(),
                purge_after=None,
                attempts=0,
                descriptor=null(),
                owner_pk=None,
                owner_table=line.owner_table,
                owner_column=line.owner_column,
            )
        )
        return changed.rowcount == 1

    def drop(self, connection: Connection, drops: Sequence[Drop]) -> None:
        """Condemn files that rows no longer name, in the transaction that makes it so.

        Triggers know better: what a row still names they keep, and what none names they condemned already.
        """
        for retain in {drop.retain for drop in drops if drop.descriptor is None}:
            plain = (drop.named for drop in drops if drop.descriptor is None and drop.retain == retain)
            statement = self.queries.drop_later if retain else self.queries.drop
            for chunk in lockable(connection, plain):
                for these in by_storage(chunk):
                    connection.execute(statement, {**these, "keep": retain})
        if retained := [drop for drop in drops if drop.descriptor is not None]:
            connection.execute(
                self.queries.retain,
                [
                    {"k": d.named.key, "s": d.named.storage, "keep": d.retain, "what": d.descriptor, "who": d.owner_pk}
                    for d in retained
                ],
            )

    def begin_write(self, connection: Connection) -> None:
        """On SQLite: take the write lock, so that what is read from now on can't change before the transaction ends."""
        if connection.dialect.name == "sqlite":
            connection.execute(self.queries.write_nothing)

    def require(self, connection: Connection, *tables: Table) -> None:
        """LedgerMissing if there is no ledger, NoTransaction if it or one of the rows' ``tables`` follows none."""
        schema = translated(connection, self.lines.schema)
        if not inspect(connection).has_table(self.lines.name, schema):
            where = connection.engine.url.render_as_string()
            raise self._missing(f"looked in {where}{f', schema {schema!r}' if schema else ''}")
        require_transactions(connection, (self.lines, *tables))

    def states(self, connection: Connection, files: Iterable[Named], *, lock: bool = False) -> dict[Name, str]:
        """Those of the files that have a line; with ``lock``, until the transaction ends."""
        c = self.lines.c
        found: dict[Name, str] = {}
        for chunk in chunked(files):
            statement = select(c.storage, c.key, c.state).where(self.among(chunk)).order_by(c.key)
            rows = connection.execute(statement.with_for_update() if lock else statement)
            found.update({(row.storage, row.key): row.state for row in rows})
        return found

    def among(self, files: Sequence[Named | Name]) -> Any:
        """The condition that a line is one of ``files``, each ``(storage, key, ...)``."""
        c = self.lines.c
        storages = {file[0] for file in files}
        if len(storages) == 1:
            return one_of(c.key, [file[1] for file in files]) & (c.storage == next(iter(storages)))
        return tuple_(c.key, c.storage).in_([(file[1], file[0]) for file in files])

    def _explained(self, error: DBAPIError) -> Exception:
        said = str(error.orig)
        if self.lines.name in said and ("no such table" in said or "not exist" in said or "doesn't exist" in said):
            return self._missing(said)
        return error

    def _missing(self, why: str) -> LedgerMissing:
        return LedgerMissing(
            f"there is no table {self.lines.name!r}: create it with metadata.create_all() or a migration ({why})"
        )


_INFO = "sa_attachments.ledger"


def _binary(length: int) -> String:
    """Text that compares by its bytes, whatever the database's collation: keys differ by case, and are listed in code
    point order.
    """
    return (
        String(length)
        .with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")
        .with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
    )
