"""Sweeps in company: of another sweep, of open transactions, of writers; several threads and processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from sa_attachments import Attachment
from sa_attachments.patience import raise_unless_held
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty

from .crowd import meanwhile, together
from .patience import within
from .site import AT_ONCE, Site

on = pytest.mark.parametrize


@pytest.fixture
def storage() -> Faulty:
    return Faulty(MemoryStorage(parallel=4))


@pytest.fixture
def site(engine: Engine, storage: Faulty) -> Site:
    return Site(engine, {"default": storage})


def litter(site: Site, storage: Faulty) -> None:
    """One file that a row names, some that were dropped and not deleted, some that nobody ever owned."""
    site.add(b"kept")
    storage.fail("delete")
    for key in [site.add(b"dropped %d" % number) for number in range(5)]:
        site.remove(key)
    assert site.files.settled(20)
    storage.heal()
    for number in range(5):
        site.files.stage(Attachment.upload(b"stranger %d" % number))


# Two at the same time


@on("engine", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_two_sweeps_at_the_same_time_do_the_work_of_one(site: Site, storage: Faulty) -> None:
    for _ in range(3):
        litter(site, storage)
        together(site.sweep, site.sweep, site.sweep)
        assert site.sweep().ok
        site.check()
    assert site.read() == [b"kept"] * 3


@on("engine", ["sqlite", "postgres"], indirect=True)
def test_a_sweep_that_another_one_overtakes_deletes_nothing_twice_in_vain(site: Site, storage: Faulty) -> None:
    """The first one hangs while it deletes; the second one does all of it; the first one finds it done."""
    litter(site, storage)
    storage.hang("delete", 1)

    def second() -> None:
        assert storage.wait_for_hang()
        assert site.sweep().ok
        assert sorted(storage.inner.open(key).read() for key, _ in storage.inner.keys("0")) == [b"kept"]
        storage.heal()

    together(site.sweep, second)
    site.check()


@on(("sqlstate", "code", "held"), [("40001", 1213, True), ("HY000", 1205, True), ("42S02", 1146, False)])
def test_what_a_sweep_takes_for_a_lock_on_mariadb(sqlstate: str, code: int, held: bool) -> None:
    """PyMySQL tells a number and an SQLSTATE, which is the same for errors of many kinds."""
    origin = OSError(code, "said the server")
    origin.sqlstate = sqlstate  # type: ignore[attr-defined]
    error = OperationalError("INSERT", None, origin)
    if held:
        raise_unless_held(error)
    else:
        with pytest.raises(OperationalError):
            raise_unless_held(error)


# Open transactions


@on("engine", ["sqlite", "sqlite-legacy", "postgres", "mariadb"], indirect=True)
@on("end", ["commit", "rollback"])
def test_a_sweep_leaves_an_open_transaction_alone(site: Site, storage: Faulty, end: str) -> None:
    key = site.add(b"old")
    litter(site, storage)
    with site.session() as session:
        session.get_one(site.Doc, key).file = b"new"
        session.add(site.Doc(pages=[b"one", b"two"]))
        session.flush()
        with within(10):
            assert site.sweep().ok
        assert {b"old", b"new", b"one", b"two", b"kept"} <= set(_bytes(storage))
        getattr(session, end)()
    assert site.sweep().ok
    site.check()
    assert sorted(site.read()) == sorted([b"kept", b"new", b"one", b"two"] if end == "commit" else [b"kept", b"old"])


@on("engine", ["sqlite-memory"], indirect=True)
@on("end", ["commit", "rollback"])
def test_a_sweep_does_not_end_the_transaction_that_shares_its_connection(site: Site, storage: Faulty, end: str) -> None:
    """Hole 18: in memory, all connections of a thread are one."""
    site.add(b"old")
    with site.session() as session:
        session.add(site.Doc(file=b"new"))
        session.flush()
        site.files.sweep(site.engine, grace=AT_ONCE, stranger_retain=AT_ONCE)
        getattr(session, end)()
    assert site.files.settled(20)
    assert site.sweep().ok
    site.check()
    assert site.read() == [b"old", *([b"new"] if end == "commit" else [])]


@on("engine", ["postgres"], indirect=True)
@on("end", ["COMMIT", "ROLLBACK"])
def test_a_prepared_transaction_is_left_alone_however_long_it_takes(site: Site, storage: Faulty, end: str) -> None:
    """Its files are in flight until somebody decides, whatever became of the process that prepared it."""
    site.add(b"old")
    session = Session(site.engine, twophase=True)
    session.add(site.Doc(file=b"new"))
    session.prepare()
    with site.engine.connect() as connection:
        name = connection.scalar(text("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"))
    session.info.clear()
    session.invalidate()
    for _ in range(2):
        assert site.sweep()["default"].skipped == 1
        assert sorted(_bytes(storage)) == [b"new", b"old"]
    with site.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"{end} PREPARED '{name}'"))
    assert site.sweep().ok
    site.check()
    assert site.read() == [b"old", *([b"new"] if end == "COMMIT" else [])]


# Writers


@on("engine", ["sqlite-immediate", "postgres", "mariadb"], indirect=True)
@on("repair", [False, True], ids=["look", "repair"])
def test_verify_while_writers_write_harms_nothing(site: Site, storage: Faulty, repair: bool) -> None:
    with meanwhile(lambda: site.files.verify(site.engine, repair=repair, checksums=True)):
        together(*(lambda number=number: _write(site, number) for number in range(2)))  # type: ignore[misc]
    assert site.files.settled(20)
    site.sweep()
    site.check()
    assert site.files.verify(site.engine).ok


@on("engine", ["sqlite-immediate", "postgres", "mariadb"], indirect=True)
def test_threads_with_one_storages(site: Site, storage: Faulty) -> None:
    together(*(lambda number=number: _write(site, number) for number in range(4)))  # type: ignore[misc]
    assert site.files.settled(20)
    site.sweep()
    site.check()
    assert len(site.read()) == 4 * 2


def _write(site: Site, number: int, turns: int = 6) -> None:
    """Leaves one document with two files."""
    with site.session() as session:
        doc = site.Doc(file=b"%d" % number, pages=[b"p", b"q"])
        session.add(doc)
        session.commit()
        for turn in range(turns):
            doc.file = b"%d-%d" % (number, turn)
            doc.pages = [b"r", *doc.pages][:2] if turn % 2 else doc.pages[::-1]
            session.flush()
            passing = site.Doc(file=b"passing")
            session.add(passing)
            session.flush()
            session.delete(passing)
            session.rollback() if turn == 2 else session.commit()
        doc.pages = doc.pages[:1]
        session.commit()


PROGRAM = """
import json, os, sys
from datetime import timedelta
sys.path.insert(0, sys.argv[3])
from sa_attachments.storages.local import LocalStorage
from tests.engines import open_engine
from tests.faults.site import Site, begin_immediately
from tests.faults.test_sweeps import _write

