"""Forks: a warm process that forks children for a test, so that hundreds of them can be killed in a minute.

::

    with ForkServer() as server:
        server.prepare("tests.crash.scenes:prepare", "sqlite:///test.db")
        death = server.run("tests.crash.scenes:work", "small", 17)
        assert death.killed, death.output

The arguments are JSON. What the child's function returns is JSON too, ``death.result``; what it prints is
``death.output``. A process of its own forks, because the test's own has threads, and threads do not survive a fork.
What ``prepare`` leaves in that process (mapped classes, compiled statements) all later children have.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

PATIENCE = 60
"""Seconds after which a child that hangs tells where, and ends."""

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Death:
    """How a child ended."""

    status: int
    output: str
    result: Any
    peak: int
    """Bytes of memory that it took at most."""

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status == -signal.SIGKILL


class ForkServer:
    """See the module."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, function: str, *arguments: Any) -> Death:
        """Call ``module:function`` in a fresh child. AssertionError if it ends but by returning or by SIGKILL."""
        death = Death(**self._ask("fork", function, arguments))
        assert death.status == 0 or death.killed, f"{function}{arguments} ended with {death.status}:\n{death.output}"
        return death

    def prepare(self, function: str, *arguments: Any) -> None:
        """Call ``module:function`` in the process that forks. It must leave no threads and no connections."""
        failure = self._ask("call", function, arguments)
        assert failure is None, failure

    def _ask(self, how: str, function: str, arguments: tuple[Any, ...]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([how, function, arguments]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def _serve() -> None:
    for line in sys.stdin:
        how, function, arguments = json.loads(line)
        answer = (_fork if how == "fork" else _call)(_found(function), arguments)
        print(json.dumps(answer), flush=True)


def _call(function: Callable[..., Any], arguments: list[Any]) -> str | None:
    try:
        function(*arguments)
    except BaseException:  # noqa: BLE001 - the test raises it
        return traceback.format_exc()
    return None


def _found(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found


def _fork(function: Callable[..., Any], arguments: list[Any]) -> dict[str, Any]:
    output, result = os.memfd_create("output"), os.memfd_create("result")
    pid = os.fork()
    if pid == 0:
        _live(function, arguments, output, result)
    _, status, used = os.wait4(pid, 0)
    said, returned = _read(output), _read(result)
    return {
        "status": os.waitstatus_to_exitcode(status),
        "output": said,
        "result": json.loads(returned) if returned else None,
        "peak": used.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def _live(function: Callable[..., Any], arguments: list[Any], output: int, result: int) -> None:
    status = 1
    try:
        for stream in (1, 2):
            os.dup2(output, stream)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        returned = json.dumps(function(*arguments))
        with open(result, "w", closefd=False) as file:
            file.write(returned)
        status = 0
    except BaseException:  # noqa: BLE001 - the parent asserts that there was none
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _read(descriptor: int) -> str:
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read().decode(errors="replace")


if __name__ == "__main__":
    _serve()
