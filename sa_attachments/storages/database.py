"""DatabaseStorage: files as rows of a database, in pieces, by SQLAlchemy Core.

>>> from sqlalchemy import create_engine
>>> storage = DatabaseStorage(create_engine("sqlite://"))
>>> storage.create_tables()
>>> storage.put("a/b", io.BytesIO(b"hello"), size=5, content_type="text/plain")
>>> storage.open("a/b", 1, 3).read(), [key for key, modified in storage.keys()]
(b'el', ['a/b'])

URL: ``db:`` and the URL of the database, ``db:postgresql+psycopg://app@db/files``. Options:

- ``table`` (``attachment_file``): name of the table; that of the pieces ends in ``_piece``
- ``piece_size`` (256): KiB per row
- ``parallel`` (4): files at the same time; the pool of connections is made to fit
- ``create`` (false): make the tables when they are first used
- ``readonly`` (false)

Options of the driver are escaped in the URL: ``db:postgresql+psycopg://app@db/files%3Fsslmode=require``.

A file is written in one transaction of its own, piece by piece; reading takes a connection for each piece and holds
none in between. What a killed process had begun, the database rolls back.

Traps
-----
It is a storage like any other: it has connections of its own, and does not take part in the transaction of the rows.
SQLite has one writer, so there the files need a database file of their own: beside rows in the same file, a flush that
has written already would wait for itself. MariaDB and MySQL must allow packets larger than a piece.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, BinaryIO, Self, cast

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    insert,
    inspect,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.pool import QueuePool

from sa_attachments.errors import FileMissing
from sa_attachments.lock import Lock
from sa_attachments.storage import Readable, Stat

from . import checked, deletable, hidden, missing, taken, writable
from .pieces import Pieces
from .url import StorageURL, masked

KIB = 1 << 10
_PAGE = 1000
_ATTEMPTS = 10
_KEYS = 500  # per statement


class DatabaseStorage:
    """A storage in two tables; also ``Copies``."""

    def __init__(
        self,
        engine: Engine,
        *,
        table: str = "attachment_file",
        piece_size: int = 256,
        parallel: int = 4,
        create: bool = False,
        readonly: bool = False,
    ) -> None:
        """``piece_size`` is in KiB."""
        self.engine = engine
        self.parallel = 1 if engine.dialect.name == "sqlite" else parallel
        self.readonly = readonly
        self._piece_size = piece_size * KIB
        self._create = create
        self._creating = Lock()
        self._process = os.getpid()
        self.metadata = MetaData()
        key = _binary(255)
        self._files = Table(
            table,
            self.metadata,
            Column("key", key, primary_key=True),
            Column("size", BigInteger, nullable=False),
            Column("modified", BigInteger, nullable=False),  # milliseconds since the epoch
            Column("content_type", String(255), nullable=False),
            Column("piece_size", Integer, nullable=False),
        )
        self._pieces = Table(
            f"{table}_piece",
            self.metadata,
            Column("key", key, primary_key=True),
            Column("number", Integer, primary_key=True, autoincrement=False),
            Column("data", LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb"), nullable=False),
        )

    @classmethod
    def from_url(cls, url: StorageURL) -> Self:
        """The backend of ``db:``. Raises BadConfiguration."""
        options: dict[str, Any] = {
            "table": url.text("table", "attachment_file"),
            "piece_size": url.number("piece_size", 256),
            "parallel": (parallel := url.number("parallel", 4)),
            "create": url.flag("create", False),
            "readonly": url.flag("readonly", False),
        }
        url.done()
        try:
            address = make_url(url.inner)
        except ArgumentError:
            raise url.mistake("expected the URL of a database, as db:postgresql+psycopg://app@db/files") from None
        if address.get_backend_name() == "sqlite" and address.database in (None, "", ":memory:"):
            raise url.mistake("in memory each thread has a database of its own: name a file, or use 'memory:'")
        # Without parameters in its messages: they are the bytes of files.
        engine = create_engine(address, hide_parameters=True, pool_size=parallel, max_overflow=parallel)
        if engine.dialect.is_async:
            raise url.mistake(f"{address.drivername} is for asyncio: name another driver, the verbs run in threads")
        return cls(engine, **options)

    def create_tables(self) -> None:
        """Make the tables, if they are not there."""
        self.metadata.create_all(self.engine)

    # Verbs

    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        writable(self, key)
        with self._transaction() as connection:
            self._announce(connection, key, content_type, self._piece_size)
            stored = number = 0
            while data := _filled(stream, self._piece_size):
                connection.execute(insert(self._pieces).values(key=key, number=number, data=data))
                stored += len(data)
                number += 1
            connection.execute(update(self._files).where(self._files.c.key == key).values(size=stored))

    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        row = self._row(key)
        whole = Pieces(self._connect, self._pieces, row, start, end)
        return cast(BinaryIO, io.BufferedReader(whole, row.piece_size))

    def stat(self, key: str) -> Stat:
        row = self._row(key)
        return Stat(row.size, _time(row.modified), row.content_type)

    def delete(self, keys: Sequence[str]) -> Mapping[str, Exception]:
        good, failed = deletable(self, keys)
        for at in range(0, len(good), _KEYS):
            doomed = good[at : at + _KEYS]
            with self._transaction() as connection:
                # First the file: whoever puts the same key meanwhile waits for this, and not the other way round.
                connection.execute(delete(self._files).where(self._files.c.key.in_(sorted(doomed))))
                connection.execute(delete(self._pieces).where(self._pieces.c.key.in_(doomed)))
        return failed

    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        c = self._files.c
        last = after or ""
        while True:
            statement = select(c.key, c.modified).where(c.key > last).order_by(c.key).limit(_PAGE)
            if before is not None:
                statement = statement.where(c.key < before)
            with self._connection() as connection:
                page = connection.execute(statement).all()
            for key, modified in page:
                if not hidden(key):
                    yield key, _time(modified)
            if len(page) < _PAGE:
                return
            last = page[-1].key

    # Ability

    def copy(self, source: str, key: str) -> None:
        writable(self, key)
        origin = self._row(source)
        pieces = self._pieces.c
        with self._transaction() as connection:
            self._announce(connection, key, origin.content_type, origin.piece_size, origin.size)
            there = select(literal(key, pieces.key.type), pieces.number, pieces.data).where(pieces.key == source)
            copying = insert(self._pieces).from_select(["key", "number", "data"], there)
            copied = connection.execute(copying.execution_options(preserve_rowcount=True)).rowcount
            if copied < -(-origin.size // origin.piece_size):
                raise FileMissing(f"{source!r} was deleted from {self!r} while it was copied")

    def _announce(self, connection: Connection, key: str, content_type: str, piece_size: int, size: int = 0) -> None:
        """Insert the file's row first: of two that put one key, the second waits here, and finds it taken."""
        values = {"size": size, "modified": _now(), "content_type": content_type[:255], "piece_size": piece_size}
        try:
            connection.execute(insert(self._files).values(key=key, **values))
        except IntegrityError as error:
            raise taken(self, key) from error

    def _row(self, key: str) -> Any:
        with self._connection() as connection:
            row = connection.execute(select(self._files).where(self._files.c.key == checked(key))).first()
        if row is None:
            raise missing(self, key)
        return row

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A new connection, on which the tables are there."""
        if self._create and not self.readonly:
            with self._creating():
                self._create_beside_others()
                self._create = False
        with self._connect() as connection:
            try:
                yield connection
            except DBAPIError as error:
                connection.rollback()
                name = self._files.name
                if name not in str(error.orig) or inspect(connection).has_table(name):
                    raise
                raise LookupError(
                    f"there is no table {name!r} in {self!r}: make it by storage.create_tables(), by a migration from "
                    "storage.metadata, or by '?create=true' in the URL"
                ) from error

    def _connect(self) -> Connection:
        """A new connection. A forked child leaves those in the pool to its parent, which goes on using them."""
        if self._process != os.getpid():
            if isinstance(self.engine.pool, QueuePool):
                self.engine.dispose(close=False)
            self._process = os.getpid()
        return self.engine.connect()

    def _create_beside_others(self) -> None:
        """Other processes may make the tables at the same moment."""
        for attempt in range(_ATTEMPTS):
            try:
                self.create_tables()
            except DBAPIError:
                if attempt == _ATTEMPTS - 1:
                    raise
                time.sleep(0.02 * attempt)
            else:
                return

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction that is durable when it ends, whatever the database's default."""
        with self._connection() as connection:
            if connection.dialect.name != "sqlite":
                connection = connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
                yield connection

    def __repr__(self) -> str:
        return f"DatabaseStorage({masked(self.engine.url.render_as_string())!r})"


def _filled(stream: Readable, size: int) -> bytes:
    """``size`` bytes, or fewer at the end."""
    pieces = []
    while size and (data := stream.read(size)):
        pieces.append(data)
        size -= len(data)
    return b"".join(pieces)


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _binary(length: int) -> String:
    """Text that is compared, and sorted, by its bytes."""
    return (
        String(length)
        .with_variant(postgresql.VARCHAR(length, collation="C"), "postgresql")
        .with_variant(mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql", "mariadb")
    )
