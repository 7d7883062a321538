"""Lock: one thread at a time; open in a forked child."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sa_attachments import lock as lock_module
from sa_attachments.lock import Lock

ROOT = Path(__file__).parents[1]


def test_lets_one_thread_in_at_a_time() -> None:
    lock, inside, most = Lock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with lock():
                inside += 1
                most = max(most, inside)
                os.stat(".")  # noqa: PTH116 - where another thread may come in
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_may_be_one_that_its_own_thread_enters_again() -> None:
    lock = Lock(threading.RLock)
    with lock(), lock():
        pass


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_an_interruption_at_any_moment_leaves_it_open(make: Callable[[], Any]) -> None:
    """As those of Ctrl-C, of timeouts of task queues: all other threads would wait for ever."""

    class Interruption(BaseException): ...

    def interrupted_at(moment: int) -> bool:
        """Whether it has so many."""
        left = moment

        def trace(frame: FrameType, what: str, argument: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename != lock_module.__file__:
                return None
            frame.f_trace_opcodes = True
            if what in ("opcode", "return"):
                left -= 1
                if left < 0:
                    raise Interruption
            return trace

        lock = Lock(make)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with lock():
                pass
        except Interruption:
            return True
        finally:
            sys.settrace(before)
            opened = threading.Thread(target=lambda: opens.append(lock().acquire(timeout=0)))
            opened.start()
            opened.join()
        return False

    opens: list[bool] = []
    moment = 0
    while interrupted_at(moment):
        moment += 1
    assert moment > 5
    assert all(opens)


def test_a_child_puts_a_file_though_a_thread_of_its_parent_was_removing_folders(tmp_path: Path) -> None:
    """A process of its own forks, because the test's own has threads."""
    program = """
        import io, os, signal, sys, threading
        from sa_attachments.storages.local import LocalStorage

        storage, removing, done = LocalStorage(sys.argv[1]), threading.Event(), threading.Event()
        rmdir = os.rmdir

        def slow(folder):
            removing.set()
            done.wait()
            rmdir(folder)

        def put(key):
            storage.put(key, io.BytesIO(b"x"), size=1, content_type="text/plain")

        put("a/b")
        os.rmdir = slow
        cleaning = threading.Thread(target=storage.delete, args=(["a/b"],))
        cleaning.start()
        removing.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            put("a/c")
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        done.set()
        cleaning.join()
        sys.exit("the child hangs, or failed" if status else 0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "files")], cwd=ROOT, check=False
    )
    assert done.returncode == 0
