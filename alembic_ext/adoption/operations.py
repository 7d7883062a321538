"""The operations of adoption: what a migration says, and what is done then.

``op.adopt_blob_column``, ``op.adopt_path_column``, ``op.adopt_depot_column``, ``op.adopt_sqlalchemy_file_column`` and
``op.adopt_advanced_alchemy_column`` have ``op.restore_...`` of the same arguments as their reverse,
``op.finish_adoption`` has ``op.hold_adoption``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alembic.operations import AbstractOperations, BatchOperations, MigrateOperation
from sqlalchemy import JSON, LargeBinary, Text
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.types import TypeEngine

from sa_attachments.adoption import AdoptionReport, finish, hold
from sa_attachments.adoption.plan import AdvancedAlchemy, Blobs, Depot, Paths, Plan, SQLAlchemyFile

from . import migration, offline

Create = bool | TypeEngine[Any]
Files = Any
"""``Storages``, a URL, or URLs by name; None for what ``context.configure(attachment_storages=...)`` says."""

_ATTACHMENTS: TypeEngine[Any] = JSON().with_variant(postgresql.JSONB(), "postgresql")
_BYTES: TypeEngine[Any] = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


class _Column(MigrateOperation):
    """A column that is adopted, or taken back."""

    def __init__(self, plan: Plan, files: Files, create: Create) -> None:
        self.plan = plan
        self.files = files
        self.create = create

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """What ``alembic check`` tells of it."""
        return type(self).__name__, self.plan.table, self.plan.source, self.plan.into

    @classmethod
    def blob_column(
        cls,
        operations: AbstractOperations,
        table: str,
        blob: str,
        into: str,
        *,
        filename: str | None = None,
        content_type: str | None = None,
        storage: str | None = None,
        files: Files = None,
        policy: str = "fail",
        report: str | Path | None = None,
        create: Create = False,
        schema: str | None = None,
        ledger_schema: str | None = None,
    ) -> AdoptionReport | None:
        """Bytes in the column ``blob`` to attachments in the column ``into``; or the reverse.

        :param filename, content_type: columns that say what files are called and claimed to be.
        :param storage: where they are stored; the default storage if None.
        :param files: ``Storages``, a URL or URLs by name, if ``env.py`` says none.
        :param policy: what becomes of rows that can't be adopted: ``fail``, ``skip``, or ``null``, their old column.
        :param report: a file to which a line of JSON is added for each of them.
        :param create: add the column that is filled, if it is not there; True or its type.
        :param schema: of the table.
        :param ledger_schema: of the ledger.
        """
        plan = Plan(table, blob, into, Blobs(filename, content_type), schema, storage, policy, report, ledger_schema)
        return cls._invoke(operations, plan, files, create)

    @classmethod
    def path_column(
        cls,
        operations: AbstractOperations,
        table: str,
        path: str,
        into: str,
        *,
        root: str | Path | None = None,
        mode: str = "copy",
        prefix: str = "",
        fallback: str | None = None,
        filename: str | None = None,
        content_type: str | None = None,
        storage: str | None = None,
        files: Files = None,
        policy: str = "fail",
        report: str | Path | None = None,
        create: Create = False,
        schema: str | None = None,
        ledger_schema: str | None = None,
    ) -> AdoptionReport | None:
        """Paths, or URLs, in the column ``path`` to attachments in the column ``into``; or the reverse.

        :param root: a folder, or the URL of a storage, that the paths are below and may not leave.
        :param mode: ``copy``, ``link`` or ``in_place``; adopted files are held until ``op.finish_adoption``.
        :param prefix: what values begin with and paths don't, as ``https://cdn.example/media/``.
        :param fallback: ``copy``: what can't be adopted in place is copied.

        The others are those of ``op.adopt_blob_column``.
        """
        origin = Paths(root, mode, prefix, fallback, filename, content_type)
        plan = Plan(table, path, into, origin, schema, storage, policy, report, ledger_schema)
        return cls._invoke(operations, plan, files, create)

    @classmethod
    def depot_column(cls, operations: AbstractOperations, table: str, column: str, into: str, **options: Any) -> Any:
        """Files of filedepot's ``UploadedFileField`` to attachments in the column ``into``, where they are; or the
        reverse.

        Options: ``storages`` (our names by the depots'), ``mode`` (``in_place`` or ``copy``), ``fallback`` (``copy``:
        what several rows share is copied), and those of ``op.adopt_blob_column`` but the names of columns.
        """
        return cls._foreign(operations, Depot, table, column, into, **options)

    @classmethod
    def sqlalchemy_file_column(
        cls, operations: AbstractOperations, table: str, column: str, into: str, **options: Any
    ) -> Any:
        """Files of sqlalchemy-file's ``FileField`` or ``ImageField``, as ``op.adopt_depot_column``."""
        return cls._foreign(operations, SQLAlchemyFile, table, column, into, **options)

    @classmethod
    def advanced_alchemy_column(
        cls, operations: AbstractOperations, table: str, column: str, into: str, **options: Any
    ) -> Any:
        """Files of advanced-alchemy's ``StoredObject``, as ``op.adopt_depot_column``."""
        return cls._foreign(operations, AdvancedAlchemy, table, column, into, **options)

    @classmethod
    def _foreign(
        cls,
        operations: AbstractOperations,
        library: type[Depot | SQLAlchemyFile | AdvancedAlchemy],
        table: str,
        column: str,
        into: str,
        *,
        storages: Mapping[str, str] | None = None,
        mode: str = "in_place",
        fallback: str | None = None,
        storage: str | None = None,
        files: Files = None,
        policy: str = "fail",
        report: str | Path | None = None,
        create: Create = False,
        schema: str | None = None,
        ledger_schema: str | None = None,
    ) -> AdoptionReport | None:
        origin = library(dict(storages or {}), mode, fallback)
        plan = Plan(table, column, into, origin, schema, storage, policy, report, ledger_schema)
        return cls._invoke(operations, plan, files, create)

    # In op.batch_alter_table, which knows the table

    @classmethod
    def batch_blob_column(cls, operations: BatchOperations, blob: str, into: str, **options: Any) -> Any:
        """See ``op.adopt_blob_column``."""
        return cls.blob_column(operations, *migration.batch_table(operations), blob, into, **options)

    @classmethod
    def batch_path_column(cls, operations: BatchOperations, path: str, into: str, **options: Any) -> Any:
        """See ``op.adopt_path_column``."""
        return cls.path_column(operations, *migration.batch_table(operations), path, into, **options)

    @classmethod
    def batch_depot_column(cls, operations: BatchOperations, column: str, into: str, **options: Any) -> Any:
        """See ``op.adopt_depot_column``."""
        return cls.depot_column(operations, *migration.batch_table(operations), column, into, **options)

    @classmethod
    def batch_sqlalchemy_file_column(cls, operations: BatchOperations, column: str, into: str, **options: Any) -> Any:
        """See ``op.adopt_sqlalchemy_file_column``."""
        return cls.sqlalchemy_file_column(operations, *migration.batch_table(operations), column, into, **options)

    @classmethod
    def batch_advanced_alchemy_column(cls, operations: BatchOperations, column: str, into: str, **options: Any) -> Any:
        """See ``op.adopt_advanced_alchemy_column``."""
        return cls.advanced_alchemy_column(operations, *migration.batch_table(operations), column, into, **options)

    @classmethod
    def _invoke(cls, operations: AbstractOperations, plan: Plan, files: Files, create: Create) -> AdoptionReport | None:
        done: AdoptionReport | None = operations.invoke(cls(plan, files, create))
        return done


