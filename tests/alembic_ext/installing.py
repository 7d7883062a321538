"""Installing the triggers of all tables of a ``MetaData`` that have attachment columns, by the operation itself."""

from __future__ import annotations

from collections.abc import Iterator

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, Engine, MetaData, Table

from sa_attachments import AttachmentListType, AttachmentType


def counted(metadata: MetaData) -> Iterator[tuple[Table, list[str]]]:
    """The tables with attachment columns, and the names of these."""
    for table in metadata.sorted_tables:
        columns = [c.name for c in table.columns if isinstance(c.type, AttachmentType | AttachmentListType)]
        if columns:
            yield table, columns


def operations(connection: Connection) -> Operations:
    """``op``, as in a migration."""
    return Operations(MigrationContext.configure(connection))


def install(engine: Engine, metadata: MetaData, schema: str | None = None) -> None:
    """Make all triggers."""
    with engine.begin() as connection:
        op = operations(connection)
        for table, columns in counted(metadata):
            schema_of_table = table.schema or schema
            ledger_schema = metadata.schema or schema
            op.create_attachment_triggers(table.name, columns, schema=schema_of_table, ledger_schema=ledger_schema)
