"""Places: only the database that a place belongs to may delete there; on any doubt nobody may."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import subprocess
import warnings
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, MetaData, create_engine, select, text

from sa_attachments import AttachmentWarning, StorageFailed
from sa_attachments.birth import born
from sa_attachments.ledger import Ledger
from sa_attachments.offload import run
from sa_attachments.places import MARKER, Places, read_marker, replace_marker, write_marker
from sa_attachments.storages.local import LocalStorage
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty
from tests.archive import DIALECTS, Archive

on = pytest.mark.parametrize
everywhere = on("engine", DIALECTS, indirect=True)
sqlite = on("engine", ["sqlite"], indirect=True)


class Registered:
    """A database and its ``Places``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.places = Places()
        metadata = MetaData()
        self.ledger = Ledger.of(metadata)
        metadata.create_all(engine)

    def problem(self, storage: Any, name: str = "default", **options: Any) -> str | None:
        return self.places.problem(self.engine.begin, self.ledger, name, storage, run, **options)

    def take_over(self, storage: Any, name: str = "default") -> None:
        with self.engine.begin() as connection:
            self.places.take_over(connection, self.ledger, name, storage, run)

    def identity(self, name: str = "default") -> str:
        with self.engine.connect() as connection:
            return self.places.identity(connection, self.ledger, name)

    def row(self) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(select(self.ledger.places)).one_or_none()


@pytest.fixture
def database(engine: Engine) -> Registered:
    return Registered(engine)


@pytest.fixture
def other(tmp_path: Path, open_engine: Callable[..., Engine]) -> Registered:
    return Registered(open_engine(f"sqlite:///{tmp_path}/other.db"))


# A place of one's own


@sqlite
def test_no_transaction_is_open_while_a_storage_works(database: Registered) -> None:
    """A storage may hang, and the pool is the application's."""
    checked_out: list[int] = []
    storage = Faulty(MemoryStorage())
    storage.at("*", None, lambda: checked_out.append(database.engine.pool.checkedout()))  # type: ignore[attr-defined]
    for _ in range(2):  # marked, and known
        assert database.problem(storage) is None
    assert checked_out == [0, 0, 0]


@sqlite
def test_a_place_that_is_marked_after_a_look_at_it_is_looked_at_again(database: Registered) -> None:
    """By another process, which the database knows of already."""
    storage = MemoryStorage()

    def read() -> str | None:
        marker = read_marker("default", storage)
        assert database.problem(storage) is None
        return marker

    assert database.problem(storage, read=read) is None


@everywhere
def test_a_place_that_is_nobodys_is_marked_and_registered(database: Registered) -> None:
    storage = MemoryStorage()
    assert database.problem(storage) is None
    marker = read_marker("default", storage)
    assert marker == database.identity()
    assert UUID(marker)
    assert database.row()[:2] == ("default", marker)
    assert database.problem(storage) is None
    assert Registered(database.engine).problem(storage) is None  # another process


@everywhere
def test_a_place_that_was_only_met_is_marked_and_registered_later(database: Registered) -> None:
    """The first staging marks it, before its transaction is committed."""
    storage = MemoryStorage()
    assert database.problem(storage, register=False) is None
    assert database.row() is None
    assert read_marker("default", storage) == database.identity()
    assert database.problem(storage) is None
    assert database.row() is not None


@sqlite
def test_the_marker_is_no_file_of_ours(database: Registered) -> None:
    storage = MemoryStorage()
    database.problem(storage)
    assert list(storage.keys()) == []
    assert storage.stat(MARKER).size == 36


@sqlite
def test_each_name_and_each_schema_has_an_identity_of_its_own(database: Registered) -> None:
    assert database.identity("default") == database.identity("default") != database.identity("other")
    with database.engine.connect() as connection:
        translated = connection.execution_options(schema_translate_map={None: "tenant"})
        assert database.places.identity(translated, database.ledger, "default") != database.identity()


# Somebody else's


@sqlite
def test_a_database_whose_rows_are_another_ones(database: Registered, other: Registered) -> None:
    """A copy took the place over; then the rows of the original were restored into it, and name files of that time."""
    storage = MemoryStorage()
    assert other.problem(storage) is None
    database.take_over(storage)
    name, _, fingerprint = other.row()[:3]
    with database.engine.begin() as connection:
        places = database.ledger.places
        connection.execute(places.update().where(places.c.name == name).values(fingerprint=fingerprint))
    assert "belongs to another database" in (database.problem(storage) or "")


