"""Outer: a transaction that was begun on a Connection, for a session to join."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from .model import Transaction

Mode = Literal["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"]
MODES: list[Mode] = ["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"]


class Outer:
    """``kept`` is what a rollback of a session in a savepoint leaves."""

    def __init__(self, engine: Engine, mode: Mode, kept: Transaction) -> None:
        self.mode = mode
        self.kept = kept
        self.connection = engine.connect()
        self.transaction = self.connection.begin()
        # On SQLite the driver's own BEGIN comes with the first write.
        self.connection.execute(text("DELETE FROM folders WHERE id = 0"))

    def open(self, **options: Any) -> Session:
        return Session(self.connection, join_transaction_mode=self.mode, **options)

    def end(self, commit: bool) -> None:
        self.transaction.commit() if commit else self.transaction.rollback()
