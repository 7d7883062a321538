"""Adopter: a process that adopts, or takes back, and may be killed at any step; see ``tests.crash.mortal``."""

from __future__ import annotations

import faulthandler
import hashlib
import random
from pathlib import Path
from typing import Any

from tests.crash.mortal import Mortal, kill_at
from tests.engines import open_engine

from .museum import Museum

ROOTS = {"copy": "default", "link": "default", "in_place": "old"}


def content(number: int, most: int) -> bytes:
    """The bytes of a row: none, some, or, of one in a hundred, up to ``most``."""
    chosen = random.Random(number)
    size = chosen.choice([0, 1, 100, 1000, 5000, 20_000]) if number % 100 else chosen.randrange(most)
    return hashlib.sha256(b"%d" % number).digest() * (size // 32) + b"x" * (size % 32)


def path(number: int) -> str:
    return f"{number % 50}/file {number}.bin"


def work(url: str, folder: str, kind: str, verb: str, limit: int | None) -> dict[str, Any]:
    """One adoption by a migration; prints from how many bytes memory grows."""
    faulthandler.cancel_dump_traceback_later()  # twenty thousand rows take longer than the server of forks waits
    mortal = Mortal(kill_at(limit))
    engine = open_engine(url)
    museum = Museum(engine, Path(folder))
    if limit is not None:
        mortal.engine(engine)
        museum.files.configure({name: mortal.storage(museum.files.resolve(name)) for name in ("default", "old")})
    print(forget_peak(), flush=True)
    with mortal.system_calls():
        report = museum.migrate(lambda op: call(op, museum, kind, verb))
    return {"steps": len(mortal.steps), "rows": report.rows}


def call(op: Any, museum: Museum, kind: str, verb: str) -> Any:
    """The operation of this kind."""
    if kind == "blob":
        return getattr(op, f"{verb}_blob_column")("docs", "data", "file", filename="name")
    # The fault layer around a storage hides that it is a folder.
    root = None if kind == "in_place" else museum.root
    return getattr(op, f"{verb}_path_column")("docs", "path", "file", root=root, mode=kind, storage=ROOTS[kind])


def prepare(url: str) -> None:
    """Warm up the process that forks."""
    open_engine(url).dispose()


def forget_peak() -> int:
    """Bytes of memory now; the peak is counted from here."""
    Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
