"""Undo: what a flush put on objects of the user's, taken back if its transaction is void.

A stored attachment that is not committed yet remembers the new one that it came from; see ``Frame.undo``.
"""

from __future__ import annotations

from typing import Any
from weakref import ref

from .attachment import Attachment, origin_of, set_origin
from .references import Reference


class Undo:
    """Puts the new attachments of one attribute back on its object, should its transaction be void."""

    __slots__ = ("_key", "_object", "_type")

    def __init__(self, obj: Any, reference: Reference) -> None:
        self._object = ref(obj)
        self._key = reference.key
        self._type = reference.type

    def revert(self) -> None:
        """The transaction is void: a retry stores the sources again."""
        obj = self._object()
        if obj is not None and (value := obj.__dict__.get(self._key)) is not None:
            obj.__dict__[self._key] = self._type.value([_before(item) for item in self._type.items(value)])

    def done(self) -> None:
        """The transaction is committed: the sources may go."""
        obj = self._object()
        if obj is not None:
            for item in self._type.items(obj.__dict__.get(self._key)):
                if isinstance(origin_of(item), Attachment):
                    set_origin(item, None)


def _before(item: Attachment) -> Attachment:
    origin = origin_of(item)
    return origin if isinstance(origin, Attachment) else item
