"""Progress: bars on standard error while long work goes on; only on a terminal, so that logs stay clean."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Advance(Protocol):
    """Moves the bar of a label."""

    def __call__(self, label: str, by: int, total: int | None = None) -> None: ...


class _Rate(ProgressColumn):
    """So many per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


@contextmanager
def bars(totals: Mapping[str, int] | None = None) -> Iterator[Advance]:
    """What ``Storages.sweep`` and ``verify`` take as ``progress``: a bar for each label, with an end if ``totals``, or
    whoever advances it, knows it.
    """
    console = Console(stderr=True, markup=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Not rich's is_terminal: FORCE_COLOR would bring bars into logs.
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(label: str, by: int, total: int | None = None) -> None:
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=total or (totals or {}).get(label))
            progress.advance(tasks[label], by)

        yield advance
