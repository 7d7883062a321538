"""One place, one ledger: whoever is not sure that a place is its own deletes nothing there, and says what to do.

Each ``Site`` is an application as one process sees it.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import sleep
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, func, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.orm import Session

from sa_attachments import Attachment, AttachmentType, AttachmentWarning, BadConfiguration, Storages
from sa_attachments.places import MARKER
from tests.servers import Server, free_port

from .site import AT_ONCE, Site

on = pytest.mark.parametrize

OTHER_OWNER = r"belongs to another database.*place of its own.*readonly=true.*sa-attachments takeover"
OTHER_PLACE = r"another one than before.*mount.*sa-attachments takeover"


def contents(folder: Path) -> list[bytes]:
    """The bytes of all files below a folder, but for the marker."""
    return sorted(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != MARKER)


@contextmanager
def undeleted(folder: Path) -> Iterator[None]:
    """Nothing that lies in the folder goes away."""
    before = contents(folder)
    yield
    gone = [data for data in before if data not in contents(folder)]
    assert gone == [], "deleted"


def kept_and_told(site: Site, folder: Path, told: str, names: tuple[str, ...] = ("default",)) -> None:
    """Neither settling nor sweeping deletes anything; both say why, and what to do. Storing goes on."""
    with undeleted(folder):
        with pytest.warns(AttachmentWarning, match=told):
            report = site.sweep()
        for name in names:
            assert not report.ok
            assert report[name].problem is not None
            assert (report[name].strangers, report[name].purged, report[name].unfinished) == (0, 0, 0)
        with pytest.warns(AttachmentWarning, match=told):
            verified = site.files.verify(site.engine)
        for name in names:
            assert name in verified.problems
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AttachmentWarning)
            key = site.add(b"added here", names[0])
            site.remove(key)
            assert site.files.settled(20)
        assert b"added here" in contents(folder)
        assert site.lines().count("condemned") >= 1, "the line must not go while the bytes stay"


@pytest.fixture(params=["sqlite", "postgres"])
def make_engine(
    request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]
) -> Iterator[Callable[[str], Engine]]:
    """``make_engine("a")`` opens a database of that name."""
    if request.param == "sqlite":
        yield lambda name: open_engine(f"sqlite:///{tmp_path}/{name}.db")
        return
    url: URL = request.getfixturevalue("postgres_url")
    made: list[str] = []

    def make(name: str) -> Engine:
        database = f"{url.database}_{name}_{uuid4().hex[:6]}"
        execute(url, f'CREATE DATABASE "{database}"')
        made.append(database)
        return open_engine(url.set(database=database))

    yield make
    for database in made:
        execute(url, f'DROP DATABASE "{database}" WITH (FORCE)')


def execute(url: URL, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


# Two databases


def test_two_databases_on_one_folder(make_engine: Callable[[str], Engine], folder: Path) -> None:
    first = Site(make_engine("first"), {"default": f"local:{folder}"})
    key = first.add(b"of the first")
    second = Site(make_engine("second"), {"default": f"local:{folder}"})
    with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
        second.add(b"of the second")
    kept_and_told(second, folder, OTHER_OWNER)
    assert first.read() == [b"of the first"]
    # The owner works on; files of the second database are strangers to it.
    first.remove(key)
    assert b"of the first" not in contents(folder)


def test_two_databases_that_meet_without_having_stored_anything(
    make_engine: Callable[[str], Engine], folder: Path
) -> None:
    """Whoever first stores there owns the place, and the other one says so."""
    first = Site(make_engine("first"), {"default": f"local:{folder}"})
    second = Site(make_engine("second"), {"default": f"local:{folder}"})
    assert first.sweep().ok
    assert second.sweep().ok
    first.add(b"of the first")
    with undeleted(folder), pytest.warns(AttachmentWarning, match=OTHER_OWNER):
        assert second.sweep()["default"].problem is not None


@on(
    "look",
    [
        pytest.param(lambda site: site.sweep(), id="sweep"),
        pytest.param(lambda site: site.files.move(site.engine, "spare", "theirs"), id="move"),
        pytest.param(lambda site: site.files.verify(site.engine, repair=True), id="verify"),
    ],
)
def test_a_place_is_not_taken_by_who_only_looks_at_it(
    make_engine: Callable[[str], Engine], folder: Path, look: Callable[[Site], Any]
) -> None:
    """As one of an application's databases does, before another one stores there."""
    names = {name: f"local:{folder}/{name}" for name in ("default", "theirs", "spare")}
    first, second = (Site(make_engine(name), names) for name in ("first", "second"))
    first.add(b"of the first")
    assert look(first).ok
    second.add(b"of the second", "theirs")
    for _ in range(2):
        with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
            first.sweep()
    assert second.read() == [b"of the second"]
    with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
        assert second.sweep()["theirs"].problem is None


