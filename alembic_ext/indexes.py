"""Operations that make and remove indexes of what descriptors hold, for queries by content type, key or metadata.

    op.create_attachment_index("users", "avatar", "content_type")
    op.create_attachment_index("users", "avatar", ["metadata", "caption"])

serve ``User.avatar.content_type == "image/png"`` and ``User.avatar.metadata["caption"] == "Me"``.

Traps
-----
An index serves the expression that SQLAlchemy writes, and SQLAlchemy 2.0 and 2.1 write different ones for SQLite: make
its indexes anew when you go from one to the other. MariaDB and MySQL can't index an expression that they could find
again: they get an invisible column, ``avatar_content_type``, and only queries that name it use its index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from copy import copy
from hashlib import sha256
from typing import Any, TypeVar, cast

from alembic.autogenerate.render import renderers
from alembic.operations import BatchOperations, MigrateOperation, Operations
from sqlalchemy import column, inspect

from sa_attachments.column import AttachmentType
from sa_attachments.errors import BadConfiguration, listing
from sa_attachments.files import Storages
from sa_attachments.tables import translated

from .batch import after_batch, before_batch, table_of
from .script import as_it_is, execute, literal, placed, quoter

_KINDS = {"string": "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "integer": "BIGINT", "float": "DOUBLE"}
"""How values compare, and what they are in a column of MySQL."""
_LONGEST = 63
_CUT = re.compile(r"_[0-9a-f]{8}\Z")


class _IndexOp(MigrateOperation):
    """What both operations have in common."""

    verb = ""

    def __init__(
        self, table: str, column: str, path: str | Sequence[Any], kind: str | None, schema: str | None
    ) -> None:
        self.table = table
        self.column = column
        self.path = (path,) if isinstance(path, str) else tuple(path)
        self.kind = kind or ("integer" if self.path == ("size",) else "string")
        self.schema = schema
        if not self.path or not all(isinstance(part, str) and part for part in self.path):
            raise BadConfiguration(f"a path into a descriptor is a name, or a list of names, not {path!r}")
        if self.kind not in _KINDS:
            raise BadConfiguration(f"values are indexed as {listing(_KINDS)}, not as {kind!r}")

    @property
    def name(self) -> str:
        """Of the index."""
        return _short("_".join(("ix", self.table, self.column, *self.path)))

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """What ``alembic check`` shows."""
        return (f"{self.verb}_attachment_index", self.table, self.column, self.path)


_Op = TypeVar("_Op", bound=_IndexOp)


class CreateAttachmentIndexOp(_IndexOp):
    """Make an index."""

    verb = "add"

    @classmethod
    def create_attachment_index(
        cls,
        operations: Operations,
        table_name: str,
        column: str,
        path: str | Sequence[str],
        *,
        kind: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Index what descriptors of a column hold at ``path``: ``"content_type"``, ``["metadata", "caption"]``.

        ``kind`` is how queries compare it: ``"string"``, ``"integer"`` or ``"float"``; by default, ``size`` is an
        integer and all else strings. Raises BadConfiguration.
        """
        operations.invoke(cls(table_name, column, path, kind, schema))

    @classmethod
    def batch_create_attachment_index(
        cls, operations: BatchOperations, column: str, path: str | Sequence[str], *, kind: str | None = None
    ) -> None:
        """As ``op.create_attachment_index``, when the batch has been carried out."""
        table, schema = table_of(operations)
        after_batch(operations, cls(table, column, path, kind, schema))

    def reverse(self) -> MigrateOperation:
        """The operation that takes this one back."""
        return DropAttachmentIndexOp(self.table, self.column, self.path, self.kind, self.schema)


