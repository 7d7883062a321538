"""Triggers in the SQL of MariaDB and MySQL.

Traps
-----
Foreign keys that cascade fire no triggers here, nor does TRUNCATE. DDL commits by itself, so that the tables are held
by ``LOCK TABLES`` instead, and the triggers made in an order that loses nothing if it is cut short.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace

from sqlalchemy import Connection, text

from sa_attachments.clock import CLOCKS
from sa_attachments.errors import BadConfiguration

from ..script import Compound, literal
from .counted import Counting
from .counter import LEDGER, Counter, Installed, gather

_EVENTS = ("insert", "update", "delete")
_ITS_OWN = {"information_schema", "mysql", "performance_schema", "sys"}
"""Databases of the server."""
_WRITTEN = re.compile(rf"""UPDATE (?:([`"])((?:(?!\1).|\1\1)+)\1\.)?[`"]{LEDGER}[`"] SET""")
_BINARY = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


class MySQLCounter(Counter):
    """MariaDB ≥ 10.6, MySQL ≥ 8.0.31."""

    now = CLOCKS["mysql"]

    def lock(self, countings: Sequence[Counting]) -> list[str]:
        ledger = self._ledger(countings[0])
        # Each name that a table goes by in a statement is locked by itself.
        locks = [f"{ledger} WRITE", f"{ledger} AS line WRITE"]
        locks += [f"{self.at(each.schema, each.table)} WRITE" for each in countings]
        return [f"LOCK TABLES {', '.join(locks)}"]

    def unlock(self, failed: bool = False) -> list[str]:
        # To unlock is to commit.
        return ["ROLLBACK", "UNLOCK TABLES"] if failed else ["UNLOCK TABLES"]

    def reset(self, ledger_schema: str | None) -> list[str]:
        return [f"UPDATE {self.at(ledger_schema, LEDGER)} SET names = 0 WHERE names IS NULL OR names <> 0"]

    def add(self, counting: Counting) -> list[str]:
        return self._recount(counting, "line.names + counted.names")

    def subtract(self, counting: Counting) -> list[str]:
        return self._recount(counting, self.fewer("counted.names", "line."))

    def _recount(self, counting: Counting, names: str) -> list[str]:
        # A statement for each column: none may read a locked table twice under one name.
        table = self.at(counting.schema, counting.table)
        return [
            f"UPDATE {self._ledger(counting)} AS line JOIN (SELECT named.k, named.s, count(*) AS names"
            f" FROM ({_files_of_rows(table, self.quote(each.column))}) AS named GROUP BY named.k, named.s) AS counted"
            f" ON line.`key` = counted.k AND line.storage = counted.s SET line.names = {names}"
            for each in counting.columns
        ]

    def create(self, counting: Counting) -> list[str]:
        differs = self.changed(counting.columns, "NOT (OLD.{c} <=> NEW.{c})")
        # Until all are there, names are only gained, or moved: nothing is condemned that has a name.
        return [
            self._create(counting, "insert", "", gains=True, losses=False),
            self._create(counting, "update", differs, gains=True, losses=True),
            self._create(counting, "delete", "", gains=False, losses=True),
        ]

    def _create(self, counting: Counting, event: str, condition: str, *, gains: bool, losses: bool) -> str:
        ledger = self._ledger(counting)
        loops: list[str] = []
        for each in counting.columns if gains else ():
            there = f"OLD.{self.quote(each.column)}" if losses else None
            loops.append(self._loop(ledger, f"NEW.{self.quote(each.column)}", there, self.gain()))
        for each in counting.columns if losses else ():
            there = f"NEW.{self.quote(each.column)}" if gains else None
            loops.append(self._loop(ledger, f"OLD.{self.quote(each.column)}", there, self.lose(each.retain)))
        body = "".join(loops)
        if condition:
            body = f"  IF {condition} THEN\n{body}  END IF;\n"
        return Compound(
            f"CREATE TRIGGER {self._trigger(counting, event)} AFTER {event.upper()}"
            f" ON {self.at(counting.schema, counting.table)} FOR EACH ROW\nBEGIN\n"
            # A client may leave out comments.
            f"  DECLARE signature TEXT DEFAULT {literal(self._dialect, counting.signature)};\n{body}END"
        )

    def _loop(self, ledger: str, here: str, there: str | None, assignments: str) -> str:
        names = " UNION ".join(_files(here))
        if there is not None:
            names = f"SELECT * FROM ({names}) AS here EXCEPT SELECT * FROM ({' UNION '.join(_files(there))}) AS there"
            if here.startswith("OLD"):
                names = f"SELECT * FROM ({names}) AS lost WHERE {there} IS NULL OR JSON_VALID({there})"
        return (
            "  BEGIN\n"
            f"    DECLARE found_key VARCHAR(255) {_BINARY};\n"
            f"    DECLARE found_storage VARCHAR(100) {_BINARY};\n"
            "    DECLARE done BOOLEAN DEFAULT FALSE;\n"
            f"    DECLARE found CURSOR FOR {names} ORDER BY 1, 2;\n"
            "    DECLARE CONTINUE HANDLER FOR NOT FOUND SET done = TRUE;\n"
            "    OPEN found;\n"
            "    each_name: LOOP\n"
            "      FETCH found INTO found_key, found_storage;\n"
            "      IF done THEN LEAVE each_name; END IF;\n"
            # By its primary key alone: for more than one at a time, InnoDB may lock the whole ledger.
            f"      UPDATE {ledger} SET {assignments} WHERE `key` = found_key AND storage = found_storage;\n"
            "    END LOOP;\n"
            "    CLOSE found;\n"
            "  END;\n"
        )

    def drop(self, counting: Counting) -> list[str]:
        return [f"DROP TRIGGER {self._trigger(counting, event)}" for event in reversed(_EVENTS)]

    def drop_found(self, connection: Connection, counting: Counting) -> list[str]:
        schema = counting.schema or self.home(connection)
        found = [row for row in self._found(connection, schema) if row[0] == counting.table]
        in_order = sorted(found, key=lambda row: _EVENTS.index(row[2]), reverse=True)
        return [f"DROP TRIGGER {self.at(counting.schema, name)}" for _, name, _, _ in in_order]

    def installed(self, connection: Connection, schemas: Collection[str | None] = ()) -> list[Installed]:
        home = self.home(connection)
        rows = [
            (self._read(str(schema), table, body), self.event(table, name))
            for schema in {home, *schemas} - {None}
            for table, name, _, body in self._found(connection, schema)
        ]
        return gather(rows, home, set(_EVENTS))

    def beside(self, connection: Connection) -> Collection[str]:
        schemas = connection.scalars(text("SELECT schema_name FROM information_schema.schemata"))
        ledger = text("SELECT table_schema FROM information_schema.tables WHERE table_name = :ledger")
        return set(schemas) - _ITS_OWN - set(connection.scalars(ledger, {"ledger": LEDGER}))

    def home(self, connection: Connection) -> str | None:
        found: str | None = connection.scalar(text("SELECT DATABASE()"))
        return found

    def _read(self, schema: str, table: str, body: str) -> Counting | None:
        """As ``Counting.read``, with the database of the ledger that its statements write to: where none was told,
        that is the one in which whoever made it was then, or the table's.
        """
        counting, written = Counting.read(table, schema, body), _WRITTEN.search(body)
        if counting is None or written is None:
            return counting
        mark, ledger_schema = written.groups()
        return replace(counting, ledger_schema=ledger_schema.replace(mark * 2, mark) if mark else schema)

    def _found(self, connection: Connection, schema: str | None) -> list[tuple[str, str, str, str]]:
        # Of one database, and no others: the server enters it, and waits until nobody changes the tables of which it
        # tells.
        statement = text(
            "SELECT event_object_table AS of_table, trigger_name AS name, event_manipulation AS event,"
            " action_statement AS body FROM information_schema.triggers"
            " WHERE event_object_schema = :schema AND action_statement LIKE '%sa_attachments %'"
        )
        rows = connection.execute(statement, {"schema": schema})
        return [(row.of_table, row.name, row.event.lower(), row.body) for row in rows]

    def _ledger(self, counting: Counting) -> str:
        schema = counting.ledger_schema
        if schema is None and counting.schema is not None:
            # Inside of a trigger, a name without a schema means the trigger's.
            schema = self._dialect.default_schema_name
            if schema is None:
                raise BadConfiguration(f"say in which database the ledger of {counting.fullname} is: ledger_schema=...")
        return self.at(schema, LEDGER)

    def _trigger(self, counting: Counting, event: str) -> str:
        return self.at(counting.schema, self.name(counting.table, event))


KEY = "VARCHAR(255) PATH '$.key' NULL ON EMPTY NULL ON ERROR"
STORAGE = "VARCHAR(100) PATH '$.storage' NULL ON EMPTY NULL ON ERROR"
_WITH_VARIANTS = (
    f"COLUMNS (o {STORAGE}, f {KEY}, NESTED PATH '$.variants.*' COLUMNS (k {KEY}, s {STORAGE}))) AS item"
    " WHERE item.f IS NOT NULL AND item.o IS NOT NULL"
)


def items(value: str) -> str:
    """A list of the descriptors in a value."""
    return f"IF(JSON_VALID({value}), IF(JSON_TYPE({value}) = 'ARRAY', {value}, CONCAT('[', {value}, ']')), '[]')"


def _files(value: str) -> list[str]:
    """SELECTs of ``(key, storage)`` of the files that a value names: the descriptors' own, and their variants'."""
    of_value = items(value)
    return [
        f"SELECT {binary('item.k')} AS k, {binary('item.s')} AS s FROM JSON_TABLE({of_value}, '$[*]'"
        f" COLUMNS (k {KEY}, s {STORAGE})) AS item WHERE item.k IS NOT NULL AND item.s IS NOT NULL",
        f"SELECT {binary('item.k')} AS k, {binary('coalesce(item.s, item.o)')} AS s FROM JSON_TABLE({of_value},"
        f" '$[*]' {_WITH_VARIANTS} AND item.k IS NOT NULL",
    ]


def _files_of_rows(table: str, column: str) -> str:
    """A SELECT of ``(row, key, storage)`` of the files that the rows name, each once for a row, as triggers count."""
    key = binary("IF(part.variant, item.k, item.f)")
    storage = binary("IF(part.variant, coalesce(item.s, item.o), item.o)")
    return (
        f"SELECT DISTINCT counted_row.n, {key} AS k, {storage} AS s"
        f" FROM (SELECT ROW_NUMBER() OVER () AS n, {column} AS value FROM {table}) AS counted_row,"
        " (SELECT FALSE AS variant UNION ALL SELECT TRUE) AS part,"
        f" JSON_TABLE({items('counted_row.value')}, '$[*]' {_WITH_VARIANTS}"
        " AND (NOT part.variant OR item.k IS NOT NULL)"
    )


def binary(value: str) -> str:
    """A text that compares by its bytes."""
    return f"CONVERT({value} USING utf8mb4) COLLATE utf8mb4_bin"
