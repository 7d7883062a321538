"""Patience: how long something may take, and how it ended.

>>> with within(5):
...     pass
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

BUDGET = 0.05
"""Seconds that a commit waits for cleaning in these tests: ten times what it does unless told otherwise."""

SLACK = 4.5
"""Seconds that a busy machine may take for anything; what hangs, hangs until it is released."""


@contextmanager
def within(seconds: float = BUDGET + SLACK) -> Iterator[None]:
    """What happens inside takes no longer."""
    started = monotonic()
    yield
    took = monotonic() - started
    assert took <= seconds, f"it took {took:.3f} s, longer than {seconds} s"
