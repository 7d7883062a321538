"""Triggers in the SQL of PostgreSQL: one function for each table, and triggers that call it.

Traps
-----
The function has the rights of whoever migrates, so that clients need none on the ledger, and the search path that holds
when it is made. Rows that a TRUNCATE of a single partition removes are not counted off, nor what sessions do whose
``session_replication_role`` is ``replica``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, text

from sa_attachments.clock import CLOCKS

from ..script import Compound
from .counted import Counting
from .counter import GAINED, LEDGER, LOST, Counter, Installed, gather

_EVENTS = ("insert", "update", "delete", "truncate")

# A function with the rights of its owner must not take a client's temporary table for the ledger: those are looked at
# first, unless the path says when.
_SAFE_PATH = (
    "SELECT set_config('search_path', concat_ws(', ', nullif(current_setting('search_path'), ''), 'pg_temp'), true)"
)
_PATH_AS_BEFORE = (
    "SELECT set_config('search_path', regexp_replace(current_setting('search_path'), '(^|, )pg_temp$', ''), true)"
)


_SCHEMA = re.compile(r'"((?:[^"]|"")+)"|([^",\s]+)')
_LEDGERS = text(
    "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    f" WHERE c.relkind IN ('r', 'p') AND c.relname = '{LEDGER}'"
)


class PostgreSQLCounter(Counter):
    """PostgreSQL ≥ 12."""

    now = CLOCKS["postgresql"]

    def lock(self, countings: Sequence[Counting]) -> list[str]:
        ledger = self.at(countings[0].ledger_schema, LEDGER)
        tables = [self.at(each.schema, each.table) for each in countings[:1]]
        # The ledger first, as sessions do. Of other tables that are counted rows may come and go: their triggers wait.
        return [f"LOCK TABLE {', '.join([ledger, *tables])} IN SHARE ROW EXCLUSIVE MODE"]

    def reset(self, ledger_schema: str | None) -> list[str]:
        return [f"UPDATE {self.at(ledger_schema, LEDGER)} SET names = 0 WHERE names IS DISTINCT FROM 0"]

    def add(self, counting: Counting) -> list[str]:
        return [self._recount(counting, "line.names + counted.names")]

    def subtract(self, counting: Counting) -> list[str]:
        return [self._recount(counting, self.fewer("counted.names", "line."))]

    def _recount(self, counting: Counting, names: str) -> str:
        table = self.at(counting.schema, counting.table)
        files = " UNION ALL ".join(
            f"SELECT named.* FROM {table} AS counted_row, LATERAL ({_files(f'counted_row.{self.quote(each.column)}')})"
            " AS named"
            for each in counting.columns
        )
        return (
            f"UPDATE {self.at(counting.ledger_schema, LEDGER)} AS line SET names = {names}"
            f" FROM (SELECT key, storage, count(*) AS names FROM ({files}) AS named GROUP BY key, storage) AS counted"
            " WHERE line.key = counted.key AND line.storage = counted.storage"
        )

    def create(self, counting: Counting) -> list[str]:
        table = self.at(counting.schema, counting.table)
        function = self._function(counting)
        differs = self.changed(counting.columns, "OLD.{c} IS DISTINCT FROM NEW.{c}")
        when = {"insert": "", "update": f" WHEN ({differs})", "delete": ""}
        triggers = [
            f"CREATE TRIGGER {self._trigger(event)} AFTER {event.upper()} ON {table} FOR EACH ROW{condition}"
            f" EXECUTE FUNCTION {function}()"
            for event, condition in when.items()
        ]
        truncate = (
            f"CREATE TRIGGER {self._trigger('truncate')} BEFORE TRUNCATE ON {table} FOR EACH STATEMENT"
            f" EXECUTE FUNCTION {function}()"
        )
        return [_SAFE_PATH, self._create_function(counting), _PATH_AS_BEFORE, *triggers, truncate]

    def _create_function(self, counting: Counting) -> str:
        ledger = self.at(counting.ledger_schema, LEDGER)
        gains = "".join(
            self._loop(ledger, GAINED, f"NEW.{self.quote(c.column)}", f"OLD.{self.quote(c.column)}", self.gain("line."))
            for c in counting.columns
        )
        losses = "".join(
            self._loop(
                ledger, LOST, f"OLD.{self.quote(c.column)}", f"NEW.{self.quote(c.column)}", self.lose(c.retain, "line.")
            )
            for c in counting.columns
        )
        emptied = "".join(
            f"    FOR {LOST} IN EXECUTE format($names$SELECT named.key, named.storage, count(*) AS names"
            # Its name now, which is not always the one that it had.
            f" FROM %I.%I AS counted_row, LATERAL ({_files(f'counted_row.{self.quote(c.column)}').replace('%', '%%')})"
            " AS named GROUP BY 1, 2 ORDER BY 1, 2$names$, TG_TABLE_SCHEMA, TG_TABLE_NAME) LOOP\n"
            f"      UPDATE {ledger} AS line SET {self._lose_all(c.retain)}"
            f" WHERE line.key = {LOST}.key AND line.storage = {LOST}.storage;\n    END LOOP;\n"
            for c in counting.columns
        )
        return Compound(
            f"CREATE OR REPLACE FUNCTION {self._function(counting)}() RETURNS trigger\n"
            "LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $attachments$\n"
            f"/* {counting.signature} */\nDECLARE\n  {GAINED} record;\n  {LOST} record;\nBEGIN\n"
            f"  IF TG_OP = 'TRUNCATE' THEN\n{emptied}    RETURN NULL;\n  END IF;\n"
            f"  IF TG_OP <> 'DELETE' THEN\n{gains}  END IF;\n"
            f"  IF TG_OP <> 'INSERT' THEN\n{losses}  END IF;\n"
            "  RETURN NULL;\nEND\n$attachments$"
        )

    def _loop(self, ledger: str, found: str, here: str, there: str, assignments: str) -> str:
        # In the order of the primary key, as whoever locks several lines.
        return (
            f"    FOR {found} IN ({_files(here)}) EXCEPT ({_files(there)}) ORDER BY 1, 2 LOOP\n"
            f"      UPDATE {ledger} AS line SET {assignments}"
            f" WHERE line.key = {found}.key AND line.storage = {found}.storage;\n    END LOOP;\n"
        )

    def _lose_all(self, retain: int) -> str:
        """As ``lose``, for what loses several names at once."""
        one = self.lose(retain, "line.")
        return one.replace("line.names <= 1", f"line.names <= {LOST}.names").replace(
            "CASE WHEN line.names > 0 THEN line.names - 1 ELSE line.names END", self.fewer(f"{LOST}.names", "line.")
        )

    def drop(self, counting: Counting) -> list[str]:
        return [*self._drop_triggers(counting), f"DROP FUNCTION {self._function(counting)}()"]

    def drop_found(self, connection: Connection, counting: Counting) -> list[str]:
        where = counting.schema or self.home(connection), counting.table
        found = {row.function for row in self._found(connection) if (row.nspname, row.relname) == where}
        return [*self._drop_triggers(counting, "IF EXISTS "), *(f"DROP FUNCTION {each}" for each in found)]

    def _drop_triggers(self, counting: Counting, exists: str = "") -> list[str]:
        table = self.at(counting.schema, counting.table)
        return [f"DROP TRIGGER {exists}{self._trigger(event)} ON {table}" for event in reversed(_EVENTS)]

    def installed(self, connection: Connection, schemas: Collection[str | None] = ()) -> list[Installed]:
        ledgers = set(connection.scalars(_LEDGERS))
        rows = [(_read(row, ledgers), self._event(row)) for row in self._found(connection) if row.enabled]
        return gather(rows, self.home(connection), set(_EVENTS))

    def home(self, connection: Connection) -> str | None:
        found: str | None = connection.scalar(text("SELECT current_schema()"))
        return found

    def _found(self, connection: Connection) -> Sequence[Any]:
        is_trigger = "'pg_trigger'\\:\\:regclass"
        statement = text(
            "SELECT n.nspname, c.relname, t.tgname, p.prosrc, p.proname, p.proconfig, t.tgenabled <> 'D' AS enabled,"
            " CAST(pg_get_userbyid(p.proowner) AS text) AS owner,"
            " CAST(CAST(p.oid AS regprocedure) AS text) AS function"
            " FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
            " JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc p ON p.oid = t.tgfoid"
            " WHERE NOT t.tgisinternal AND p.prosrc LIKE '%sa_attachments %'"
            # Partitions have copies of those of their table.
            f" AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = t.oid AND d.classid = {is_trigger}"
            f" AND d.refclassid = {is_trigger})"
        )
        return connection.execute(statement).all()

    def _event(self, row: Any) -> str:
        """As ``event``: here the function has the table's name."""
        return row.tgname.rpartition("_")[2] if row.proname == self.name(row.relname, "") else ""

    def _function(self, counting: Counting) -> str:
        return self.at(counting.schema, self.name(counting.table, ""))

    def _trigger(self, event: str) -> str:
        return self.quote(f"attachments_{event}")


