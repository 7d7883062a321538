"""The application of the crash tests, whose sessions zope.sqlalchemy manages: the workloads of ``tests.crash.scenes``
commit and roll back its transaction manager.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from tests.crash.application import Application

from .sessions import ZopeSession


class ZopeApplication(Application):
    """Its sessions are closed after each transaction, as those of a web application."""

    @contextmanager
    def session(self, **options: Any) -> Iterator[Session]:
        with ZopeSession(self.engine, keep_session=False, **options) as session:
            yield session
