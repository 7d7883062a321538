"""Another data manager fails, in each phase, before and after ours: files are what the database, or the documents, say.

The outcomes are the table of docs/zope.md. When they change on purpose, SA_ATTACHMENTS_WRITE_TABLES=1 writes it.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from repoze.sendmail.delivery import TPC_InProgress
from sqlalchemy import Engine, select

from tests.scenarios.models import Doc, files
from tests.scenarios.world import World

from .archive import Archive
from .participants import AFTER, BEFORE, PARTICIPANTS, PHASES, Fails
from .sessions import ZopeSession

PAGE = Path(__file__).parents[2] / "docs" / "zope.md"
CASES = list(itertools.product(PARTICIPANTS, PHASES, ["before", "after"]))
SORT = {"before": BEFORE, "after": AFTER}

WRITES = os.environ.get("SA_ATTACHMENTS_WRITE_TABLES") == "1"
HEAD = "|---|---|---|---|---|---|---|\n"

Case = tuple[str, str, str]
"""Who fails, in which phase, and whether it is sorted before or after all others."""
Outcome = tuple[str, str]
"""What the database says in the end, and the files: ``old`` or ``new``."""
Compare = Callable[[Case, int, Outcome], None]


@cache
def documented() -> dict[tuple[str, ...], list[Outcome]]:
    """The table of the page."""
    found: dict[tuple[str, ...], list[Outcome]] = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        case = tuple(cell.strip("`") for cell in cells[:3])
        if case in CASES:
            found[case] = [tuple(cell.split(" / ")) for cell in cells[3:]]  # type: ignore[misc]
    return found


@pytest.fixture(scope="module")
def compare() -> Iterator[Compare]:
    """``compare(case, column, outcome)`` with the page; or write what was found there."""
    found: dict[Case, dict[int, Outcome]] = {}

    def compare(case: Case, column: int, outcome: Outcome) -> None:
        assert found.setdefault(case, {}).setdefault(column, outcome) == outcome, "databases differ"
        if not WRITES:
            assert case in documented(), f"{PAGE.name} has no such row: see the module"
            assert outcome == documented()[case][column]

    yield compare
    if WRITES and all(len(found.get(case, {})) == 4 for case in CASES):
        rows = [f"| {who} | `{phase}` | {order} | {_cells(found[who, phase, order])} |" for who, phase, order in CASES]
        head, _, rest = PAGE.read_text().partition(HEAD)
        PAGE.write_text(head + HEAD + "\n".join(rows) + "\n\n" + rest.partition("\n\n")[2])


def _cells(outcomes: dict[int, Outcome]) -> str:
    return " | ".join(" / ".join(outcomes[column]) for column in range(4))


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]) -> Iterator[World]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else f"sqlite:///{tmp_path}/test.db"
    made = World(request.param, open_engine(url), open_engine(url))
    with files.override(made.storages):
        yield made


def fails(manager: Any) -> None:
    with pytest.raises((Fails, OSError)):
        manager.commit()
    with suppress(TPC_InProgress):  # repoze.sendmail 4.5 objects to an abort after a commit that failed
        manager.abort()


def session_outcome(world: World, folder: Path, case: Case, **options: Any) -> Outcome:
    """A row's file is replaced, and another data manager fails."""
    participant, phase, order = case
    with ZopeSession(world.engine, keep_session=False, **options) as session:
        session.add(Doc(id=1, file=b"old"))
        session.commit()
        session.manager.begin()
        doc = session.get_one(Doc, 1)
        doc.file = b"new"
        PARTICIPANTS[participant](session.manager, folder, phase, SORT[order])
        fails(session.manager)
    with world.observer.connect() as connection:
        sha = connection.scalar(select(Doc.file["sha256"].as_string()).where(Doc.id == 1))
    world.settle()
    (content,) = world.stored().values()
    said = "old" if sha == OLD else "new"
    world.check(said.encode())
    return said, content.decode()


def document_outcome(folder: Path, case: Case, *, one_phase: bool) -> Outcome:
    """The same with a document."""
    participant, phase, order = case
    archive = Archive(folder, f"sqlite:///{folder}/ledger.db", one_phase=one_phase)
    archive.write("a", b"old")
    archive.manager.commit()
    archive.write("a", b"new")
    PARTICIPANTS[participant](archive.manager, folder, phase, SORT[order])
    fails(archive.manager)
    said = archive.named()["a"].read().decode()
    in_doubt = bool(archive.doubts())
    archive.recover()
    archive.check(a=said.encode())
    (content,) = archive.stored().values()
    archive.files.engine.dispose()
    return said, content.decode() + (", by `recover`" if in_doubt else "")


OLD = "cba06b5736faf67e54b07b561eae94395e774c517a7d910a54369e1263ccfbd4"  # SHA-256 of b"old"


@pytest.mark.parametrize("world", ["sqlite", "postgres"], indirect=True)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_rows(world: World, tmp_path: Path, case: Case, compare: Compare) -> None:
    said, content = session_outcome(world, tmp_path, case)
    assert said == content
    compare(case, 0, (said, content))


@pytest.mark.parametrize("world", ["postgres"], indirect=True)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_rows_in_two_phases(world: World, tmp_path: Path, case: Case, compare: Compare) -> None:
    said, content = session_outcome(world, tmp_path, case, twophase=True)
    assert said == content
    compare(case, 1, (said, content))


@pytest.mark.parametrize("one_phase", [False, True], ids=["two phases", "one phase"])
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_documents(tmp_path: Path, case: Case, one_phase: bool, compare: Compare) -> None:
    said, content = document_outcome(tmp_path, case, one_phase=one_phase)
    assert said == content.partition(",")[0]
    compare(case, 2 + one_phase, (said, content))
