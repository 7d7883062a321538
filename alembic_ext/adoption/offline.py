"""Offline: a script of SQL can't move bytes. It says how that is done, and stops if it was not.

>>> from sa_attachments.adoption.plan import Blobs
>>> from sqlalchemy.dialects import sqlite
>>> statement = guard(sqlite.dialect(), Plan("docs", "data", "file", Blobs()), back=False)
>>> statement.startswith("SELECT CASE WHEN"), "json('run first: sa-attachments adopt blob docs" in statement
(True, True)
"""

from __future__ import annotations

import shlex
from typing import Any

from alembic.operations import AbstractOperations
from sqlalchemy import Dialect, String, Text, and_, cast, column, exists, func, literal, null, or_, select, table

from sa_attachments.adoption.columns import names_something
from sa_attachments.adoption.plan import Blobs, Paths, Plan

from ..script import as_it_is
from ..script import literal as quoted
from .ending import unended


def refuse(operations: AbstractOperations, plan: Plan, *, back: bool) -> None:
    """Write into the script what has to be run, and a statement that fails as long as it was not."""
    command = plan.command(*(["--reverse"] if back else []))
    comment(operations, command)
    _guard(operations, guard(operations.migration_context.dialect, plan, back=back))


def ended(operations: AbstractOperations, kind: str, plan: Plan) -> None:
    """Write into the script that an adoption has to be finished, or held, and a statement that fails as long as it was
    not; with its source, that it has to be whole.
    """
    dialect = operations.migration_context.dialect
    schema = ["--schema", plan.schema] if plan.schema else []
    command = shlex.join(["sa-attachments", "adopt", kind, plan.table, plan.into, *schema])
    if plan.source:
        message = f"{plan.label} has rows that are not adopted"
        _guard(operations, guard(dialect, plan, back=False, message=message))
    comment(operations, command)
    _guard(operations, _failing(dialect, unended(dialect, plan, kind), f"run first: {command}"))


def _guard(operations: AbstractOperations, statement: str) -> None:
    context = operations.migration_context
    # What was said before is committed first: the command works on it.
    with context.autocommit_block():
        # Not by ``execute``, which finds parameters in it.
        context.impl.static_output(f"{statement}{context.impl.command_terminator}")


def comment(operations: AbstractOperations, command: str) -> None:
    """Write into the script what has to be run."""
    context = operations.migration_context
    for line in (
        "-- Files can't be moved by SQL. Stop here, and run this where the storages can be reached,",
        "-- with --storages and --database as docs/cli.md says; then run the rest of this script:",
        f"--   {command}",
    ):
        context.impl.static_output(line)


def guard(dialect: Dialect, plan: Plan, *, back: bool, message: str | None = None) -> str:
    """A statement that fails while rows are left, and says the command, or this message."""
    rows = table(plan.table, column(plan.source), column(plan.into, String()), schema=plan.schema)
    source, into = rows.c[plan.source], rows.c[plan.into]
    is_empty = or_(into.is_(null()), cast(into, Text).in_(["null", "[]"]))
    says_something: Any = source.is_not(None)
    if not isinstance(plan.origin, Blobs | Paths):  # libraries write JSON's null, or a list without items
        says_something = and_(says_something, names_something(func.coalesce(cast(source, Text), "")))
    left = ~is_empty if back else and_(says_something, is_empty)
    is_left: Any = exists(select(literal(1, literal_execute=True)).select_from(rows).where(left))
    if not back and plan.policy != "fail":  # some are to be left; none at all means that it was not run
        is_left = and_(is_left, ~exists(select(literal(1, literal_execute=True)).select_from(rows).where(~is_empty)))

    condition = str(is_left.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    message = message or f"run first: {plan.command(*(['--reverse'] if back else []))}"
    return _failing(dialect, as_it_is(dialect, condition), message)


def _failing(dialect: Dialect, condition: str, message: str) -> str:
    """A statement that fails if this holds, and gives the message as the reason, as well as the database can."""
    if dialect.name == "postgresql":
        said = quoted(dialect, message.replace("%", "%%"))
        return f"DO $sa$ BEGIN IF {condition} THEN RAISE EXCEPTION {said}; END IF; END $sa$"
    said = quoted(dialect, message)
    if dialect.name == "sqlite":
        return f"SELECT CASE WHEN {condition} THEN json({said}) END AS guard"
    # "Subquery returns more than 1 row": outside of procedures there is no other way to fail with a reason.
    return f"SELECT CASE WHEN {condition} THEN (SELECT {said} UNION ALL SELECT 'run it first') END AS guard"
