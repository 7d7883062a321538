"""Cores: as many pictures at the same time as there are processors, so that memory is bounded by them, not by uploads.

>>> with CORES:
...     pass

Steps run in one thread for each file that is stored at the same time, sixteen for S3; a decoded photo takes hundreds
of times the memory of a stream. Pillow lets other threads run while it decodes, resizes and encodes.
"""

from __future__ import annotations

import os
import threading
from types import TracebackType


def available() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Turns:
    """Lets ``most`` threads in at the same time; a forked child begins anew."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._semaphore = threading.Semaphore(self._most)

    def __enter__(self) -> None:
        self._semaphore.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._semaphore.release()


CORES = Turns(available())
