from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import ProgrammingError

from sa_attachments import BadConfiguration, FileMissing
from sa_attachments.key import mint
from sa_attachments.storages import StorageURL
from sa_attachments.storages.database import DatabaseStorage
from sa_attachments.testing import StorageContract
from sa_attachments.testing.probes import Stream, listed, put, raises, read


@pytest.fixture
def storage(engine: Engine) -> DatabaseStorage:
    storage = DatabaseStorage(engine)
    storage.create_tables()
    return storage


@pytest.mark.parametrize("engine", ["sqlite", "postgres", "mariadb"], indirect=True)
class TestDatabase(StorageContract):
    @pytest.fixture
    def storage(self, storage: DatabaseStorage) -> DatabaseStorage:
        return storage


def address(engine: Engine) -> StorageURL:
    """An engine's URL as that of a storage; MariaDB's has options."""
    escaped = engine.url.render_as_string(hide_password=False).replace("?", "%3F").replace("&", "%26")
    return StorageURL(f"db:{escaped}?create=true")


on_servers = pytest.mark.parametrize("engine", ["postgres", "mariadb"], indirect=True)
on_some = pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)


@pytest.mark.parametrize("engine", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_says_how_to_make_its_tables(engine: Engine) -> None:
    storage = DatabaseStorage(engine, create=False)
    for verb in (lambda: put(storage, "key", b"x"), lambda: storage.stat("key"), lambda: listed(storage)):
        with pytest.raises(LookupError, match=r"no table 'attachment_file' in .*create_tables\(\).*'\?create=true'"):
            verb()
    storage.create_tables()
    put(storage, "key", b"x")
    assert read(storage, "key") == b"x"


@on_some
def test_a_large_file_is_in_pieces_and_comes_back(engine: Engine) -> None:
    storage = DatabaseStorage(engine, piece_size=64, create=True)
    data = os.urandom(1_000_003)
    key = mint()
    storage.put(key, io.BytesIO(data), size=None, content_type="video/mp4")
    assert hashlib.sha256(read(storage, key)).digest() == hashlib.sha256(data).digest()
    with storage.open(key, 65_530, 65_550) as file:
        assert file.read() == data[65_530:65_550]
    with engine.connect() as connection:
        sizes = connection.scalars(text("SELECT length(data) FROM attachment_file_piece ORDER BY number")).all()
    assert sizes == [65_536] * 15 + [1_000_003 - 15 * 65_536]


@on_some
def test_pieces_may_have_another_size_than_when_the_file_was_stored(engine: Engine) -> None:
    data = os.urandom(300_000)
    key = put(DatabaseStorage(engine, piece_size=64, create=True), mint(), data)
    later = DatabaseStorage(engine, piece_size=16)
    copied = mint()
    later.copy(key, copied)
    assert read(later, key) == read(later, copied) == data


@on_some
def test_nothing_is_left_of_a_file_that_was_deleted_or_failed(engine: Engine) -> None:
    storage = DatabaseStorage(engine, piece_size=1, create=True)
    storage.delete([put(storage, mint(), bytes(5000))])
    with raises(RuntimeError):
        storage.put(mint(), Stream([bytes(5000), RuntimeError("broken")]), size=None, content_type="text/plain")
    with engine.connect() as connection:
        for table in storage.metadata.tables.values():
            assert connection.execute(select(table)).all() == []


@on_some
def test_a_file_that_is_deleted_while_it_is_read_is_missing(engine: Engine) -> None:
    storage = DatabaseStorage(engine, piece_size=1, create=True)
    key = put(storage, mint(), bytes(5000))
    with storage.open(key) as file:
        assert len(file.read(10)) == 10
        storage.delete([key])
        with raises(FileMissing):
            file.read()


@on_some
def test_listing_goes_page_by_page(engine: Engine) -> None:
    storage = DatabaseStorage(engine, create=True)
    keys = sorted(put(storage, f"2026/{n:04}", b"") for n in range(1005))
    assert listed(storage) == keys
    assert [key for key, _ in storage.keys("2026/0998", "2026/1002")] == keys[999:1002]


def test_comes_from_a_url(tmp_path: Path) -> None:
    url = StorageURL(f"db:sqlite:///{tmp_path}/files.db?table=blobs&create=true&piece_size=1")
    storage = DatabaseStorage.from_url(url)
    assert read(storage, put(storage, "key", b"x")) == b"x"
    assert sorted(storage.metadata.tables) == ["blobs", "blobs_piece"]
    storage.engine.dispose()


def test_options_of_the_driver_are_escaped() -> None:
    url = StorageURL(
        "db:postgresql+psycopg://me:a%3Fb@db/files%3fsslmode=require%26application_name=a%2520b?parallel=2"
    )
    found = DatabaseStorage.from_url(url).engine.url
    assert (found.password, found.database) == ("a?b", "files")
    assert found.query == {"sslmode": "require", "application_name": "a b"}


def test_mistakes_are_explained_and_passwords_are_not_shown() -> None:
    with pytest.raises(BadConfiguration, match="expected the URL of a database"):
        DatabaseStorage.from_url(StorageURL("db:nonsense"))
    with pytest.raises(BadConfiguration, match="in memory each thread has a database of its own"):
        DatabaseStorage.from_url(StorageURL("db:sqlite://"))
    with pytest.raises(BadConfiguration, match=r"postgresql\+asyncpg is for asyncio"):
        DatabaseStorage.from_url(StorageURL("db:postgresql+asyncpg://app:hidden@db/files"))
    with pytest.raises(BadConfiguration, match=r"no option 'colour'; there are .*'piece_size'") as raised:
        DatabaseStorage.from_url(StorageURL("db:postgresql+psycopg://app:hidden@db/files?colour=red"))
    assert "hidden" not in str(raised.value)
    storage = DatabaseStorage.from_url(StorageURL("db:postgresql+psycopg://app:hidden@db/files"))
    assert "hidden" not in repr(storage)
    storage = DatabaseStorage.from_url(StorageURL("db:postgresql+psycopg://app:a@hidden@db/files%3Fpassword=hidden"))
    assert "hidden" not in repr(storage)


@on_servers
def test_what_fails_does_not_show_the_bytes(engine: Engine) -> None:
    storage = DatabaseStorage.from_url(address(engine))
    put(storage, "key", b"x")
    with storage.engine.begin() as connection:
        connection.execute(text("DROP TABLE attachment_file_piece"))
    with pytest.raises(ProgrammingError, match="attachment_file_piece") as raised:
        put(storage, "other", b"private")
    assert "private" not in str(raised.value)
    storage.engine.dispose()


@on_servers
def test_a_forked_child_has_connections_of_its_own(engine: Engine) -> None:
    """Two processes on one connection read each other's answers: files that are there were missing."""
    storage = DatabaseStorage.from_url(address(engine))
    key = put(storage, mint(), bytes(500_000))
    with storage.open(key) as file:  # as a response that goes on in the parent
        file.read(10)
        child = os.fork()
        if child == 0:
            good = False
            try:
                good = all(read(storage, key) == bytes(500_000) for _ in range(20))
            finally:
                os._exit(0 if good else 1)
        assert all(read(storage, key) == bytes(500_000) for _ in range(20))
        assert os.waitpid(child, 0)[1] == 0
        assert file.read() == bytes(500_000 - 10)
    storage.engine.dispose()


@on_servers
def test_files_may_lie_beside_the_rows(engine: Engine, open_engine: Callable[..., Engine]) -> None:
    """The storage has connections of its own, so that rolling back the rows does not roll back the file."""
    storage = DatabaseStorage(open_engine(engine.url), create=True)
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"))
        key = put(storage, mint(), b"x")
        connection.rollback()
    assert read(storage, key) == b"x"


@on_some
def test_tables_are_made_by_whatever_comes_first(engine: Engine) -> None:
    """Even by several at once: the first thing that is asked of a storage is whose place it is."""
    storages = [DatabaseStorage(engine, create=True, table="blobs") for _ in range(2)]
    barrier = Barrier(4)

    def ask(storage: DatabaseStorage) -> None:
        barrier.wait()
        with pytest.raises(FileMissing):
            storage.stat("a")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, storages * 2))
    assert listed(DatabaseStorage(engine, create=True, table="others")) == []