def _read(row: Any, ledgers: set[str]) -> Counting | None:
    """As ``Counting.read``, with the schema of the ledger: if none was told, the first in which the function looks."""
    counting = Counting.read(row.relname, row.nspname, row.prosrc)
    if counting is None or counting.ledger_schema is not None:
        return counting
    path = next((each for each in row.proconfig or () if each.startswith("search_path=")), "").partition("=")[2]
    schemas = [quoted.replace('""', '"') or plain for quoted, plain in _SCHEMA.findall(path)]
    looked_in = [row.owner if each == "$user" else each for each in schemas]
    return replace(counting, ledger_schema=next((each for each in looked_in if each in ledgers), None))


def items(value: str) -> str:
    """The table of the descriptors in a JSONB value."""
    return (
        f"jsonb_array_elements(CASE jsonb_typeof({value}) WHEN 'array' THEN {value}"
        f" WHEN 'object' THEN jsonb_build_array({value}) ELSE '[]' END)"
    )


def _files(value: str) -> str:
    """A SELECT of ``(key, storage)`` of the files that a JSONB value names."""
    of_value = f"{items(value)} AS item"
    variants = "CASE jsonb_typeof(item -> 'variants') WHEN 'object' THEN item -> 'variants' ELSE '{}' END"
    is_file = "jsonb_typeof(item -> 'key') = 'string' AND jsonb_typeof(item -> 'storage') = 'string'"
    return (
        f"SELECT item ->> 'key' AS key, item ->> 'storage' AS storage FROM {of_value} WHERE {is_file}"
        " UNION SELECT variant.value ->> 'key', coalesce(variant.value ->> 'storage', item ->> 'storage')"
        f" FROM {of_value}, jsonb_each({variants}) AS variant"
        f" WHERE {is_file} AND jsonb_typeof(variant.value -> 'key') = 'string'"
    )
