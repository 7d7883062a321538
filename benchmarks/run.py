"""All contests in one command: ``python benchmarks/run.py [--quick] [--full] [GROUP ...]``.

Prints a table of ratios to a floor written by hand, which does the same durable work, and writes it as ``results.md``
and ``results.json``. The exit code is 1 if a target was missed. Each group has a process of its own, as the collector
of one process goes over all that its earlier contests left, for every side alike.

The groups are ``transactions``, ``loading``, ``large``, ``idle``, ``sweeping``,
``adopting``, ``bucket``, ``libraries`` and ``images``; all if none is named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import adopting
import bucket
import idle
import images
import large
import libraries
import loading
import sweeping
import table
import transactions
from contest import Contest
from rows import Database

HERE = Path(__file__).parent
GROUPS: dict[str, Callable[[argparse.Namespace], Iterable[Contest]]] = {
    "transactions": lambda said: transactions.contests(
        said.rounds, said.folder, 0.2 if said.quick else 1.0, url=said.url, journal=said.journal
    ),
    "loading": lambda said: loading.contests(said.rounds, said.folder, 0.2 if said.quick else 1.0, said.url),
    "large": lambda said: large.contests(said.rounds, said.folder, 0.25 if said.quick else 1.0),
    "idle": lambda said: idle.contests(1 if said.quick else 3),
    "sweeping": lambda said: sweeping.contests(
        said.rounds, said.folder, 1_000 if said.quick else 10_000, 1_000_000 if said.full else 50_000
    ),
    "adopting": lambda said: adopting.contests(said.rounds, said.folder, 0.2 if said.quick else 1.0, said.url),
    "bucket": lambda said: bucket.contests(said.rounds, said.folder, 0.2 if said.quick else 1.0),
    "libraries": lambda said: libraries.contests(said.rounds, said.folder, 0.2 if said.quick else 1.0),
    "images": lambda said: images.contests(said.rounds, said.folder, 0.2 if said.quick else 1.0),
}


def main(arguments: list[str]) -> int:
    """Run the contests that were asked for."""
    said = _parser().parse_args(arguments)
    said.rounds = said.rounds or (3 if said.quick else 7)
    with TemporaryDirectory(dir=said.folder) as folder, Database(Path(folder), said.url, said.journal) as database:
        about = table.about(said.rounds, database.settings())
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        held = list(pool.map(hold, said.groups or GROUPS, repeat(said)))
    contests = [contest for group in held for contest in group]
    print(table.markdown(contests, about))
    table.write(contests, about, said.results)
    return 0 if all(contest.met is not False for contest in contests) else 1


def hold(group: str, said: argparse.Namespace) -> list[Contest]:
    """The contests of one group, in the process that is made for them."""
    return list(GROUPS[group](said))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="The speed targets, as ratios to a hand-written floor.")
    parser.add_argument("groups", nargs="*", choices=[[], *GROUPS], metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--quick", action="store_true", help="less of everything: a minute or two, rougher figures")
    parser.add_argument("--full", action="store_true", help="the sweep beside a million files, which takes minutes")
    parser.add_argument("--rounds", type=int, help="how often each side has its turn (7, quick: 3)")
    parser.add_argument("--folder", type=Path, help="where the files and databases lie while it runs")
    parser.add_argument("--results", type=Path, default=HERE, help="where results.md and results.json go")
    parser.add_argument("--url", help="a PostgreSQL server for the rows, instead of an SQLite file")
    parser.add_argument("--journal", help="SQLite's journal_mode, as WAL")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
