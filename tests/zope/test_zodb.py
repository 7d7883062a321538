"""Documents in ZODB."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import ZODB
from BTrees.OOBTree import OOTreeSet
from persistent.mapping import PersistentMapping
from transaction import TransactionManager
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError

from sa_attachments import Attachment
from sa_attachments.integrations.zope import DocumentFiles
from sa_attachments.places import MARKER


class Library:
    """Papers with scans in ZODB."""

    def __init__(self, folder: Path) -> None:
        self.database = ZODB.DB(FileStorage(str(folder / "Data.fs")))
        self.manager = TransactionManager()
        self.connection = self.database.open(self.manager)
        self.files = DocumentFiles(
            "memory:",
            f"sqlite:///{folder}/ledger.db",
            is_named=self.is_named,
            transaction_manager=self.manager,
            budget=timedelta(seconds=10),
        )
        self.root["papers"], self.root["keys"] = PersistentMapping(), OOTreeSet()
        self.manager.commit()

    @property
    def root(self) -> Any:
        return self.connection.root()

    def is_named(self, key: str) -> bool:
        with self.database.transaction() as fresh:
            return key in fresh.root()["keys"]

    def scan(self, name: str, data: bytes) -> None:
        before = self.root["papers"].get(name)
        new = self.files.stage(Attachment.upload(data))
        self.root["papers"][name] = new
        self.root["keys"].add(new.key)
        if before is not None:
            self.files.drop(before)
            self.root["keys"].remove(before.key)

    def check(self, **scans: bytes) -> None:
        assert self.files.storages.settled(10)
        with self.database.transaction() as fresh:
            found = {name: self.files.storages.bind(scan).read() for name, scan in fresh.root()["papers"].items()}
            keys = set(fresh.root()["keys"])
        assert found == scans
        assert {key for key, _ in self.files.storages.resolve().keys()} - {MARKER} == keys  # noqa: SIM118 - no dictionary


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = Library(tmp_path)
    yield made
    made.manager.abort()
    made.connection.close()
    made.database.close()
    made.files.engine.dispose()


def test_documents_hold_attachments_as_they_are(library: Library) -> None:
    """Attachments can be pickled; ``DocumentFiles.storages.bind`` lets them know their storages again."""
    library.scan("a", b"one")
    library.manager.commit()
    library.check(a=b"one")
    library.scan("a", b"two")
    library.manager.abort()
    library.check(a=b"one")
    library.scan("a", b"three")
    library.manager.commit()
    library.check(a=b"three")


def test_savepoints(library: Library) -> None:
    library.scan("a", b"one")
    savepoint = library.manager.savepoint()
    library.scan("a", b"void")
    library.scan("b", b"void too")
    savepoint.rollback()
    library.manager.commit()
    library.check(a=b"one")


def test_conflicts_are_retried_and_leave_no_file(library: Library) -> None:
    library.scan("a", b"one")
    library.manager.commit()
    tries = 0
    for attempt in library.manager.attempts(3):
        with attempt:
            tries += 1
            library.scan("a", b"try %d" % tries)
            if tries == 1:
                meddle = threading.Thread(target=_touch, args=(library,))
                meddle.start()
                meddle.join()
    assert tries == 2
    library.check(a=b"try 2")


def _touch(library: Library) -> None:
    with library.database.transaction() as other:
        other.root()["papers"]["other"] = None
        del other.root()["papers"]["other"]
        other.root()["papers"]._p_changed = True


def test_a_conflict_that_nobody_retries(library: Library) -> None:
    library.scan("a", b"one")
    library.manager.commit()
    library.scan("a", b"two")
    _touch(library)
    with pytest.raises(ConflictError):
        library.manager.commit()
    library.manager.abort()
    library.files.recover(timedelta(0))
    library.check(a=b"one")
