"""Archive: an application whose documents are on a shelf, with their files in a storage, and the invariant."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.engine import URL
from transaction import TransactionManager

from sa_attachments import Attachment
from sa_attachments.integrations.zope import DocumentFiles
from sa_attachments.places import MARKER
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty

from .shelf import Shelf

AT_ONCE = timedelta(0)


class Archive:
    """See the module."""

    def __init__(
        self,
        folder: Path,
        ledger: str | URL,
        *,
        storage: Any = None,
        one_phase: bool = False,
        sort: str | None = None,
        is_named: Callable[[str], bool] | None = None,
        **options: Any,
    ) -> None:
        self.manager = TransactionManager()
        self.storage = storage or Faulty(MemoryStorage())
        self.shelf = Shelf(folder / "documents.json", self.manager, one_phase=one_phase, sort=sort)
        self.files = DocumentFiles(
            self.storage,
            ledger,
            is_named=is_named or self.shelf.is_named,
            transaction_manager=self.manager,
            **{"budget": timedelta(seconds=10), **options},
        )

    # What an application does

    def write(self, name: str, data: bytes) -> Attachment:
        """A document gets a file; the one that it had goes."""
        before = self.shelf.get(name)
        staged = self.files.stage(Attachment.upload(data, f"{name}.txt"))
        if before is not None:
            self.files.drop(self.files.bind(before))
        self.shelf.set(name, staged.to_json())
        return staged

    def remove(self, name: str) -> None:
        """A document goes, with its file."""
        before = self.shelf.get(name)
        assert before is not None
        self.files.drop(self.files.bind(before))
        self.shelf.set(name, None)

    # What is there

    def named(self) -> dict[str, Attachment]:
        return {name: self.files.bind(text) for name, text in self.shelf.committed().items()}

    def stored(self) -> dict[str, bytes]:
        inner = getattr(self.storage, "inner", self.storage)
        found = {}
        for key, _ in inner.keys():  # noqa: SIM118 - no dictionary
            if key != MARKER:
                with inner.open(key) as file:
                    found[key] = file.read()
        return found

    def states(self) -> dict[str, str]:
        """Of the ledger's lines, but for those that wait to be cleaned away."""
        self.files.storages.settled(10)
        lines = self.files._keeper.doubts.ledger.lines.c
        with self.files.engine.connect() as connection:
            found = connection.execute(select(lines.key, lines.state))
            return {key: state for key, state in found if state not in ("purging", "gone")}

    def doubts(self) -> int:
        with self.files.engine.connect() as connection:
            return connection.scalar(text("SELECT count(*) FROM attachment_doubt")) or 0

    def check(self, **documents: bytes) -> None:
        """The invariant: documents have these files, there are no others, and nothing is in doubt."""
        assert self.files.storages.settled(10)
        named = self.named()
        stored = self.stored()
        assert {name: stored.get(each.key, b"<lost>") for name, each in named.items()} == documents
        keys = {each.key for each in named.values()}
        assert {key: data for key, data in stored.items() if key not in keys} == {}, "files that no document names"
        assert self.states() == dict.fromkeys(keys, "owned")
        assert self.doubts() == 0

    def recover(self) -> Any:
        return self.files.recover(AT_ONCE)

    def sweep(self) -> Any:
        time.sleep(0.01)
        self.recover()
        return self.files.sweep(grace=AT_ONCE, stranger_retain=AT_ONCE)
