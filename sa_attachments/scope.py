"""Scope: one ledger in one database, as those see it who work on it for one ``Storages``.

What is looked at once, before the first file goes in, is remembered for as long as the database's pool lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, Table

from .home import Home
from .ledger import Ledger
from .references import Reference

Begin = Callable[[], AbstractContextManager[Connection]]
"""Gives a connection that is in a transaction."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Where ledger lines are: whose files, which tables, in which database, under which schema names."""

    files: Home
    ledger: Ledger
    engine: Engine
    schemas: tuple[tuple[str | None, str | None], ...] = ()

    @property
    def tables(self) -> tuple[Ledger, tuple[tuple[str | None, str | None], ...]]:
        """What tells it from others with the same files in the same database."""
        return self.ledger, self.schemas

    @classmethod
    def of(cls, reference: Reference, bind: Engine | Connection) -> Scope:
        """The scope of an attribute's files, as a connection or engine sees it."""
        files = reference.type.files
        return cls.seen_by(bind, files, files.ledger_of(reference.table))

    @classmethod
    def seen_by(cls, bind: Engine | Connection, files: Home, ledger: Ledger) -> Scope:
        """The scope of files in a ledger, as a connection or engine sees it."""
        schemas = bind.get_execution_options().get("schema_translate_map") or {}
        return cls(files, ledger, bind.engine, tuple(schemas.items()))

    @contextmanager
    def on(self, connection: Connection) -> Iterator[None]:
        """What is done on a connection uses the schemas that it had then: its options may have been changed since."""
        before = connection.get_execution_options().get("schema_translate_map")
        connection.execution_options(schema_translate_map=dict(self.schemas))
        try:
            yield
        finally:
            connection.execution_options(schema_translate_map=before)

    def require(self, table: Table, begin: Begin) -> None:
        """LedgerMissing, or NoTransaction of a table whose rows name files; looked at once."""
        checked = self.files.ready(self.ledger, self.engine)
        if (asked := (self.schemas, table)) not in checked:
            with begin() as connection:
                self.ledger.require(connection, table)
            checked.add(asked)

    def meet(self, name: str, begin: Begin) -> None:
        """Before anything is stored in a place for the first time: mark it as this database's."""
        checked = self.files.ready(self.ledger, self.engine)
        if (met := (self.schemas, name, id(self.files.resolve(name)))) not in checked:
            with begin() as connection:
                self.files.meet(self.ledger, connection, name)
            checked.add(met)
