"""Operations that make and remove the triggers by which a database counts the names of files.

    op.create_attachment_triggers("users", ["avatar", "photos"])

makes them on one table, and counts what its rows name, in one transaction. Install them on all attachment columns of
a database, or on none.

Traps
-----
On MariaDB and MySQL each DDL statement commits by itself. A migration that is killed there leaves triggers that count
nothing off before they are whole; run it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from alembic.autogenerate.render import renderers
from alembic.operations import BatchOperations, MigrateOperation, Operations
from sqlalchemy import Connection, Inspector, inspect
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SQLAlchemyError

from sa_attachments.clock import milliseconds
from sa_attachments.errors import BadConfiguration, LedgerMissing, NoTransaction, listing
from sa_attachments.patience import isolation_level
from sa_attachments.tables import translated

from .batch import after_batch, before_batch, table_of
from .counting import Counted, Counter, Counting, counter_of
from .counting.counter import LEDGER
from .script import execute

Retain = float | timedelta
"""Seconds, or a timedelta."""


class _TriggersOp(MigrateOperation):
    """What both operations have in common."""

    verb = ""

    def __init__(self, counting: Counting) -> None:
        self.counting = counting

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """What ``alembic check`` shows."""
        columns = [each.column for each in self.counting.columns]
        return (f"{self.verb}_attachment_triggers", self.counting.fullname, columns)


class CreateAttachmentTriggersOp(_TriggersOp):
    """Make the triggers of one table."""

    verb = "add"

    @classmethod
    def create_attachment_triggers(
        cls,
        operations: Operations,
        table_name: str,
        columns: Sequence[str],
        *,
        retain: Retain | Mapping[str, Retain] = 0,
        schema: str | None = None,
        ledger_schema: str | None = None,
    ) -> None:
        """Let the database count the names of the files in these columns, and condemn a file that has none left.

        :param columns: all attachment columns of the table.
        :param retain: for how many seconds a dropped file is kept; a mapping, if it is not the same for all columns.
        :param schema: the table's.
        :param ledger_schema: that of the table ``attachment_ledger``.

        Raises BadConfiguration, LedgerMissing, NoTransaction.
        """
        operations.invoke(cls(_counting(table_name, columns, retain, schema, ledger_schema)))

    @classmethod
    def batch_create_attachment_triggers(
        cls,
        operations: BatchOperations,
        columns: Sequence[str],
        *,
        retain: Retain | Mapping[str, Retain] = 0,
        ledger_schema: str | None = None,
    ) -> None:
        """As ``op.create_attachment_triggers``, when the batch has been carried out."""
        table, schema = table_of(operations)
        op = cls(_counting(table, columns, retain, schema, ledger_schema))
        after_batch(operations, op)

    def reverse(self) -> MigrateOperation:
        """The operation that takes this one back."""
        return DropAttachmentTriggersOp(self.counting)


class DropAttachmentTriggersOp(_TriggersOp):
    """Remove the triggers of one table."""

    verb = "remove"

    @classmethod
    def drop_attachment_triggers(
        cls,
        operations: Operations,
        table_name: str,
        columns: Sequence[str],
        *,
        retain: Retain | Mapping[str, Retain] = 0,
        schema: str | None = None,
        ledger_schema: str | None = None,
    ) -> None:
        """Let the database count the names in this table no longer; condemns nothing.

        The parameters are those of ``create_attachment_triggers``, which takes it back.
        """
        operations.invoke(cls(_counting(table_name, columns, retain, schema, ledger_schema)))

    @classmethod
    def batch_drop_attachment_triggers(
        cls,
        operations: BatchOperations,
        columns: Sequence[str],
        *,
        retain: Retain | Mapping[str, Retain] = 0,
        ledger_schema: str | None = None,
    ) -> None:
        """As ``op.drop_attachment_triggers``, before the batch is carried out."""
        table, schema = table_of(operations)
        before_batch(operations, cls(_counting(table, columns, retain, schema, ledger_schema)))

    def reverse(self) -> MigrateOperation:
        """The operation that takes this one back."""
        return CreateAttachmentTriggersOp(self.counting)


def register() -> None:
    """Tell Alembic of the operations."""
    for op, name, carry_out in (
        (CreateAttachmentTriggersOp, "create_attachment_triggers", _create),
        (DropAttachmentTriggersOp, "drop_attachment_triggers", _drop),
    ):
        Operations.register_operation(name)(op)
        BatchOperations.register_operation(name, f"batch_{name}")(op)
        Operations.implementation_for(op)(carry_out)
        renderers.dispatch_for(op)(_renderer(name))


def _counting(
    table: str,
    columns: Sequence[str],
    retain: Retain | Mapping[str, Retain],
    schema: str | None,
    ledger_schema: str | None,
) -> Counting:
    if isinstance(columns, str) or not columns or len(set(columns)) < len(columns):
        raise BadConfiguration(f"the attachment columns of {table!r} are a list of names, not {columns!r}")
    by_column: Mapping[str, Retain] = retain if isinstance(retain, Mapping) else dict.fromkeys(columns, retain)
    if unknown := by_column.keys() - set(columns):
        raise BadConfiguration(f"retain names {listing(unknown)}, which is not among the columns of {table!r}")
    counted = tuple(Counted(column, _milliseconds(by_column.get(column, 0))) for column in columns)
    return Counting(table, counted, schema, ledger_schema)


def _milliseconds(retain: Retain) -> int:
    found = milliseconds(retain if isinstance(retain, timedelta) else timedelta(seconds=retain))
    if found < 0:
        raise BadConfiguration(f"retain is how long a dropped file is kept, not {retain!r}")
    return found


# Carrying out


def _create(operations: Operations, op: CreateAttachmentTriggersOp) -> None:
    counting = op.counting

    def online(counter: Counter, connection: Connection, counting: Counting, others: list[Counting]) -> Iterable[str]:
        yield from counter.drop_found(connection, counting)
        yield from _count_anew(counter, counting.ledger_schema, [*others, counting])
        yield from counter.create(counting)

    def offline(counter: Counter) -> Iterable[str]:
        yield from counter.lock([counting])
        yield from counter.add(counting)
        yield from counter.regain(counting.ledger_schema)
        yield from counter.create(counting)

    _carry_out(operations, counting, online, offline)


def _drop(operations: Operations, op: DropAttachmentTriggersOp) -> None:
    counting = op.counting

    def online(counter: Counter, connection: Connection, counting: Counting, others: list[Counting]) -> Iterable[str]:
        yield from counter.drop_found(connection, counting)
        yield from _count_anew(counter, counting.ledger_schema, others)

    def offline(counter: Counter) -> Iterable[str]:
        yield from counter.lock([counting])
        yield from counter.drop(counting)
        yield from counter.subtract(counting)

    _carry_out(operations, counting, online, offline, columns=False)


def _count_anew(counter: Counter, ledger_schema: str | None, countings: Sequence[Counting]) -> Iterable[str]:
    # All, not only one table's: triggers may have been lost in between, as SQLite loses them, and counts with them.
    yield from counter.reset(ledger_schema)
    for each in countings:
        yield from counter.add(each)
    yield from counter.regain(ledger_schema)


def _carry_out(
    operations: Operations,
    counting: Counting,
    online: Callable[[Counter, Connection, Counting, list[Counting]], Iterable[str]],
    offline: Callable[[Counter], Iterable[str]],
    *,
    columns: bool = True,
) -> None:
    context = operations.get_context()
    counter = counter_of(context.dialect)
    if context.as_sql:
        by_hand = context.dialect.name == "sqlite" and not context.impl.transactional_ddl
        statements = [*offline(counter), *counter.unlock()]
        execute(operations, ["BEGIN IMMEDIATE", *statements, "COMMIT"] if by_hand else statements)
        return
    connection = operations.get_bind()
    schema, ledger_schema = (translated(connection, each) for each in (counting.schema, counting.ledger_schema))
    counting = counter.here(connection, replace(counting, schema=schema, ledger_schema=ledger_schema))
    _check(connection, counting, columns)
    try:
        others = _lock(operations, counter, connection, counting)
        execute(operations, online(counter, connection, counting, others))
    except BaseException:
        with suppress(SQLAlchemyError):  # perhaps the connection is gone, and the locks with it
            execute(operations, counter.unlock(failed=True))
        raise
    execute(operations, counter.unlock())


def _lock(operations: Operations, counter: Counter, connection: Connection, counting: Counting) -> list[Counting]:
    """Take the locks; returns what else is counted. That is asked again under lock: a migration at the same time may
    have ended while this one waited, and to count anew without its table would count its names as none.
    """
    others = _others(counter, connection, counting)
    while True:
        execute(operations, counter.lock([counting, *others]))
        locked, others = others, _others(counter, connection, counting)
        if all(each in locked for each in others):
            return others


def _others(counter: Counter, connection: Connection, counting: Counting) -> list[Counting]:
    schemas = {counting.schema, counting.ledger_schema, *counter.beside(connection)}
    return [
        each.counting
        for each in counter.installed(connection, schemas)
        if each.counting.where != counting.where and each.counting.ledger_schema == counting.ledger_schema
    ]


def _check(connection: Connection, counting: Counting, columns: bool) -> None:
    """Refuse, before anything is changed, what can't work."""
    there = inspect(connection)
    if not there.has_table(counting.table, counting.schema):
        raise BadConfiguration(f"there is no table {counting.fullname!r} whose names could be counted")
    if not there.has_table(LEDGER, counting.ledger_schema):
        where = "" if counting.ledger_schema is None else f" in the schema {counting.ledger_schema!r}"
        raise LedgerMissing(f"there is no table {LEDGER!r}{where}: op.create_attachment_ledger() creates it")
    if columns:
        _check_columns(there, counting)
    _check_isolation(connection)


