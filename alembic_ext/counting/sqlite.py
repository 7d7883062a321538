"""Triggers in the SQL of SQLite.

Traps
-----
``INSERT OR REPLACE`` loses names unseen unless ``PRAGMA recursive_triggers`` is on: without it, SQLite removes the old
row without firing triggers. A table that is made anew, as Alembic's batch mode does, loses its triggers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, text

from sa_attachments.clock import CLOCKS
from sa_attachments.errors import BadConfiguration

from ..script import Compound
from .counted import Counting
from .counter import LEDGER, Counter, Installed, gather

_EVENTS = ("insert", "update", "delete")


class SQLiteCounter(Counter):
    """SQLite ≥ 3.38, or earlier with its JSON functions. Tables of an attached database have their ledger there."""

    now = CLOCKS["sqlite"]

    def lock(self, countings: Sequence[Counting]) -> list[str]:
        for each in countings:
            if each.schema != each.ledger_schema:
                raise BadConfiguration(f"on SQLite, {each.fullname} and its ledger must be in the same database")
        ledger = self.at(countings[0].ledger_schema, LEDGER)
        return [f"UPDATE {ledger} SET attempts = attempts WHERE 0"]

    def reset(self, ledger_schema: str | None) -> list[str]:
        return [f"UPDATE {self.at(ledger_schema, LEDGER)} SET names = 0 WHERE names IS NOT 0"]

    def add(self, counting: Counting) -> list[str]:
        return [self._recount(counting, "line.names + counted.names")]

    def subtract(self, counting: Counting) -> list[str]:
        return [self._recount(counting, self.fewer("counted.names", "line."))]

    def _recount(self, counting: Counting, names: str) -> str:
        table = self.at(counting.schema, counting.table)
        files = " UNION ALL ".join(_files_of_rows(table, self.quote(each.column)) for each in counting.columns)
        return (
            f"UPDATE {self.at(counting.ledger_schema, LEDGER)} AS line SET names = {names}"
            f" FROM (SELECT key, storage, count(*) AS names FROM ({files}) GROUP BY key, storage) AS counted"
            " WHERE line.key = counted.key AND line.storage = counted.storage"
        )

    def create(self, counting: Counting) -> list[str]:
        when = self.changed(counting.columns, "OLD.{c} IS NOT NEW.{c}")
        bodies = {
            "insert": ("INSERT", "", self._gain(counting, old=False)),
            "update": ("UPDATE", f" WHEN {when}", self._gain(counting) + self._lose(counting)),
            "delete": ("DELETE", "", self._lose(counting, new=False)),
        }
        return [
            Compound(
                f"CREATE TRIGGER {self._trigger(counting, event)} AFTER {verb} ON {self.quote(counting.table)}"
                f" FOR EACH ROW{condition}\nBEGIN /* {counting.signature} */\n{''.join(body)}END"
            )
            for event, (verb, condition, body) in bodies.items()
        ]

    def drop(self, counting: Counting) -> list[str]:
        return [f"DROP TRIGGER {self._trigger(counting, event)}" for event in reversed(_EVENTS)]

    def drop_found(self, connection: Connection, counting: Counting) -> list[str]:
        found = [
            name for table, name, _ in self._found(connection, counting.schema or "main") if table == counting.table
        ]
        return [f"DROP TRIGGER {self.at(counting.schema, name)}" for name in found]

    def installed(self, connection: Connection, schemas: Collection[str | None] = ()) -> list[Installed]:
        found: list[Installed] = []
        for schema in connection.scalars(text("SELECT name FROM pragma_database_list")).all():
            rows = [
                (Counting.read(table, schema, sql), self.event(table, name))
                for table, name, sql in self._found(connection, schema)
            ]
            found += gather(rows, self.home(connection), set(_EVENTS))
        return found

    def home(self, connection: Connection) -> str | None:
        return "main"

    def _found(self, connection: Connection, schema: str) -> list[tuple[str, str, str]]:
        statement = f"SELECT tbl_name, name, sql FROM {self.quote(schema)}.sqlite_master WHERE type = 'trigger'"
        rows = connection.execute(text(f"{statement} AND sql LIKE '%sa_attachments %'"))
        return [(row.tbl_name, row.name, row.sql) for row in rows]

    def _trigger(self, counting: Counting, event: str) -> str:
        return self.at(counting.schema, self.name(counting.table, event))

    def _gain(self, counting: Counting, old: bool = True) -> list[str]:
        """Statements that count what NEW names and OLD did not."""
        found = []
        for each in counting.columns:
            column = self.quote(each.column)
            gained = f"SELECT * FROM ({_files(f'NEW.{column}')})"
            if old:
                gained += f" EXCEPT SELECT * FROM ({_files(f'OLD.{column}')})"
            found.append(self._update(self.gain(), gained))
        return found

    def _lose(self, counting: Counting, new: bool = True) -> list[str]:
        """Statements that count off what OLD named and NEW does not."""
        found = []
        for each in counting.columns:
            column = self.quote(each.column)
            lost = f"SELECT * FROM ({_files(f'OLD.{column}')})"
            if new:
                lost += f" EXCEPT SELECT * FROM ({_files(f'NEW.{column}')})"
                lost = f"SELECT * FROM ({lost}) WHERE NEW.{column} IS NULL OR json_valid(NEW.{column})"
            found.append(self._update(self.lose(each.retain), lost))
        return found

    def _update(self, assignments: str, names: str) -> str:
        # The outer SELECT lets SQLite look up the primary key: for a compound one it reads the whole ledger.
        return f"UPDATE {LEDGER} SET {assignments} WHERE (key, storage) IN (SELECT key, storage FROM ({names}));\n"


def _files_of_rows(table: str, column: str) -> str:
    """A SELECT of ``(key, storage)`` of the files that the rows name, each once for a row, as triggers count."""
    names = f"SELECT json_group_array(json_array(key, storage)) FROM ({_files(f'counted_row.{column}')})"
    return (
        "SELECT json_extract(named.value, '$[0]') AS key, json_extract(named.value, '$[1]') AS storage"
        f" FROM {table} AS counted_row, json_each(({names})) AS named"
    )


ITEM = "CASE item.type WHEN 'object' THEN item.value ELSE '{}' END"
"""One of the ``items``, called ``item``; empty if it is no descriptor."""


def items(value: str) -> str:
    """The table of the descriptors in a value."""
    return (
        f"json_each(CASE WHEN NOT json_valid({value}) THEN '[]' WHEN json_type({value}) = 'array' THEN {value}"
        f" WHEN json_type({value}) = 'object' THEN json_array(json({value})) ELSE '[]' END)"
    )


def _files(value: str) -> str:
    """A SELECT of ``(key, storage)`` of the files that a value names."""
    of_value, item = f"{items(value)} AS item", ITEM
    variants = (
        f"CASE json_type({item}, '$.variants') WHEN 'object' THEN json_extract({item}, '$.variants') ELSE '{{}}' END"
    )
    variant = "CASE variant.type WHEN 'object' THEN variant.value ELSE '{}' END"
    is_file = f"json_type({item}, '$.key') = 'text' AND json_type({item}, '$.storage') = 'text'"
    return (
        f"SELECT json_extract({item}, '$.key') AS key, json_extract({item}, '$.storage') AS storage"
        f" FROM {of_value} WHERE {is_file}"
        f" UNION SELECT json_extract({variant}, '$.key'),"
        f" coalesce(json_extract({variant}, '$.storage'), json_extract({item}, '$.storage'))"
        f" FROM {of_value}, json_each({variants}) AS variant"
        f" WHERE {is_file} AND json_type({variant}, '$.key') = 'text'"
    )