# Two ledgers in one database


@pytest.fixture
def ledgers(
    postgres_url: URL, folder: Path, open_engine: Callable[..., Engine]
) -> tuple[Storages, Engine, list[Table]]:
    """One ``Storages`` and two schemas, each with tables and a ledger of its own, of whose MetaData none was named."""
    files = Storages({name: f"local:{folder}/{name}" for name in ("default", "theirs", "new")})
    engine = open_engine(postgres_url)
    tables = []
    for schema, storage in (("one", "default"), ("two", "theirs")):
        column = Column("file", AttachmentType(files, storage))
        tables.append(Table("docs", MetaData(schema=schema), Column("id", Integer, primary_key=True), column))
        with engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
            tables[-1].metadata.create_all(connection)
    return files, engine, tables


def add(files: Storages, engine: Engine, table: Table, storage: str | None = None) -> None:
    with engine.begin() as connection:
        file = files.stage(Attachment.upload(str(table.schema).encode()), connection, table.c.file, storage=storage)
        connection.execute(table.insert(), {"file": file})


@on("which", [0, 1])
def test_takeover_and_move_leave_each_place_to_the_ledger_that_has_its_files(
    ledgers: tuple[Storages, Engine, list[Table]], which: int
) -> None:
    """To the other one they would be strangers."""
    files, engine, tables = ledgers
    for table in tables:
        add(files, engine, table)
    files.takeover(engine, "default")
    files.takeover(engine, "theirs")
    assert files.move(engine, ("default", "theirs")[which], "new").ok
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttachmentWarning)
        for _ in range(2):
            sleep(0.01)
            files.sweep(engine, grace=AT_ONCE, stranger_retain=AT_ONCE, full=True)
    with engine.connect() as connection:
        for table in tables:
            assert connection.scalars(select(table.c.file)).one().read_text() == table.schema


def test_a_takeover_that_would_make_strangers_of_files_is_refused(
    ledgers: tuple[Storages, Engine, list[Table]], folder: Path
) -> None:
    files, engine, tables = ledgers
    with pytest.raises(BadConfiguration, match=r"none of the ledgers .* has files in 'new': store one first"):
        files.takeover(engine, "new")
    assert not (folder / "new" / MARKER).exists()
    add(files, engine, tables[0], "new")
    files.takeover(engine, "new")
    with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
        add(files, engine, tables[1], "new")
    before = (folder / "new" / MARKER).read_text()
    with pytest.raises(BadConfiguration, match="have files in 'new', whose place belongs to one: give each a storage"):
        files.takeover(engine, "new")
    assert (folder / "new" / MARKER).read_text() == before
    with pytest.raises(BadConfiguration, match="no mapped column uses these Storages"):
        Storages("memory:").takeover(engine)


def test_what_a_foreign_database_rolls_back_stays(make_engine: Callable[[str], Engine], folder: Path) -> None:
    """Even its own new files: what it believes to be one may be somebody else's."""
    Site(make_engine("first"), {"default": f"local:{folder}"}).add(b"of the first")
    second = Site(make_engine("second"), {"default": f"local:{folder}"})
    with Session(second.engine) as session:
        session.add(second.Doc(file=b"rolled back"))
        with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
            session.flush()
        with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
            second.roll_back(session)
    assert contents(folder) == [b"of the first", b"rolled back"]


# Restored copies


def copy_of(site: Site, folder: Path, tmp_path: Path, open_engine: Callable[..., Engine], name: str = "copy") -> Site:
    """The same application on a copy of its database, as a backup or a staging system has it."""
    if site.engine.dialect.name == "sqlite":
        site.engine.dispose()
        shutil.copy(str(site.engine.url.database), tmp_path / f"{name}.db")
        return Site(open_engine(f"sqlite:///{tmp_path}/{name}.db"), {"default": f"local:{folder}"})
    site.engine.dispose()
    url = site.engine.url
    execute(url.set(database="template1"), f'CREATE DATABASE "{url.database}_{name}" TEMPLATE "{url.database}"')
    return Site(open_engine(url.set(database=f"{url.database}_{name}")), {"default": f"local:{folder}"})


