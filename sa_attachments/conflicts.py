"""Conflicts: the rows that an upsert may meet, and what it may do with their files.

Which of them it really meets is not foretold: they are read before and after, and the difference counts. So the
conditions may be wider than the database's, never narrower.

>>> from sqlalchemy import Column, Integer, MetaData, String, Table
>>> table = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("a", String, unique=True))
>>> [str(condition) for condition in conditions(table, {table.c.a: "x"})]
['t.a = :param_1']

Traps
-----
Only keys are looked at that the ``Table`` knows, or the statement names (``index_elements``), as the statement spells
them. After a conflict in an index that only the database has, or in a key that the database rounds or a trigger
changes, files without a row may be left, for ``Storages.verify`` to find. So they may after one in a key of which all
is unknown before, as it has defaults that are functions or the database's: all rows would have to be locked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Column, Connection, Table, UniqueConstraint, and_, literal
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import BindParameter, ColumnElement, Null
from sqlalchemy.sql.selectable import SelectBase

from .errors import OwnershipLost
from .references import Reference, meant

Given = dict[Column[Any], Any]


def given(reference: Reference, row: Mapping[Any, Any]) -> Given:
    """The values of one new row by column: those that the statement gives, and defaults that are plain values."""
    found: Given = {}
    for key, value in row.items():
        if (column := meant(reference, key)) is not None:
            found[column] = value.effective_value if isinstance(value, BindParameter) else value
    for column in reference.table.columns:
        default: Any = column.default
        if column not in found and default is not None and default.is_scalar:
            found[column] = default.arg
    return found


def conditions(table: Table, values: Given, targets: Iterable[Iterable[Any]] = ()) -> list[ColumnElement[bool]]:
    """One for each key in which a row may be in the way of a new one with these values, those of the statement too."""
    keys: list[Iterable[Any]] = [table.primary_key, *targets]
    keys += [constraint.columns for constraint in table.constraints if isinstance(constraint, UniqueConstraint)]
    keys += [index.expressions for index in table.indexes if index.unique]
    agreeing = (_agreeing(table, key, values) for key in {frozenset(key): key for key in keys}.values())
    return [and_(*parts) for parts in agreeing if parts]


def targets_of(statement: Any, table: Table) -> list[list[Any]]:
    """The keys that a statement itself names for conflicts: some that only the database has, perhaps."""
    by_name = {column.name: column for column in table.columns}
    keys = ([by_name.get(e) if isinstance(e, str) else e for e in _target(clause)] for clause in _clauses(statement))
    return [key for key in keys if all(_is_of(table, element) for element in key)]


def set_anywhere(statement: Any, references: Sequence[Reference]) -> set[Reference]:
    """The attributes that a conflict would set, in whichever key it is: one that only the database has, perhaps."""
    table = references[0].table
    keys: list[Any] = [*table.constraints, *table.indexes]
    known = {key.name for key in keys} - {None}
    clauses = (each for each in _clauses(statement) if not _target(each))
    without = [each for each in clauses if getattr(each, "constraint_target", None) not in known]
    return {reference for clause in without for reference, _ in _set_by(clause, references)}


def set_on_conflict(statement: Any, references: Sequence[Reference]) -> Iterator[tuple[Reference, Any]]:
    """The attributes that a conflict would set, and to what."""
    for clause in _clauses(statement):
        yield from _set_by(clause, references)


def _clauses(statement: Any) -> Sequence[Any]:
    """What it says of conflicts; SQLite takes several clauses."""
    clause = getattr(statement, "_post_values_clause", None)
    return () if clause is None else getattr(clause, "clauses", (clause,))


def _target(clause: Any) -> Sequence[Any]:
    return getattr(clause, "inferred_target_elements", None) or ()


def _is_of(table: Table, element: Any) -> bool:
    """Whether a part of a key is one of this table: with joined inheritance there are several."""
    if element is None:
        return False
    return all(each.table is table for each in visitors.iterate(element) if isinstance(each, Column))


def _set_by(clause: Any, references: Sequence[Reference]) -> Iterator[tuple[Reference, Any]]:
    pairs = getattr(clause, "update_values_to_set", None) or getattr(clause, "update", None) or {}
    for key, value in pairs.items() if isinstance(pairs, Mapping) else pairs:
        yield from ((each, value) for each in references if _is_called(each.column, key))


def _is_called(column: Column[Any], key: Any) -> bool:
    """Whether a key of ``set_`` may stand for a column. Unlike in ``values()``, a name is never an attribute's."""
    element = getattr(key, "__clause_element__", lambda: key)()
    if isinstance(element, str):
        return element.casefold() in (column.key.casefold(), column.name.casefold())
    return getattr(element, "name", None) == column.name


