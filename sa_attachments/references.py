"""References: which attributes of a mapped class name files, and what the database says they name right now.

>>> from sqlalchemy import Integer
>>> from sqlalchemy.orm import DeclarativeBase, configure_mappers, mapped_column
>>> from sa_attachments import AttachmentType, Storages
>>> class Base(DeclarativeBase): pass
>>> class Doc(Base):
...     __tablename__ = "docs"
...     id = mapped_column(Integer, primary_key=True)
...     file = mapped_column(AttachmentType(Storages("memory:")))
>>> configure_mappers()
>>> [(reference.target, reference.table.name) for reference in of_class(Doc)]
[('Doc.file', 'docs')]
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import Column, Connection, Table, bindparam, select, tuple_
from sqlalchemy.orm import ClassManager, ColumnProperty, InstanceState, Mapper, MapperProperty
from sqlalchemy.orm.attributes import manager_of_class
from sqlalchemy.util import memoized_property

from .attachment import Attachment, facts_of
from .chunks import chunked
from .column import ColumnType, mentions
from .descriptor import Name, named
from .errors import DescriptorDamaged, NotStored

_INFO = "sa_attachments.references"
_ROW = "sa_attachments.row"
_TABLE = "sa_attachments.table"
_KEY = "sa_attachments.key"

Identity = tuple[Any, ...]
"""The primary key of a row, a value for each column."""
Row = dict[str, tuple[Attachment, ...]]
"""What one row names, by column name."""
Rows = dict[Identity, Row]


@dataclass(frozen=True, eq=False)
class Reference:
    """One attribute of a mapped class that names files."""

    mapper: Mapper[Any]
    key: str
    column: Column[Any]
    type: ColumnType
    table: Table
    primary_key: tuple[Column[Any], ...]
    """Of ``table``; with joined inheritance each class has a table of its own."""
    identity_keys: tuple[str, ...]
    """Names of the attributes that hold it."""
    positions: tuple[int, ...]
    """Where the values of its primary key are in an object's identity."""
    _reading: dict[tuple[Reference, ...], Any] = field(init=False, default_factory=dict, repr=False)

    @property
    def target(self) -> str:
        """For messages: ``"User.avatar"``."""
        return f"{self.mapper.class_.__name__}.{self.key}"

    def identity(self, state: InstanceState[Any]) -> Identity:
        """The primary key of a persistent object's row in ``table``."""
        assert state.key is not None
        values = state.key[1]
        return tuple([values[position] for position in self.positions])

    # Making a statement takes longer than to carry it out: these, for rows whose ``keys`` they are told, are made once.

    def reading(self, references: tuple[Reference, ...]) -> Any:
        """Primary keys, and what the rows name by references of this table; locked."""
        if references not in self._reading:
            found = self._of_keys(*self.primary_key, *(reference.column for reference in references))
            self._reading[references] = found.order_by(*self.primary_key).with_for_update(key_share=True)
        return self._reading[references]

    @memoized_property
    def finding(self) -> Any:
        """One of the rows, if there is any."""
        return self._of_keys(*self.primary_key).limit(1)

    def _of_keys(self, *columns: Any) -> Any:
        key: Any = self.primary_key[0] if len(self.primary_key) == 1 else tuple_(*self.primary_key)
        condition = key.in_(bindparam("keys", expanding=True))
        return select(*columns).select_from(self.table).where(condition)

    def items_in(self, row: Row | None) -> Sequence[Attachment]:
        """What it names in a row of ``table`` that was read; nothing where there is none."""
        return () if row is None else row.get(self.column.name, ())


def find(mapper: Mapper[Any]) -> tuple[Reference, ...]:
    """The references of a configured mapper, inherited ones included; remembered for ``of_class``."""
    # Not its column_attrs, which know nothing yet of an attribute that is being added.
    own = ((prop.key, column) for prop in mapper.iterate_properties if _holds(column := _column(mapper, prop)))
    references = tuple(_reference(mapper, key, column) for key, column in own)
    mapper.class_manager.info |= {_INFO: references, _ROW: (0, ())}
    return references


def names_files(mapper: Mapper[Any], key: str) -> bool:
    """Whether an attribute of a mapper holds attachments."""
    return mapper.has_property(key) and _holds(_column(mapper, mapper.get_property(key)))


