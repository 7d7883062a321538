# ruff: noqa: PTH103, PTH120
# A million files are made; pathlib would take longer than the file system.
"""Contest of sweeps: a folder with many stored files against one with few, with the same number of new ones.

Half of the old files were imported on one day; the others lie in one folder for each hour of several years. All have
their lines in the ledger. A sweep goes as far as the watermark of an earlier one, so the old files cost nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from contest import Contest, Run
from rows import Database, Ours
from sqlalchemy import insert

from sa_attachments.chunks import chunked
from sa_attachments.key import mint
from sa_attachments.ledger import Ledger
from sa_attachments.queries import OWNED

NEW = 1_000
"""Files that were stored since the last sweep."""
DAY = 24 * 3600 * 1000


def contests(rounds: int, where: Path | None, few: int, many: int) -> Iterable[Contest]:
    """One row; the sides are called as everywhere, although the floor is the library itself."""
    with ExitStack() as stack:
        sides = {}
        for name, count in (("ours", many), ("floor", few)):
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-", dir=where)))
            sides[name] = _filled(folder, stack.enter_context(Database(folder)), count)
        contest = Contest("sweep", f"{NEW:,} new files beside {many:,} and {few:,}", 1.1)
        contest.hold({name: lambda _, side=side: sweep(side) for name, side in sides.items()}, rounds, where)
        yield contest


def sweep(side: Ours) -> Run:
    """Everything that was stored by now is looked at."""
    run = Run()
    with run.timed():
        report = side.files.sweep(side.engine, grace=timedelta(0))
    swept = report["default"]
    assert (swept.listed, swept.strangers, swept.purged, swept.problem) == (NEW, 0, 0, None), report
    return run


def _filled(folder: Path, database: Database, count: int) -> Ours:
    side = Ours(folder, database)
    side.base.metadata.create_all(side.engine)
    now = time.time_ns() // 1_000_000
    _store(side, _old(count, now))
    assert side.files.sweep(side.engine, grace=timedelta(days=4)).ok
    _store(side, (mint(now - number) for number in range(NEW)))
    side.files.sweep(side.engine, grace=timedelta(0))
    os.sync()  # or else the sweeps that are timed would wait for the disk to take all these files
    return side


def _old(count: int, now: int) -> Iterator[str]:
    imported = count // 2
    for number in range(imported):  # within one day, a month ago
        yield mint(now - 30 * DAY + number * DAY // imported)
    for number in range(count - imported):  # over the three years before the last month
        yield mint(now - 31 * DAY - number * 3 * 365 * DAY // count)


def _store(side: Ours, keys: Iterable[str]) -> None:
    """Empty files, and lines that own them: what a sweep looks at, much faster than a session makes them."""
    lines, made = Ledger.of(side.base.metadata).lines, set()
    values = {"storage": "default", "state": OWNED, "owner_table": "docs", "owner_column": "file", "size": 0}
    with side.engine.begin() as connection:
        for chunk in chunked(keys, 10_000):
            for key in chunk:
                above = os.path.dirname(key)
                if above not in made:
                    os.makedirs(f"{side.root}/{above}", exist_ok=True)
                    made.add(above)
                os.close(os.open(f"{side.root}/{key}", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644))
            connection.execute(insert(lines).values(since=0, **values), [{"key": key} for key in chunk])
