"""Undecided: transactions that were prepared, and that somebody commits or rolls back later."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError

UNKNOWN_XID = "XAER_NOTA"
PROGRAM = """
import sys
from tests.twophase.undecided import decide
decide(*sys.argv[1:])
"""


class Undecided:
    """Those that an engine prepared. ``COMMIT`` and ``ROLLBACK`` are the words of both servers."""

    def __init__(self, engine: Engine, observer: Engine) -> None:
        self._engine = observer.execution_options(isolation_level="AUTOCOMMIT")
        self._prepared: list[str] = []
        event.listen(engine, "prepare_twophase", lambda connection, xid: self._prepared.append(str(xid)))

    def names(self) -> list[str]:
        """In the order in which they were prepared. MariaDB has one list for all databases: others' are left out."""
        is_postgres = self._engine.dialect.name == "postgresql"
        with self._engine.connect() as connection:
            if is_postgres:
                there = set(connection.scalars(text("SELECT gid FROM pg_prepared_xacts")))
            else:
                rows: Any = connection.execute(text("XA RECOVER"))
                there = {row.data.decode() if isinstance(row.data, bytes) else row.data for row in rows}
        return [name for name in self._prepared if name in there]

    def decide(self, name: str, end: str) -> None:
        """Commit or roll back one of them, from a connection that never saw it before."""
        with self._engine.connect() as connection:
            _end(connection, name, end)

    def decide_elsewhere(self, end: str) -> None:
        """All of them, in another process."""
        url = self._engine.url.render_as_string(hide_password=False)
        subprocess.run([sys.executable, "-c", PROGRAM, url, end, *self.names()], check=True, timeout=60)

    def forget(self) -> None:
        """What a test that failed left would hold locks for ever."""
        for name in self.names():
            with suppress(DBAPIError):
                self.decide(name, "ROLLBACK")


def decide(url: str, end: str, *names: str) -> None:
    """In a process of its own."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in names:
            _end(connection, name, end)


def _end(connection: Connection, name: str, end: str) -> None:
    """MariaDB lets nobody decide before it has noticed that who prepared is gone."""
    is_postgres = connection.dialect.name == "postgresql"
    patience = time.monotonic() + 30
    while True:
        try:
            connection.execute(text(f"{end} PREPARED '{name}'" if is_postgres else f"XA {end} '{name}'"))
            return
        except DBAPIError as error:
            if UNKNOWN_XID not in str(error.orig) or time.monotonic() > patience:
                raise
        time.sleep(0.01)
