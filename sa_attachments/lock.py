"""Lock: one that a forked child finds open, whichever thread of its parent held it at that moment. That thread is not
there to open it: of a server that forks while another thread cleans, children would wait for ever.

>>> lock = Lock()
>>> with lock(): lock().locked()
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

    def __call__(self) -> Any:
        """That of this process. It enters and leaves a ``with`` by itself, as no interruption comes in between there:
        in methods of ours one could leave it closed, for all threads and for ever.
        """
        return self._locks.setdefault(os.getpid(), self._make())
