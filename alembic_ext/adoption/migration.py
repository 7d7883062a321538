"""Migration: what adoption needs of the one that is running: its connection, its storages, its transaction.

Adoption commits each batch, so the transaction that a migration runs in is committed before, and another one is begun
after it. On a connection that somebody else began a transaction on, it is refused: that one is not ours to commit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from alembic.operations import AbstractOperations, BatchOperations
from alembic.operations.batch import BatchOperationsImpl
from sqlalchemy import Column, Connection, inspect
from sqlalchemy.types import TypeEngine

from sa_attachments import BadConfiguration, NoTransaction, Storages
from sa_attachments.adoption import AdoptionReport, adopt, restore
from sa_attachments.adoption.plan import Plan

log = logging.getLogger("alembic.sa_attachments")

_PAUSE = 5
"""Seconds between two lines of the log that tell of progress."""


def batch_table(operations: BatchOperations) -> tuple[str]:
    """The table of a ``batch_alter_table``."""
    impl = operations.impl
    assert isinstance(impl, BatchOperationsImpl)
    if impl.schema:
        raise BadConfiguration(f"adopt the columns of {impl.schema}.{impl.table_name} outside of batch_alter_table")
    return (impl.table_name,)


def storages(operations: AbstractOperations, files: Any) -> Storages:
    """The storages of the operation, else those of ``env.py``. Raises BadConfiguration."""
    found = operations.migration_context.opts.get("attachment_storages") if files is None else files
    if found is None:
        raise BadConfiguration(
            "no storages: say context.configure(attachment_storages=files) in env.py, or files='local:/srv/files' here"
        )
    if isinstance(found, Storages):
        return found
    if isinstance(found, str | Mapping) or hasattr(found, "put"):
        return Storages(found)
    raise BadConfiguration(f"{type(found).__name__} names no storages: expected Storages, a URL, or URLs by name")


def create(
    operations: AbstractOperations, plan: Plan, name: str, wanted: bool | TypeEngine[Any], usual: TypeEngine[Any]
) -> None:
    """Add a column if it is wanted and not there."""
    context = operations.migration_context
    _flush(operations)
    if wanted is False:
        return
    if not context.as_sql:
        assert context.connection is not None
        there = inspect(context.connection)
        if not there.has_table(plan.table, plan.schema):
            return  # who reads it will say so
        if name in {column["name"] for column in there.get_columns(plan.table, plan.schema)}:
            return
    # A script can't look; where a database can't either, the script stops, and that statement is to be left out.
    looks = context.as_sql and context.dialect.name in ("postgresql", "mariadb")
    column: Column[Any] = Column(name, usual if wanted is True else wanted, nullable=True)
    context.impl.add_column(plan.table, column, schema=plan.schema, if_not_exists=looks or None)


def carry_out(operations: AbstractOperations, plan: Plan, files: Any, *, back: bool) -> AdoptionReport:
    """Adopt or take back, between two transactions of the migration."""
    found = storages(operations, files)
    verb = "restored from" if back else "adopted into"
    label = f"{plan.label} {verb} {plan.into}"
    with between_transactions(operations) as connection:
        report = (restore if back else adopt)(connection, found, plan, _Progress(label))
    log.info("%s: %s", label, report)
    for unadopted in report.unadopted:
        log.warning("%s: left alone: %s", plan.label, unadopted)
    return report


@contextmanager
def between_transactions(operations: AbstractOperations) -> Iterator[Connection]:
    """The migration's connection, without a transaction; another one is begun at the end. Raises NoTransaction."""
    context = operations.migration_context
    connection = context.connection
    assert connection is not None
    transaction = context._transaction
    if connection.in_transaction():
        # Alembic takes one for its own that was begun after it was configured; it enters none of its own.
        is_entered = getattr(connection, "_trans_context_manager", None) is not None
        if is_entered or (transaction is None and context._in_external_transaction):
            raise NoTransaction(
                "adoption commits each batch, and this connection is in a transaction that env.py, or a test, has "
                "begun: let context.begin_transaction() begin it"
            )
        if transaction is None and connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
            raise NoTransaction("adoption has transactions of its own: say it outside of autocommit_block()")
        if transaction is not None:
            transaction.commit()
            context._transaction = None
        else:
            connection.commit()
    try:
        yield connection
    finally:
        if transaction is not None and not connection.closed and not connection.invalidated:
            context._transaction = connection.begin()


def _flush(operations: AbstractOperations) -> None:
    """Inside of a ``batch_alter_table``: carry out what was said so far, so that the table is as it should be."""
    impl = operations.impl
    if isinstance(impl, BatchOperationsImpl):
        BatchOperationsImpl.flush(impl)  # not what others carry out once the whole batch has been
        impl.batch.clear()


class _Progress:
    """Tells the log now and then."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._done = 0
        self._said = time.monotonic()

    def __call__(self, rows: int, total: int) -> None:
        self._done += rows
        if time.monotonic() - self._said >= _PAUSE:
            self._said = time.monotonic()
            log.info("%s: %s of %s rows", self._label, f"{self._done:,}", f"{total:,}")
