"""Operations that make and remove the ledger, the two tables in which the database says who owns which file.

    op.create_attachment_ledger()

Autogenerate proposes the same as plain ``op.create_table``, since the tables are part of the models' ``MetaData``; the
operation is for migrations that are written by hand.
"""

from __future__ import annotations

from typing import Any

from alembic.autogenerate.render import renderers
from alembic.operations import MigrateOperation, Operations
from sqlalchemy import MetaData, Table

from sa_attachments.ledger import Ledger


class _LedgerOp(MigrateOperation):
    """What both operations have in common."""

    verb = ""

    def __init__(self, schema: str | None = None) -> None:
        self.schema = schema

    def tables(self) -> list[Table]:
        """The ledger's tables."""
        ledger = Ledger(MetaData(schema=self.schema))
        return [ledger.lines, ledger.places]

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """What ``alembic check`` shows."""
        return (f"{self.verb}_attachment_ledger", self.schema)


class CreateAttachmentLedgerOp(_LedgerOp):
    """Make the ledger."""

    verb = "add"

    @classmethod
    def create_attachment_ledger(cls, operations: Operations, *, schema: str | None = None) -> None:
        """Create the tables ``attachment_ledger`` and ``attachment_storage``."""
        operations.invoke(cls(schema))

    def reverse(self) -> MigrateOperation:
        """The operation that takes this one back."""
        return DropAttachmentLedgerOp(self.schema)


class DropAttachmentLedgerOp(_LedgerOp):
    """Remove the ledger."""

    verb = "remove"

    @classmethod
    def drop_attachment_ledger(cls, operations: Operations, *, schema: str | None = None) -> None:
        """Drop both tables, and with them all knowledge of which files are whose. Remove the triggers before."""
        operations.invoke(cls(schema))

    def reverse(self) -> MigrateOperation:
        """The operation that takes this one back."""
        return CreateAttachmentLedgerOp(self.schema)


def register() -> None:
    """Tell Alembic of the operations."""
    for op, name, carry_out in (
        (CreateAttachmentLedgerOp, "create_attachment_ledger", _create),
        (DropAttachmentLedgerOp, "drop_attachment_ledger", _drop),
    ):
        Operations.register_operation(name)(op)
        Operations.implementation_for(op)(carry_out)
        renderers.dispatch_for(op)(_render)


def _create(operations: Operations, op: CreateAttachmentLedgerOp) -> None:
    for table in op.tables():
        operations.impl.create_table(table)


def _drop(operations: Operations, op: DropAttachmentLedgerOp) -> None:
    for table in reversed(op.tables()):
        operations.impl.drop_table(table)


def _render(autogen_context: Any, op: _LedgerOp) -> str:
    prefix = autogen_context.opts.get("alembic_module_prefix") or ""
    verb = "create" if isinstance(op, CreateAttachmentLedgerOp) else "drop"
    return f"{prefix}{verb}_attachment_ledger({'' if op.schema is None else f'schema={op.schema!r}'})"
