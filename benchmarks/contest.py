"""A contest: the same work done by several sides in turn, so that a noisy machine is noisy for all of them.

Each round lets every side do the work once, in an order that changes from round to round; what counts is the median of
the rounds' ratios, with the smallest and the largest. A side is a function that gets an empty folder and returns a
``Run``.

>>> contest = Contest("sleep", "1", target=1.0)
>>> contest.hold({"ours": lambda folder: Run(2.0), "floor": lambda folder: Run(1.0)}, rounds=3)
>>> contest.ratio("ours", "floor")
Ratio(median=2.0, least=2.0, most=2.0)
"""

from __future__ import annotations

import gc
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


@dataclass
class Run:
    """What one side took for the work: seconds, of which the processor worked ``cpu``; ``beside`` is told beside it."""

    seconds: float = 0.0
    cpu: float = 0.0
    beside: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count what is done inside; may be entered several times."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - wall
            self.cpu += time.process_time() - cpu


Side = Callable[[Path], Run]


class Ratio(NamedTuple):
    """Median, least and most of the rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, ratios: list[float]) -> Ratio:
        return cls(statistics.median(ratios), min(ratios), max(ratios))


class Contest:
    """One row of the table. ``target`` is the largest ratio that is good enough; None where there is none. ``unit`` is
    what ``Run.seconds`` counts, if not seconds; ``most`` limits what our side tells beside its time.
    """

    def __init__(
        self,
        work: str,
        amount: str,
        target: float | None = None,
        *,
        unit: str = "s",
        most: Mapping[str, float] | None = None,
    ) -> None:
        self.work = work
        self.amount = amount
        self.target = target
        self.unit = unit
        self.most = most or {}
        self.runs: dict[str, list[Run]] = {}

    def hold(self, sides: Mapping[str, Side], rounds: int, where: Path | None = None) -> None:
        """Let the sides do the work ``rounds`` times in turn. One round before that warms up and is thrown away."""
        self.runs = {name: [] for name in sides}
        names = list(sides)
        for number in range(rounds + 1):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                folder = Path(tempfile.mkdtemp(prefix="bench-", dir=where))
                try:
                    gc.collect()
                    run = sides[name](folder)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                if number:
                    self.runs[name].append(run)
            print(f"\r{self.work}: {number}/{rounds} ", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)

    def ratio(self, one: str, other: str) -> Ratio:
        """How many times as long one side took as the other, round by round."""
        return Ratio.of([a.seconds / b.seconds for a, b in zip(self.runs[one], self.runs[other], strict=True)])

    @property
    def met(self) -> bool | None:
        """Whether ours is good enough beside the floor; None if there is no target."""
        if self.target is None:
            return None
        within = all(self.beside("ours")[name] <= most for name, most in self.most.items())
        return within and self.ratio("ours", "floor").median <= self.target

    def seconds(self, name: str) -> float:
        """Median of what a side took."""
        return statistics.median(run.seconds for run in self.runs[name])

    def beside(self, name: str) -> dict[str, float]:
        """Medians of what a side tells beside its time."""
        keys = {key: None for run in self.runs[name] for key in run.beside}
        return {key: statistics.median(run.beside[key] for run in self.runs[name]) for key in keys}
