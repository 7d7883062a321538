"""The application of the crash tests, with two-phase sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy.orm import Session

from tests.crash.application import Application


class TwoPhaseApplication(Application):
    @contextmanager
    def session(self, **options: Any) -> Iterator[Session]:
        with Session(self.engine, twophase=True, **options) as session:
            yield session
