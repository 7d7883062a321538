"""Comparison: autogenerate proposes the triggers that a database lacks, and removes those that nobody wants any more.

It is switched on by its name in ``env.py``:

    context.configure(..., autogenerate_plugins=["alembic.autogenerate.*", "sa_attachments"])

Triggers that go are removed first, those that come are made last: on SQLite, a table that is made anew in between
loses them, so that a migration that does this gets both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from alembic import util
from alembic.operations import ops
from sqlalchemy import Table

from sa_attachments.clock import milliseconds
from sa_attachments.column import AttachmentListType, AttachmentType

from .counting import Counted, Counting, Installed, counter_of
from .indexes import is_ours
from .triggers import CreateAttachmentTriggersOp, DropAttachmentTriggersOp

Where = tuple[str | None, str]
"""Schema and name of a table."""

_LAST: Any = getattr(getattr(util, "DispatchPriority", None), "LAST", None)
_WITHOUT_RECREATE = (ops.CreateIndexOp, ops.DropIndexOp)


def register(plugin: Any) -> None:
    """Let Alembic's plugin compare triggers, when all else has been compared."""
    plugin.add_autogenerate_comparator(compare, "autogenerate", priority=_LAST)


def compare(autogen_context: Any, upgrade_ops: Any) -> None:
    """Add what triggers need to the operations of a migration; and keep the indexes that operations of ours made."""
    wanted = {counting.where: counting for counting in _wanted(autogen_context)}
    counter = counter_of(autogen_context.dialect)
    known = {(table.schema, table.name) for table in autogen_context.sorted_tables}
    there = {
        found.counting.where: found
        for found in counter.installed(autogen_context.connection, {schema for schema, _ in known})
    }
    known |= {(op.schema, op.table_name) for op in upgrade_ops.ops if isinstance(op, ops.DropTableOp)}
    anew = set(_made_anew(upgrade_ops)) if autogen_context.dialect.name == "sqlite" else set()
    _keep_indexes(autogen_context, upgrade_ops)
    first: list[Any] = []
    last: list[Any] = []
    for where in sorted(wanted.keys() | (there.keys() & known), key=lambda each: (each[0] or "", each[1])):
        counting, found = wanted.get(where), there.get(where)
        if found == Installed(counting, True) and where not in anew:  # type: ignore[arg-type]
            continue
        if found is not None:
            first.append(DropAttachmentTriggersOp(found.counting))
        if counting is not None:
            last.append(CreateAttachmentTriggersOp(counting))
    upgrade_ops.ops[:] = [*first, *upgrade_ops.ops, *last]


def _wanted(autogen_context: Any) -> Iterator[Counting]:
    """What the models' tables are to have."""
    default = autogen_context.dialect.default_schema_name
    for table in autogen_context.sorted_tables:
        columns = _columns(table)
        if columns and autogen_context.run_object_filters(table, table.name, "table", False, None):
            counted = tuple(Counted(column.name, _retain(column.type)) for column in columns)
            ledger = columns[0].type.files.ledger_of(table).lines.schema
            yield Counting(table.name, counted, _plain(table.schema, default), _plain(ledger, default))


def _columns(table: Table) -> list[Any]:
    return [column for column in table.columns if isinstance(column.type, AttachmentType | AttachmentListType)]


def _retain(column_type: Any) -> int:
    return milliseconds(column_type.files.retain if column_type.retain is None else column_type.retain)


def _plain(schema: str | None, default: str | None) -> str | None:
    return None if schema == default else schema


def _made_anew(upgrade_ops: Any) -> Iterator[Where]:
    """Tables that SQLite can't alter, which Alembic makes anew, there or on the way back."""
    for op in upgrade_ops.ops:
        if isinstance(op, ops.ModifyTableOps) and not all(isinstance(each, _WITHOUT_RECREATE) for each in op.ops):
            yield op.schema, op.table_name


def _keep_indexes(autogen_context: Any, upgrade_ops: Any) -> None:
    """Indexes of ours are in no model: they are not to be removed for that."""
    columns = {
        (table.schema, table.name): [column.name for column in _columns(table)]
        for table in autogen_context.sorted_tables
    }
    for op in upgrade_ops.ops:
        if isinstance(op, ops.ModifyTableOps) and (here := columns.get((op.schema, op.table_name))):
            op.ops[:] = [each for each in op.ops if not _is_kept(each, op.table_name, here)]
    upgrade_ops.ops[:] = [op for op in upgrade_ops.ops if not (isinstance(op, ops.ModifyTableOps) and op.is_empty())]


def _is_kept(op: Any, table: str, columns: list[str]) -> bool:
    if isinstance(op, ops.DropIndexOp):
        return is_ours(table, columns, str(op.index_name))
    if isinstance(op, ops.DropColumnOp):
        computed = op.to_column().computed
        return computed is not None and is_ours(table, columns, f"ix_{table}_{op.column_name}")
    return False
