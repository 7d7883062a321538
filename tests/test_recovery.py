"""Recovery: what an ended transaction left is cleaned as the ledger says, whatever the session believed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from sa_attachments import AttachmentWarning, BadConfiguration
from sa_attachments.descriptor import Named
from sa_attachments.frames import Work
from sa_attachments.ledger import Drop, Line
from sa_attachments.patience import PATIENCE, Busy
from sa_attachments.places import write_marker
from sa_attachments.queries import CONDEMNED, GONE, OWNED, PURGING
from sa_attachments.source import PathSource
from sa_attachments.storages.memory import MemoryStorage
from tests.archive import DAY, DIALECTS, NO_TIME, Archive

on = pytest.mark.parametrize
everywhere = on("engine", DIALECTS, indirect=True)
sqlite = on("engine", ["sqlite"], indirect=True)
postgres = on("engine", ["postgres"], indirect=True)
servers = on("engine", [name for name in DIALECTS if name != "sqlite"], indirect=True)


@pytest.fixture
def archive(engine: Engine) -> Archive:
    archive = Archive(engine)
    archive.remove(*archive.keep(b"one"))
    archive.sweep()  # the place is registered
    return archive


def put(archive: Archive) -> Named:
    return Named("default", archive.stranger(NO_TIME), 8)


def identity(archive: Archive) -> Any:
    with archive.engine.connect() as connection:
        return archive.ledger.identity(connection)


def own(archive: Archive, *files: Named) -> None:
    with archive.engine.begin() as connection:
        archive.ledger.own(connection, [Line(file, "docs", "file") for file in files], DAY)


def settle(archive: Archive, committed: bool, **work: Any) -> None:
    archive.purger().settle(Work(**{"identities": {identity(archive)}, **work}), committed)


# Staged files


@everywhere
@on("committed", [True, False])
def test_a_staged_file_without_a_line_goes_whatever_the_session_believed(archive: Archive, committed: bool) -> None:
    """After a COMMIT that the server turned into a rollback, the session believes that it committed."""
    file = put(archive)
    settle(archive, committed, staged=[file])
    assert (archive.stored(), archive.states()) == ({}, {})


@everywhere
@on("committed", [True, False])
def test_a_staged_file_with_a_line_stays_whatever_the_session_believed(archive: Archive, committed: bool) -> None:
    """After a COMMIT whose answer got lost, the session believes that it was rolled back."""
    file = put(archive)
    own(archive, file)
    settle(archive, committed, staged=[file])
    assert archive.states() == {file.key: OWNED}
    assert set(archive.stored()) == {file.key}


@everywhere
def test_void_files_go_and_staged_ones_stay(archive: Archive) -> None:
    staged, void = put(archive), put(archive)
    own(archive, staged)
    settle(archive, True, staged=[staged], void=[void])
    assert set(archive.stored()) == {staged.key}
    assert archive.states() == {staged.key: OWNED}


@everywhere
def test_many_at_once(archive: Archive) -> None:
    files = [put(archive) for _ in range(600)]
    own(archive, *files[:10])
    settle(archive, False, staged=files)
    assert set(archive.stored()) == {file.key for file in files[:10]}
    assert len(archive.states()) == 10


@postgres
def test_another_ledger_says_nothing_of_a_file(archive: Archive) -> None:
    """Hole 1: SET search_path does not reach a second connection."""
    file = put(archive)
    settle(archive, False, staged=[file], identities={identity(archive) + 1})
    assert set(archive.stored()) == {file.key}
    assert archive.states() == {}


@everywhere
def test_what_several_ledgers_have_is_not_looked_for_in_one(archive: Archive) -> None:
    """A transaction may set another search path, or enter another database, between two flushes."""
    file = put(archive)
    settle(archive, False, staged=[file], identities={identity(archive), "another"})
    assert set(archive.stored()) == {file.key}
    assert archive.states() == {}


@servers
def test_that_a_place_is_ones_own_is_true_of_one_ledger(archive: Archive) -> None:
    """A copy of a schema has the lines of the original, and names its files."""
    (id_,) = archive.keep(b"one")
    file = archive.named(id_)
    archive.change(file.key, state=CONDEMNED, purge_after=1)
    for name, verdict in list(archive.places().items()):
        archive.places()[name] = verdict._replace(ledger="the original")
    settle(archive, True, dropped=[file])
    assert archive.states() == {file.key: CONDEMNED}


@servers
def test_connections_that_see_several_ledgers_are_refused(archive: Archive) -> None:
    """A sweep took the files of the ledger that has the place for strangers to another one."""
    purger = archive.purger()
    with purger.begin():
        pass
    archive.engine.dispose()
    with archive.engine.connect() as connection:  # as a program leaves it in the pool
        elsewhere = (
            "USE information_schema" if connection.dialect.name != "postgresql" else "SET search_path TO pg_temp"
        )
        connection.execute(text(elsewhere))
        connection.commit()
    with pytest.raises(BadConfiguration, match="see several tables 'attachment_ledger'"), purger.begin():
        pass
    archive.engine.dispose()


@servers
def test_an_owner_in_flight_is_not_waited_for(archive: Archive) -> None:
    """A prepared transaction may still commit."""
    file = put(archive)
    with archive.engine.connect() as owner:
        archive.ledger.own(owner, [Line(file, "docs", "file")], DAY)
        started = time.perf_counter()
        with pytest.raises(OperationalError):
            settle(archive, False, staged=[file])
        assert time.perf_counter() - started < 10  # MariaDB counts in seconds
        owner.commit()
    assert archive.states() == {file.key: OWNED}
    assert set(archive.stored()) == {file.key}


# Dropped files


@everywhere
def test_a_dropped_file_is_purged_if_the_ledger_says_so(archive: Archive) -> None:
    gone, retained, rolled_back = put(archive), put(archive), put(archive)
    own(archive, gone, retained, rolled_back)
    with archive.engine.begin() as connection:
        archive.ledger.drop(connection, [Drop(gone), Drop(retained, 60_000, {"a": 1}, "[]")])
    settle(archive, True, dropped=[gone, retained, rolled_back])
    assert archive.states() == {retained.key: CONDEMNED, rolled_back.key: OWNED}
    assert set(archive.stored()) == {retained.key, rolled_back.key}


@everywhere
@on("state", [PURGING, GONE, OWNED])
def test_only_what_is_condemned_is_claimed(archive: Archive, state: str) -> None:
    file = put(archive)
    own(archive, file)
    archive.change(file.key, state=state, purge_after=1)
    settle(archive, True, dropped=[file])
    assert archive.states() == {file.key: state}
    assert set(archive.stored()) == {file.key}


@everywhere
@on("returning", [True, False])
def test_what_an_adoption_holds_or_another_name_owns_is_not_claimed(archive: Archive, returning: bool) -> None:
    """Nor by an SQLite that has no RETURNING yet."""
    dialect: Any = archive.engine.dialect
    dialect.update_returning = dialect.update_returning and returning
    held, another, free = put(archive), put(archive), put(archive)
    own(archive, held, free, Named("other", another.key, 8))
    with archive.engine.begin() as connection:
        archive.ledger.drop(connection, [Drop(held), Drop(free)])
        connection.execute(
            archive.ledger.lines.insert().values(
                storage="default", key=another.key, state=CONDEMNED, since=1, purge_after=1
            )
        )
    archive.change(held.key, held=True)
    settle(archive, True, dropped=[held, another, free])
    assert set(archive.stored()) == {held.key, another.key}
    assert free.key not in archive.states()


@servers
def test_what_somebody_holds_is_passed_over_at_once(archive: Archive) -> None:
    held, free = put(archive), put(archive)
    own(archive, held, free)
    with archive.engine.begin() as connection:
        archive.ledger.drop(connection, [Drop(held), Drop(free)])
    with archive.engine.connect() as other:
        assert archive.ledger.reclaim(other, Line(held, "docs", "file"))
        started = time.perf_counter()
        settle(archive, True, dropped=[held, free])
        assert time.perf_counter() - started < 4  # who waits does so for 5 s and more
        other.commit()
    assert archive.states() == {held.key: OWNED}
    assert set(archive.stored()) == {held.key}


# Files that were given away


@everywhere
@on(
    ("committed", "owned", "stays"),
    [(True, True, False), (True, False, True), (False, True, True), (False, False, True)],
)
def test_a_given_file_goes_only_if_its_copy_is_committed(
    archive: Archive, tmp_path: Path, committed: bool, owned: bool, stays: bool
) -> None:
    path = tmp_path / "given"
    path.write_bytes(b"given")
    file = put(archive)
    if owned:
        own(archive, file)
    source = PathSource(path)
    source.head(1)
    settle(archive, committed, staged=[file], given=[(source, file)])
    assert path.exists() is stays
    assert (file.key in archive.stored()) is owned


@sqlite
def test_a_given_file_that_somebody_removed_is_no_trouble(archive: Archive, tmp_path: Path) -> None:
    file = put(archive)
    own(archive, file)
    settle(archive, True, staged=[file], given=[(PathSource(tmp_path / "nowhere"), file)])
    assert archive.states() == {file.key: OWNED}


# The three steps


@everywhere
def test_the_claim_is_committed_and_no_connection_is_held_while_the_storage_works(archive: Archive) -> None:
    """Holes 3, 4 and 18."""
    file = put(archive)
    own(archive, file)
    with archive.engine.begin() as connection:
        archive.ledger.drop(connection, [Drop(file)])
    seen: list[Any] = []

    def look() -> None:
        seen.append((archive.engine.pool.checkedout(), archive.states()))  # type: ignore[attr-defined]

    archive.storage.at("delete", None, look)
    settle(archive, True, dropped=[file])
    assert seen == [(0, {file.key: PURGING})]
    assert archive.states() == {}


@everywhere
def test_what_could_not_be_deleted_keeps_its_line(archive: Archive, caplog: pytest.LogCaptureFixture) -> None:
    file = put(archive)
    archive.storage.fail("delete", error=OSError("stuck"))
    with caplog.at_level(logging.WARNING, "sa_attachments"):
        settle(archive, False, staged=[file])
    assert f"could not delete default:{file.key}, the next sweep tries again" in caplog.text
    line = archive.line(file.key)
    assert (line.state, line.attempts) == (PURGING, 1)
    assert "stuck" in line.last_error
    archive.storage.heal()
    archive.sweep()
    assert archive.stored() == {}


@sqlite
def test_a_storage_that_takes_too_long_leaves_the_claim_to_the_sweep(archive: Archive) -> None:
    file = put(archive)

    def late(job: Callable[[], Any]) -> Any:
        if archive.states():
            raise Busy("the storage takes its time")
        return job()

    with pytest.raises(Busy):
        archive.purger(late).settle(Work(staged=[file], identities={""}), False)
    assert archive.states() == {file.key: PURGING}
    archive.sweep()
    assert (archive.states(), archive.stored()) == ({file.key: GONE}, {})


# Where nothing may be deleted


@sqlite
@on("storage", ["readonly", "unknown", "foreign"])
def test_nothing_is_condemned_where_nothing_may_be_deleted(engine: Engine, storage: str) -> None:
    foreign = MemoryStorage()
    archive = Archive(engine, {"readonly": MemoryStorage(readonly=True), "foreign": foreign})
    file = Named(storage, put(archive).key, 8)
    mine = put(archive)
    own(archive, Named(storage, "condemned", 1))
    archive.change("condemned", state=CONDEMNED, purge_after=1)
    purger = archive.purger()
    if storage == "foreign":
        write_marker("foreign", foreign, "somebody else")
    work = Work(staged=[file, mine], dropped=[Named(storage, "condemned", 1)], identities={identity(archive)})
    if storage == "unknown":
        purger.settle(work, False)
    else:
        with pytest.warns(AttachmentWarning, match="nothing is deleted: "):
            purger.settle(work, False)
    assert archive.states() == {"condemned": CONDEMNED}
    assert set(archive.stored()) == {file.key}


# The connection


@servers
def test_its_transactions_are_durable_and_read_committed(engine: Engine, open_engine: Callable[..., Engine]) -> None:
    strict = Archive(open_engine(engine.url, isolation_level="REPEATABLE READ"))
    with strict.purger().begin() as connection:
        assert connection.get_isolation_level() == "READ COMMITTED"
        if engine.dialect.name == "postgresql":
            assert connection.scalar(text("SHOW synchronous_commit")) == "on"
            assert connection.scalar(text("SHOW lock_timeout")) == f"{PATIENCE}ms"
        else:
            assert connection.scalar(text("SELECT @@SESSION.innodb_lock_wait_timeout")) == 1
    with strict.engine.connect() as connection:
        assert connection.get_isolation_level() == "REPEATABLE READ"
        if engine.dialect.name == "postgresql":
            assert connection.scalar(text("SHOW lock_timeout")) == "0"
        else:
            assert connection.scalar(text("SELECT @@SESSION.innodb_lock_wait_timeout")) == 50


@postgres
def test_commits_are_durable_though_the_application_does_not_mind(
    engine: Engine, open_engine: Callable[..., Engine]
) -> None:
    """Hole 3."""
    careless = open_engine(engine.url, connect_args={"options": "-c synchronous_commit=off"})
    archive = Archive(careless)
    with archive.purger().begin() as connection:
        assert connection.scalar(text("SHOW synchronous_commit")) == "on"


@on("engine", ["sqlite", "sqlite-legacy", "sqlite-memory"], indirect=True)
@on("fails", [False, True])
def test_settings_of_sqlite_are_put_back(engine: Engine, fails: bool) -> None:
    archive = Archive(engine)

    def settings(connection: Any) -> tuple[int, int]:
        driver = connection.connection.driver_connection
        return tuple(driver.execute(f"PRAGMA {name}").fetchone()[0] for name in ("busy_timeout", "synchronous"))  # type: ignore[return-value]

    with engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA busy_timeout = 1234")  # type: ignore[union-attr]
        connection.connection.driver_connection.execute("PRAGMA synchronous = 1")  # type: ignore[union-attr]
    try:
        with archive.purger().begin() as connection:
            assert settings(connection) == (PATIENCE, 3)  # EXTRA
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    with engine.connect() as connection:
        assert settings(connection) == (1234, 1)


@sqlite
def test_a_pool_whose_last_connection_is_in_use_is_not_waited_for(
    engine: Engine, open_engine: Callable[..., Engine]
) -> None:
    """Hole 18: the thread that holds it may be this one."""
    small = Archive(open_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=30))
    file = put(small)
    with small.engine.connect(), pytest.raises(Busy):
        small.purger().settle(Work(staged=[file], identities={""}), False)
    small.purger().settle(Work(staged=[file], identities={""}), False)
    assert small.stored() == {}


@sqlite
def test_a_writer_of_sqlite_is_waited_for_only_a_moment(archive: Archive, open_engine: Callable[..., Engine]) -> None:
    file = put(archive)
    with archive.engine.connect() as writer:
        archive.ledger.begin_write(writer)
        started = time.perf_counter()
        with pytest.raises(OperationalError, match="locked"):
            settle(archive, False, staged=[file])
        assert time.perf_counter() - started < 4  # who waits does so for 5 s and more
    settle(archive, False, staged=[file])
    assert archive.stored() == {}


@postgres
def test_the_schemas_of_the_rows_transaction_are_those_of_the_cleaning(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA tenant"))
    archive = Archive(engine.execution_options(schema_translate_map={None: "tenant"}))
    (id_,) = archive.keep(b"one")
    archive.remove(id_)
    assert (archive.stored(), archive.states()) == ({}, {})
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM tenant.attachment_storage")) == 1


# All that is due


@everywhere
def test_purging_pages_through_what_is_due_without_meeting_failures_twice(archive: Archive) -> None:
    files = sorted((put(archive) for _ in range(30)), key=lambda file: file.key)
    own(archive, *files)
    for file in files:
        archive.change(file.key, state=CONDEMNED, purge_after=1)
    archive.storage.fail("delete", error=OSError("stuck"))
    batches = list(archive.purger().purge_due(["default"], 1000))
    assert [len(claimed) for claimed, _ in batches] == [30]
    assert all(len(failed) == 30 for _, failed in batches)
    archive.storage.heal()
    ((claimed, failed),) = archive.purger().purge_due(["default"], 1000)
    assert ([file.key for file in claimed], failed) == ([file.key for file in files], {})


@everywhere
def test_only_the_storages_that_were_asked_for_are_purged(archive: Archive) -> None:
    file = put(archive)
    own(archive, file)
    archive.change(file.key, state=CONDEMNED, purge_after=1)
    assert list(archive.purger().purge_due(["other"], 1000)) == []
    assert archive.states() == {file.key: CONDEMNED}


@everywhere
def test_a_stranger_under_the_other_name_of_a_place_is_not_purged(archive: Archive) -> None:
    """Hole 1: it may be somebody's file."""
    file = put(archive)
    own(archive, Named("other", file.key, 8))
    with archive.engine.begin() as connection:
        connection.execute(
            archive.ledger.lines.insert().values(
                storage="default", key=file.key, state=CONDEMNED, since=1, purge_after=1
            )
        )
    assert list(archive.purger().purge_due(["default", "other"], 1000)) == []
    assert set(archive.stored()) == {file.key}


@sqlite
def test_a_place_is_asked_about_once_or_again(archive: Archive) -> None:
    purger, looks = archive.purger(), []
    archive.storage.at("open", None, lambda: looks.append(1))
    assert purger.problem("default") is None
    assert purger.problem("default") is None
    assert looks == []  # the sweep did
    assert purger.problem("default", again=True) is None
    assert looks == [1]
    assert "no storage 'nowhere'" in (purger.problem("nowhere") or "")


@sqlite
def test_a_storage_that_was_replaced_is_asked_about_anew(archive: Archive) -> None:
    assert archive.purger().problem("default") is None
    with archive.files.override({"default": MemoryStorage()}):
        with pytest.warns(AttachmentWarning):
            problem = archive.purger().problem("default")
        assert "is another one than before" in (problem or "")
    assert archive.purger().problem("default") is None


@sqlite
def test_names_of_storages_stand_for_what_they_did(archive: Archive) -> None:
    file, purger = put(archive), archive.purger()
    with archive.files.override("memory:"):
        purger.settle(Work(dropped=[], void=[file], identities={identity(archive)}), False)
    assert archive.stored() == {}
