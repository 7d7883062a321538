"""Sabotage: ways to break what the demo shows, each with the checks that must notice, and no others.

``SABOTAGES`` maps what is done to the numbers of the scenes and what they then say: the texts of failed checks, or the
kind of error that ended the scene.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session, SessionTransaction

from sa_attachments import Attachment, Storages, ledger, queries
from sa_attachments.cli.demo.playground import Playground
from sa_attachments.ledger import Ledger
from sa_attachments.settling import Settler
from sa_attachments.storages import local
from sa_attachments.storages.local import LocalStorage

Break = Callable[[pytest.MonkeyPatch, Playground], None]
SABOTAGES: dict[Break, dict[int, set[str]]] = {}


def noticed_by(scenes: dict[int, set[str]]) -> Callable[[Break], Break]:
    def note(sabotage: Break) -> Break:
        SABOTAGES[sabotage] = scenes
        return sabotage

    return note


COMMITTED = "3 rows were committed"
WHOLE = "each names a file on disk with the bytes of its original"
NO_OTHER = "no file is named twice, no other file is there"
OWNED = "the ledger calls each of them owned"
WAS_THERE = "before the rollback the file was on disk, whole"
GONE = "after it the file is gone"
AS_BEFORE = "disk, ledger and rows are as they were before"
BOTH_WERE_THERE = "before the savepoint was rolled back, both files were on disk"
OUTSIDE = "the file from outside of it is committed, whole"
INSIDE = "the file from inside is gone, and no row names it"
ONE_MORE = "the ledger knows one more, owned"
NEW = "document 1 names a new file, whole"
OLD = "the old one is still on disk"
IN_30_DAYS = "the ledger calls it condemned, to be purged in 30 days"
BACK = "document 1 names its first file again, whole"
OWNED_AGAIN = "that is owned again, and its replacement condemned"
NOT_COPIED = "nothing was copied, nothing deleted"
KILLED = "the process died by SIGKILL"
LEFT = "the file that it stored is on disk, whole"
NO_ROW = "its row is not there"
UNKNOWN = "the ledger does not know the file"
YOUNG = "a sweep with the usual grace leaves the file alone: it is young"
FOUND = "one without grace finds it, and only it"
SWEPT = "it is gone"
REMEMBERED = "the ledger remembers that, should its owner come late"
STILL_WHOLE = "all rows still name whole files"


@noticed_by(
    {
        1: {WHOLE},
        # The marker of the place is cut too, so that nobody trusts it enough to delete there.
        2: {WAS_THERE, GONE, AS_BEFORE},
        3: {BOTH_WERE_THERE, OUTSIDE, INSIDE},
        4: {NEW, OLD},
        5: {BACK},
        7: {FOUND, SWEPT, REMEMBERED, STILL_WHOLE},
    }
)
def files_are_cut(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    """Storing keeps half of each file, in this process."""
    write = local._write

    def cut(stream: Any, descriptor: int) -> None:
        write(stream, descriptor)
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)

    patch.setattr(local, "_write", cut)


@noticed_by(
    {
        1: {NO_OTHER},
        2: {WAS_THERE, GONE, AS_BEFORE},
        3: {BOTH_WERE_THERE, INSIDE},
        7: {FOUND, SWEPT, REMEMBERED},
    }
)
def files_are_stored_twice(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    put = LocalStorage.put

    def twice(self: LocalStorage, key: str, stream: Any, **options: Any) -> None:
        put(self, key, stream, **options)
        (self.root / key).with_name(f"{key[-36:]}-copy").write_bytes((self.root / key).read_bytes())

    patch.setattr(LocalStorage, "put", twice)


@noticed_by({1: {COMMITTED, WHOLE}, 3: {OUTSIDE, INSIDE}, 4: {"NoResultFound"}, 5: {"FileMissing"}})
def commit_rolls_back(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    patch.setattr(Session, "commit", Session.rollback)


@noticed_by({2: {WAS_THERE, AS_BEFORE}, 3: {BOTH_WERE_THERE, OUTSIDE, INSIDE}})
def rollback_commits(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    patch.setattr(SessionTransaction, "rollback", lambda self, *_, **__: self.commit())


@noticed_by({1: {OWNED}, 3: {ONE_MORE}, 4: {IN_30_DAYS}, 5: {OWNED_AGAIN}, 7: {STILL_WHOLE}})
def the_ledger_calls_it_otherwise(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    patch.setattr(queries, "OWNED", "held")
    patch.setattr(ledger, "OWNED", "held")


@noticed_by({2: {GONE, AS_BEFORE}, 3: {INSIDE}, 7: {FOUND}})
def nothing_is_settled(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    patch.setattr(Settler, "settle", lambda self, frame: None)


@noticed_by({2: {GONE, AS_BEFORE}, 3: {INSIDE}, 7: {FOUND, SWEPT}})
def nothing_is_deleted(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    patch.setattr(LocalStorage, "delete", lambda self, keys: {})


@noticed_by({4: {IN_30_DAYS}, 5: {"FileMissing"}, 7: {STILL_WHOLE}})
def nothing_is_dropped(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    patch.setattr(Ledger, "drop", lambda self, connection, drops: None)


@noticed_by({4: {OLD, IN_30_DAYS}, 5: {"FileMissing"}})
def nothing_is_retained(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    playground.application.Document.__table__.c.file.type.retain = None


@noticed_by({5: {BACK, OWNED_AGAIN}})
def nothing_is_restored(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    patch.setattr(Storages, "restore", lambda self, session, attribute, key: None)


@noticed_by({5: {BACK, NOT_COPIED}})
def restoring_copies(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    restore = Storages.restore

    def copying(self: Storages, session: Any, attribute: Any, key: int) -> Attachment:
        restored = restore(self, session, attribute, key)
        session.get(attribute.class_, key).file = restored.copy()
        return restored

    patch.setattr(Storages, "restore", copying)


@noticed_by({6: {KILLED, NO_ROW, UNKNOWN}, 7: {FOUND}})
def killed_too_late(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    """The process commits, and ends by itself."""

    def kill(self: subprocess.Popen[bytes]) -> None:
        if self.stdin is not None:
            self.stdin.close()

    patch.setattr(subprocess.Popen, "kill", kill)


@noticed_by({6: {LEFT}, 7: {FOUND}})
def killed_too_early(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    """The process says that it has stored its file, and has not."""
    source = playground.folder / "documents.py"
    source.write_text(source.read_text().replace("session.flush()\n        print", "print"))


@noticed_by({6: {"RuntimeError"}, 7: {FOUND}})
def not_killed_at_all(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    """The process does not come so far."""
    (playground.folder / "documents.py").write_text("raise SystemExit('no way')")


@noticed_by({7: {YOUNG, FOUND}})
def a_sweep_takes_the_young(patch: pytest.MonkeyPatch, playground: Playground) -> None:
    sweep = Storages.sweep
    at_once = timedelta(0)

    def eager(self: Storages, engine: Any, **options: Any) -> Any:
        return sweep(self, engine, **options | {"grace": at_once, "stranger_retain": at_once})

    patch.setattr(Storages, "sweep", eager)
