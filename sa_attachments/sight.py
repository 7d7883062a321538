"""Sight: whether a connection sees all rows that may name the files of an owner, as the ledger calls a column.

The ledger knows an owner by the name of its table and column. Who finds no row that names a file knows that there is
none only if no other row can: not one that a view or row level security hides, not one of a table of the same name in
another schema that shares the ledger, and, of an owner that is gone, not one of a table that only was renamed.

PostgreSQL tells everybody of all tables of a database. Elsewhere that is sure only of one schema, so that owners whose
tables are in another schema than the ledger are always in doubt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Text, bindparam, cast, column, select, table, text
from sqlalchemy.exc import DBAPIError

from .chunks import CHUNK
from .ledger import Ledger, Owner, owner_of
from .recovery import Purger
from .tables import translated

NO_TABLE, SECURED = "no table", "secured"


class Known(NamedTuple):
    """A column that the database knows."""

    schema: str
    table: str
    column: str | None
    """None for all of a relation that can't be asked for its columns."""
    hides: str | None
    """Why a statement may not see all rows: ``NO_TABLE`` (a view, a foreign table) or ``SECURED``."""
    texts: bool
    """Whether descriptors may be in it."""
    here: bool
    """Whether a name without a schema means its table."""

    @property
    def relation(self) -> str:
        """For messages."""
        return f"{self.schema}.{self.table}"


class Sight:
    """What one connection sees of the columns that may name the files of a ledger.

    ``compared``: those whose rows are looked at; ``owners``: those that will be asked about.
    """

    def __init__(
        self, connection: Connection, ledger: Ledger, compared: Sequence[Column[Any]], owners: Collection[Owner]
    ) -> None:
        self._schema, self._everywhere = ledger.lines.schema, connection.dialect.name == "postgresql"
        self._ledger = {ledger.lines.name, ledger.places.name}
        home = translated(connection, self._schema)
        columns = set(compared)
        names = {name for _, name in owners} | {each.name for each in columns}
        self._known = known_to(connection, home, {*names, ledger.lines.c.owner_column.name})
        ledgers = {each.schema: each.here for each in self._known if each.table == ledger.lines.name}
        self._apart = ledgers.keys() - {home or next((schema for schema, here in ledgers.items() if here), "")}
        self._found: dict[Owner, list[Known]] = {}
        self._owners = {owner_of(each) for each in columns}
        places = {(translated(connection, each.table.schema), each.table.name, each.name) for each in columns}
        self._compared = {
            each
            for each in self._known
            for schema, name, column in places
            if self._same(each.table, name)
            and self._same(each.column or "", column)
            and (each.here if schema is None else each.schema == schema)
        }

    def knows(self, owner: Owner) -> bool:
        """Whether there is a column that the ledger may call so."""
        return bool(self._called(owner))

    def doubt(self, owner: Owner) -> str | None:
        """Why there may be rows that name its files and are not seen; None if there are none."""
        if not self._everywhere and not self._is_beside(owner):
            return "its ledger is in another schema, which tables of the same name elsewhere may share"
        found = self._called(owner)
        if not found and owner in self._owners:
            return "the database does not list it among its tables"
        for each in found:
            if each.hides == NO_TABLE:
                return f"{each.relation} is no table (but a view, perhaps), which may not show all rows"
            if each.hides == SECURED:
                return f"row level security hides rows of {each.relation} from this user: verify as another one"
            if each not in self._compared:
                return f"{each.relation} may have rows that name them, too, which are not compared here"
        return None

    def elsewhere(self, purger: Purger, files: Mapping[str, Owner]) -> tuple[dict[str, str], str | None]:
        """Which of these keys are named in columns that are not compared, by their labels; and why that may not be all.

        Reads all texts of the database that look like descriptors; and on MariaDB and MySQL, where a table may go to
        another database, those of columns of the same name there. Where there is another ledger, only columns of the
        same name, and as far as this user may: rows may have gone there without their lines.
        """
        names = {column for _, column in files.values()}
        apart = self._apart if all(self._is_beside(owner) for owner in files.values()) else set()
        with purger.begin() as connection:
            known = known_to(connection, home := translated(connection, self._schema))
            if connection.dialect.name in ("mysql", "mariadb"):
                known += (beside := _beside(connection, home, names))
                apart = {each.schema for each in beside if each.table in self._ledger}
        found: dict[str, str] = {}
        doubt = None
        for each in known:
            if not each.texts or each in self._compared or each.table in self._ledger:
                continue
            if (is_apart := each.schema in apart) and each.column not in names:
                continue
            label = f"{each.relation}.{each.column}"
            if each.hides == SECURED and not is_apart:
                doubt = f"row level security hides rows of {each.relation} from this user"
            try:
                found |= {key: label for value in _texts(purger, each) for key in keys_in(value) if key in files}
            except DBAPIError as error:
                if not (is_apart or _is_missing(error)):
                    doubt = f"{label} could not be read: {error.orig}"
        if purger.scope.engine.dialect.name in ("mysql", "mariadb") and not _lists_all(purger):
            doubt = "this user may not see all tables of the database"
        return found, doubt

    def _called(self, owner: Owner) -> list[Known]:
        """A schema of the owner's name may be one that stands for others. Those with a ledger of their own use that."""
        if owner not in self._found:
            beside = self._is_beside(owner)
            self._found[owner] = [
                each
                for each in self._known
                if (each.column is None or self._same(each.column, owner[1]))
                and self._same(f".{owner[0]}"[-len(each.table) - 1 :], f".{each.table}")
                and not (beside and each.schema in self._apart)
            ]
        return self._found[owner]

    def _same(self, one: str, other: str) -> bool:
        """PostgreSQL alone tells capitals from others, wherever it runs."""
        return one == other or (not self._everywhere and one.casefold() == other.casefold())

    def _is_beside(self, owner: Owner) -> bool:
        """Whether the mapping has its table and the ledger in one schema, whatever that is called in the database."""
        schema, _, _ = owner[0].rpartition(".")
        return (schema or None) == self._schema


