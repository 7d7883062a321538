"""Home: what columns and sessions need of ``Storages``, which lies above them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, Engine, Table

from .frames import Frame
from .ledger import Ledger
from .storage import Storage


class Home(Protocol):
    """See the module."""

    retain: timedelta
    own_within: timedelta

    def expect(self, name: str, label: str) -> None:
        """Note that a mapped column uses this storage."""
        ...

    def real(self, name: str | None) -> str:
        """The name that rows record."""
        ...

    def resolve(self, name: str) -> Storage:
        """The storage of that name."""
        ...

    def resolver(self) -> Callable[[str], Storage]:
        """``resolve``, with what the names stand for now, whatever is configured later."""
        ...

    def ledger_of(self, table: Table) -> Ledger:
        """The ledger for files that this table names."""
        ...

    def attached(self, column_type: Any) -> None:
        """Note a column."""
        ...

    def ready(self, ledger: Ledger, engine: Engine) -> set[Hashable]:
        """For which tables, in which schemas, this database is known to have the ledger; to be added to."""
        ...

    def holder_of(self, path: Path) -> str | None:
        """The storage, or the folder of one, that a path leads into; None if it is nobody's."""
        ...

    def meet(self, ledger: Ledger, connection: Connection, name: str) -> None:
        """Mark the place of a storage as this database's, unless it is somebody else's."""
        ...

    def settle(self, frame: Frame) -> None:
        """Clean up what an ended transaction left. Raises nothing, and waits for no longer than the budget."""
        ...

    def derived(self, attachment: Any, name: str) -> Any:
        """See ``Binding``."""
        ...

    async def aderived(self, attachment: Any, name: str) -> Any:
        """See ``Binding``."""
        ...