def _column(mapper: Mapper[Any], prop: MapperProperty[Any]) -> Any:
    return _of_table(mapper, prop.columns[0]) if isinstance(prop, ColumnProperty) else None


def _holds(column: Any) -> bool:
    """Whether a column of a table names files."""
    return isinstance(column, Column) and isinstance(column.type, ColumnType) and isinstance(column.table, Table)


def _of_table(mapper: Mapper[Any], column: Any) -> Any:
    """The column itself, or that of a table which the mapper writes through the subquery that it is mapped to."""
    bases = column.base_columns if isinstance(column, Column) else ()
    return next((base for base in bases if getattr(base, "table", None) in mapper._pks_by_table), column)


def _reference(mapper: Mapper[Any], name: str, column: Any) -> Reference:
    key = tuple(column.table.primary_key)
    positions = [position for c in key if (position := _position(mapper, c)) is not None]
    if not key or len(positions) < len(key):  # The mapping says what is one.
        key = tuple(c for c in mapper.primary_key if isinstance(c, Column))
        positions = list(range(len(key)))
    names = tuple(mapper.get_property_by_column(c).key for c in key)
    if all(each.table is column.table for each in key):
        column.table.info[_KEY] = key
    return Reference(mapper, name, column, column.type, column.table, key, names, tuple(positions))


def _others(mapper: Mapper[Any], table: Any, known: Collection[Any]) -> list[Column[Any]]:
    """The columns of a mapper's table that name files, and that are not among those known."""
    others = [column for column in table.columns if _holds(column) and column not in known]
    return others if others and table in mapper._pks_by_table else []  # else it is not written by this mapper


def _position(mapper: Mapper[Any], column: Column[Any]) -> int | None:
    """Where a column's value is in the mapper's primary key. With joined inheritance, each table has a primary key of
    its own, whose attribute may have another name; a class that is mapped to a join may have one attribute for both.
    """
    primary_key = {_of_table(mapper, each): position for position, each in enumerate(mapper.primary_key)}
    pending: list[Any] = [column]
    for each in pending:
        if each in primary_key:
            return primary_key[each]
        combined = getattr(mapper._columntoproperty.get(each), "columns", ())
        alike = [*mapper._equivalent_columns.get(each, ()), *combined]
        pending += [other for other in alike if other not in pending]
    return None


def of_class(cls: type[Any]) -> tuple[Reference, ...]:
    """The references of a mapped class whose mapper is configured."""
    found: tuple[Reference, ...] = manager_of_class(cls).info.get(_INFO, ())
    return found


def of_row(manager: ClassManager[Any]) -> tuple[Reference, ...]:
    """Those of a class, and what its rows may name besides: columns that it leaves out, or those of a class that they
    belonged to.
    """
    mapper = manager.mapper
    width, found = manager.info.get(_ROW, (0, ()))
    if width != (present := sum(len(table.columns) for table in mapper.tables)):  # another class may have brought some
        others = (column for table in mapper.tables for column in _others(mapper, table, mapper._columntoproperty))
        left_out = (_reference(mapper, str(column), column) for column in others)  # a name that no attribute has
        found = (*manager.info.get(_INFO, ()), *left_out)
        manager.info[_ROW] = present, found
    return cast(tuple[Reference, ...], found)


def of_table(mapper: Mapper[Any]) -> tuple[Reference, ...]:
    """Those of a class, and what rows of its table name besides, those of subclasses too."""
    info, table = mapper.class_manager.info, mapper.local_table
    width, found = info.get(_TABLE, (0, ()))
    if width != len(table.columns):  # Each statement comes by here; a subclass may have brought columns.
        references = of_class(mapper.class_)
        others = _others(mapper, table, {reference.column for reference in references})
        found = (*references, *(_reference(mapper, column.key, column) for column in others))
        info[_TABLE] = len(table.columns), found
    return cast(tuple[Reference, ...], found)


def of_state(state: InstanceState[Any]) -> tuple[Reference, ...]:
    """The references of an object's class."""
    found: tuple[Reference, ...] = state.manager.info.get(_INFO, ())
    return found


def row_key(table: Table) -> list[Column[Any]]:
    """What tells the rows of a table apart: its primary key, or what a mapper takes for one."""
    return list(table.primary_key or table.info.get(_KEY, ()))


