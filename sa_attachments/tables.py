"""Tables: what a connection calls them, in which schema it finds them, and whether what is written into them follows a
transaction. On MariaDB and MySQL that is up to their engine.

>>> from sqlalchemy import Column, Integer, MetaData, Table, create_engine
>>> docs = Table("docs", MetaData(), Column("id", Integer))
>>> with create_engine("sqlite://").connect() as connection:
...     require_transactions(connection, [docs])
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from sqlalchemy import Connection, MetaData, Table, text

from .errors import NoTransaction

_ENGINE = text(
    "SELECT t.engine FROM information_schema.tables AS t JOIN information_schema.engines AS e ON e.engine = t.engine "
    "WHERE t.table_schema = COALESCE(:schema, DATABASE()) AND t.table_name = :name "
    "AND COALESCE(e.transactions, 'NO') <> 'YES'"
)
"""The engine of a table that knows no transactions; a view has none."""

_OID = text("SELECT CAST(CAST(:name AS regclass) AS oid)")

_FOUND_IN = text(
    "SELECT nspname FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid WHERE c.oid = to_regclass(:name)"
)

_ENTERED = text("SELECT DATABASE()")


def make_room(metadata: MetaData, *names: str) -> None:
    """Remove tables from a ``MetaData`` that reflected all of a database, before it is said what they are."""
    keys = [f"{metadata.schema}.{name}" if metadata.schema else name for name in names]
    if all(key in metadata.tables for key in keys):
        for key in keys:
            metadata.remove(metadata.tables[key])


def translated(connection: Connection, schema: str | None) -> str | None:
    """What a statement on this connection says for the schema of a mapping, by ``schema_translate_map``."""
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    found: str | None = schemas.get(schema, schema)
    return found


def quoted(connection: Connection, each: Table) -> str:
    """The name by which a statement on this connection calls a table."""
    quote = connection.dialect.identifier_preparer.quote
    return ".".join(quote(part) for part in (translated(connection, each.schema), each.name) if part)


def schema_of(connection: Connection, each: Table) -> str:
    """The schema that a table is in: the one that its mapping says, translated, or where the connection finds it."""
    if schema := translated(connection, each.schema):
        return schema
    match connection.dialect.name:
        case "postgresql":
            return str(connection.scalar(_FOUND_IN, {"name": quoted(connection, each)}))
        case "mysql" | "mariadb":
            return str(connection.scalar(_ENTERED))
        case _:
            return "main"


def whereabouts(connection: Connection, each: Table) -> str:
    """Which of the tables that may go by the same name this connection sees, as a search path, USE, or what is attached
    may differ between connections: its schema, or on SQLite the file that is attached by that name.
    """
    if connection.dialect.name != "sqlite":
        return schema_of(connection, each)
    return "" if translated(connection, each.schema) is None else file_of(connection, each)


def identity_of(connection: Connection, each: Table) -> int | str:
    """``whereabouts``; on PostgreSQL the OID, which an INSERT returns."""
    if connection.dialect.name != "postgresql":
        return whereabouts(connection, each)
    return cast(int, connection.scalar(_OID, {"name": quoted(connection, each)}))


def file_of(connection: Connection, each: Table) -> str:
    """The file that SQLite has a table in, by the name of its schema; nothing if that is in memory."""
    schema = schema_of(connection, each).casefold()
    attached = connection.exec_driver_sql("PRAGMA database_list").all()
    return next((str(path) for _, name, path in attached if name.casefold() == schema and path), "")


def require_transactions(connection: Connection, tables: Iterable[Table]) -> None:
    """NoTransaction if a rollback would leave in one of these tables what was written."""
    if connection.dialect.name not in ("mysql", "mariadb"):
        return
    for table in tables:
        schema = translated(connection, table.schema)
        engine = connection.scalar(_ENGINE, {"schema": schema, "name": table.name})
        if engine is not None:
            raise NoTransaction(
                f"the table {table.name!r} has the engine {engine}, which takes part in no transaction, and files "
                f"can't follow one: ALTER TABLE {quoted(connection, table)} ENGINE=InnoDB"
            )
