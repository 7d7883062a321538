"""Naming: one statement that gives staged files to rows, without the ORM: which names it writes, and how many rows take
them.

What can't be told afterwards is refused before; see ``Naming.doubt``.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from sqlalchemy import CTE, Connection, TextClause, UpdateBase, literal, select, text
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList

from .claims import Claim


def writes_within(statement: Any) -> bool:
    """Whether another statement that writes is in a WITH clause of this one, or of this part of one."""
    ctes = (each for each in visitors.iterate(statement) if isinstance(each, CTE))
    return any(isinstance(each.element, UpdateBase) for each in ctes)


class Naming:
    """See the module."""

    def __init__(self) -> None:
        self.bound: list[tuple[Claim, Any]] = []
        self.proved = False
        self.rows = 0
        """-1 if nobody can tell."""
        self.sets = 1
        """Sets of parameters, or of VALUES."""
        self._context: Any = None
        self._foretold = False

    def look(self, context: Any) -> None:
        """What SQLAlchemy knows of it."""
        self._context = context
        self._what: Any = context.compiled.statement
        values = getattr(self._what, "_multi_values", ())
        self.sets = max(len(context.compiled_parameters), sum(len(each) for each in values))

    @property
    def writes(self) -> bool:
        """Whether it may give names to rows."""
        return self._context.isinsert or self._context.isupdate or self._is_text or writes_within(self._what)

    @property
    def is_several(self) -> bool:
        """Whether the database may be told of it in several parts."""
        return len(self._context.compiled_parameters) > 1

    @property
    def _is_text(self) -> bool:
        return isinstance(self._what, TextClause)

    @property
    def _brings_rows(self) -> bool:
        """An INSERT of VALUES: one row for each set, or none."""
        return self._context.isinsert and self._what.select is None

    def count(self, cursor: Any) -> None:
        """Some of it was executed."""
        if not self._foretold:
            unknown = self._is_uncounted or cursor.rowcount < 0 or self.rows < 0
            self.rows = -1 if unknown else self.rows + cursor.rowcount

    def foretell(self, connection: Connection) -> None:
        """Where nobody counts the rows that an UPDATE meets: lock and count them before."""
        if self._is_uncounted and self._context.isupdate:
            what = self._context.invoked_statement
            meets = select(literal(1)).select_from(what.table).where(*what._where_criteria).with_for_update()
            self.rows = sum(len(connection.execute(meets, each).all()) for each in self._context.compiled_parameters)
            self._foretold = True

    def met_no_row(self, connection: Connection) -> bool | None:
        """Whether it is true that none took them, as the count says; None if nobody can tell. What an INSERT brings,
        triggers may have taken elsewhere; of a view SQLite counts nothing.
        """
        if self._is_text:
            return True if connection.dialect.name != "sqlite" and _is_update(self._what.text) else None
        if self._brings_rows:
            return self._may_be_ignored
        return connection.dialect.name != "sqlite" or not connection.scalar(_VIEWS, {"name": self._what.table.name})

    @property
    def is_exact(self) -> bool:
        """Whether each set of parameters met one row."""
        if self.rows < 0:
            return True  # else it was refused
        return self.rows >= self.sets if self._brings_rows else self.rows == self.sets

    def doubt(self) -> str | None:
        """Why nobody could tell afterwards which rows took the names."""
        if writes_within(self._what):
            return "nobody can tell how many rows a statement within another one meets: execute it by itself"
        upsert = getattr(self._what, "_post_values_clause", None)
        if upsert is not None and not type(upsert).__name__.endswith("DoNothing"):
            return (
                "nobody can tell whether an upsert gives it to a row. SELECT the row FOR UPDATE, then INSERT or "
                "UPDATE; or map the table, and use session.execute()"
            )
        if self._chooses:
            return "it names several for one column, and nobody can tell which of them a row takes"
        if self._brings_rows:
            if self._may_be_ignored and self._is_uncounted:
                return "nobody can tell how many rows it meets: on SQLite with RETURNING, for asyncpg in a list"
            return None
        if (self.sets > 1 or self._is_uncounted) and not (self._context.isupdate and names_one_row(self._what)):
            return (
                "nobody can tell how many rows each set of parameters meets: name the primary key in the WHERE clause, "
                "or execute it for one row at a time"
            )
        return None

    @property
    def _may_be_ignored(self) -> bool:
        """Whether it is told to leave out rows; OR IGNORE is a prefix."""
        return getattr(self._what, "_post_values_clause", None) is not None or bool(self._what._prefixes)

    @property
    def _chooses(self) -> bool:
        """Whether it has several names for one row's column, as in a CASE."""
        single = Counter(column_type for _, column_type in self.bound if not column_type.plural)
        return not self._is_text and any(count > self.sets for count in single.values())

    @property
    def _is_uncounted(self) -> bool:
        """Whether the driver does not tell how many rows it meets."""
        if self._context.dialect.driver == "asyncpg":
            return bool(self._context.execute_style.name == "EXECUTEMANY")
        return self._context.dialect.name == "sqlite" and self._returns  # it counts when the last row was fetched

    @property
    def _returns(self) -> bool:
        return "returning" in self._what.text.lower() if self._is_text else bool(getattr(self._what, "_returning", ()))


_VIEWS = text(
    "SELECT COUNT(*) FROM (SELECT * FROM sqlite_master UNION ALL SELECT * FROM sqlite_temp_master) "
    "WHERE type = 'view' AND name = :name"
)


def _is_update(said: str) -> bool:
    return said.lstrip().lower().startswith("update")


def names_one_row(statement: Any) -> bool:
    """Whether the WHERE clause of an UPDATE compares the whole primary key with values.

    >>> from sqlalchemy import Column, Integer, MetaData, Table, bindparam
    >>> docs = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("n", Integer))
    >>> names_one_row(docs.update().where(docs.c.id == bindparam("b"), docs.c.n > 1)), names_one_row(docs.update())
    (True, False)
    """
    pending, fixed = list(statement._where_criteria), set()
    for each in pending:
        if isinstance(each, BooleanClauseList) and each.operator is operators.and_:
            pending += each.clauses
        elif isinstance(each, BinaryExpression) and (each.operator, type(each.right)) == (operators.eq, BindParameter):
            fixed.add(each.left)
    key = set(statement.table.primary_key)
    return bool(key) and key <= fixed