def _check_isolation(connection: Connection) -> None:
    """Refuse where names could not be counted in one transaction, or not all of them."""
    if isolation_level(connection) == "AUTOCOMMIT":
        raise NoTransaction(
            "names are counted in one transaction, and this connection commits each statement: say it outside of "
            "autocommit_block(), and don't let env.py connect with AUTOCOMMIT"
        )
    if connection.dialect.name != "postgresql":
        return
    if (level := connection.get_isolation_level()) in ("REPEATABLE READ", "SERIALIZABLE"):
        raise BadConfiguration(
            f"names are counted once their table is locked, and {level} hides what was committed until then: say "
            "connection.execution_options(isolation_level='READ COMMITTED') in env.py"
        )


def _check_columns(there: Inspector, counting: Counting) -> None:
    types = {column["name"]: column["type"] for column in there.get_columns(counting.table, counting.schema)}
    for each in counting.columns:
        if each.column not in types:
            raise BadConfiguration(f"{counting.fullname!r} has no column {each.column!r}: it has {listing(types)}")
        if there.dialect.name == "postgresql" and not isinstance(types[each.column], postgresql.JSONB):
            raise BadConfiguration(
                f"{counting.fullname}.{each.column} is {types[each.column]!r}, and attachments are kept as JSONB"
            )


# Rendering


def _renderer(name: str) -> Callable[[Any, _TriggersOp], str]:
    def render(autogen_context: Any, op: _TriggersOp) -> str:
        prefix = autogen_context.opts.get("alembic_module_prefix") or ""
        return f"{prefix}{rendered(name, op.counting)}"

    return render


def rendered(name: str, counting: Counting) -> str:
    """The call in a migration.

    >>> rendered("create_attachment_triggers", Counting("users", (Counted("avatar", 1500),)))
    "create_attachment_triggers('users', ['avatar'], retain=1.5)"
    """
    arguments = [repr(counting.table), repr([each.column for each in counting.columns])]
    retain = {each.column: _seconds(each.retain) for each in counting.columns}
    different = set(retain.values())
    if different != {0}:
        arguments.append(f"retain={different.pop() if len(different) == 1 else retain!r}")
    arguments += [
        f"{name}={value!r}"
        for name, value in (("schema", counting.schema), ("ledger_schema", counting.ledger_schema))
        if value is not None
    ]
    return f"{name}({', '.join(arguments)})"


def _seconds(milliseconds: int) -> float:
    whole, rest = divmod(milliseconds, 1000)
    return milliseconds / 1000 if rest else whole
