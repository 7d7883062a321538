"""Doubts: what transactions promised in their vote, until it is known how they ended.

A line in the table ``attachment_doubt`` is written together with the ledger's, durably, before any document can be
committed: this transaction wants the file to be named by a document (``wanted``), or no longer. The line goes when the
file is what the transaction wanted, or when it is known that it never will be. What a killed process promised stays
there, for whoever can ask the documents.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    select,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.pool import QueuePool

from ...chunks import CHUNK, chunked
from ...clock import milliseconds, now
from ...descriptor import Named
from ...ledger import Drop, Ledger, Line
from ...lock import Lock
from ...queries import OWNED

log = logging.getLogger("sa_attachments")

PATIENCE = 30_000
"""Milliseconds that a vote waits for SQLite's one writer."""

ATTEMPTS = 10
"""At making the tables."""

OWNER = "documents"
"""What the ledger is told of the owner: its lines are not to be taken for those of strangers."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """``wanted`` or not by a transaction."""

    transaction: str
    named: Named
    wanted: bool


class Doubts:
    """The database of one ``DocumentFiles``: its ledger, and the doubts."""

    def __init__(self, url: str | URL, ledger: Ledger, metadata: MetaData) -> None:
        self.engine = _own(_durable(create_engine(url)))
        self.ledger = ledger
        self._metadata = metadata
        self._created = False
        self._creating = Lock()
        self._lines = Table(
            "attachment_doubt",
            metadata,
            Column("transaction_id", String(32), primary_key=True),
            Column("key", ledger.lines.c.key.type, primary_key=True),
            Column("storage", ledger.lines.c.storage.type, nullable=False),
            Column("size", BigInteger, nullable=False),
            Column("wanted", Boolean, nullable=False),
            Column("since", BigInteger, nullable=False),
        )

    def create(self) -> None:
        """Make the tables that are not there; others may do so at the same moment."""
        with self._creating():
            attempt = 0
            while not self._created:
                try:
                    self._metadata.create_all(self.engine)
                except DBAPIError:
                    if (attempt := attempt + 1) == ATTEMPTS:
                        raise
                    time.sleep(0.02 * attempt)
                else:
                    self._created = True

    def promise(
        self, transaction: str, staged: Sequence[Named], dropped: Sequence[Named], own_within: timedelta
    ) -> None:
        """Own what was staged, and note what is in doubt from now on; durable when it returns. OwnershipLost."""
        wanted = [(file, True) for file in staged] + [(file, False) for file in dropped]
        with self._transaction() as connection:
            for chunk in chunked([Line(file, OWNER, "") for file in staged], CHUNK):
                self.ledger.own(connection, chunk, own_within)
            connection.execute(
                self._lines.insert().values(since=now()),
                [{"transaction_id": transaction, **file._asdict(), "wanted": each} for file, each in wanted],
            )

    def of(self, transaction: str) -> list[Doubt]:
        """What a transaction left in doubt."""
        return self._read(self._lines.c.transaction_id == transaction)

    def older(self, age: timedelta) -> list[Doubt]:
        """What transactions promised longer ago than ``age`` by the database's clock, and never settled."""
        return self._read(self._lines.c.since <= now() - milliseconds(age))

    def settle(self, verdicts: Iterable[tuple[Doubt, bool]], retain: timedelta) -> list[Named]:
        """Let go of doubts, of which it is known by now whether a document names the file. Those that none does are
        condemned; returns which are due at once: what was dropped is kept for ``retain``, what nobody saw is not.
        """
        drops: list[Drop] = []
        with self._transaction() as connection:
            for doubt, is_named in verdicts:
                # Whoever removes the line decides: nobody condemns what somebody else knew to be named.
                is_ours = self._forget(connection, doubt)
                if is_named and not is_ours:
                    self._take_back(connection, doubt)
                elif not is_named and (is_ours or not doubt.wanted):
                    drops.append(Drop(doubt.named, 0 if doubt.wanted else milliseconds(retain)))
            for chunk in chunked(drops):
                self.ledger.drop(connection, chunk)
        return [drop.named for drop in drops if not drop.retain]

    def _forget(self, connection: Connection, doubt: Doubt) -> bool:
        c = self._lines.c
        gone = connection.execute(
            delete(self._lines).where(c.transaction_id == doubt.transaction, c.key == doubt.named.key)
        )
        return gone.rowcount == 1

    def _take_back(self, connection: Connection, doubt: Doubt) -> None:
        """Own a file again that somebody took for one that no document names, before the document was committed."""
        if doubt.wanted and not self.ledger.reclaim(connection, Line(doubt.named, OWNER, "")):
            c = self.ledger.lines.c
            if connection.scalar(select(c.state).where(self.ledger.among([doubt.named]))) != OWNED:
                log.critical("a document names %r, which was purged: its commit took longer than in_doubt_for", doubt)

    def _read(self, condition: Any) -> list[Doubt]:
        c = self._lines.c
        statement = select(c.transaction_id, c.storage, c.key, c.size, c.wanted).where(condition).order_by(c.key)
        with self.engine.connect() as connection:
            return [Doubt(row[0], Named(*row[1:4]), row[4]) for row in connection.execute(statement)]

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with self.engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
            yield connection


def _durable(engine: Engine) -> Engine:
    """SQLite's folder is flushed too when a commit removes the journal; writers wait for each other."""
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def connect(connection: Any, record: Any) -> None:
            cursor = connection.cursor()
            cursor.execute("PRAGMA synchronous = EXTRA")
            cursor.execute(f"PRAGMA busy_timeout = {PATIENCE}")
            cursor.close()

    return engine


def _own(engine: Engine) -> Engine:
    """A forked child leaves the connections in the pool to its parent, which goes on using them."""
    if isinstance(engine.pool, QueuePool):

        @event.listens_for(engine, "connect")
        def connect(connection: Any, record: Any) -> None:
            record.info["process"] = os.getpid()

        @event.listens_for(engine, "checkout")
        def checkout(connection: Any, record: Any, proxy: Any) -> None:
            if record.info["process"] != os.getpid():
                record.dbapi_connection = proxy.dbapi_connection = None  # not closed: that would end the parent's
                raise DisconnectionError

    return engine
