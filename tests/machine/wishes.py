"""Wishes and hopes: what was done to objects since the last flush, and what rows should look like after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import inspect

from sa_attachments import Attachment

from .model import Item, Name, Row
from .models import ATTRIBUTES, Doc

ABSENT = object()


@dataclass
class Wish:
    """What was done to the object of one row since the last flush."""

    doc: Doc
    fresh: bool = False
    """A new object was added."""
    deleted: bool = False
    """The object that stood for the row was deleted, before ``fresh`` perhaps."""
    orphan: bool = False
    """It was taken out of its folder."""
    title: Any = ABSENT
    slots: dict[str, tuple[Attachment, ...]] = field(default_factory=dict)
    same: set[str] = field(default_factory=set)
    """``title`` if it was set to what the object held anyway: SQLAlchemy does not write it."""


@dataclass
class Hope:
    """What a row should look like."""

    title: str | None
    slots: dict[str, tuple[Item, ...]]
    same: set[str] = field(default_factory=set)

    def holds(self, row: Row, before: Row | None) -> bool:
        title = row.title == self.title or (self.same and before is not None and row.title == before.title)
        return title and all(items(row, each) == wanted for each, wanted in self.slots.items())


Hopes = Mapping[int, Hope | None]
"""By primary key; None where the row should be gone."""


def items(row: Row, attribute: str) -> tuple[Item, ...]:
    return tuple(entry.item for entry in row.slots[attribute])


def hope(row: Row) -> Hope:
    """That a row stays as it is."""
    return Hope(row.title, {each: items(row, each) for each in ATTRIBUTES})


def original(attachment: Attachment) -> Name | None:
    """The stored file that an attachment is, or is a copy of."""
    if attachment.is_stored:
        return attachment.storage, attachment.key
    body: Any = attachment._body
    copied = getattr(body.source, "attachment", None)
    return None if copied is None else original(copied)


def key_of(doc: Doc) -> int:
    identity = inspect(doc).identity
    return doc.id if identity is None else identity[0]


def type_of(attribute: str) -> Any:
    return getattr(Doc, attribute).type


def loaded_by(doc: Doc, attribute: str) -> Any:
    """What an object holds as the value of its row, or what it held before it was set."""
    state: Any = inspect(doc)
    return state.committed_state.get(attribute, state.dict.get(attribute, ABSENT))
