"""Scenes: what the demo does, one after the other, and what must hold after each.

Each scene runs one function of ``documents``, and then looks at the disk, the ledger and the rows, without trusting
what the function says.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .inventory import Inventory
from .original import Original
from .playground import Playground

DAY = 24 * 3600 * 1000
"""Milliseconds."""

FIRST = 1
"""Primary key of the document that is replaced."""


class Check(NamedTuple):
    """Something that must hold, and whether it does."""

    text: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Cast:
    """The files that play: ``originals`` are stored at first, ``one`` is stored again, and replaced by ``other``."""

    originals: Sequence[Original]
    one: Original
    other: Original


Play = Callable[[Playground, Cast, Inventory], Iterator[Check]]


@dataclass(frozen=True, slots=True)
class Scene:
    """``play`` is told what was there before; ``function`` names what it runs."""

    title: str
    story: str
    function: str
    play: Play


def _commit(playground: Playground, cast: Cast, before: Inventory) -> Iterator[Check]:
    playground.application.commit([original.path for original in cast.originals])
    now = playground.take_stock()
    rows = [now.rows[number] for number in sorted(now.rows)]
    yield Check(f"{_count(cast.originals, 'row')} committed", len(rows) == len(cast.originals))
    yield Check(
        "each names a file on disk with the bytes of its original",
        bool(rows)
        and [(row["sha256"], playground.sha256(row["key"])) for row in rows]
        == [(original.sha256, original.sha256) for original in cast.originals],
    )
    yield Check("no file is named twice, no other file is there", sorted(now.named) == sorted(now.disk))
    yield Check("the ledger calls each of them owned", now.states() == dict.fromkeys(now.named, "owned"))


def _rollback(playground: Playground, cast: Cast, before: Inventory) -> Iterator[Check]:
    with playground.watching("rollback") as appeared:
        playground.application.rollback(cast.one.path)
    now = playground.take_stock()
    yield Check("before the rollback the file was on disk, whole", list(appeared.values()) == [cast.one.sha256])
    yield Check("after it the file is gone", not set(appeared) & set(now.disk))
    yield Check("disk, ledger and rows are as they were before", now == before)


def _savepoint(playground: Playground, cast: Cast, before: Inventory) -> Iterator[Check]:
    with playground.watching("rollback_savepoint") as appeared:
        playground.application.savepoint(cast.one.path, cast.other.path)
    now = playground.take_stock()
    added = [now.rows[number] for number in sorted(set(now.rows) - set(before.rows))]
    kept = {row["key"] for row in added}
    yield Check(
        "before the savepoint was rolled back, both files were on disk",
        sorted(appeared.values()) == sorted([cast.one.sha256, cast.other.sha256]),
    )
    yield Check(
        "the file from outside of it is committed, whole",
        [playground.sha256(key) for key in kept] == [cast.one.sha256],
    )
    yield Check(
        "the file from inside is gone, and no row names it", len(added) == 1 and _new(now.disk, before.disk) == kept
    )
    yield Check("the ledger knows one more, owned", now.states() == before.states() | dict.fromkeys(kept, "owned"))


def _replace(playground: Playground, cast: Cast, before: Inventory) -> Iterator[Check]:
    playground.application.replace(FIRST, cast.other.path)
    now = playground.take_stock()
    old, new = before.rows[FIRST]["key"], now.rows[FIRST]["key"]
    yield Check(f"document {FIRST} names a new file, whole", old != new and playground.sha256(new) == cast.other.sha256)
    yield Check("the old one is still on disk", playground.sha256(old) == cast.one.sha256)
    due = now.lines[old].purge_after if old in now.lines else None
    in_days = (due - time.time() * 1000) / DAY if due else 0
    yield Check(
        "the ledger calls it condemned, to be purged in 30 days",
        now.states() == before.states() | {old: "condemned", new: "owned"} and 29.9 < in_days < 30.1,
    )


def _undo(playground: Playground, cast: Cast, before: Inventory) -> Iterator[Check]:
    playground.application.undo(FIRST)
    now = playground.take_stock()
    replaced, back = before.rows[FIRST]["key"], now.rows[FIRST]["key"]
    yield Check(
        f"document {FIRST} names its first file again, whole",
        before.states().get(back) == "condemned" and playground.sha256(back) == cast.one.sha256,
    )
    yield Check(
        "that is owned again, and its replacement condemned",
        now.states() == before.states() | {back: "owned", replaced: "condemned"},
    )
    yield Check("nothing was copied, nothing deleted", now.disk == before.disk)


def _kill(playground: Playground, cast: Cast, before: Inventory) -> Iterator[Check]:
    ended = playground.kill(cast.one.path)
    now = playground.take_stock()
    left = _new(now.disk, before.disk)
    yield Check("the process died by SIGKILL", ended == -signal.SIGKILL)
    yield Check("the file that it stored is on disk, whole", [*map(playground.sha256, left)] == [cast.one.sha256])
    yield Check("its row is not there", now.rows == before.rows)
    yield Check("the ledger does not know the file", now.lines == before.lines)


def _sweep(playground: Playground, cast: Cast, before: Inventory) -> Iterator[Check]:
    files, engine = playground.application.files, playground.application.engine
    strays = set(before.disk) - set(before.lines)
    files.sweep(engine)
    yield Check(
        "a sweep with the usual grace leaves the file alone: it is young", playground.take_stock().disk == before.disk
    )
    report = playground.application.sweep()
    now = playground.take_stock()
    yield Check("one without grace finds it, and only it", report.ok and report["default"].purged == len(strays) == 1)
    yield Check("it is gone", _new(before.disk, now.disk) == strays)
    yield Check(
        "the ledger remembers that, should its owner come late",
        now.states() == before.states() | dict.fromkeys(strays, "gone"),
    )
    yield Check("all rows still name whole files", now.rows == before.rows and files.verify(engine, checksums=True).ok)


SCENES = (
    Scene("Stored on commit", "The files are stored and the rows are committed, or neither.", "commit", _commit),
    Scene("Gone after a rollback", "What a transaction stored goes with it.", "rollback", _rollback),
    Scene("A savepoint", "A part of a transaction is rolled back, the rest is committed.", "savepoint", _savepoint),
    Scene(
        "Replaced", "The column says retain=timedelta(days=30): what is replaced is kept so long.", "replace", _replace
    ),
    Scene("Undone", "Within that time a file can be taken back.", "undo", _undo),
    Scene(
        "Killed between storing and commit",
        "Another process stores a file, and dies before it can commit. What remains is a file that nobody knows.",
        "be_killed",
        _kill,
    ),
    Scene("Swept", "A sweep finds what crashes leave. A scheduler runs it: sa-attachments sweep.", "sweep", _sweep),
)


def _new(now: dict[str, int], before: dict[str, int]) -> set[str]:
    return set(now) - set(before)


def _count(items: Sequence[object], noun: str) -> str:
    return f"{len(items):,} {noun} was" if len(items) == 1 else f"{len(items):,} {noun}s were"