def refuse_foreign(statement: Any, references: Sequence[Reference]) -> None:
    """OwnershipLost if a conflict would set an attribute to something else than its own file, the new one or none."""
    for reference, value in set_on_conflict(statement, references):
        if not _is_own(value, reference):
            raise OwnershipLost(
                f"{reference.target} may not be set to {str(value)[:80]!r} on conflict: a row can only keep its "
                "file, lose it, or take the one that the statement brings for it (excluded, inserted)"
            )


@contextmanager
def replacing(connection: Connection, statement: Any) -> Iterator[None]:
    """Let SQLite tell triggers, which may count names, of the rows that an INSERT OR REPLACE removes."""
    if connection.dialect.name != "sqlite" or not getattr(statement, "_prefixes", ()):
        yield
        return
    before = connection.exec_driver_sql("PRAGMA recursive_triggers").scalar()
    connection.exec_driver_sql("PRAGMA recursive_triggers = ON")
    try:
        yield
    finally:
        connection.exec_driver_sql(f"PRAGMA recursive_triggers = {before}")


def _agreeing(table: Table, key: Iterable[Any], values: Given) -> list[ColumnElement[bool]]:
    """That a row agrees in a key, as far as it is known; nothing if it can't, because a part is NULL."""
    parts = []
    for expression in key:
        columns = [each for each in visitors.iterate(expression) if isinstance(each, Column)]
        unknown = [column for column in columns if column not in values]
        if any(not _is_filled(table, column) for column in unknown):
            return []
        if any(values[column] is None for column in columns if column in values):
            return []
        if columns and not unknown:
            parts.append(expression == _with_values(expression, values))
    return parts


def _is_filled(table: Table, column: Column[Any]) -> bool:
    """Whether something other than the statement gives the column a value."""
    by_itself = column.default is not None or column.server_default is not None
    return by_itself or column is table.autoincrement_column


def _with_values(expression: Any, values: Given) -> Any:
    def replaced(element: Any, **_: Any) -> Any:
        if not isinstance(element, Column) or element not in values:
            return None
        value = values[element]
        return value if isinstance(value, ColumnElement) else literal(value, element.type)

    return visitors.replacement_traverse(expression, {}, replaced)


def _is_own(value: Any, reference: Reference) -> bool:
    if isinstance(value, BindParameter):
        value = value.effective_value
    if value is None or isinstance(value, Null):
        return True
    if not isinstance(value, ColumnElement):
        return False
    parts = [part for part in visitors.iterate(value) if isinstance(part, SelectBase | Column | BindParameter)]
    own = [part for part in parts if isinstance(part, Column) and part.key == reference.column.key]
    empty = [part for part in parts if isinstance(part, BindParameter) and part.effective_value is None]
    # Another row's file is out of reach without a subquery, whatever the table is called.
    return bool(own) and len(parts) == len(own) + len(empty)


def replaces(statement: Any) -> bool:
    """Whether it deletes the rows that are in its way, as SQLite's INSERT OR REPLACE and UPDATE OR REPLACE do."""
    return any("REPLACE" in str(prefix).upper() for prefix, _ in getattr(statement, "_prefixes", ()))
