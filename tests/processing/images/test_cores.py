"""No more pictures are in memory than there are cores."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from sa_attachments.processing.images.cores import CORES, Turns, available


def test_lets_in_so_many_at_the_same_time() -> None:
    turns, inside, most = Turns(2), 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most
        with turns:
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (inside, most) == (0, 2)


def test_a_turn_ends_with_an_error() -> None:
    turns = Turns(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), turns:
            raise ValueError("broken")


def test_there_is_a_turn_for_each_core() -> None:
    assert available() >= 1
    assert CORES._most == available()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_was_forked_meanwhile_has_turns_of_its_own() -> None:
    turns = Turns(1)
    with turns:
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # which ends it if it waits for a turn of its parent's
            with turns:
                os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