@sqlite
def test_the_place_of_another_database(database: Registered, other: Registered) -> None:
    storage = MemoryStorage()
    assert other.problem(storage) is None
    problem = database.problem(storage)
    assert problem is not None
    assert "belongs to another database or storage name" in problem
    assert "'?readonly=true'" in problem
    assert "takeover" in problem
    assert database.row() is None
    assert other.problem(storage) is None


@sqlite
def test_a_second_name_for_one_place(database: Registered) -> None:
    storage = MemoryStorage()
    assert database.problem(storage, "one") is None
    assert "belongs to another database or storage name" in (database.problem(storage, "two") or "")
    assert database.problem(storage, "one") is None


@sqlite
def test_another_folder_under_the_same_name(database: Registered) -> None:
    """A wrong working directory, a volume that is not mounted: the place has no marker."""
    assert database.problem(MemoryStorage()) is None
    empty = MemoryStorage()
    assert "'default', <MemoryStorage of 0 files>, is another one than before" in (database.problem(empty) or "")
    assert read_marker("default", empty) is None


@sqlite
def test_a_marker_that_is_nonsense(database: Registered) -> None:
    storage = MemoryStorage()
    storage.put(MARKER, io.BytesIO(b"\xff nonsense"), size=None, content_type="")
    assert "belongs to another database" in (database.problem(storage) or "")


@sqlite
def test_a_readonly_storage_is_nobodys_to_delete_in(database: Registered) -> None:
    storage = MemoryStorage(readonly=True)
    assert database.problem(storage) == "storage 'default' is read-only"
    assert database.row() is None


@sqlite
def test_two_that_come_at_the_same_time_have_one_winner(database: Registered, other: Registered) -> None:
    storage = Faulty(MemoryStorage())
    storage.at("put", 1, lambda: storage.heal() and write_marker("default", storage.inner, other.identity()))
    assert "belongs to another database" in (database.problem(storage) or "")
    assert other.problem(storage) is None


@sqlite
@on("verb", ["open", "put"])
def test_a_place_that_cannot_be_looked_at_is_an_error_and_no_answer(database: Registered, verb: str) -> None:
    storage = Faulty(MemoryStorage()).fail(verb)
    with pytest.raises(StorageFailed, match=r"failed to (read its marker|mark its place): "):
        database.problem(storage)
    assert database.row() is None


# Copies, moves and restored backups of the database


@sqlite
def test_a_copied_sqlite_file_is_another_database(
    database: Registered, tmp_path: Path, open_engine: Callable[..., Engine]
) -> None:
    storage = MemoryStorage()
    assert database.problem(storage) is None
    database.engine.dispose()
    shutil.copy(tmp_path / "test.db", tmp_path / "copy.db")
    copied = Registered(open_engine(f"sqlite:///{tmp_path}/copy.db"))
    assert "a restored copy" in (copied.problem(storage) or "")
    assert database.problem(storage) is None


@sqlite
def test_a_copy_that_gets_the_inode_of_a_replaced_file_is_another_database(
    database: Registered, tmp_path: Path, open_engine: Callable[..., Engine]
) -> None:
    """Who compacts a database frees its inode, and the next copy gets it."""
    storage = MemoryStorage()
    assert database.problem(storage) is None
    database.engine.dispose()
    if born(tmp_path / "test.db") is None:
        pytest.skip("this file system does not tell when a file was made")
    inode = (tmp_path / "test.db").stat().st_ino
    with closing(sqlite3.connect(tmp_path / "test.db")) as connection:
        connection.execute("VACUUM INTO ?", [str(tmp_path / "new.db")])
    (tmp_path / "new.db").replace(tmp_path / "test.db")
    copies = [shutil.copy(tmp_path / "test.db", tmp_path / f"copy{number}.db") for number in range(20)]
    copy = next((copy for copy in copies if copy.stat().st_ino == inode), None)
    if copy is None:
        pytest.skip("this file system does not give out its inodes again")
    assert "a restored copy" in (Registered(open_engine(f"sqlite:///{copy}")).problem(storage) or "")
    compacted = Registered(open_engine(f"sqlite:///{tmp_path}/test.db"))
    assert "a file put in the place of the database's own" in (compacted.problem(storage) or "")
    compacted.take_over(storage)
    assert compacted.problem(storage) is None
    assert "a restored copy" in (Registered(open_engine(f"sqlite:///{copy}")).problem(storage) or "")


