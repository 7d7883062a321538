"""Undo: what a flush put on objects of the user's, taken back if its transaction is void.

A stored attachment that is not committed yet remembers the new one that it came from; what the object holds when the
transaction ends may have been read from the database since, and is told by its name. See ``Frame.undo``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import ref

from .attachment import Attachment, set_origin
from .errors import DescriptorDamaged
from .references import Reference


class Undo:
    """Puts the new attachments of one attribute back on its object, should its transaction be void."""

    __slots__ = ("_key", "_new", "_object", "_type")

    def __init__(self, obj: Any, reference: Reference, new: list[tuple[Attachment, Attachment]]) -> None:
        """``new``: what was put there, and what it came from."""
        self._new = new
        # A transaction may go on for long after its objects, and must not keep what was uploaded.
        self._object = ref(obj, lambda _: new.clear())
        self._key = reference.key
        self._type = reference.type

    def revert(self) -> None:
        """The transaction is void: a retry stores the sources again."""
        obj = self._object()
        if obj is not None and (value := obj.__dict__.get(self._key)) is not None:
            before = dict(self._new)
            obj.__dict__[self._key] = self._type.value([_was(before, item) for item in self._type.items(value)])

    def done(self) -> None:
        """The transaction is committed: the sources may go."""
        for item, _ in self._new:
            set_origin(item, None)


def _was(before: Mapping[Attachment, Attachment], item: Attachment) -> Attachment:
    try:
        return before.get(item, item)
    except DescriptorDamaged:
        return item
