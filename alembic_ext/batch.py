"""Operations inside of ``batch_alter_table``, which on SQLite may make the table anew: what belongs to the old table
must go before, and what belongs to the new one comes after.
"""

from __future__ import annotations

from typing import Any

from alembic.operations import BatchOperations, MigrateOperation


def table_of(operations: BatchOperations) -> tuple[str, str | None]:
    """Name and schema of the table that the batch is about."""
    impl: Any = operations.impl
    return impl.table_name, impl.schema


def before_batch(operations: BatchOperations, op: MigrateOperation) -> None:
    """Carry it out at once: whatever the batch collects is carried out when it ends."""
    impl: Any = operations.impl
    impl.operations.invoke(op)


def after_batch(operations: BatchOperations, op: MigrateOperation) -> None:
    """Carry it out when the batch has been."""
    impl: Any = operations.impl
    flush = impl.flush

    def flush_then_invoke() -> None:
        flush()
        impl.operations.invoke(op)

    impl.flush = flush_then_invoke
