"""Lock: one that a forked child finds open, whichever thread of its parent held it at that moment. That thread is not
there to open it: of a server that forks while another thread cleans, children would wait for ever.

>>> lock = Lock()
>>> with lock: os.getpid() in lock._locks
True

Traps
-----
What the thread was about to do is half done in the child.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any


class Lock:
    """``make`` makes the lock of a process, as ``threading.RLock``."""

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        self._make = make
        self._locks: dict[int, Any] = {}

    def __enter__(self) -> None:
        self._locks.setdefault(os.getpid(), self._make()).acquire()

    def __exit__(self, *_: object) -> None:
        self._locks[os.getpid()].release()