@sqlite
def test_a_database_that_is_compacted_where_it_is_stays_the_same(database: Registered) -> None:
    storage = MemoryStorage()
    assert database.problem(storage) is None
    with database.engine.connect() as connection:
        connection.connection.rollback()
        connection.connection.cursor().execute("VACUUM")
    assert database.problem(storage) is None


@sqlite
def test_a_moved_sqlite_file_is_the_same_database(
    database: Registered, tmp_path: Path, open_engine: Callable[..., Engine]
) -> None:
    storage = MemoryStorage()
    assert database.problem(storage) is None
    database.engine.dispose()
    (tmp_path / "folder").mkdir()
    (tmp_path / "test.db").rename(tmp_path / "folder" / "moved.db")
    assert Registered(open_engine(f"sqlite:///{tmp_path}/folder/moved.db")).problem(storage) is None


def test_a_sqlite_file_is_the_same_database_when_its_disk_gets_another_number(
    tmp_path: Path, open_engine: Callable[..., Engine]
) -> None:
    """XFS gives out its device number as the id of the file system, and that may be another one at the next start."""
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        pytest.skip("needs root and mkfs.xfs")
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    identities, volumes = set(), set()
    with ExitStack() as attached:
        for _ in range(2):
            device = subprocess.run(["losetup", "-f", "--show", str(image)], capture_output=True, text=True)
            if device.returncode:
                pytest.skip(f"needs loop devices: {device.stderr}")
            attached.callback(subprocess.run, ["losetup", "-d", device.stdout.strip()], check=True)
            if subprocess.run(["mount", "-t", "xfs", device.stdout.strip(), str(folder)]).returncode:
                pytest.skip("needs a kernel with XFS")
            with ExitStack() as mounted:
                mounted.callback(subprocess.run, ["umount", str(folder)], check=True)
                database = Registered(open_engine(f"sqlite:///{folder}/test.db"))
                mounted.callback(database.engine.dispose)
                identities.add(database.identity())
                volumes.add(os.statvfs(folder).f_fsid)
    assert (len(identities), len(volumes)) == (1, 2)


def test_databases_in_memory_differ() -> None:
    one, two = (Registered(create_engine("sqlite://")) for _ in range(2))
    assert one.identity() == one.identity() != two.identity()


@on("engine", ["postgres"], indirect=True)
def test_databases_of_one_server_differ(engine: Engine, database: Registered) -> None:
    with engine.connect() as connection:
        mine = database.places.fingerprint(connection, database.ledger)
        assert mine.startswith("postgresql/")
        assert mine.endswith(f"/{engine.url.database}")
    elsewhere = create_engine(engine.url.set(database="postgres"))
    with elsewhere.connect() as connection:
        other = database.places.fingerprint(connection, database.ledger)
    elsewhere.dispose()
    assert other != mine
    assert other.split("/")[1] == mine.split("/")[1]


@on("engine", ["postgres"], indirect=True)
def test_an_unprivileged_role_may_ask_whose_database_it_is(engine: Engine, database: Registered) -> None:
    with engine.connect() as connection:
        expected = database.places.fingerprint(connection, database.ledger)
        connection.execute(text("CREATE ROLE nobody_much"))
        connection.execute(text("SET LOCAL ROLE nobody_much"))
        assert database.places.fingerprint(connection, database.ledger) == expected
        connection.rollback()


@sqlite
def test_a_ledger_in_an_attached_file_is_known_by_that_file(
    database: Registered, tmp_path: Path, open_engine: Callable[..., Engine]
) -> None:
    """Several files may be attached by one name, one after the other; and one by several."""
    identities = []
    for name, file in [("tenant", "one"), ("tenant", "two"), ("other", "one"), ("tenant", "")]:
        ledger = Ledger.of(MetaData(schema=name))
        with database.engine.connect() as connection:
            path = f"{tmp_path}/{file}.db" if file else ":memory:"
            connection.execute(text(f"ATTACH '{path}' AS {name}"))
            ledger.lines.metadata.create_all(connection)
            connection.commit()
            identities.append(database.places.identity(connection, ledger, "default"))
            connection.invalidate()
    assert identities[0] == identities[2]
    assert len({*identities, database.identity()}) == 4
    assert Registered(open_engine(f"sqlite:///{tmp_path}/one.db")).identity() == identities[0]


