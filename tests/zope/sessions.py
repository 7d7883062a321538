"""Sessions that a transaction manager commits and aborts, by zope.sqlalchemy, behind the verbs that the core's suites
use: ``commit`` commits the manager's transaction, ``rollback`` and ``close`` abort it.

Each session has a manager of its own, so that several can be at work in one thread. With ``keep_session=False``
zope.sqlalchemy closes the session whenever a transaction ended; the objects that it had are then added to it again, as
an application does that goes on with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import zope.sqlalchemy
from sqlalchemy import inspect
from sqlalchemy.orm import Session
from transaction import TransactionManager
from zope.sqlalchemy.datamanager import _SESSION_STATE


class ZopeSession(Session):
    """See the module."""

    def __init__(self, bind: Any = None, *, keep_session: bool = True, **options: Any) -> None:
        super().__init__(bind, **options)
        self.manager = TransactionManager()
        self.events = zope.sqlalchemy.register(self, transaction_manager=self.manager, keep_session=keep_session)
        self._keeps = keep_session
        self._ends = False

    def commit(self) -> None:
        """Commit the manager's transaction. After an error it is aborted, as by whoever called the application."""
        self.events.mark_changed(self)
        with self._ending():
            objects, transaction = list(self), self.get_transaction()
            try:
                self.manager.commit()
            except BaseException:
                self.manager.abort()
                self._add_again(each for each in objects if inspect(each) not in transaction._new)
                raise
            self._add_again(objects)

    def rollback(self) -> None:
        """Roll back, then abort: the latter alone leaves the transaction open, or closes the session."""
        super().rollback()
        if not self._ends:
            with self._ending():
                objects = list(self)
                self.manager.abort()
                self._add_again(objects)

    def close(self) -> None:
        super().close()
        self._abort()

    def reset(self) -> None:
        super().reset()
        self._abort()

    def invalidate(self) -> None:
        super().invalidate()
        self._abort()

    def expire_all(self) -> None:
        """zope.sqlalchemy asks for it, whatever the session was told about ``expire_on_commit``."""
        if self.expire_on_commit or not self._ends:
            super().expire_all()

    def _abort(self) -> None:
        if self in _SESSION_STATE:  # else it is zope.sqlalchemy that closes, at the end of a transaction
            with self._ending():
                self.manager.abort()

    def _add_again(self, objects: Iterable[Any]) -> None:
        if not self._keeps:
            self.add_all(each for each in objects if each not in self and not inspect(each).was_deleted)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """zope.sqlalchemy closes the session meanwhile; that aborts nothing."""
        self._ends = True
        try:
            yield
        finally:
            self._ends = False
