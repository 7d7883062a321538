"""The power is cut at any step, of the disk with the files and of the disk with the database: nothing is lost,
nothing comes back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event

from sa_attachments.storages.local import LocalStorage
from sa_attachments.testing import Faulty

from . import scenes
from .application import Application, content, upload
from .disk import Disk, need_loop_devices
from .mortal import Mortal

PATIENT = timedelta(seconds=30)


@dataclass
class Machine:
    """One disk for the files, another one for a SQLite database, so that flushing one does not flush the other."""

    files: Disk
    database: Disk
    open_engine: Callable[..., Engine]
    pragmas: tuple[str, ...] = ()
    engines: list[Engine] = field(default_factory=list)

    def application(self, storage: Any = None, **options: Any) -> Application:
        engine = self.open_engine(f"sqlite:///{self.database.folder}/test.db", durable=True)
        self.engines.append(engine)
        event.listen(engine, "connect", lambda driver, record: setting(driver, self.pragmas))
        return Application(engine, self.files.folder, storage, budget=PATIENT, **options)

    def cut(self, place: Path) -> Machine:
        """The power of both is cut."""
        place.mkdir()
        return Machine(
            self.files.cut(place / "files"), self.database.cut(place / "database"), self.open_engine, self.pragmas
        )

    @contextmanager
    def started(self) -> Iterator[Application]:
        """The machine starts again."""
        try:
            self.files.mount()
            self.database.mount()
            yield self.application()
        finally:
            self.remove()

    def remove(self) -> None:
        for engine in self.engines:
            engine.dispose()
        self.files.remove()
        self.database.remove()


@pytest.fixture
def machine(tmp_path: Path, open_engine: Callable[..., Engine]) -> Iterator[Machine]:
    need_loop_devices()
    machine = Machine(Disk.make(tmp_path / "files"), Disk.make(tmp_path / "database"), open_engine)
    yield machine
    machine.remove()


NORMAL, FULL, EXTRA = 1, 2, 3
JOURNALS = {
    "delete": ("PRAGMA synchronous = FULL",),
    "wal": ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL"),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("journal", JOURNALS)
def test_at_many_steps_of_all_operations(machine: Machine, journal: str, tmp_path: Path) -> None:
    cut_at_each(machine, journal, tmp_path, every=61)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first", range(16))
@pytest.mark.parametrize("journal", JOURNALS)
def test_at_all_steps_of_all_operations(machine: Machine, journal: str, first: int, tmp_path: Path) -> None:
    cut_at_each(machine, journal, tmp_path, every=16, first=first)


def setting(driver: Any, pragmas: tuple[str, ...]) -> None:
    """Let a new connection work so, whether or not its driver is in a transaction already."""
    began = driver.in_transaction
    if began:
        driver.execute("ROLLBACK")
    for pragma in pragmas:
        driver.execute(pragma)
    if began:
        driver.execute("BEGIN")


def settle_in(app: Application) -> None:
    """Commit a first file, after which the database notes that the place is its own; and flush all disks."""
    with app.session() as session:
        session.add(app.Doc(id=0, file=upload("first")))
        session.commit()
    assert app.files.settled(10)
    os.sync()


def cut_at_each(machine: Machine, journal: str, tmp_path: Path, *, every: int, first: int = 0) -> None:
    """Run the workload, cut the power at every so many steps, and look at what each of the cuts left."""
    machine.pragmas = JOURNALS[journal]
    cuts: list[tuple[int, str, Machine]] = []

    def reached(number: int) -> None:
        if number % every == first:
            cuts.append((number, mortal.steps[-1], machine.cut(tmp_path / str(number))))

    mortal = Mortal(reached)
    app = machine.application(mortal.storage(LocalStorage(machine.files.folder / "files")))
    app.create()
    (app.given / "given").write_bytes(content("given"))
    machine.files.flush()
    mortal.engine(app.engine)
    scenes.run("all", app)
    assert app.problems() == []
    assert len(cuts) > 10
    for number, name, after in cuts:
        where = f"cut at step {number}, about {name!r}"
        with after.started() as later:
            later.create()
            assert later.problems() == [], where
            assert (later.given / "given").exists() or later.state().get("5.cover") == ["given"], where
            before = later.state()
            assert later.sweep().ok
            assert later.problems(swept=True) == [], where
            assert later.state() == before, where


@pytest.mark.parametrize("durable", [True, False])
def test_the_files_of_committed_rows_are_there(machine: Machine, durable: bool, tmp_path: Path) -> None:
    """With ``durable=false`` they are not, which shows that this test sees something."""
    app = machine.application(f"local:{machine.files.folder}/files?durable={durable}")
    app.create()
    os.sync()
    (app.given / "given").write_bytes(content("given"))
    with app.session() as session:
        doc = app.Doc(id=1, file=upload("a"), pages=[upload("b"), upload("c")])
        session.add(doc)
        session.commit()
        session.add(app.Doc(id=2, file=doc.file, cover=app.give("given")))  # a copy, which is a link, and another link
        session.commit()
    with machine.cut(tmp_path / "after").started() as later:
        assert later.state() == {"1.file": ["a"], "1.pages": ["b", "c"], "2.file": ["a"], "2.cover": ["given"]}
        assert len(later.problems()) == (0 if durable else 5)


@pytest.mark.parametrize("durable", [True, False])
def test_a_deleted_file_does_not_come_back(machine: Machine, durable: bool, tmp_path: Path) -> None:
    """With ``durable=false`` it does, as a stranger that no line knows."""
    app = machine.application(f"local:{machine.files.folder}/files?durable={durable}")
    app.create()
    with app.session() as session:
        doc = app.Doc(id=1, file=upload("a"), cover=upload("b"))
        session.add(doc)
        session.commit()
        os.sync()
        doc.file = None
        session.commit()
    assert app.files.settled(10)
    assert app.problems(swept=True) == []
    with machine.cut(tmp_path / "after").started() as later:
        assert later.state() == {"1.cover": ["b"]}
        assert len(later.problems(swept=True)) == (0 if durable else 1)


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_file_given_away_is_named_or_still_there(machine: Machine, journal: str, tmp_path: Path) -> None:
    """It is removed when the commit is durable, not before."""
    machine.pragmas = JOURNALS[journal]
    app = machine.application()
    app.create()
    given = app.given / "given"
    given.write_bytes(content("given"))
    settle_in(app)
    with app.session() as session:
        session.add(app.Doc(id=1, file=app.give("given")))
        session.commit()
    assert app.files.settled(10)
    assert not given.exists()
    machine.files.flush()
    with machine.cut(tmp_path / "after").started() as later:
        assert later.problems() == []
        assert later.state().get("1.file") == ["given"] or (later.given / "given").exists()


@pytest.mark.parametrize("journal", JOURNALS)
def test_a_dropped_file_whose_commit_was_lost_is_still_there(machine: Machine, journal: str, tmp_path: Path) -> None:
    """With WAL and ``synchronous=NORMAL`` a commit is not on the disk when it returns, and a purge waits for that."""
    machine.pragmas = JOURNALS[journal]
    states = []
    cuts: list[Machine] = []
    storage = Faulty(LocalStorage(machine.files.folder / "files"))
    for after in (False, True):
        storage.at("delete", None, lambda: cuts.append(machine.cut(tmp_path / str(len(cuts)))), after=after)
    app = machine.application(storage)
    app.create()
    with app.session() as session:
        doc = app.Doc(id=1, file=upload("old"))
        session.add(doc)
        session.commit()
        os.sync()
        doc.file = upload("new")
        session.commit()
        cuts.append(machine.cut(tmp_path / "committed"))
    for cut in cuts:
        with cut.started() as later:
            assert later.problems() == []
            states.append(later.state()["1.file"])
    # The bytes are deleted only after the disk knows that no row names them.
    assert states == [["new"], ["new"], ["new"]]


def test_a_commit_can_be_lost_with_wal(machine: Machine, tmp_path: Path) -> None:
    """What the other tests rely on: where nothing has to be purged, nothing makes the commit durable."""
    machine.pragmas = JOURNALS["wal"]
    app = machine.application()
    app.create()
    settle_in(app)
    with app.session() as session:
        session.add(app.Doc(id=1, file=upload("a")))
        session.commit()
    with machine.cut(tmp_path / "after").started() as later:
        assert later.state() == {"0.file": ["first"]}
        assert later.sweep().ok
        assert later.problems(swept=True) == []


DRIVERS: dict[str, dict[str, Any]] = {
    "begin sent by an event": {},
    "begin by the driver": {"legacy": True},
    "always in a transaction": {"legacy": True, "connect_args": {"autocommit": False}},
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("journal", JOURNALS)
def test_claims_are_durable_and_the_users_setting_comes_back(
    open_engine: Callable[..., Engine], journal: str, driver: str, tmp_path: Path
) -> None:
    """The same by what SQLite is told, where no disk can be cut off."""
    if "always" in driver and sys.version_info < (3, 12):
        pytest.skip("sqlite3's autocommit is new in Python 3.12")
    engine = open_engine(f"sqlite:///{tmp_path}/test.db", durable=True, **DRIVERS[driver])
    event.listen(engine, "connect", lambda driver, record: setting(driver, JOURNALS[journal]))
    app = Application(engine, tmp_path, budget=PATIENT)
    app.create()
    levels: list[tuple[str, int]] = []

    @event.listens_for(app.engine, "commit")
    def commit(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        (waiting,) = driver.execute("SELECT count(*) FROM attachment_ledger WHERE state = 'purging'").fetchone()
        (level,) = driver.execute("PRAGMA synchronous").fetchone()
        levels.append(("claim" if waiting else "other", level))

    with app.session() as session:
        doc = app.Doc(id=1, file=upload("old"))
        session.add(doc)
        session.commit()
        doc.file = None
        levels.clear()
        session.commit()
    usual = {"delete": FULL, "wal": NORMAL}[journal]
    assert levels[0] == ("other", usual)
    assert ("claim", EXTRA) in levels
    assert ("claim", usual) not in levels
    with app.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == usual
