"""Claims: what an attachment carries that was staged on a connection, until a row names it.

Its line is in the ledger, in the transaction of that connection. The column type lets a statement of the same
connection write the name, once.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, Protocol

from .descriptor import Named


def executing() -> tuple[object, object] | None:
    """The connection whose statement has its parameters looked at, and SQLAlchemy's context of that statement.

    Told by who called: no event tells that a statement failed before it was executed, or which of several that
    listeners execute on the same connection it is.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "_init_compiled":
        frame = frame.f_back
    if frame is None:
        return None
    there = frame.f_locals  # made anew each time that it is asked for
    return there.get("connection"), there.get("self")


def lets_once(proved: dict[Any, Any], what: object) -> bool:
    """Whether the statement that is executed may write what was ``proved`` for its connection: once, so that nobody
    else writes it too.
    """
    if what not in proved or (execution := executing()) is None:
        return what in proved
    connection: Any = execution[0]
    return proved[what] is connection.connection and proved.pop(what) is not None


class Custodian(Protocol):
    """Who keeps claims."""

    def lets(self, claim: Claim, column_type: Any) -> bool:
        """Note that a statement wants to write the name of a claim into a column; whether it may."""
        ...


class Claim:
    """Says of an attachment that a transaction of a connection owns its files, and that a row may name it."""

    __slots__ = ("_custodian", "doubtful", "dropped", "files", "owner", "savepoints", "steps", "tried", "written")

    def __init__(
        self,
        custodian: Custodian,
        files: tuple[Named, ...],
        owner: tuple[str, str] | None,
        steps: tuple[Any, ...],
        savepoints: tuple[str, ...],
    ) -> None:
        """:param owner: table and column that the ledger knows as owner; None if nobody said which."""
        self._custodian = custodian
        self.files = files
        self.owner = owner
        self.steps = steps
        self.savepoints = savepoints
        """Those in which it was staged."""
        self.written: tuple[str, ...] | None = None
        """The savepoints in which a statement gave it to a row."""
        self.doubtful = False
        """Whether that statement failed, perhaps after it had done so."""
        self.dropped: tuple[str, ...] | None = None
        """The savepoints in which it was dropped."""
        self.tried = False
        """Whether a statement would have, and met no row."""

    def lets(self, column_type: Any) -> bool:
        """Whether the statement that is executed may write it into a column."""
        return self._custodian.lets(self, column_type)