class AdoptColumn(_Column):
    """``op.adopt_..._column``."""

    def reverse(self) -> RestoreColumn:
        """The way back; the old column is added if it is not there any more."""
        return RestoreColumn(self.plan, self.files, True)


class RestoreColumn(_Column):
    """``op.restore_..._column``."""

    def reverse(self) -> AdoptColumn:
        """Adopt again."""
        return AdoptColumn(self.plan, self.files, True)


class _Adoption(MigrateOperation):
    """An adoption that is finished, or held again."""

    def __init__(self, table: str, into: str, source: str | None, files: Files, schemas: Mapping[str, Any]) -> None:
        self.table = table
        self.into = into
        self.source = source
        self.files = files
        self.schemas = schemas

    @property
    def plan(self) -> Plan:
        """What was adopted, as far as the end of it tells; a source may be a library's."""
        return Plan(self.table, self.source or "", self.into, Depot(), **self.schemas)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """What ``alembic check`` tells of it."""
        return type(self).__name__, self.table, self.into


class FinishAdoption(_Adoption):
    """``op.finish_adoption``."""

    @classmethod
    def finish_adoption(
        cls,
        operations: AbstractOperations,
        table: str,
        into: str,
        *,
        source: str | None = None,
        files: Files = None,
        schema: str | None = None,
        ledger_schema: str | None = None,
    ) -> Any:
        """Say that nothing else uses the files that the column ``into`` adopted: they are purged when they are dropped,
        and what another library kept beside them is deleted.

        With ``source``, the column that they were adopted from, it fails if rows of it are not adopted yet.
        """
        schemas = {"schema": schema, "ledger_schema": ledger_schema}
        return operations.invoke(cls(table, into, source, files, schemas))

    @classmethod
    def batch_finish_adoption(cls, operations: BatchOperations, into: str, **options: Any) -> Any:
        """See ``op.finish_adoption``."""
        return cls.finish_adoption(operations, *migration.batch_table(operations), into, **options)

    def reverse(self) -> HoldAdoption:
        """Hold the files again."""
        return HoldAdoption(self.table, self.into, self.source, self.files, self.schemas)