@pytest.fixture
def restored(
    make_engine: Callable[[str], Engine], folder: Path, tmp_path: Path, open_engine: Callable[..., Engine]
) -> Iterator[tuple[Site, Site, int]]:
    """The original, a copy of it, and the row that both have; the copy does not know of a file stored later."""
    original = Site(make_engine("original"), {"default": f"local:{folder}"})
    key = original.add(b"of both")
    copy = copy_of(original, folder, tmp_path, open_engine)
    original.add(b"of the original")
    yield original, copy, key
    copy.engine.dispose()
    if copy.engine.dialect.name == "postgresql":
        execute(original.engine.url, f'DROP DATABASE "{copy.engine.url.database}" WITH (FORCE)')


def test_a_copy_of_the_database_deletes_nothing(restored: tuple[Site, Site, int], folder: Path) -> None:
    original, copy, key = restored
    with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
        copy.remove(key)
    assert original.read() == [b"of both", b"of the original"]
    kept_and_told(copy, folder, OTHER_OWNER)
    assert original.read() == [b"of both", b"of the original"]


def test_after_a_takeover_the_former_owner_deletes_nothing(restored: tuple[Site, Site, int], folder: Path) -> None:
    original, copy, key = restored
    before = Site(original.engine, {"default": f"local:{folder}"})  # a process that knows nothing yet
    copy.files.takeover(copy.engine)
    with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
        before.remove(key)
    assert copy.read() == [b"of both"]
    kept_and_told(before, folder, OTHER_OWNER)
    # One that had found the place to be its own looks again at its next sweep, and believes that from then on.
    kept_and_told(original, folder, OTHER_OWNER)
    assert copy.read() == [b"of both"]


def test_after_a_takeover_the_new_owner_deletes(restored: tuple[Site, Site, int], folder: Path) -> None:
    _, copy, key = restored
    copy.files.takeover(copy.engine)
    report = copy.sweep()
    assert report.ok
    assert contents(folder) == [b"of both"]
    copy.remove(key)
    assert copy.sweep().ok
    assert contents(folder) == []
    assert copy.files.verify(copy.engine).problems == {}


def test_a_takeover_back(restored: tuple[Site, Site, int], folder: Path) -> None:
    original, copy, key = restored
    copy.files.takeover(copy.engine)
    original.files.takeover(original.engine)
    with undeleted(folder), pytest.warns(AttachmentWarning, match=OTHER_OWNER):
        copy.sweep()
    original.remove(key)
    assert contents(folder) == [b"of the original"]


def test_a_copy_that_is_read_only_reads_and_never_writes(
    restored: tuple[Site, Site, int], folder: Path, recwarn: pytest.WarningsRecorder
) -> None:
    original, copy, key = restored
    reader = Site(copy.engine, {"default": f"local:{folder}?readonly=true"})
    listing = sorted(path for path in folder.rglob("*"))
    assert reader.read() == [b"of both"]
    with Session(reader.engine) as session:
        session.add(reader.Doc(file=b"new"))
        with pytest.raises(OSError, match="readonly"):
            session.flush()
    reader.remove(key)
    reader.sweep()
    reader.files.verify(reader.engine, repair=True)
    assert sorted(path for path in folder.rglob("*")) == listing
    assert original.read() == [b"of both", b"of the original"]


def test_a_moved_database_and_a_moved_folder_keep_their_place(
    tmp_path: Path, folder: Path, open_engine: Callable[..., Engine]
) -> None:
    """A rename is no copy."""
    site = Site(open_engine(f"sqlite:///{tmp_path}/a.db"), {"default": f"local:{folder}"})
    key = site.add(b"one")
    site.engine.dispose()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a.db").rename(tmp_path / "elsewhere" / "b.db")
    folder.rename(tmp_path / "elsewhere" / "files")
    moved = Site(open_engine(f"sqlite:///{tmp_path}/elsewhere/b.db"), {"default": f"local:{tmp_path}/elsewhere/files"})
    assert moved.sweep().ok
    moved.remove(key)
    assert contents(tmp_path / "elsewhere" / "files") == []