@on("engine", [name for name in DIALECTS if name == "mariadb"], indirect=True)
def test_a_ledger_is_the_same_from_wherever_it_is_seen(engine: Engine, database: Registered) -> None:
    said = Ledger.of(MetaData(schema=engine.url.database))
    with engine.connect() as connection:
        assert database.places.identity(connection, said, "default") == database.identity()
        connection.execute(text("USE information_schema"))
        assert database.places.identity(connection, said, "default") == database.identity()
        connection.invalidate()


@on("engine", [name for name in DIALECTS if name == "mariadb"], indirect=True)
def test_databases_of_one_mariadb_differ(engine: Engine, database: Registered) -> None:
    with engine.connect() as connection:
        mine = database.places.fingerprint(connection, database.ledger)
        assert mine == database.places.fingerprint(connection, database.ledger)
        connection.execute(text("USE information_schema"))
        assert database.places.fingerprint(connection, database.ledger) != mine
        connection.invalidate()


# Taking over


@sqlite
def test_take_over_makes_the_place_belong_to_this_database(database: Registered, other: Registered) -> None:
    storage = MemoryStorage()
    other.problem(storage)
    database.take_over(storage)
    assert database.problem(storage) is None
    assert "belongs to another database" in (other.problem(storage) or "")
    other.take_over(storage)
    assert other.problem(storage) is None
    assert database.problem(storage) is not None


@sqlite
def test_take_over_of_a_place_without_a_marker(database: Registered) -> None:
    database.problem(MemoryStorage())
    moved = MemoryStorage()
    database.take_over(moved)
    assert database.problem(moved) is None


@sqlite
def test_replacing_the_marker_says_what_failed(database: Registered) -> None:
    storage = Faulty(MemoryStorage()).fail("put")
    with pytest.raises(StorageFailed):
        replace_marker("default", storage, "x")
    readonly = MemoryStorage(readonly=True)
    with pytest.raises(StorageFailed, match="failed to replace its marker: "):
        replace_marker("default", readonly, "x")


# What comes of it


@pytest.fixture
def archives(engine: Engine, tmp_path: Path, open_engine: Callable[..., Engine]) -> tuple[Archive, Archive]:
    """Two databases on one folder."""
    storage = LocalStorage(tmp_path / "files", durable=False)
    first = Archive(engine, {"default": storage})
    first.keep(b"first")
    second = Archive(open_engine(f"sqlite:///{tmp_path}/second.db"), {"default": storage})
    return first, second


def contents(archive: Archive) -> list[bytes]:
    storage = archive.files.resolve("default")
    return sorted(storage.open(key).read() for key, _ in storage.keys())  # noqa: SIM118


@sqlite
def test_two_databases_on_one_folder_delete_nothing_of_each_other(archives: tuple[Archive, Archive]) -> None:
    first, second = archives
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (id_,) = second.keep(b"second")
        second.remove(id_)
        assert "belongs to another database" in second.sweep().problem
        second.sweep(full=True)
    said = [str(each.message) for each in caught if each.category is AttachmentWarning]
    assert said
    assert all("belongs to another database" in each and "takeover" in each for each in said)
    assert contents(first) == [b"first", b"second"]
    swept = first.sweep(full=True)
    assert (swept.problem, swept.strangers) == (None, 1)
    second.files.takeover(second.engine)
    with pytest.warns(AttachmentWarning, match="belongs to another database"):
        assert first.sweep(full=True).problem is not None
    assert b"first" in contents(first)


@sqlite
def test_storing_goes_on_in_somebody_elses_place(archives: tuple[Archive, Archive]) -> None:
    _, second = archives
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttachmentWarning)
        (id_,) = second.keep(b"second")
        with second.session() as session:
            assert session.get_one(second.Doc, id_).file.read() == b"second"  # type: ignore[union-attr]


@sqlite
def test_a_place_is_looked_at_once_per_process(engine: Engine) -> None:
    archive = Archive(engine)
    for _ in range(3):
        archive.remove(*archive.keep(b"x"))
    looks = [call for call in archive.storage.calls if call.verb == "open" and call.args[0] == MARKER]
    assert len(looks) <= 2  # at the first staging, at the first purge
    archive.sweep()
    archive.sweep()
    looks = [call for call in archive.storage.calls if call.verb == "open" and call.args[0] == MARKER]
    assert len(looks) <= 4


def test_a_marker_is_written_once() -> None:
    storage = MemoryStorage()
    assert read_marker("default", storage) is None
    assert write_marker("default", storage, "one") == "one"
    assert write_marker("default", storage, "two") == "one"
    replace_marker("default", storage, "two")
    assert read_marker("default", storage) == "two"
