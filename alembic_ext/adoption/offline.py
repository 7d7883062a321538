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
from sqlalchemy import Dialect, String, Text, and_, case, cast, column, exists, func, literal, null, or_, select, table
from sqlalchemy import text as sql

from sa_attachments.adoption.plan import Blobs, Paths, Plan


def refuse(operations: AbstractOperations, plan: Plan, *, back: bool) -> None:
    """Write into the script what has to be run, and a statement that fails as long as it was not."""
    command = plan.command(*(["--reverse"] if back else []))
    comment(operations, command)
    _guard(operations, guard(operations.migration_context.dialect, plan, back=back))


def ended(operations: AbstractOperations, kind: str, plan: Plan) -> None:
    """Write into the script that an adoption has to be finished, or held; with its source, that it has to be whole."""
    schema = ["--schema", plan.schema] if plan.schema else []
    command = shlex.join(["sa-attachments", "adopt", kind, plan.table, plan.into, *schema])
    if plan.source:
        message = f"{plan.label} has rows that are not adopted"
        _guard(operations, guard(operations.migration_context.dialect, plan, back=False, message=message))
    comment(operations, command)


def _guard(operations: AbstractOperations, statement: str) -> None:
    context = operations.migration_context
    # What was said before is committed first: the command works on it.
    with context.autocommit_block():
        context.execute(sql(statement.replace(":", "\\:")))


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
    if not isinstance(plan.origin, Blobs | Paths):  # libraries write JSON's null, or an empty list
        says_something = and_(says_something, func.coalesce(cast(source, Text), "").not_in(["null", "[]"]))
    left = ~is_empty if back else and_(says_something, is_empty)
    is_left: Any = exists(select(literal(1, literal_execute=True)).select_from(rows).where(left))
    if not back and plan.policy != "fail":  # some are to be left; none at all means that it was not run
        is_left = and_(is_left, ~exists(select(literal(1, literal_execute=True)).select_from(rows).where(~is_empty)))

    message = message or f"run first: {plan.command(*(['--reverse'] if back else []))}"

    def compiled(element: Any) -> str:
        return str(element.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))

    if dialect.name == "postgresql":
        said = message.replace("'", "''").replace("%", "%%")
        return f"DO $sa$ BEGIN IF {compiled(is_left)} THEN RAISE EXCEPTION '{said}'; END IF; END $sa$"
    if dialect.name == "sqlite":
        return compiled(select(case((is_left, func.json(message)))))
    # "Subquery returns more than 1 row": outside of procedures there is no other way to fail with a reason.
    twice = select(literal(message)).union_all(select(literal("run it first"))).scalar_subquery()
    return compiled(select(case((is_left, twice), else_=null())))