class HoldAdoption(_Adoption):
    """``op.hold_adoption``."""

    @classmethod
    def hold_adoption(
        cls,
        operations: AbstractOperations,
        table: str,
        into: str,
        *,
        files: Files = None,
        schema: str | None = None,
        ledger_schema: str | None = None,
    ) -> Any:
        """The reverse of ``op.finish_adoption``: adopted files that rows still name are not purged again."""
        schemas = {"schema": schema, "ledger_schema": ledger_schema}
        return operations.invoke(cls(table, into, None, files, schemas))

    @classmethod
    def batch_hold_adoption(cls, operations: BatchOperations, into: str, **options: Any) -> Any:
        """See ``op.hold_adoption``."""
        return cls.hold_adoption(operations, *migration.batch_table(operations), into, **options)

    def reverse(self) -> FinishAdoption:
        """Let go of the files."""
        return FinishAdoption(self.table, self.into, self.source, self.files, self.schemas)


# What is done


def adopt_column(operations: AbstractOperations, operation: AdoptColumn) -> AdoptionReport | None:
    """Adopt; in offline mode, say how."""
    plan = operation.plan
    migration.create(operations, plan, plan.into, operation.create, _ATTACHMENTS)
    if operations.migration_context.as_sql:
        offline.refuse(operations, plan, back=False)
        return None
    return migration.carry_out(operations, plan, operation.files, back=False)


def restore_column(operations: AbstractOperations, operation: RestoreColumn) -> AdoptionReport | None:
    """Take back; in offline mode, say how."""
    plan = operation.plan
    usual = _BYTES if isinstance(plan.origin, Blobs) else Text()
    migration.create(operations, plan, plan.source, operation.create, usual)
    if operations.migration_context.as_sql:
        offline.refuse(operations, plan, back=True)
        return None
    return migration.carry_out(operations, plan, operation.files, back=True)


def finish_adoption(operations: AbstractOperations, operation: FinishAdoption) -> AdoptionReport | None:
    """Let go of adopted files; in offline mode, say how."""
    if operations.migration_context.as_sql:
        offline.ended(operations, "finish", operation.plan)
        return None
    files = migration.storages(operations, operation.files)
    with migration.between_transactions(operations) as connection:
        return finish(connection, files, operation.table, operation.into, source=operation.source, **operation.schemas)


def hold_adoption(operations: AbstractOperations, operation: HoldAdoption) -> AdoptionReport | None:
    """Hold adopted files again; in offline mode, say how."""
    if operations.migration_context.as_sql:
        offline.ended(operations, "hold", operation.plan)
        return None
    files = migration.storages(operations, operation.files)
    with migration.between_transactions(operations) as connection:
        return hold(connection, files, operation.table, operation.into, **operation.schemas)
