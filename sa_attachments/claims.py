"""Claims: what an attachment carries that was staged on a connection, until a row names it.

Its line is in the ledger, in the transaction of that connection. The column type lets a statement of the same
connection write the name, once.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol

from .descriptor import Named

executing: ContextVar[object | None] = ContextVar("executing", default=None)
"""The (reference to the) connection whose statement is executed, if somebody staged files on it."""


class Custodian(Protocol):
    """Who keeps claims."""

    def lets(self, claim: Claim, column_type: Any) -> bool:
        """Note that a statement wants to write the name of a claim into a column; whether it may."""
        ...


class Claim:
    """Says of an attachment that a transaction of a connection owns its files, and that a row may name it."""

    __slots__ = ("_custodian", "files", "owner", "savepoints", "steps", "tried", "written")

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
        self.tried = False
        """Whether a statement would have, and met no row."""

    def lets(self, column_type: Any) -> bool:
        """Whether the statement that is executed may write it into a column."""
        return self._custodian.lets(self, column_type)
