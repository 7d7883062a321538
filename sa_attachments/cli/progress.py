"""Progress: bars on standard error while long work goes on; only on a terminal, so that logs stay clean."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def bars(totals: Mapping[str, int] | None = None) -> Iterator[Callable[[str, int], None]]:
    """What ``Storages.sweep`` and ``verify`` take as ``progress``: a bar for each label, with an end if ``totals``
    knows it.
    """
    console = Console(stderr=True, markup=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    # Not rich's is_terminal: FORCE_COLOR would bring bars into logs.
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(label: str, by: int) -> None:
            if label not in tasks:
                tasks[label] = progress.add_task(label, total=(totals or {}).get(label))
            progress.advance(tasks[label], by)

        yield advance
