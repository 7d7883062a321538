"""Passes: a table is gone through until nothing is left of it.

>>> report, rows = AdoptionReport(), [[1, 2], [3]]
>>> for _ in passes(report, "docs.data", lambda: len(rows)):
...     report.rows += len(rows.pop(0))
>>> report.rows
3
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .report import AdoptionReport, counted

MOST = 50


def passes(report: AdoptionReport, label: str, left: Callable[[], int]) -> Iterator[None]:
    """One pass, and others as long as rows are ``left`` that were not reported. AdoptionFailed if that leads nowhere:
    a migration would say that all is well, and the next one drop the old column.
    """
    idle = 0
    for _ in range(MOST):
        before = report.rows, report.counts.total()
        yield
        if left() <= 0:
            return
        idle = idle + 1 if (report.rows, report.counts.total()) == before else 0
        if idle == 2:  # What is left may have been written between the pass and the look.
            break
    why = f"{counted(left(), 'row')} still left, that reading by the primary key does not lead to, or that come anew"
    raise report.refuse(label, why, "let the application write both columns, and run it again")
