"""An adoption, and its way back, that is killed again and again loses nothing, leaves nothing, and continues."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.crash.forks import ForkServer

from . import adopter
from .museum import Museum

MIB = 1 << 20
WORK = f"{adopter.__name__}:work"

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells peaks of memory")

SPANS = [
    ("blob", (12_000, 12_000)),
    ("copy", (9000, 3000)),
    ("link", (9000, 3000)),
    ("in_place", (7000, 500)),
]
"""Of the tortures: steps of which a random one is the last, there and back; ten of them are less than all."""


@pytest.fixture
def server() -> Iterator[ForkServer]:
    with ForkServer() as forks:
        yield forks


@pytest.mark.parametrize(
    ("engine", "kind", "spans"),
    [("sqlite", "blob", (900, 900)), ("postgres", "blob", (900, 900)), ("sqlite", "in_place", (500, 60))],
    indirect=["engine"],
)
def test_killed_at_some_steps(
    engine: Engine, tmp_path: Path, server: ForkServer, kind: str, spans: tuple[int, int]
) -> None:
    museum = _filled(engine, tmp_path, 250, 100_000, kind)
    chosen = random.Random(f"{kind} {engine.dialect.name}")
    url = engine.url.render_as_string(hide_password=False)
    for verb, span in zip(("adopt", "restore"), spans, strict=True):
        kills, grown = _under_fire(museum, server, url, kind, verb, 3, lambda span=span: chosen.randrange(1, span))
        assert kills >= 1
        assert grown < 64 * MIB
        _check(museum, kind, verb)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)
@pytest.mark.parametrize(("kind", "spans"), SPANS)
def test_twenty_thousand_killed_at_ten_random_steps(
    engine: Engine, tmp_path: Path, server: ForkServer, kind: str, spans: tuple[int, int]
) -> None:
    began = time.monotonic()
    museum = _filled(engine, tmp_path, 20_000, 5 * MIB, kind)
    url = engine.url.render_as_string(hide_password=False)
    size = sum(len(adopter.content(n, 5 * MIB)) for n in range(20_000))
    for verb, span in zip(("adopt", "restore"), spans, strict=True):
        kills, grown = _under_fire(museum, server, url, kind, verb, 10, lambda span=span: random.randrange(1, span))
        _check(museum, kind, verb)
        print(
            f"{engine.dialect.name} {kind} {verb}: 20,000 rows, {size / MIB:,.0f} MiB, {kills} kills, "
            f"memory grew by {grown / MIB:.1f} MiB, {time.monotonic() - began:.0f} s"
        )
        assert kills == 10
        assert grown < 64 * MIB


def _filled(engine: Engine, folder: Path, rows: int, most: int, kind: str) -> Museum:
    museum = Museum(engine, folder).open()
    for first in range(0, rows, 200):
        numbers = range(first, min(first + 200, rows))
        if kind == "blob":
            museum.insert(*({"id": n, "data": adopter.content(n, most), "name": f"{n}.bin"} for n in numbers))
            continue
        museum.insert(*({"id": n, "path": adopter.path(n)} for n in numbers))
        for number in numbers:
            museum.lay(adopter.path(number), adopter.content(number, most))
    museum.most = most
    museum.rows = rows
    return museum


def _under_fire(
    museum: Museum, server: ForkServer, url: str, kind: str, verb: str, kills: int, limit: Callable[[], int]
) -> tuple[int, int]:
    """Run until it is done; returns how often it was killed, and by how much memory grew in one run at most."""
    killed = grown = 0
    while True:
        death = server.run(WORK, url, str(museum.folder), kind, verb, limit() if killed < kills else None)
        if death.output:  # else it was killed before it began
            grown = max(grown, death.peak - int(death.output.split()[0]))
        if not death.killed:
            return killed, grown
        killed += 1
        _check(museum, kind, None)


def _check(museum: Museum, kind: str, done: str | None) -> None:
    """Nothing is lost, and after a sweep nothing is left over; with ``done``, all rows are there, or back."""
    for attempt in range(50):
        museum.sweep()
        problems = museum.problems()
        if not problems:
            break
        time.sleep(0.1 * attempt)  # a server rolls back after a while what a killed client began
    assert problems == []
    facts = museum.facts()
    if done is not None:
        assert len(facts) == (museum.rows if done == "adopt" else 0)
    if kind == "blob":
        data = museum.column("data") if museum.rows < 1000 or done else {}
        assert all(bytes(each) == adopter.content(n, museum.most) for n, each in data.items())
    else:
        assert museum.column("path") == {n: adopter.path(n) for n in range(museum.rows)}
        for number in range(museum.rows):
            assert (museum.root / adopter.path(number)).read_bytes() == adopter.content(number, museum.most)
    if done == "restore":
        assert {state for state, _ in museum.lines().values()} <= {"gone"}, (
            "but for copies of processes that were killed"
        )
        assert museum.stored("default") == set()
