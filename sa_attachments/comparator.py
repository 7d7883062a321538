"""Comparing: attachment columns in queries.

``User.avatar.content_type == "image/png"`` and its kin (``filename``, ``size``, ``sha256``, ``storage``),
``User.avatar == attachment``, and paths into the JSON, ``User.avatar.metadata["caption"] == "Me"`` or
``Album.photos[0]["size"] > 1000``, which compare with plain Python values; ``None`` is what is missing and JSON's null:

>>> from sqlalchemy import column
>>> from sa_attachments import AttachmentType, Storages
>>> avatar = column("avatar", AttachmentType(Storages("memory:")))
>>> avatar.size.type, avatar.filename.type, str(avatar.content_type == "image/png")
(BigInteger(), Unicode(), 'avatar[__[POSTCOMPILE_avatar_1]] = :param_1')

Traps
-----
The value that one compares with says how the JSON is read, by a cast of the database: what is of another type in some
row is an error on PostgreSQL, where it can't be cast, and equals what it is cast to elsewhere. SQLite and MariaDB know
no way to write a name with a double quote or a backslash.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, cast

from sqlalchemy import JSON, BigInteger, Boolean, and_, false, or_
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import ColumnElement, Null
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeDecorator, TypeEngine

from .attachment import Attachment


class _Value(JSON):
    """Part of a descriptor: JSON that compares with the Python value it stands beside."""

    class Comparator(JSON.Comparator[Any]):
        def __getitem__(self, index: Any) -> Any:
            return _part(self, index)

        def as_integer(self) -> Any:
            """A large one: files have more than 2 GiB."""
            expression = cast("Any", super()).as_integer()  # a copy
            expression.type = BigInteger()
            return expression

        def as_boolean(self) -> Any:
            plain = cast("Any", super())
            return _Truth(plain.as_boolean(), plain.as_string())

        def operate(self, op: operators.OperatorType, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
            if not other:
                return super().operate(op, **kwargs)
            if op in (operators.in_op, operators.not_in_op) and isinstance(other[0], list | tuple | set | frozenset):
                found = or_(false(), *self._among(other[0]))
                return found if op is operators.in_op else ~found
            return self._read(_reader(other[0]), op, *other, **kwargs)

        def _among(self, values: Collection[Any]) -> Iterator[ColumnElement[Any]]:
            """Conditions of which one holds if it is one of these values, of several types perhaps."""
            by_reader: dict[str | None, list[Any]] = {}
            for value in values:
                if value is None:
                    yield self.operate(operators.is_, None)
                else:
                    by_reader.setdefault(_reader(value), []).append(value)
            for reader, same in by_reader.items():
                yield self._read(reader, operators.in_op, same)

        def _read(self, reader: str | None, op: Any, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
            if reader is None:
                return super().operate(op, *other, **kwargs)
            return cast("ColumnElement[Any]", op(getattr(self, reader)(), *other, **kwargs))

    comparator_factory = Comparator


class _Truth(ColumnElement[bool]):
    """JSON as a truth value, NULL where nothing is: SQLAlchemy takes that for false on MariaDB and MySQL."""

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012 - SQLAlchemy's form
        ("value", InternalTraversal.dp_clauseelement),
        ("text", InternalTraversal.dp_clauseelement),
    ]

    def __init__(self, value: Any, text: Any) -> None:
        self.value = value
        self.text = text
        self.type = Boolean()

    @property
    def _from_objects(self) -> Any:
        return self.value._from_objects


@compiles(_Truth)
def _as_told(element: _Truth, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.value, **kw))


@compiles(_Truth, "mysql", "mariadb")
def _unless_missing(element: _Truth, compiler: Any, **kw: Any) -> str:
    text, value = (compiler.process(each, **kw) for each in (element.text, element.value))
    return f"CASE WHEN {text} IS NOT NULL THEN {value} END"


def _reader(value: Any) -> str | None:
    """The method by which JSON becomes what compares with the value."""
    match value:
        case bool():
            return "as_boolean"
        case int():
            return "as_integer"
        case float():
            return "as_float"
        case str() | None | Null():  # JSON's null is no NULL, but its text is, as that of what is not there
            return "as_string"
    return None


def _part(comparator: Any, index: Any) -> Any:
    """``comparator[index]``, as something to compare with plain values."""
    op, right, _ = comparator._setup_getitem(index)
    if isinstance(index, str | int | tuple):
        # Written into the SQL: a database finds an index of the expression only if it sees the path.
        right.literal_execute = True
    return JSON.Comparator.operate(comparator, op, right, result_type=_Value())


class AsText(ColumnElement[Any]):
    """The column's JSON as text, so that drivers don't parse what may never be touched."""

    inherit_cache = True
    _traverse_internals = [  # noqa: RUF012 - SQLAlchemy's form
        ("column", InternalTraversal.dp_clauseelement),
        ("type", InternalTraversal.dp_type),
    ]

    def __init__(self, column: Any, type_: TypeEngine[Any]) -> None:
        self.column = column
        self.type = type_


@compiles(AsText)
def _as_it_is(element: AsText, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.column, **kw))


@compiles(AsText, "postgresql")
def _as_text(element: AsText, compiler: Any, **kw: Any) -> str:
    return f"CAST({compiler.process(element.column, **kw)} AS TEXT)"


def _is_or_holds_attachment(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return any(isinstance(item, Attachment) for item in value)
    return isinstance(value, Attachment)


class ListComparator(TypeDecorator.Comparator[Any], JSON.Comparator[Any]):
    def operate(self, op: operators.OperatorType, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
        if any(map(_is_or_holds_attachment, other)):
            name = op.__name__.removesuffix("_op")
            raise ArgumentError(
                f"{name} can't compare {self.expr} with attachments: columns of one attachment know ==, != and in_; "
                "else compare parts, as Album.photos[0]['sha256'] == photo.sha256"
            )
        return super().operate(op, *other, **kwargs)

    def __getitem__(self, index: Any) -> Any:
        return _part(self, index)


class Comparator(ListComparator):
    def operate(self, op: operators.OperatorType, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
        value: Any = other[0] if other else None
        if isinstance(value, Attachment):
            if op is operators.eq:
                return self._names(value)
            if op is operators.ne:
                return ~self._names(value)
        elif (
            op in (operators.in_op, operators.not_in_op)
            and isinstance(value, list | tuple | set | frozenset)
            and all(isinstance(item, Attachment) for item in value)
        ):
            named = or_(false(), *(self._names(item) for item in value))
            return named if op is operators.in_op else ~named
        return super().operate(op, *other, **kwargs)

    def _names(self, attachment: Attachment) -> ColumnElement[bool]:
        return and_(self.expr["key"] == attachment.key, self.expr["storage"] == attachment.storage)

    @property
    def filename(self) -> ColumnElement[str]:
        return cast(ColumnElement[str], self.expr["filename"].as_string())

    @property
    def content_type(self) -> ColumnElement[str]:
        return cast(ColumnElement[str], self.expr["content_type"].as_string())

    @property
    def sha256(self) -> ColumnElement[str]:
        return cast(ColumnElement[str], self.expr["sha256"].as_string())

    @property
    def storage(self) -> ColumnElement[str]:
        return cast(ColumnElement[str], self.expr["storage"].as_string())

    @property
    def size(self) -> ColumnElement[int]:
        return cast(ColumnElement[int], self.expr["size"].as_integer())

    @property
    def variants(self) -> ColumnElement[Any]:
        return self.expr["variants"]

    @property
    def metadata(self) -> ColumnElement[Any]:
        return self.expr["metadata"]
