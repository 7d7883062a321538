"""Statements as text: carried out, or in offline mode written as the database's own client reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from alembic.operations import Operations
from sqlalchemy import DDL, Dialect
from sqlalchemy.types import String


class Compound(str):
    """A statement with semicolons inside."""


def execute(operations: Operations, statements: Iterable[str]) -> None:
    """Carry them out, or write them."""
    impl: Any = operations.get_context().impl
    for statement in statements:
        if not impl.as_sql:
            # Not ``text``, which finds parameters in it.
            ddl: Any = DDL
            operations.execute(ddl(statement.replace("%", "%%")))
        elif isinstance(statement, Compound) and impl.dialect.name in ("mysql", "mariadb"):
            impl.static_output(f"DELIMITER //\n\n{statement}//\n\nDELIMITER ;")
        else:
            impl.static_output(f"{statement}{impl.command_terminator}")


def literal(dialect: Dialect, value: str) -> str:
    """A text in SQL."""
    string: Any = String()
    if dialect.name in ("mysql", "mariadb") and getattr(dialect, "_backslash_escapes", True):
        value = value.replace("\\", "\\\\")  # which SQLAlchemy does in the compiler
    return as_it_is(dialect, string.literal_processor(dialect)(value))


def quoter(dialect: Dialect) -> Callable[[str], str]:
    """What quotes the names of tables and columns."""
    return lambda name: as_it_is(dialect, dialect.identifier_preparer.quote_identifier(name))


def placed(quote: Callable[[str], str], schema: str | None, name: str) -> str:
    """A quoted name, in its schema."""
    return quote(name) if schema is None else f"{quote(schema)}.{quote(name)}"


def as_it_is(dialect: Dialect, sql: str) -> str:
    """What SQLAlchemy wrote, with each percent sign once: for some drivers it writes two, and once more in the end."""
    return sql.replace("%%", "%") if getattr(dialect.identifier_preparer, "_double_percents", False) else sql
