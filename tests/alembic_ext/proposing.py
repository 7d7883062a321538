"""What autogenerate proposes for a model, and carrying it out as it is written into a migration."""

from __future__ import annotations

import warnings
from typing import Any

import sqlalchemy
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import MigrationScript
from sqlalchemy import Engine, MetaData
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import SAWarning

PLUGINS = ["alembic.autogenerate.*", "sa_attachments"]


def proposed(engine: Engine, metadata: MetaData, **options: Any) -> MigrationScript:
    """What autogenerate writes, there and back."""
    opts = {"target_metadata": metadata, "autogenerate_plugins": PLUGINS, **options}
    with engine.connect() as connection, warnings.catch_warnings():
        # Of expressions.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection", SAWarning)
        return produce_migrations(MigrationContext.configure(connection, opts=opts), metadata)


def carry_out(engine: Engine, operations: Any, batch: bool = False) -> None:
    """Run it, as the function of the migration that it is written into."""
    with engine.connect() as connection, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Skipped unsupported reflection", SAWarning)
        context = MigrationContext.configure(connection)
        body = render_python_code(operations, render_as_batch=batch, migration_context=context)
        names = {
            **{dialect.__name__.rpartition(".")[2]: dialect for dialect in (mysql, postgresql, sqlite)},
            "op": Operations(context),
            "sa": sqlalchemy,
        }
        with context.begin_transaction(), context.begin_transaction(_per_migration=True):
            exec(f"if True:\n    {body}\n    pass", names)
