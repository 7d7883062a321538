"""Access: connections of our own to one ledger, in short transactions that wait for nobody and are durable when done.

They are the application's, from its pool, and may have been used before by somebody who set a search path, or entered
another database. Whose ledger one sees is asked each time: what another ledger does not know is not dead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Pool

from .errors import BadConfiguration
from .patience import PATIENCE, Busy, impatient, together
from .pools import forget_returned, is_full, is_shared_and_busy
from .scope import Scope
from .tables import whereabouts


class Access:
    """See the module."""

    def __init__(self, scope: Scope, patience: int, pool: Pool | None = None) -> None:
        """``patience``: milliseconds to wait for SQLite's one writer; ``pool``: the only one whose connections may be
        used, as the engine gets a new one when it is disposed of.
        """
        self.scope = scope
        self.ledger = scope.ledger
        self.patience = patience
        self._pool = pool
        self.sees: str | None = None
        """Which ledger, once it was looked at."""

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection with the schemas that the rows' transaction had. Busy if there is none to be had."""
        engine = self.scope.engine
        if is_full(engine) or is_shared_and_busy(engine):
            raise Busy("all connections to the database are in use")
        if self._pool not in (None, engine.pool):
            # Who disposed of the engine is about to fork, to drop the database, or to end: nobody closes another one.
            raise Busy("the engine was disposed of")
        forget_returned(engine)
        with engine.connect() as connection:
            # None of them, too: the engine's own are others, perhaps.
            options: dict[str, Any] = {"schema_translate_map": dict(self.scope.schemas)}
            if engine.dialect.name != "sqlite":
                options["isolation_level"] = "READ COMMITTED"
            connection = _with_options(connection, options)
            with impatient(connection, self.patience):
                yield connection

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        """A short transaction that is durable when it ends."""
        with connection.begin(), together(connection):
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(_LOCAL).close()
            yield

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A connection in such a transaction. BadConfiguration if it sees another ledger than those before."""
        with self.connection() as connection, self.transaction(connection):
            here = whereabouts(connection, self.ledger.lines)
            if self.sees not in (None, here):
                raise BadConfiguration(
                    f"connections of {self.scope.engine!r} see several tables {self.ledger.lines.fullname!r}, by a "
                    "search path, USE or ATTACH of their own: pass an engine whose connections all see one"
                )
            self.sees = here
            yield connection


def _with_options(connection: Connection, options: dict[str, Any]) -> Connection:
    """On MariaDB and MySQL they are a statement, and the first to tell that the connection was lost in its pool, in the
    driver's words: said in SQLAlchemy's, all others that the pool holds are made anew.
    """
    try:
        return connection.execution_options(**options)
    except connection.dialect.loaded_dbapi.Error as error:
        connection._handle_dbapi_exception(error, None, None, None, None)


_LOCAL = f"SELECT set_config('lock_timeout', '{PATIENCE}', true), set_config('synchronous_commit', 'on', true)"
"""``SET LOCAL`` of both at once, as each statement is a way to the server and back."""