_NAME = re.compile(r'"key"\s*:\s*("(?:[^"\\]|\\.)*")')


def keys_in(value: str) -> Iterator[str]:
    """The keys of all descriptors in a text, and perhaps others.

    >>> list(keys_in('[{"key": "one", "variants": {"thumb": {"key":"two"}}}]'))
    ['one', 'two']
    """
    for found in _NAME.findall(value):
        try:
            yield json.loads(found, strict=False)
        except ValueError:
            continue


def _texts(purger: Purger, where: Known) -> Iterator[str]:
    value = cast(column(str(where.column)), Text)
    statement = select(value).select_from(table(where.table, schema=where.schema)).where(value.contains('"key"'))
    # The database said these names: they are not to be translated.
    options = {"schema_translate_map": None, "yield_per": CHUNK}
    with purger.begin() as connection:
        yield from connection.execute(statement, execution_options=options).scalars()


# What the database knows


def known_to(connection: Connection, home: str | None, names: Collection[str] = ()) -> list[Known]:
    """The columns of the database, or those of them that have one of ``names``; but for PostgreSQL, of one schema."""
    schema = home or ("main" if connection.dialect.name == "sqlite" else None)
    master = f"{connection.dialect.identifier_preparer.quote_identifier(schema or '')}.sqlite_master"
    catalogue = _CATALOGUES[connection.dialect.name].replace("MASTER", master)
    statement = text(f"SELECT * FROM ({catalogue}) AS known")
    values: dict[str, Any] = {"home": schema} if ":home" in catalogue else {}
    if names:
        named = text(f"{statement.text} WHERE name IS NULL OR lower(name) IN :names")
        statement = named.bindparams(bindparam("names", expanding=True))
        values["names"] = sorted({name.lower() for name in names})
    return [Known(*row) for row in connection.execute(statement, values)]


def _beside(connection: Connection, home: str | None, columns: Collection[str]) -> list[Known]:
    """On MariaDB and MySQL, the columns of these names in other databases, and those of their ledgers."""
    others = text(
        "SELECT DISTINCT table_schema FROM information_schema.columns WHERE column_name IN :columns AND table_schema "
        "NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema', coalesce(:home, DATABASE()))"
    ).bindparams(bindparam("columns", expanding=True))
    schemas = connection.scalars(others, {"columns": sorted(columns), "home": home}).all()
    return [each for schema in schemas for each in known_to(connection, schema, {*columns, "owner_column"})]


_OF_POSTGRESQL = f"""
    SELECT n.nspname, c.relname, CAST(a.attname AS text) AS name,
        CASE WHEN c.relkind NOT IN ('r', 'p') THEN '{NO_TABLE}' WHEN row_security_active(c.oid) THEN '{SECURED}' END,
        c.relkind IN ('r', 'p') AND (t.typcategory = 'S'
            OR coalesce(nullif(t.typbasetype, 0), t.oid) IN (CAST('json' AS regtype), CAST('jsonb' AS regtype))),
        pg_table_is_visible(c.oid)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
        AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"""

_IS_TABLE = "t.table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')"
_OF_MYSQL = f"""
    SELECT t.table_schema, t.table_name, c.column_name AS name,
        CASE WHEN NOT {_IS_TABLE} THEN '{NO_TABLE}' END AS hides, {_IS_TABLE}
            AND c.data_type IN ('json', 'char', 'varchar', 'tinytext', 'text', 'mediumtext', 'longtext') AS texts,
        t.table_schema = DATABASE() AS here
    FROM information_schema.tables t JOIN information_schema.columns c
        ON c.table_schema = t.table_schema AND c.table_name = t.table_name
    WHERE t.table_schema = coalesce(:home, DATABASE())"""

# A view of what is gone, or a virtual table whose module is not loaded, fails when it is asked for its columns.
_IS_PLAIN = "m.type = 'table' AND m.sql NOT LIKE 'CREATE VIRTUAL%'"
_OF_SQLITE = f"""
    SELECT :home, m.name AS relation, p.name AS name, NULL, p.type NOT LIKE '%BLOB%', :home = 'main'
    FROM MASTER m JOIN pragma_table_info(m.name, :home) p WHERE {_IS_PLAIN}
    UNION ALL SELECT :home, m.name, NULL, '{NO_TABLE}', 0, :home = 'main'
    FROM MASTER m WHERE m.type IN ('table', 'view') AND NOT ({_IS_PLAIN})"""

_CATALOGUES = {"postgresql": _OF_POSTGRESQL, "mysql": _OF_MYSQL, "mariadb": _OF_MYSQL, "sqlite": _OF_SQLITE}


def _lists_all(purger: Purger) -> bool:
    """On MariaDB and MySQL, who may not read all tables hears of one that is missing that it is denied."""
    missing = table("sa_attachments_has_no_such_table", schema=purger.ledger.lines.schema)
    try:
        with purger.begin() as connection:
            connection.execute(select(text("1")).select_from(missing))
    except DBAPIError as error:
        return _is_missing(error)
    return False


def _is_missing(error: DBAPIError) -> bool:
    """Whether MariaDB or MySQL say that there is no such table; somebody dropped it, perhaps."""
    said: Any = error.orig
    return 1146 in said.args[:1]