class DropAttachmentIndexOp(_IndexOp):
    """Remove an index."""

    verb = "remove"

    @classmethod
    def drop_attachment_index(
        cls,
        operations: Operations,
        table_name: str,
        column: str,
        path: str | Sequence[str],
        *,
        kind: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Remove what ``create_attachment_index`` made of the same parameters."""
        operations.invoke(cls(table_name, column, path, kind, schema))

    @classmethod
    def batch_drop_attachment_index(
        cls, operations: BatchOperations, column: str, path: str | Sequence[str], *, kind: str | None = None
    ) -> None:
        """As ``op.drop_attachment_index``, before the batch is carried out."""
        table, schema = table_of(operations)
        before_batch(operations, cls(table, column, path, kind, schema))

    def reverse(self) -> MigrateOperation:
        """The operation that takes this one back."""
        return CreateAttachmentIndexOp(self.table, self.column, self.path, self.kind, self.schema)


def register() -> None:
    """Tell Alembic of the operations."""
    for op, name, carry_out in (
        (CreateAttachmentIndexOp, "create_attachment_index", _create),
        (DropAttachmentIndexOp, "drop_attachment_index", _drop),
    ):
        Operations.register_operation(name)(op)
        BatchOperations.register_operation(name, f"batch_{name}")(op)
        Operations.implementation_for(op)(carry_out)
        renderers.dispatch_for(op)(_renderer(name))


def generated(column: str, path: Sequence[str]) -> str:
    """The name of the column that MySQL indexes."""
    return _short("_".join((column, *path)))


def _short(name: str) -> str:
    """As long as databases take names."""
    if len(name.encode()) <= _LONGEST:
        return name
    return f"{name.encode()[: _LONGEST - 9].decode(errors='ignore')}_{sha256(name.encode()).hexdigest()[:8]}"


def is_short(name: str) -> bool:
    """Whether a name looks as if it had been cut.

    >>> is_short(_short("ix_" + "x" * 70)), is_short("ix_users_avatar_size")
    (True, False)
    """
    # A letter of up to four bytes goes as a whole.
    return _LONGEST - 3 <= len(name.encode()) <= _LONGEST and _CUT.search(name) is not None


def _create(operations: Operations, op: CreateAttachmentIndexOp) -> None:
    op = _here(operations, op)
    context = operations.get_context()
    dialect = context.dialect
    quote = quoter(dialect)
    if not context.as_sql:
        _check(inspect(operations.get_bind()), op)
    if dialect.name in ("mysql", "mariadb"):
        new = generated(op.column, op.path)
        path = literal(dialect, "$" + "".join(f".{json.dumps(part, ensure_ascii=False)}" for part in op.path))
        value = f"JSON_VALUE({quote(op.column)}, {path})"
        statement = (
            f"ALTER TABLE {placed(quote, op.schema, op.table)}"
            f" ADD COLUMN {quote(new)} {_KINDS[op.kind]} AS ({value}) VIRTUAL INVISIBLE,"
            f" ADD INDEX {quote(op.name)} ({quote(new)})"
        )
    else:
        # On SQLite an index is named with its schema, not its table.
        of_index, of_table = (op.schema, None) if dialect.name == "sqlite" else (None, op.schema)
        name, table = placed(quote, of_index, op.name), placed(quote, of_table, op.table)
        statement = f"CREATE INDEX {name} ON {table} (({_expression(dialect, op)}))"
    execute(operations, [statement])


def _drop(operations: Operations, op: DropAttachmentIndexOp) -> None:
    op = _here(operations, op)
    dialect = operations.get_context().dialect
    quote = quoter(dialect)
    if dialect.name in ("mysql", "mariadb"):
        new = quote(generated(op.column, op.path))
        table = placed(quote, op.schema, op.table)
        statement = f"ALTER TABLE {table} DROP INDEX {quote(op.name)}, DROP COLUMN {new}"
    else:
        statement = f"DROP INDEX {placed(quote, op.schema, op.name)}"
    execute(operations, [statement])


def _here(operations: Operations, op: _Op) -> _Op:
    """The same by the schema that this connection needs."""
    if operations.get_context().as_sql:
        return op
    found = copy(op)
    found.schema = translated(operations.get_bind(), op.schema)
    return found


def _expression(dialect: Any, op: _IndexOp) -> str:
    """What SQLAlchemy writes for this path in a query."""
    value: Any = column(op.column, AttachmentType(cast(Any, Storages())))
    for part in op.path:
        value = value[part]
    value = getattr(value, f"as_{op.kind}")()
    return as_it_is(dialect, str(value.compile(dialect=dialect, compile_kwargs={"literal_binds": True})))


def _check(there: Any, op: _IndexOp) -> None:
    """Refuse, before anything is changed, what can't work."""
    if not there.has_table(op.table, op.schema):
        raise BadConfiguration(f"there is no table {op.table!r} to be indexed")
    columns = [each["name"] for each in there.get_columns(op.table, op.schema)]
    if op.column not in columns:
        raise BadConfiguration(f"{op.table!r} has no column {op.column!r}: it has {listing(columns)}")


def _renderer(name: str) -> Callable[[Any, _IndexOp], str]:
    def render(autogen_context: Any, op: _IndexOp) -> str:
        prefix = autogen_context.opts.get("alembic_module_prefix") or ""
        path = op.path[0] if len(op.path) == 1 else list(op.path)
        schema = "" if op.schema is None else f", schema={op.schema!r}"
        return f"{prefix}{name}({op.table!r}, {op.column!r}, {path!r}, kind={op.kind!r}{schema})"

    return render
