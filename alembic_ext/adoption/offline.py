"""Offline: a script of SQL can't move bytes. It says how that is done, and stops if it was not.

>>> from sa_attachments.adoption.plan import Blobs
>>> from sqlalchemy.dialects import sqlite
>>> statement = guard(sqlite.dialect(), Plan("docs", "data", "file", Blobs()), back=False)
>>> statement.startswith("SELECT CASE WHEN"), "json('sa-attachments adopt blob docs data file')" in statement
(True, True)
"""

from __future__ import annotations

from typing import Any

from alembic.operations import AbstractOperations
from sqlalchemy import Dialect, String, Text, and_, case, cast, column, exists, func, literal, null, or_, select, table
from sqlalchemy import text as sql

from sa_attachments.adoption.plan import Plan


def refuse(operations: AbstractOperations, plan: Plan, *, back: bool) -> None:
    """Write into the script what has to be run, and a statement that fails as long as it was not."""
    context = operations.migration_context
    command = plan.command(*(["--reverse"] if back else []))
    comment(operations, command)
    # What was said before is committed first: the command works on it.
    with context.autocommit_block():
        context.execute(sql(guard(context.dialect, plan, back=back).replace(":", "\\:")))


def comment(operations: AbstractOperations, command: str) -> None:
    """Write into the script what has to be run."""
    context = operations.migration_context
    for line in (
        "-- Files can't be moved by SQL. Stop here, and run this where the storages can be reached,",
        "-- with --storages and --database as docs/cli.md says; then run the rest of this script:",
        f"--   {command}",
    ):
        context.impl.static_output(line)


def guard(dialect: Dialect, plan: Plan, *, back: bool) -> str:
    """A statement that fails while rows are left, and says the command."""
    rows = table(plan.table, column(plan.source), column(plan.into, String()), schema=plan.schema)
    source, into = rows.c[plan.source], rows.c[plan.into]
    is_empty = or_(into.is_(null()), cast(into, Text).in_(["null", "[]"]))
    left = ~is_empty if back else and_(source.is_not(None), is_empty)
    is_left: Any = exists(select(literal(1, literal_execute=True)).select_from(rows).where(left))
    if not back and plan.policy != "fail":  # some are to be left; none at all means that it was not run
        is_left = and_(is_left, ~exists(select(literal(1, literal_execute=True)).select_from(rows).where(~is_empty)))
    command = plan.command(*(["--reverse"] if back else []))

    def compiled(element: Any) -> str:
        return str(element.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))

    if dialect.name == "postgresql":
        said = command.replace("'", "''").replace("%", "%%")
        return f"DO $sa$ BEGIN IF {compiled(is_left)} THEN RAISE EXCEPTION 'run first: {said}'; END IF; END $sa$"
    if dialect.name == "sqlite":
        return compiled(select(case((is_left, func.json(command)))))
    # "Subquery returns more than 1 row": outside of procedures there is no other way to fail with a reason.
    twice = select(literal(command)).union_all(select(literal("run it first"))).scalar_subquery()
    return compiled(select(case((is_left, twice), else_=null())))
