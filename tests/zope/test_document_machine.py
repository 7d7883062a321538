"""A machine that plays with documents and their files: whatever an application may do, in any order, whoever fails.

Between transactions documents have exactly the files that they should have, and there are no others; while one is open,
nothing of it is lost, nor of those before.
"""

from __future__ import annotations

import os
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sa_attachments import StorageFailed

from .archive import Archive
from .participants import AFTER, BEFORE, PARTICIPANTS, PHASES, Fails
from .shelf import Shelf

EXAMPLES = int(os.environ.get("SA_ATTACHMENTS_MACHINE_EXAMPLES", "2000"))
SETTINGS = settings(deadline=None, database=None, stateful_step_count=25, suppress_health_check=list(HealthCheck))
NAME = st.sampled_from(["a", "b", "c"])

Contents = dict[str, bytes]


class Documents(RuleBasedStateMachine):
    """One archive, one transaction after the other."""

    @initialize(one_phase=st.booleans(), patient=st.booleans())
    def begin(self, one_phase: bool, patient: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.archive = Archive(
            self.path,
            f"sqlite:///{self.path}/ledger.db",
            one_phase=one_phase,
            in_doubt_for=timedelta(minutes=10 if patient else 0),
        )
        self.archive.recover()  # makes the tables
        self.committed: Contents = {}
        self.number = 0
        self.restart()

    def restart(self) -> None:
        self.now = dict(self.committed)
        self.savepoints: list[tuple[Any, Contents]] = []
        self.open = False

    def content(self) -> bytes:
        self.number += 1
        return f"content {self.number}".encode()

    # In a transaction

    @rule(name=NAME)
    def write(self, name: str) -> None:
        data = self.content()
        self.archive.write(name, data)
        self.now[name] = data
        self.open = True

    @rule(name=NAME)
    def write_what_cannot_be_stored(self, name: str) -> None:
        self.archive.storage.fail("put", on=1)
        with pytest.raises(StorageFailed):
            self.archive.write(name, self.content())
        self.archive.storage.heal()
        self.open = True

    @rule(name=NAME)
    def remove(self, name: str) -> None:
        if name in self.now:
            self.archive.remove(name)
            del self.now[name]
            self.open = True

    @rule(name=NAME, source=NAME)
    def copy(self, name: str, source: str) -> None:
        """From another document of the same transaction, whose file may have been staged a moment ago."""
        if source in self.now and name not in self.now:
            text = self.archive.shelf.get(source)
            assert text is not None
            copied = self.archive.files.stage(self.archive.files.bind(text))
            self.archive.shelf.set(name, copied.to_json())
            self.now[name] = self.now[source]
            self.open = True

    @rule(name=NAME)
    def move(self, name: str) -> None:
        """One document hands its file to another one: nothing is staged, nothing is dropped."""
        for source in sorted(self.now):
            if name not in self.now:
                self.archive.shelf.set(name, self.archive.shelf.get(source))
                self.archive.shelf.set(source, None)
                self.now[name] = self.now.pop(source)
                self.open = True

    @rule()
    def savepoint(self) -> None:
        self.savepoints.append((self.archive.manager.savepoint(), dict(self.now)))

    @rule(depth=st.integers(1, 3))
    def roll_back_to_savepoint(self, depth: int) -> None:
        if self.savepoints:
            depth = min(depth, len(self.savepoints))
            savepoint, saved = self.savepoints[-depth]
            del self.savepoints[len(self.savepoints) - depth + 1 :]
            savepoint.rollback()
            self.now = dict(saved)

    # Its end

    @rule()
    def commit(self) -> None:
        self.archive.manager.commit()
        self.committed = self.now
        self.restart()

    @rule()
    def abort(self) -> None:
        self.archive.manager.abort()
        self.restart()

    @rule(who=st.sampled_from(sorted(PARTICIPANTS)), phase=st.sampled_from(PHASES), after=st.booleans())
    def fail(self, who: str, phase: str, after: bool) -> None:
        folder = Path(tempfile.mkdtemp(dir=self.path))
        PARTICIPANTS[who](self.archive.manager, folder, phase, AFTER if after else BEFORE)
        self.archive.shelf.get("a")  # joins, so that documents have a say
        self.let_fail()

    @rule(at=st.sampled_from([*PHASES, "after tpc_vote", "after tpc_finish"]))
    def documents_fail(self, at: str) -> None:
        self.archive.shelf.get("a")

        def fail(phase: str) -> None:
            if phase == at:
                raise Fails(at)

        self.archive.shelf.at = fail
        self.let_fail()

    def let_fail(self) -> None:
        with pytest.raises((Fails, OSError)):
            self.archive.manager.commit()
        self.archive.shelf.at = Shelf(self.path, None).at
        try:
            self.archive.manager.abort()
        except Exception as error:  # noqa: BLE001 - repoze.sendmail
            assert type(error).__name__ == "TPC_InProgress"  # noqa: PT017
        said = {name: each.read() for name, each in self.archive.named().items()}
        assert said in (self.now, self.committed)
        self.committed = said
        self.archive.recover()
        self.restart()

    # Care

    @precondition(lambda self: not self.open)
    @rule()
    def sweep(self) -> None:
        assert self.archive.sweep().ok

    @rule()
    def recover_early(self) -> None:
        self.archive.files.recover()

    @invariant()
    def nothing_is_lost(self) -> None:
        stored = set(self.archive.stored().values())
        assert set(self.committed.values()) <= stored
        assert set(self.now.values()) <= stored
        assert all(set(saved.values()) <= stored for _, saved in self.savepoints)
        if not self.open and not self.savepoints:
            self.archive.check(**self.committed)

    def teardown(self) -> None:
        if hasattr(self, "archive"):
            self.archive.manager.abort()
            self.archive.check(**self.committed)
            self.archive.files.engine.dispose()
            self.folder.cleanup()


def run(examples: int, number: int) -> None:
    run_state_machine_as_test(seed(number)(Documents), settings=settings(SETTINGS, max_examples=examples))


@pytest.mark.timeout(300)
def test_a_sample() -> None:
    run(15, 1)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(2))
def test_many_examples(part: int) -> None:
    run(EXAMPLES // 2, 3000 + part)