def test_a_copy_of_a_database_that_was_compacted_into_another_file(
    tmp_path: Path, folder: Path, open_engine: Callable[..., Engine]
) -> None:
    """The copy may get the inode that the original file had; the database's new file is one that nobody knows."""
    url = {"default": f"local:{folder}"}
    original = Site(open_engine(f"sqlite:///{tmp_path}/a.db"), url)
    key = original.add(b"of both")
    original.engine.dispose()
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.execute("VACUUM INTO ?", [str(tmp_path / "new.db")])
    (tmp_path / "new.db").replace(tmp_path / "a.db")
    copies = [copy_of(original, folder, tmp_path, open_engine, f"copy{number}") for number in range(3)]
    compacted = Site(open_engine(f"sqlite:///{tmp_path}/a.db"), url)
    for site in (*copies, compacted):
        with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
            site.remove(key)
        kept_and_told(site, folder, OTHER_OWNER)
    compacted.files.takeover(compacted.engine)
    kept_and_told(copies[0], folder, OTHER_OWNER)
    assert compacted.sweep().ok
    assert contents(folder) == []


def test_a_physical_copy_of_a_server_passes_for_it_until_its_database_has_another_name(
    private_postgres: Callable[..., Server], tmp_path: Path, folder: Path, open_engine: Callable[..., Engine]
) -> None:
    """What the page on operations warns of, and the cure that it names."""
    server = private_postgres()
    url = make_url(server.url)
    execute(url, "CREATE DATABASE app")
    original = Site(open_engine(url.set(database="app")), {"default": f"local:{folder}"})
    key, other = original.add(b"one"), original.add(b"two")
    original.engine.dispose()
    server.stop()
    with copied(server) as copy:
        copied_url = make_url(copy.url)
        passes = Site(open_engine(copied_url.set(database="app")), {"default": f"local:{folder}"})
        passes.remove(other)
        assert contents(folder) == [b"one"]
        passes.engine.dispose()
        execute(copied_url, "ALTER DATABASE app RENAME TO staging")
        renamed = Site(open_engine(copied_url.set(database="staging")), {"default": f"local:{folder}"})
        with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
            renamed.remove(key)
        kept_and_told(renamed, folder, OTHER_OWNER)
        renamed.engine.dispose()
    server.start()
    assert b"one" in contents(folder)
    original.remove(key)
    assert b"one" not in contents(folder)


@contextmanager
def copied(server: Server) -> Iterator[Server]:
    """``cp -a`` of a server that is stopped, started beside it."""
    copy = Server(server.folder.with_name(f"{server.folder.name}-copy"), free_port(), server.settings)
    subprocess.run(["cp", "-a", str(server.folder), str(copy.folder)], check=True)
    copy.start()
    try:
        yield copy
    finally:
        copy.remove()


# Another folder


