"""Contest of one large file: stored and committed, against a copy that hashes, in processes of their own.

A process per run, so that the peak of its memory says how much the work took: ``large.py ours|floor SOURCE FOLDER
path|stream`` prints the seconds and by how many bytes the peak grew.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from contest import Contest, Run

MEGABYTE = 1024 * 1024
MOST_MEMORY = 16
"""By how many megabytes the peak may grow."""


def contests(rounds: int, where: Path | None, scale: float = 1.0) -> Iterable[Contest]:
    """A row for a file of this machine, and one for bytes that come once and whose number nobody knows."""
    count = max(8, int(512 * scale))
    with TemporaryDirectory(prefix="bench-", dir=where) as folder:
        source = Path(folder, "source")
        with source.open("wb") as file:
            for _ in range(count):
                file.write(os.urandom(MEGABYTE))
        for kind in ("path", "stream"):
            contest = Contest(f"one large file, from a {kind}", f"{count} MB", 1.1, most={"memory MB": MOST_MEMORY})
            sides = {side: partial(_in_a_process, side, source, kind) for side in ("ours", "floor")}
            contest.hold(sides, rounds, where)
            yield contest


def _in_a_process(side: str, source: Path, kind: str, folder: Path) -> Run:
    command = [sys.executable, __file__, side, str(source), str(folder), kind]
    path = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    told = json.loads(done.stdout)
    return Run(told["seconds"], told["cpu"], {"memory MB": told["grown"] / MEGABYTE})


def work(side: str, source: Path, folder: Path, kind: str) -> dict[str, float]:
    """In the process: one small file to have everything loaded, then the large one."""
    from rows import ByHand, Database, Ours

    with Database(folder) as database:
        made: Any = (Ours if side == "ours" else ByHand)(folder, database)
        made.base.metadata.create_all(made.engine)
        small = folder / "small"
        small.write_bytes(source.open("rb").read(MEGABYTE))
        store(made, small, kind)
        before = _begin_peak()
        run = Run()
        with run.timed():
            store(made, source, kind)
        return {"seconds": run.seconds, "cpu": run.cpu, "grown": _memory("VmHWM") - before}


def store(side: Any, source: Path, kind: str) -> None:
    """One row with one file."""
    from sqlalchemy.orm import Session

    with Session(side.engine) as session, source.open("rb", buffering=0) as file:
        session.add(side.new_large(source if kind == "path" else chunks(file), file))
        side.commit(session)


def chunks(file: Any) -> Iterator[bytes]:
    """What a client sends: pieces of no size that anybody chose."""
    while chunk := file.read(64 * 1024):
        yield chunk


def _begin_peak() -> int:
    """Forget the peak of the memory so far (getrusage can't, and even counts the parent's); returns what is used."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    json.dump(work(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]), sys.stdout)