def meant(reference: Reference, key: Any) -> Column[Any] | None:
    """The column of the reference's class that a key of ``values()`` stands for: the name of an attribute, before that
    of a column, or one of them itself.
    """
    attributes = reference.mapper.column_attrs
    if isinstance(key, str) and key in attributes:
        found: Any = attributes[key].columns[0]
    else:
        element = getattr(key, "__clause_element__", lambda: key)()
        found = reference.table.c.get(getattr(element, "key", element))
    return found if isinstance(found, Column) else None


def is_damaged(item: Attachment) -> bool:
    """Whether nobody can tell which files a stored attachment names."""
    try:
        facts_of(item)
    except DescriptorDamaged:
        return True
    return False


def names(items: Iterable[Attachment]) -> set[Name]:
    """Those of all files that attachments name; a new one names nothing, nor does a damaged descriptor."""
    found: set[Name] = set()
    for item in items:
        try:
            for storage, key, _ in named(facts_of(item)):
                found.add((storage, key))
        except (NotStored, DescriptorDamaged):
            continue
    return found


def read_locked(connection: Connection, references: Sequence[Reference], identities: Iterable[Identity]) -> Rows:
    """What rows of one table name right now, by primary key; locked until the transaction ends, in the order of the
    primary key.
    """
    found: Rows = {}
    for chunk in chunked(_in_order(identities)):
        rows = _read_locked(connection, references, chunk)
        found.update(rows)
        asked = set(chunk)
        if rows.keys() - asked:
            # A database, or a type, may write a key in another way: another case, trailing blanks, "1" as 1.
            for identity in asked - rows.keys():
                for row in _read_locked(connection, references, [identity]).values():
                    found[identity] = row
    return found


def read_waiting(connection: Connection, references: Sequence[Reference], identities: Iterable[Identity]) -> Rows:
    """``read_locked`` of rows that ought to be there: PostgreSQL does not see one that the transaction it waits for
    inserts, perhaps in the place of one that it deletes.
    """
    asked = dict.fromkeys(identities)
    rows = read_locked(connection, references, asked)
    missing = asked.keys() - rows.keys()
    return rows | read_locked(connection, references, missing) if missing else rows


def _in_order(identities: Iterable[Identity]) -> list[Identity]:
    found = list(identities)
    try:
        return sorted(found)
    except TypeError:  # a database may compare what Python does not
        return sorted(found, key=repr)


def _read_locked(connection: Connection, references: Sequence[Reference], identities: Sequence[Identity]) -> Rows:
    return read_rows(connection, references[0].reading(tuple(references)), references, _keys(identities))


def is_any_there(connection: Connection, reference: Reference, identities: Iterable[Identity]) -> bool:
    """Whether one of these rows of its table is there, as the transaction sees them; without a lock, which on MySQL
    would be one on the gap that rows leave.
    """
    chunks = (_keys(chunk) for chunk in chunked(identities))
    return any(connection.execute(reference.finding, chunk).first() is not None for chunk in chunks)


def _keys(identities: Sequence[Identity]) -> dict[str, Any]:
    """For the statements of a ``Reference``."""
    return {"keys": [identity[0] if len(identity) == 1 else identity for identity in identities]}


def may_be_renamed(reference: Reference) -> bool:
    """Whether the database itself may give rows another primary key, as another table's row gets one (ON UPDATE)."""
    return any(key.onupdate for column in reference.primary_key for key in column.foreign_keys)


def is_mentioned(connection: Connection, reference: Reference, item: Attachment) -> bool:
    """Whether some row names a file; all are looked at."""
    column, found = reference.column, select(reference.primary_key[0]).limit(1)
    return any(connection.execute(found.where(mentions(column, key))).first() is not None for _, key in names([item]))


def read_rows(
    connection: Connection, statement: Any, references: Sequence[Reference], parameters: dict[str, Any] | None = None
) -> Rows:
    """The rows of a SELECT of primary key and attachment columns."""
    width = len(references[0].primary_key)
    return {
        tuple(row[:width]): {
            reference.column.name: reference.type.items(value)
            for reference, value in zip(references, row[width:], strict=True)
        }
        for row in connection.execute(statement, parameters)
    }