def test_a_wrong_working_directory(
    make_engine: Callable[[str], Engine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.mkdir()
    wrong.mkdir()
    monkeypatch.chdir(right)
    engine = make_engine("a")
    key = Site(engine, {"default": "local:./files"}).add(b"one")
    monkeypatch.chdir(wrong)
    lost = Site(engine, {"default": "local:./files"})
    with pytest.warns(AttachmentWarning, match=OTHER_PLACE):
        lost.remove(key)
    assert lost.lines() == ["condemned"], "the line must not go while the bytes stay"
    kept_and_told(lost, wrong / "files", OTHER_PLACE)
    assert contents(right) == [b"one"]
    monkeypatch.chdir(right)
    back = Site(engine, {"default": "local:./files"})
    assert back.sweep().ok
    assert contents(right) == []


def test_a_volume_that_is_not_mounted(make_engine: Callable[[str], Engine], folder: Path) -> None:
    engine = make_engine("a")
    site = Site(engine, {"default": f"local:{folder}"})
    key = site.add(b"one")
    site.add(b"two")
    volume = folder.rename(folder.with_name("volume"))
    folder.mkdir()
    alone = Site(engine, {"default": f"local:{folder}"})
    with pytest.warns(AttachmentWarning, match=OTHER_PLACE):
        alone.remove(key)
    kept_and_told(alone, folder, OTHER_PLACE)
    assert alone.lines().count("owned") == 1
    shutil.rmtree(folder)
    volume.rename(folder)
    assert Site(engine, {"default": f"local:{folder}"}).sweep().ok
    assert contents(folder) == [b"two"]


def test_a_volume_that_goes_away_while_the_process_runs_takes_no_lines_along(
    make_engine: Callable[[str], Engine], folder: Path
) -> None:
    """In the empty folder every file is missing, and missing files count as deleted."""
    site = Site(make_engine("a"), {"default": f"local:{folder}"})
    key, other = site.add(b"one"), site.add(b"two")
    site.remove(other)
    assert site.files.settled(20)
    volume = folder.rename(folder.with_name("volume"))
    folder.mkdir()
    site.remove(key)
    assert site.files.settled(20)
    assert site.lines() == ["purging"]
    folder.rmdir()
    volume.rename(folder)
    assert site.sweep()["default"].purged == 1
    assert (contents(folder), site.lines()) == ([], [])


def test_another_volume_that_comes_while_the_process_runs_takes_no_lines_along(
    make_engine: Callable[[str], Engine], folder: Path
) -> None:
    """As where a link is changed, or another application's volume is mounted over the folder."""
    Site(make_engine("b"), {"default": f"local:{folder}"}).add(b"of another application")
    theirs = folder.rename(folder.with_name("theirs"))
    site = Site(make_engine("a"), {"default": f"local:{folder}"})
    key, first = site.add(b"one"), site.add(b"two")
    site.remove(first)
    assert site.files.settled(20)
    ours = folder.rename(folder.with_name("ours"))
    theirs.rename(folder)
    site.remove(key)
    assert site.files.settled(20)
    assert site.lines() == ["purging"]
    folder.rename(theirs)
    ours.rename(folder)
    assert site.sweep()["default"].purged == 1
    assert (contents(folder), site.lines()) == ([], [])


def test_a_sweep_notices_a_volume_that_went_away_while_the_process_ran(
    make_engine: Callable[[str], Engine], folder: Path
) -> None:
    site = Site(make_engine("a"), {"default": f"local:{folder}"})
    key = site.add(b"one")
    assert site.sweep().ok
    folder.rename(folder.with_name("volume"))
    folder.mkdir()
    with pytest.warns(AttachmentWarning, match=OTHER_PLACE):
        assert site.sweep()["default"].problem is not None
    site.remove(key)
    assert site.lines() == ["condemned"]


def test_two_names_for_one_place(make_engine: Callable[[str], Engine], folder: Path) -> None:
    url = f"local:{folder}"
    site = Site(make_engine("a"), {"default": url, "again": url})
    key = site.add(b"by the first name")
    with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
        twin = site.add(b"by the second", "again")
    kept_and_told(site, folder, OTHER_OWNER, names=("again",))
    assert b"by the first name" in contents(folder)
    site.remove(twin)
    site.remove(key)
    assert b"by the first name" not in contents(folder)
    assert b"by the second" in contents(folder)


def test_two_names_that_were_swept_by_different_processes(make_engine: Callable[[str], Engine], folder: Path) -> None:
    """A key is known under whatever name: the file of the other name is no stranger, nor is it purged as one."""
    url = f"local:{folder}"
    engine = make_engine("a")
    Site(engine, {"first": url, "default": "first"}).add(b"by the first name")
    other = Site(engine, {"second": url, "default": "second"})
    with undeleted(folder):
        with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
            other.add(b"by the second")
        with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
            assert other.sweep()["second"].strangers == 0
    first = Site(engine, {"first": url, "default": "first"})
    with undeleted(folder):
        assert first.sweep().ok
    other.files.takeover(engine, "second")
    with undeleted(folder):
        assert other.sweep()["second"].strangers == 0


def test_an_override_in_tests_deletes_nothing(make_engine: Callable[[str], Engine], folder: Path) -> None:
    """The database of production, and a storage in memory: the line must not go while the bytes stay."""
    site = Site(make_engine("a"), {"default": f"local:{folder}"})
    key = site.add(b"one")
    with site.files.override("memory:"), undeleted(folder):
        with pytest.warns(AttachmentWarning, match=OTHER_PLACE):
            site.remove(key)
        assert site.lines() == ["condemned"]
        with pytest.warns(AttachmentWarning, match=OTHER_PLACE):
            assert site.sweep()["default"].problem is not None
        assert site.lines() == ["condemned"]
    assert site.sweep().ok
    assert contents(folder) == []
    assert site.lines() == []


def test_verify_writes_nothing_into_a_place(make_engine: Callable[[str], Engine], folder: Path) -> None:
    site = Site(make_engine("a"), {"default": f"local:{folder}"})
    assert site.files.verify(site.engine).ok
    assert not folder.exists()
    with site.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(text("attachment_storage"))) == 0


def test_verify_with_repair_takes_no_line_of_a_foreign_place(restored: tuple[Site, Site, int], folder: Path) -> None:
    original, copy, _ = restored
    with Session(copy.engine) as session:
        session.execute(text("DELETE FROM docs"))
        session.commit()
    with undeleted(folder):
        with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
            assert not copy.files.verify(copy.engine, repair=True).ok
        with pytest.warns(AttachmentWarning, match=OTHER_OWNER):
            copy.sweep()
    assert original.read() == [b"of both", b"of the original"]
