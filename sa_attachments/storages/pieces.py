"""Pieces: a file that lies in rows of a database, seen as one; see ``sa_attachments.storages.database``.

Each piece is read on a connection of its own, and none is held in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Table, select

from sa_attachments.errors import FileMissing

from .part import Part


class Pieces(Part):
    """The bytes of a file from ``start`` up to ``end``, fetched piece by piece."""

    def __init__(
        self, connect: Callable[[], Connection], pieces: Table, file: Any, start: int, end: int | None
    ) -> None:
        """``file`` is its row."""
        self._connect = connect
        self._pieces = pieces
        self._key = file.key
        self._piece_size = file.piece_size
        self._start = min(start, file.size)
        self._fetched: tuple[int, bytes] = (-1, b"")
        super().__init__(max((file.size if end is None else min(end, file.size)) - self._start, 0))

    def _some(self, wanted: int) -> bytes:
        number, offset = divmod(self._start + self._at, self._piece_size)
        return self._piece(number)[offset : offset + wanted]

    def _piece(self, number: int) -> bytes:
        if self._fetched[0] != number:
            c = self._pieces.c
            with self._connect() as connection:
                data = connection.scalar(select(c.data).where(c.key == self._key, c.number == number))
            if data is None:
                raise FileMissing(f"{self._key!r} was deleted while it was read")
            self._fetched = number, data
        return self._fetched[1]
