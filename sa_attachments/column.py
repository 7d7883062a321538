"""Column types that hold attachments: ``AttachmentType`` for one, ``AttachmentListType`` for an ordered tuple of them.

>>> from sqlalchemy import Integer
>>> from sqlalchemy.orm import DeclarativeBase, mapped_column
>>> from sa_attachments import AttachmentListType, AttachmentType, Storages
>>> files = Storages("memory:")
>>> class Base(DeclarativeBase): pass
>>> class User(Base):
...     __tablename__ = "users"
...     id = mapped_column(Integer, primary_key=True)
...     avatar = mapped_column(AttachmentType(files))     # annotated, it is Mapped[Attachment | None]
...     photos = mapped_column(AttachmentListType(files)) # and this Mapped[Sequence[Attachment]]
>>> print(User.avatar.content_type == "image/png")   # doctest: +ELLIPSIS
users.avatar[...] = ...

The column is JSON (JSONB on PostgreSQL). A loaded value keeps its text until it is touched, so that loading costs
what loading a text column costs. In queries, ``.content_type``, ``.filename``, ``.size``, ``.sha256``, ``.storage``
and ``.metadata["caption"]`` compare with plain Python values, and JSON paths (``User.avatar["metadata"]["caption"]``)
work as on any JSON column. ``User.avatar["key"]`` is a file's key: SQLAlchemy calls the name of an attribute ``.key``.

Traps
-----
A type instance belongs to one column: mapping it copies it. A value reaches the database only where its ownership was
proved: through the ORM (unit of work, or ``session.execute`` of an ORM-enabled statement), or staged on the connection
of the statement (``Storages.stage``). Elsewhere it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from sqlalchemy import JSON, Column, ColumnDefault, Dialect, Table, Text, cast, event, or_
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DontWrapMixin
from sqlalchemy.sql import operators
from sqlalchemy.sql.base import SchemaEventTarget
from sqlalchemy.types import TypeDecorator, TypeEngine

from .attachment import Attachment, bind, body_of, facts_of, make, origin_of, set_binding, set_body
from .claims import Claim, lets_once
from .clock import durations, milliseconds
from .comparator import AsText, Comparator, ListComparator
from .descriptor import Facts, as_text, encode, split
from .errors import BadConfiguration, BadSource, DescriptorDamaged, NotStored, OwnershipLost, UnknownStorage
from .home import Home
from .ledger import Owner, owner_of
from .processing.steps import Step, as_steps, check
from .processing.variants import Recipe, declared
from .storage import Storage

Hook = Callable[[list[Any]], object]
"""Told the primary keys of rows: one value each, or a tuple where the key has several columns."""

nameable: ContextVar[dict[Any, Any] | None] = ContextVar("nameable", default=None)
"""``(column, key)`` of what the statements now running may write: those whose ownership was proved."""

_COMPARED = JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
"""The type of what a column is compared with: PostgreSQL compares its JSONB with no JSON."""


class _ColumnType(TypeDecorator[Any]):
    """What both column types share."""

    impl = JSON(none_as_null=True)
    cache_ok = True
    column: Column[Any] | None = None

    def __init__(
        self,
        files: Home = None,  # type: ignore[assignment]  # SQLAlchemy calls a class that was given for a type
        storage: str | None = None,
        steps: Iterable[Step] = (),
        variants: Mapping[str, Recipe] | None = None,
        *,
        retain: timedelta | None = None,
        triggers: bool = False,
        attachment_class: type[Attachment] = Attachment,
    ) -> None:
        """
        :param files: the ``Storages`` that hold this column's files.
        :param storage: name of the storage for new files; None is ``"default"``.
        :param steps: run in order on each new file before it is stored.
        :param variants: what to derive from each file, by name: a step, several, or a ``Variant``.
        :param retain: how long dropped files are kept for ``Storages.restore``; None is what ``files`` says.
        :param triggers: a migration made triggers that count names: cascades of the database need no warning.
        :param attachment_class: a subclass of ``Attachment`` for the values.
        """
        if not hasattr(files, "ledger_of"):
            name = type(self).__name__
            raise BadConfiguration(f"{name} takes the Storages that hold its files, as {name}(files), not {files!r}")
        if retain is not None:
            durations(retain=retain)
        super().__init__()
        self.files = files
        self.storage = storage
        self.steps = as_steps(steps)
        self.variants = declared(variants)
        self.hooks: list[Hook] = []
        """Told of rows whose new files are committed; see ``Storages.after_commit``."""
        self.retain = retain
        self.triggers = triggers
        self.attachment_class = attachment_class
        self._identity = object()

    @property
    def _static_cache_key(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride] - read like a property
        # SQLAlchemy's own key leaves out keyword-only arguments; columns must never share a result processor.
        return (type(self), self._identity)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSONB(none_as_null=True))
        return dialect.type_descriptor(JSON(none_as_null=True))

    def _set_parent(self, parent: SchemaEventTarget, outer: bool = False, **kw: Any) -> None:
        super()._set_parent(parent, outer=outer, **kw)
        if isinstance(parent, Column) and parent.type is self:
            own = self.copy()
            own.column = parent
            own._identity = object()
            own.hooks = []
            parent.type = own
            event.listen(parent, "after_parent_attach", own._table_known)

    def _table_known(self, column: Column[Any], table: Any) -> None:
        if not isinstance(table, Table):
            return
        self.files.ledger_of(table)
        self.files.expect(self.storage or "default", self.label)
        self.files.attached(self)

    @property
    def label(self) -> str:
        """For messages: ``"users.avatar"``."""
        if self.column is None:
            return "an attachment column"
        table = getattr(self.column, "table", None)
        return f"{table.name}.{self.column.name}" if table is not None else str(self.column.name)

    def resolve(self, name: str) -> Storage:
        """The storage of that name; UnknownStorage, which names the column."""
        try:
            return self.files.resolve(name)
        except UnknownStorage as error:
            raise UnknownStorage(f"{self.label}: {error}") from None

    def derived(self, attachment: Any, name: str) -> Any:
        """See ``Binding``."""
        return self.files.derived(attachment, name)

    async def aderived(self, attachment: Any, name: str) -> Any:
        """See ``Binding``."""
        return await self.files.aderived(attachment, name)

    def check(self, attachment: Attachment, target: str | None = None) -> None:
        """Run the steps without storing anything. Raises Refused, which names the ``target``."""
        check(self.steps, attachment, target or self.label)

    def column_expression(self, column: Any) -> Any:
        return AsText(column, self)

    def bind_processor(self, dialect: Dialect) -> Any:
        if dialect.name == "postgresql":
            return super().bind_processor(dialect)

        def process(value: Any) -> str | None:
            # Not escaped: SQLite and MariaDB compare names in paths with the text as it is.
            facts = self.process_bind_param(value, dialect)
            return None if facts is None else encode(facts)

        return process

    def coerce_compared_value(self, op: operators.OperatorType | None, value: Any) -> Any:
        found = self.impl_instance.coerce_compared_value(op, value)
        return _COMPARED if isinstance(found, JSON) else found

    def wrap(self, value: Any) -> Attachment:
        """An attachment of what a user assigned. Raises BadSource, or FileMissing for a path without a file."""
        attachment = value if isinstance(value, Attachment) else self.attachment_class.upload(value)
        bind(attachment, self)
        return attachment

    def _written(self, attachment: Any) -> Facts:
        """The descriptor of an attachment that a statement is about to write."""
        if not isinstance(attachment, Attachment):
            raise _WrongType(
                f"{self.label} holds attachments, not {type(attachment).__name__}: assign it through the ORM"
            )
        if not attachment.is_stored:
            raise _TooLate(
                f"{attachment!r} reached {self.label} before it was stored: column defaults, bulk_save_objects and "
                "Core statements come too late for that. Assign it to a mapped attribute, use "
                "session.execute(insert(Model), ...), or Storages.stage(attachment, connection, table.c.column)"
            )
        facts = facts_of(attachment)
        proved = lets_once(nameable.get() or {}, (self.column, facts["key"]))
        if not (proved or (isinstance(claim := origin_of(attachment), Claim) and claim.lets(self))):
            raise _Unproved(
                f"nobody proved that {self.label} may name {attachment!r}: a file has one owner. "
                "Assign it to a mapped attribute, use session.execute(insert(Model), ...), or stage it in the "
                "transaction of this statement, for this column: Storages.stage(attachment, connection, table.c.column)"
            )
        return facts


# What SQLAlchemy is to pass on as it is, instead of wrapping it in a StatementError.
class _WrongType(BadSource, DontWrapMixin): ...


class _TooLate(NotStored, DontWrapMixin): ...


class _Unproved(OwnershipLost, DontWrapMixin): ...


class AttachmentType(_ColumnType):
    """A column that names one file. ``Mapped[Attachment]``, or ``Mapped[Attachment | None]``."""

    comparator_factory = Comparator  # pyright: ignore[reportAssignmentType] - SQLAlchemy assigns classes to it too
    plural = False

    def items(self, value: Any) -> tuple[Attachment, ...]:
        """The attachments of a value."""
        return () if value is None else (value,)

    def value(self, items: Sequence[Attachment]) -> Any:
        """The value that holds these attachments."""
        return items[0] if items else None

    def coerce(self, value: Any) -> Attachment | None:
        """What a user assigned, as a value of this column."""
        return None if value is None else self.wrap(value)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Facts | None:
        return None if value is None else self._written(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        cls, new = self.attachment_class, object.__new__

        def process(value: Any) -> Any:
            if type(value) is not str:
                if value is None:
                    return None
                value = as_text(value)
            if value == "null":
                return None
            made = new(cls)  # as ``make`` does; once per row, a call less is worth it
            set_body(made, value)
            set_binding(made, self)
            return made

        return process

    def compare_values(self, x: Any, y: Any) -> bool:
        return _same(x, y)


class AttachmentListType(_ColumnType):
    """A column that names files in order. The value is a tuple, never None: ``Mapped[Sequence[Attachment]]``.

    Assign a whole new sequence: ``doc.pages = [*doc.pages, Attachment.upload(file)]``.
    """

    comparator_factory = ListComparator  # pyright: ignore[reportAssignmentType] - as above
    plural = True

    def _table_known(self, column: Column[Any], table: Any) -> None:
        super()._table_known(column, table)
        if column.default is None and column.server_default is None:
            ColumnDefault(lambda: ())._set_parent(column)

    def items(self, value: Any) -> tuple[Attachment, ...]:
        """The attachments of a value."""
        return () if value is None else tuple(value)

    def value(self, items: Sequence[Attachment]) -> Any:
        """The value that holds these attachments."""
        return tuple(items)

    def coerce(self, value: Any) -> tuple[Attachment, ...]:
        """What a user assigned, as a value of this column."""
        if value is None:
            return ()
        if isinstance(value, Attachment | str | bytes | bytearray | memoryview) or not isinstance(value, Iterable):
            raise BadSource(f"{self.label} holds a sequence of attachments, not {type(value).__name__}: assign a list")
        return tuple(self.wrap(item) for item in value)

    def process_bind_param(self, value: Any, dialect: Dialect) -> list[Facts]:
        return [self._written(item) for item in value or ()]

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        cls = self.attachment_class

        def process(value: Any) -> Any:
            if value is None or value == "null" or value == "[]":
                return ()
            return tuple(make(cls, item, self) for item in split(value if type(value) is str else as_text(value)))

        return process

    def compare_values(self, x: Any, y: Any) -> bool:
        # An attribute that was never loaded has a symbol for its value.
        known = isinstance(x, tuple) and isinstance(y, tuple)
        return known and len(x) == len(y) and all(map(_same, x, y))


ColumnType = AttachmentType | AttachmentListType


def ledger_owner(column_type: ColumnType) -> Owner:
    """What the ledger calls its column."""
    assert column_type.column is not None
    return owner_of(column_type.column)


def kept_for(column_type: ColumnType) -> int:
    """For how many milliseconds files are kept that its rows drop."""
    kept = column_type.files.retain if column_type.retain is None else column_type.retain
    return milliseconds(kept) if kept else 0


def mentions(column: Any, text: str) -> Any:
    """A cheap condition that holds for every row whose descriptors say this anywhere, and perhaps for others.

    >>> from sqlalchemy import column
    >>> mentions(column("file"), 'a"b.txt').compile().params
    {'param_1': 'a\\\\"b.txt'}
    """
    # We write other letters than those of ASCII as they are, and PostgreSQL shows them so; others may escape them.
    spellings = dict.fromkeys(json.dumps(text, ensure_ascii=escaped)[1:-1] for escaped in (False, True))
    return or_(*(cast(column, Text).contains(each, autoescape=True) for each in spellings))


def _same(x: Any, y: Any) -> bool:
    """Whether two attachments have the same descriptor, not only the same file."""
    if x is y:
        return True
    if not (isinstance(x, Attachment) and isinstance(y, Attachment) and x.is_stored and y.is_stored):
        return False
    if body_of(x) == body_of(y):
        return True
    try:
        return facts_of(x) == facts_of(y)
    except DescriptorDamaged:
        return False
