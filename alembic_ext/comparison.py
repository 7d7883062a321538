"""Comparison: autogenerate proposes the triggers that a database lacks, and removes those that nobody wants any more.

It is switched on by its name in ``env.py``:

    context.configure(..., autogenerate_plugins=["alembic.autogenerate.*", "sa_attachments"])

Triggers that go are removed first, those that come are made last: on SQLite, a table that is made anew in between
loses them, so that a migration that does this gets both. So do indexes of what descriptors hold, which no model knows
and which go with their column only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from alembic import util
from alembic.operations import ops
from sqlalchemy import Connection, Table, inspect
from sqlalchemy.exc import NoSuchTableError

from sa_attachments.column import ColumnType, kept_for

from .counting import Counted, Counting, Installed, counter_of
from .indexed import indexes_of
from .triggers import CreateAttachmentTriggersOp, DropAttachmentTriggersOp

Where = tuple[str | None, str]
"""Schema and name of a table."""

_LAST: Any = getattr(getattr(util, "DispatchPriority", None), "LAST", None)
_WITHOUT_RECREATE = (ops.CreateIndexOp, ops.DropIndexOp)


def register(plugin: Any) -> None:
    """Let Alembic's plugin compare triggers, when all else has been compared."""
    plugin.add_autogenerate_comparator(compare, "autogenerate", priority=_LAST)


def compare(autogen_context: Any, upgrade_ops: Any) -> None:
    """Add what triggers and indexes need to the operations of a migration."""
    default = autogen_context.dialect.default_schema_name
    tables = {(_plain(table.schema, default), table.name): table for table in autogen_context.sorted_tables}
    known = {where for where, table in tables.items() if _is_seen(autogen_context, table, "table")}
    wanted = {where: counting for where in known if (counting := _wanted(autogen_context, tables[where]))}
    counter = counter_of(autogen_context.dialect)
    there = {
        found.counting.where: found
        for found in counter.installed(autogen_context.connection, {schema for schema, _ in tables})
    }
    known |= {(op.schema, op.table_name) for op in upgrade_ops.ops if isinstance(op, ops.DropTableOp)}
    anew = set(_made_anew(upgrade_ops)) if autogen_context.dialect.name == "sqlite" else set()
    first: list[Any] = []
    last: list[Any] = []
    for where in sorted(wanted.keys() | (there.keys() & known), key=lambda each: (each[0] or "", each[1])):
        counting, found = wanted.get(where), there.get(where)
        if counting and found and _is_as(counting, found) and where not in anew:
            continue
        if found is not None:
            # Those of a column that got another name could not be made on the way back.
            there_again = found.counting if _has_columns(autogen_context.connection, found.counting) else counting
            first.append(DropAttachmentTriggersOp(there_again or found.counting))
        if counting is not None:
            last.append(CreateAttachmentTriggersOp(counting))
    removed, made = _indexes(autogen_context.connection, upgrade_ops, tables, anew)
    upgrade_ops.ops[:] = [*first, *removed, *upgrade_ops.ops, *made, *last]


def _is_seen(autogen_context: Any, item: Any, kind: str) -> bool:
    """Whether ``env.py`` does not leave it alone."""
    return bool(autogen_context.run_object_filters(item, item.name, kind, False, None))


def _wanted(autogen_context: Any, table: Table) -> Counting | None:
    """What a table is to have."""
    columns = [column for column in _columns(table) if _will_be_there(autogen_context, table, column)]
    if not columns:
        return None
    default = autogen_context.dialect.default_schema_name
    counted = tuple(Counted(column.name, kept_for(column.type)) for column in columns)
    ledger = columns[0].type.files.ledger_of(table).lines.schema
    return Counting(table.name, counted, _plain(table.schema, default), _plain(ledger, default))


def _will_be_there(autogen_context: Any, table: Table, column: Any) -> bool:
    """Whether it is, or Alembic adds it: it adds none that ``env.py`` leaves alone."""
    if _is_seen(autogen_context, column, "column"):
        return True
    with suppress(NoSuchTableError):
        there = inspect(autogen_context.connection).get_columns(table.name, schema=table.schema)
        return column.name in {each["name"] for each in there}
    return True


def _has_columns(connection: Connection, counting: Counting) -> bool:
    there = inspect(connection).get_columns(counting.table, schema=counting.schema)
    return {each.column for each in counting.columns} <= {each["name"] for each in there}


def _columns(table: Table) -> list[Any]:
    return [column for column in table.columns if isinstance(column.type, ColumnType)]


def _is_as(counting: Counting, found: Installed) -> bool:
    """Whether these are the triggers; in what order they name the columns does not matter."""
    there = replace(found.counting, columns=counting.columns)
    return found.whole and there == counting and set(found.counting.columns) == set(counting.columns)


def _plain(schema: str | None, default: str | None) -> str | None:
    return None if schema == default else schema


def _made_anew(upgrade_ops: Any) -> Iterator[Where]:
    """Tables that SQLite can't alter, which Alembic makes anew, there or on the way back."""
    for op in upgrade_ops.ops:
        if isinstance(op, ops.ModifyTableOps) and not all(isinstance(each, _WITHOUT_RECREATE) for each in op.ops):
            yield op.schema, op.table_name


def _indexes(
    connection: Connection, upgrade_ops: Any, tables: Mapping[Where, Table], anew: set[Where]
) -> tuple[list[Any], list[Any]]:
    """Keep indexes of ours, which are in no model and not to be removed for that: returns those that are removed
    before all else, as their column goes or the model takes their name, and those that are made after all else.
    """
    removed: list[Any] = []
    made: list[Any] = []
    created = {(op.schema, op.table_name) for op in upgrade_ops.ops if isinstance(op, ops.CreateTableOp)}
    for op in upgrade_ops.ops:
        where = (op.schema, op.table_name) if isinstance(op, ops.ModifyTableOps) else None
        if where is None or where in created or where not in tables:
            continue
        columns = {column.name for column in _columns(tables[where])}
        gone = {each.column_name for each in op.ops if isinstance(each, ops.DropColumnOp)}
        taken = {str(each.index_name) for each in op.ops if isinstance(each, ops.CreateIndexOp)}
        ours: set[str | None] = set()
        for index in indexes_of(connection, op.table_name, op.schema):
            if index.column not in columns | gone:
                continue
            goes = index.column in gone or index.name in taken
            # A generated column that the model has, too, is not to be removed with an index.
            is_mapped = index.generated in {column.name for column in tables[where].columns}
            create = None if is_mapped else index.made_by(op.table_name, op.schema)
            if create and (goes or where in anew):
                removed.append(create.reverse())
                made += [] if goes else [create]
            if create or not goes:
                ours |= {index.name, index.generated}
        op.ops[:] = [each for each in op.ops if _named(each) not in ours]
        # Of the columns that go, those that are generated from others first.
        op.ops.sort(key=lambda each: isinstance(each, ops.DropColumnOp) and each.to_column().computed is None)
    upgrade_ops.ops[:] = [op for op in upgrade_ops.ops if not (isinstance(op, ops.ModifyTableOps) and op.is_empty())]
    return removed, made


def _named(op: Any) -> str:
    """The index or column that it removes."""
    if isinstance(op, ops.DropIndexOp):
        return str(op.index_name)
    return op.column_name if isinstance(op, ops.DropColumnOp) else ""
