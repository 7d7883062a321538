"""Mapped classes: what their attributes are assigned, how their objects are pickled, what cascades do to their rows.

>>> from sqlalchemy import Integer
>>> from sqlalchemy.orm import DeclarativeBase, mapped_column
>>> from sa_attachments import AttachmentType, Storages
>>> class Base(DeclarativeBase): pass
>>> class Doc(Base):
...     __tablename__ = "docs"
...     id = mapped_column(Integer, primary_key=True)
>>> Doc.__mapper__.attrs.keys()
['id']
>>> Doc.file = mapped_column(AttachmentType(Storages("memory:")))  # of a class that is in use
>>> Doc(file=b"Hello!").file
<new Attachment 'unnamed'>
"""

from __future__ import annotations

import warnings
from typing import Any

from sqlalchemy import Constraint, PrimaryKeyConstraint, Table, UniqueConstraint, event, inspect
from sqlalchemy.orm import Mapper

from .attachment import bind
from .column import AttachmentListType
from .errors import AttachmentWarning
from .references import Reference, find, names_files, of_class, of_state

_INFO = "sa_attachments"


def is_new(mapper: Mapper[Any], key: str) -> bool:
    """Whether an attribute names files, and ``learn`` has not seen it."""
    return names_files(mapper, key) and all(reference.key != key for reference in of_class(mapper.class_))


def learn(mapper: Mapper[Any]) -> tuple[Reference, ...]:
    """The references of a configured mapper; attributes that are new are listened to from now on."""
    cls = mapper.class_
    known = {reference.key for reference in of_class(cls)}
    references = find(mapper)
    for reference in references:
        if reference.key not in known:
            _listen(reference)
    for table in {reference.table for reference in references}:
        _warn_of_what_is_unseen(table, all(each.type.triggers for each in references if each.table is table))
    if references:
        event.listen(cls, "pickle", _pickle)
        event.listen(cls, "unpickle", _unpickle)
    return references


def _listen(reference: Reference) -> None:
    attribute = getattr(reference.mapper.class_, reference.key)
    column_type = reference.type

    def set_(state: Any, value: Any, oldvalue: Any, initiator: Any, **_: Any) -> Any:
        return column_type.coerce(value)

    event.listen(attribute, "set", set_, raw=True, retval=True, include_key=True)  # else SQLAlchemy wraps it
    if isinstance(column_type, AttachmentListType):

        def init_scalar(target: Any, value: Any, dict_: Any) -> Any:
            return ()

        event.listen(attribute, "init_scalar", init_scalar, retval=True)


def _pickle(target: Any, state_dict: Any) -> None:
    # The object itself has nothing yet when its state is unpickled.
    state_dict[_INFO] = {each.key: target.__dict__.get(each.key) for each in of_state(inspect(target))}


def _unpickle(target: Any, state_dict: Any) -> None:
    values = state_dict.get(_INFO, {})
    for reference in of_state(inspect(target)):
        for item in reference.type.items(values.get(reference.key)):
            bind(item, reference.type)


def _warn_of_what_is_unseen(table: Table, triggers: bool) -> None:
    """Rows may be deleted behind the back of the ORM."""
    for key in table.foreign_keys:
        if (key.ondelete or "").upper() == "CASCADE" and not triggers:
            _warn_once(
                table,
                f"{table.fullname}.{key.parent.name} is ON DELETE CASCADE: files of rows that the database deletes",
                ". If a migration made triggers, say so to the column: AttachmentType(..., triggers=True)",
            )
    if any(how.upper() == "REPLACE" for how in _on_conflict(table)):
        # Such a row is deleted without its triggers, as SQLite is by default.
        _warn_once(
            table, f"{table.fullname} has a constraint with ON CONFLICT REPLACE: files of rows that SQLite replaces"
        )


def _on_conflict(table: Table) -> list[str]:
    """What SQLite is to do with a row that is in the way of another one."""
    said = [each.dialect_options["sqlite"]["on_conflict"] for each in table.constraints if _is_key(each)]
    for column in table.columns:
        options = column.dialect_options["sqlite"]
        said += [options["on_conflict_unique"], options["on_conflict_primary_key"]]
    return [how for how in said if how]


def _is_key(constraint: Constraint) -> bool:
    return isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint)


def _warn_once(table: Table, what: str, cure: str = "") -> None:
    said: set[str] = table.info.setdefault(_INFO, set())
    if what in said:
        return
    said.add(what)
    warnings.warn(
        f"{what} by itself stay in the storage until Storages.verify(repair=True) finds them{cure}",
        AttachmentWarning,
        stacklevel=3,
    )
