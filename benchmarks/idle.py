"""Contest of transactions without attachments: instructions, with the library and with all its wiring taken away.

In both processes another model of the same ``Base`` has an attachment column and was used already; the sessions that
are counted don't touch it. That the library is loaded all the same keeps the two alike: a process that has imported
more runs a few percent faster or slower, whatever it is that it imported.

Instructions are counted by valgrind's callgrind, or by ``perf stat`` where a machine has counters for it and no
valgrind. They hardly depend on what else the machine does. Where neither is there, the processor's time is taken, the
least of several processes in turn, which is good to a few percent only: the table says which it was.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from contest import Contest, Run

HERE = Path(__file__).parent
Counts = dict[str, float]
Counter = Callable[[str, int], Counts]
"""Told the side and the repetitions; returns the cost of a repetition by the name of the shape."""


def contests(rounds: int, times: int = 50) -> list[Contest]:
    """A row for each shape of a transaction."""
    how, unit, counter = choose()
    print(f"idle: {2 * rounds} processes, counted by {how}", file=sys.stderr)
    with ThreadPoolExecutor(2 if unit == "instructions" else 1) as pool:
        counted = list(pool.map(lambda side: counter(side, times), ("with", "without") * rounds))
    found = []
    for shape in counted[0]:
        contest = Contest(f"idle: {shape}", f"{times} ×, {how}", 1.01, unit=unit)
        runs = [Run(counts[shape]) for counts in counted]
        contest.runs = {"ours": runs[::2], "floor": runs[1::2]}
        found.append(contest)
    return found


def choose() -> tuple[str, str, Counter]:
    """The best counter that this machine has: its name, its unit, itself."""
    if shutil.which("valgrind"):
        return "callgrind", "instructions", by_callgrind
    if shutil.which("perf") and _perf("true") is not None:
        return "perf stat", "instructions", by_perf
    return "processor time", "s", by_time


def by_callgrind(side: str, times: int) -> Counts:
    """Instructions, from the dumps before and after each shape."""
    with TemporaryDirectory(prefix="bench-") as folder:
        out = f"{folder}/out"
        done = _run(
            ["valgrind", "--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={out}"], side, times
        )
        # Dump 1 is all before the first shape, 2 the first shape, 3 what is between it and the second, and so on.
        return {
            shape: _total(Path(f"{out}.{2 * number}")) / times for number, (shape, _) in enumerate(_told(done), start=1)
        }


def by_perf(side: str, times: int) -> Counts:
    """Instructions: a process that repeats a shape, less one that does all but that."""
    found = {}
    for shape, _ in _told(_run([], side, 0)):
        counts = [_perf(*_command(side, each, shape)) for each in (times, 0)]
        assert counts[0] is not None
        assert counts[1] is not None
        found[shape] = (counts[0] - counts[1]) / times
    return found


def by_time(side: str, times: int) -> Counts:
    """Seconds of the processor, the least of five processes."""
    runs = [dict(_told(_run([], side, times))) for _ in range(5)]
    return {shape: min(float(run[shape]) for run in runs) / times for shape in runs[0]}


def _command(side: str, times: int, *shape: str) -> list[str]:
    return [sys.executable, str(HERE / "idle_shapes.py"), side, str(times), *shape]


def _run(before: list[str], side: str, times: int) -> str:
    done = subprocess.run(
        before + _command(side, times), capture_output=True, text=True, env=_environment(), check=False
    )
    if done.returncode:
        raise RuntimeError(f"{before[:1]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": path}


def _told(stdout: str) -> list[tuple[str, str]]:
    return [(name, seconds) for name, _, seconds in (line.partition("\t") for line in stdout.splitlines())]


def _perf(*command: str) -> float | None:
    done = subprocess.run(
        ["perf", "stat", "-x", ";", "-e", "instructions:u", *command],
        capture_output=True,
        text=True,
        env=_environment(),
        check=False,
    )
    found = re.search(r"^(\d+);", done.stderr, re.MULTILINE)
    return float(found[1]) if found else None


def _total(dump: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{dump} says no total")
    return int(found[1])