if sys.argv[1].startswith("sqlite"):
    engine = begin_immediately(open_engine(sys.argv[1], legacy=True, connect_args={"timeout": 30}))
else:
    engine = open_engine(sys.argv[1])
site = Site(engine, {"default": LocalStorage(sys.argv[2], durable=False)})
_write(site, 0)                    # its worker has run, its pool holds connections, its place is known
assert site.files.settled(20)
children = []
for number in (1, 2):
    child = os.fork()
    if child == 0:
        engine.dispose(close=False)
        code = 1
        try:
            _write(site, number)
            assert site.files.settled(20)
            site.sweep(grace=timedelta(seconds=30), full=False)
            code = 0
        finally:
            os._exit(code)
    children.append(child)
_write(site, 3)
codes = [os.waitpid(child, 0)[1] for child in children]
site.sweep()
site.check()
print(json.dumps({"codes": codes, "files": len(site.read())}))
"""


@on("database", ["sqlite", "postgres"])
def test_processes_that_were_forked_with_one_storages(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The child has a queue of its own and mints keys of its own; the parent's worker is not there."""
    url = f"sqlite:///{tmp_path}/test.db"
    if database == "postgres":
        url = request.getfixturevalue("postgres_url").render_as_string(hide_password=False)
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", PROGRAM, url, str(tmp_path / "files"), root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"codes": [0, 0], "files": 4 * 2}


def test_a_read_only_storage_is_swept_by_doing_nothing(tmp_path: Path, open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/test.db")
    site = Site(engine, {"default": f"local:{tmp_path}/files"})
    site.add(b"one")
    site.files.stage(Attachment.upload(b"stranger"))
    before = sorted(tmp_path.rglob("files/**/*"))
    reader = Site(engine, {"default": f"local:{tmp_path}/files?readonly=true"})
    report = reader.sweep()
    assert (report.ok, report["default"].listed, report["default"].purged) == (True, 0, 0)
    assert sorted(tmp_path.rglob("files/**/*")) == before
    assert reader.read() == [b"one"]


def _bytes(storage: Faulty) -> list[bytes]:
    return [storage.inner.open(key).read() for key, _ in storage.inner.keys("0")]


def test_a_sweep_that_fails_for_one_database_says_so(tmp_path: Path, open_engine: Callable[..., Engine]) -> None:
    """A ledger that is not there is no empty one."""
    site = Site(open_engine(f"sqlite:///{tmp_path}/a.db"), {"default": f"local:{tmp_path}/files"})
    site.add(b"one")
    with pytest.raises(Exception, match=r"attachment_storage|attachment_ledger"):
        site.files.sweep(open_engine(f"sqlite:///{tmp_path}/b.db"), grace=timedelta(0))
    assert site.read() == [b"one"]
    with site.session() as session:
        assert session.scalar(select(site.Doc.id)) == 1
