"""Sweeping: strangers are condemned when they are old enough by every clock, and what is due is purged."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, event, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import greenlet_spawn

from sa_attachments import Attachment, AttachmentWarning, OwnershipLost, Storages
from sa_attachments.descriptor import Named
from sa_attachments.key import floor, mint, moment
from sa_attachments.ledger import Line
from sa_attachments.places import read_marker
from sa_attachments.queries import CONDEMNED, GONE, OWNED, PURGING
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.sweep import SweepReport, SweptStorage, watermark
from sa_attachments.testing import Faulty
from sa_attachments.testing.probes import put
from tests.archive import DAY, DIALECTS, NO_TIME, Archive

on = pytest.mark.parametrize
everywhere = on("engine", DIALECTS, indirect=True)
sqlite = on("engine", ["sqlite"], indirect=True)
HOUR = timedelta(hours=1)


@pytest.fixture
def archive(engine: Engine) -> Archive:
    return Archive(engine)


# Strangers


@everywhere
def test_a_stranger_is_condemned_and_purged_later_and_what_rows_name_is_left_alone(archive: Archive) -> None:
    kept = archive.key(*archive.keep(b"kept"))
    stranger = archive.stranger(10 * DAY)
    swept = archive.sweep(stranger_retain=HOUR)
    assert (swept.strangers, swept.purged, swept.skipped, swept.failed, swept.problem) == (1, 0, 0, 0, None)
    assert archive.states() == {kept: OWNED, stranger: CONDEMNED}
    assert set(archive.stored()) == {kept, stranger}
    line = archive.line(stranger)
    assert 3_599_000 <= line.purge_after - line.since <= 3_601_000
    assert (line.owner_table, line.owner_column) == (None, None)
    assert archive.sweep(stranger_retain=HOUR).purged == 0
    archive.change(stranger, purge_after=1)
    assert archive.sweep(stranger_retain=HOUR).purged == 1
    assert archive.states() == {kept: OWNED, stranger: GONE}
    assert archive.stored() == {kept: b"kept"}


@everywhere
def test_without_waiting_one_sweep_does_both(archive: Archive) -> None:
    strangers = {archive.stranger(age) for age in (DAY, 2 * DAY, NO_TIME)}
    time.sleep(0.005)
    swept = archive.sweep()
    assert (swept.listed, swept.strangers, swept.purged) == (3, 3, 3)
    assert archive.stored() == {}
    assert archive.states() == dict.fromkeys(strangers, GONE)


@sqlite
@on(
    ("age", "touched", "condemned"),
    [
        (2 * HOUR, 2 * HOUR, True),
        (30 * timedelta(minutes=1), 2 * HOUR, False),
        (2 * HOUR, 30 * timedelta(minutes=1), False),
        (30 * timedelta(minutes=1), 30 * timedelta(minutes=1), False),
    ],
)
def test_the_younger_of_key_and_storage_decides(
    archive: Archive, age: timedelta, touched: timedelta, condemned: bool
) -> None:
    stranger = archive.stranger(age, touched=touched)
    swept = archive.sweep(grace=HOUR)
    assert swept.strangers == condemned
    assert (stranger in archive.stored()) is not condemned


@sqlite
def test_only_keys_of_our_form_are_strangers(archive: Archive) -> None:
    others = [
        "readme.txt",
        "2020/01/01/00/readme.txt",
        mint(0).replace("1970/01/01/00", "1970/01/01/05"),
        mint(0).upper(),
    ]
    for key in others:
        archive.memory.put(key, open(os.devnull, "rb"), size=0, content_type="")  # noqa: PTH123, SIM115
    swept = archive.sweep(full=True)
    assert (swept.strangers, swept.purged) == (0, 0)
    assert set(archive.stored()) == set(others)


@sqlite
def test_a_key_that_the_ledger_knows_by_another_name_is_no_stranger(engine: Engine) -> None:
    """Hole 1: two names for one place."""
    archive = Archive(engine)
    (id_,) = archive.keep(b"kept")
    archive.change(archive.key(id_), storage="once/it/was/called/so")
    assert archive.sweep(full=True).strangers == 0
    assert list(archive.stored().values()) == [b"kept"]


# Those that hold a key


@on("engine", [name for name in DIALECTS if name != "sqlite"], indirect=True)
def test_an_owner_in_flight_is_passed_over_and_looked_at_again(archive: Archive) -> None:
    archive.sweep()
    files = archive.files
    before, mine, after = archive.stranger(3 * HOUR), archive.stranger(2 * HOUR), archive.stranger(HOUR)
    owner = archive.engine.connect()
    archive.ledger.own(owner, [Line(Named("default", mine, 8), "docs", "file")], files.own_within)
    started = time.perf_counter()
    swept = archive.sweep()
    assert time.perf_counter() - started < 10
    assert (swept.strangers, swept.skipped, swept.purged) == (2, 1, 2)
    assert archive.watermark() == moment(mine)
    owner.commit()
    owner.close()
    swept = archive.sweep(full=True)
    assert (swept.strangers, swept.skipped) == (0, 0)
    assert archive.states() == {before: GONE, mine: OWNED, after: GONE}
    assert set(archive.stored()) == {mine}
    assert (archive.watermark() or 0) > moment(after)


@sqlite
def test_on_sqlite_a_writer_makes_all_wait_for_the_next_sweep(archive: Archive) -> None:
    archive.sweep()
    stranger = archive.stranger(HOUR)
    with archive.engine.connect() as writer:
        archive.ledger.begin_write(writer)
        swept = archive.sweep()
        assert (swept.waiting, swept.strangers, swept.purged) == (True, 0, 0)
        writer.rollback()
    assert archive.sweep().purged == 1
    assert archive.states() == {stranger: GONE}


@on("engine", ["postgres"], indirect=True)
def test_a_prepared_owner_is_passed_over_too(archive: Archive) -> None:
    archive.sweep()
    mine = archive.stranger(HOUR)
    with archive.engine.connect() as owner:
        owner.begin_twophase()
        archive.ledger.own(owner, [Line(Named("default", mine, 8), "docs", "file")], archive.files.own_within)
        owner.get_transaction().prepare()  # type: ignore[union-attr]
        assert archive.sweep().skipped == 1
        owner.get_transaction().commit()  # type: ignore[union-attr]
    assert archive.sweep().skipped == 0
    assert archive.states() == {mine: OWNED}


@everywhere
def test_an_owner_that_comes_after_the_sweep_is_too_late(archive: Archive) -> None:
    staged = archive.files.stage(Attachment.upload(b"slow"), archive.Doc.file)
    time.sleep(0.005)
    assert archive.sweep().purged == 1
    with archive.session() as session:
        session.add(archive.Doc(file=staged))
        with pytest.raises(OwnershipLost):
            session.flush()
    assert archive.stored() == {}


# Tombstones


@everywhere
def test_a_tombstone_expires_and_the_bytes_are_deleted_once_more(archive: Archive) -> None:
    """Hole 12: a put may arrive after the purge."""
    stranger = archive.stranger(DAY)
    archive.sweep()
    line = archive.line(stranger)
    assert abs(line.purge_after - line.since - 7 * 86_400_000) < 1000
    archive.memory.put(stranger, open(os.devnull, "rb"), size=0, content_type="")  # noqa: PTH123, SIM115
    assert archive.sweep(full=True).strangers == 0
    assert stranger in archive.stored()
    archive.change(stranger, purge_after=1)
    archive.sweep()
    assert (archive.states(), archive.stored()) == ({}, {})


def test_own_within_is_shorter_than_a_tombstone_lasts() -> None:
    with pytest.raises(ValueError, match="must be shorter than tombstone_ttl"):
        Storages("memory:", own_within=DAY, tombstone_ttl=DAY)


# The watermark


@given(st.integers(0, 2**45), st.lists(st.integers(0, 2**45)))
def test_the_watermark_passes_nothing_that_was_skipped(horizon: int, skipped: list[int]) -> None:
    mark = watermark(horizon, skipped)
    assert mark <= horizon
    assert all(mark <= each for each in skipped)
    assert mark == horizon or mark in skipped


def listings(archive: Archive) -> list[tuple[str | None, str]]:
    return [call.args for call in archive.storage.calls if call.verb == "keys"]


@sqlite
def test_a_sweep_lists_from_the_watermark_less_an_overlap(engine: Engine) -> None:
    archive = Archive(engine, own_within=HOUR)
    archive.remove(*archive.keep(b"the first, which makes the place ours"))
    archive.sweep(grace=2 * HOUR)
    mark = archive.watermark()
    assert mark is not None
    assert abs(mark - (time.time() * 1000 - 7_200_000)) < 5000
    archive.sweep(grace=2 * HOUR)
    archive.sweep(grace=2 * HOUR, full=True)
    first, second, third = listings(archive)
    assert first[0] is None
    assert second[0] == floor(mark - 3_600_000)
    assert third[0] is None
    assert all(before < floor(round(time.time() * 1000) - 7_199_000) for _, before in (first, second, third))


@sqlite
def test_a_sweep_leaves_an_empty_place_to_who_first_stores_there(engine: Engine) -> None:
    archive = Archive(engine)
    assert archive.sweep().problem is None
    assert read_marker("default", archive.storage) is None
    assert archive.watermark() is None
    lost = archive.stranger()
    assert archive.sweep().purged == 1, "of who was killed before it had told anybody"
    assert archive.states() == {lost: GONE}
    assert read_marker("default", archive.storage) is not None


@sqlite
def test_a_full_sweep_finds_what_lies_below_the_watermark(engine: Engine) -> None:
    archive = Archive(engine, own_within=HOUR)
    archive.remove(*archive.keep(b"the first, which makes the place ours"))
    archive.sweep()
    old = archive.stranger(2 * HOUR)
    recent = archive.stranger(HOUR / 2)
    assert archive.sweep().purged == 1
    assert set(archive.stored()) == {old}
    assert archive.sweep(full=True).purged == 1
    assert archive.states() == {old: GONE, recent: GONE}


@sqlite
def test_a_young_key_holds_the_watermark_back(archive: Archive) -> None:
    archive.sweep(grace=HOUR)
    young = archive.stranger(3 * HOUR, touched=HOUR / 2)
    archive.sweep(grace=HOUR)
    assert archive.watermark() == moment(young)


# What is due


@everywhere
def test_what_a_killed_purge_left_is_finished(archive: Archive) -> None:
    ids = archive.keep(b"one", b"two", b"three")
    one, two, three = (archive.key(id_) for id_ in ids)
    archive.change(one, state=PURGING, purge_after=1)
    archive.change(two, state=CONDEMNED, purge_after=1)
    archive.change(three, state=CONDEMNED, purge_after=2**50)
    archive.memory.delete([one])  # killed between the bytes and the line
    assert archive.sweep().purged == 2
    assert archive.states() == {three: CONDEMNED}
    assert set(archive.stored()) == {three}


@everywhere
def test_what_is_held_is_never_purged(archive: Archive) -> None:
    key = archive.key(*archive.keep(b"evidence"))
    archive.change(key, state=CONDEMNED, purge_after=1, held=True)
    assert archive.sweep().purged == 0
    assert list(archive.stored()) == [key]
    archive.change(key, held=False)
    assert archive.sweep().purged == 1


@everywhere
def test_what_could_not_be_deleted_keeps_its_line_and_is_retried(archive: Archive) -> None:
    ids = archive.keep(b"one", b"two")
    one, two = (archive.key(id_) for id_ in ids)
    archive.storage.fail("delete", error=ConnectionError("no route"))
    archive.remove(*ids)
    swept = archive.sweep()
    assert (swept.purged, swept.failed) == (0, 2)
    assert archive.states() == {one: PURGING, two: PURGING}
    line = archive.line(one)
    assert line.attempts >= 1
    assert "no route" in line.last_error
    archive.storage.heal()
    swept = archive.sweep()
    assert (swept.purged, swept.failed) == (2, 0)
    assert (archive.states(), archive.stored()) == ({}, {})


@sqlite
def test_what_fails_for_one_key_does_not_for_the_others(archive: Archive) -> None:
    one, two = archive.stranger(2 * DAY), archive.stranger(DAY)
    plain = archive.memory.delete

    def delete(keys: Any) -> dict[str, Exception]:
        failed = {key: OSError("stuck") for key in keys if key == one}
        return {**plain([key for key in keys if key != one]), **failed}

    archive.memory.delete = delete  # type: ignore[method-assign]
    swept = archive.sweep()
    assert (swept.purged, swept.failed) == (1, 1)
    assert archive.states() == {one: PURGING, two: GONE}
    assert not archive.files.sweep(archive.engine).ok


@sqlite
def test_many_are_purged_in_batches(archive: Archive) -> None:
    keys = [archive.stranger(DAY) for _ in range(1100)]
    condemned = {"storage": "default", "state": CONDEMNED, "since": 1, "purge_after": 1}
    with archive.engine.begin() as connection:
        connection.execute(archive.ledger.lines.insert(), [{"key": key, **condemned} for key in keys])
    assert archive.sweep().purged == 1100
    deletions = [len(call.args[0]) for call in archive.storage.calls if call.verb == "delete"]
    assert sum(deletions) == 1100
    assert max(deletions) == 500


# Storages


@sqlite
def test_a_readonly_storage_is_not_swept(engine: Engine) -> None:
    archive = Archive(engine, {"old": MemoryStorage(readonly=True)})
    report = archive.files.sweep(engine, grace=NO_TIME)
    assert (report["old"].listed, report["old"].problem) == (0, None)
    assert report.ok


@sqlite
def test_what_is_due_in_a_readonly_storage_waits(engine: Engine) -> None:
    archive = Archive(engine, {"old": MemoryStorage(readonly=True)})
    due = {"key": mint(), "storage": "old", "state": "condemned", "since": 1, "purge_after": 2}
    with engine.begin() as connection:
        connection.execute(archive.ledger.lines.insert(), due)
    report = archive.files.sweep(engine, grace=NO_TIME)
    assert (report["old"].failed, report["old"].purged) == (0, 0)
    with engine.connect() as connection:
        assert connection.scalars(select(archive.ledger.lines.c.state)).all() == ["condemned"]


@sqlite
def test_a_storage_that_cannot_be_listed_does_not_keep_the_others_from_being_swept(engine: Engine) -> None:
    broken = Faulty(MemoryStorage()).fail("keys", error=ConnectionError("no route"))
    archive = Archive(engine, {"broken": broken})
    archive.stranger(DAY)
    report = archive.files.sweep(engine, grace=NO_TIME, stranger_retain=NO_TIME)
    assert "no route" in (report["broken"].problem or "")
    assert report["default"].purged == 1
    assert not report.ok


@sqlite
def test_a_listing_that_breaks_off_is_begun_again_where_it_began(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sa_attachments.sweep.CHUNK", 1)
    archive = Archive(engine, own_within=HOUR)
    archive.remove(*archive.keep(b"the first, which makes the place ours"))
    found, *lost = [archive.stranger(age * DAY) for age in (4, 3, 2)]
    keys = archive.memory.keys

    def break_off(*arguments: Any) -> Iterator[Any]:
        yield next(keys(*arguments))
        raise ConnectionError("the next page does not come")

    with monkeypatch.context() as patch:
        patch.setattr(archive.memory, "keys", break_off)
        report = archive.sweep()
        assert "the next page does not come" in (report.problem or "")
        assert report.strangers == 1
    assert set(archive.stored()) >= set(lost)
    assert archive.watermark() is None
    assert archive.sweep().strangers == 2
    assert archive.stored() == {}
    assert archive.states() == dict.fromkeys((found, *lost), GONE)


@sqlite
def test_traces_of_killed_puts_are_removed(engine: Engine, tmp_path: Path) -> None:
    archive = Archive(engine, {"local": f"local:{tmp_path}/files?durable=false"})
    unfinished = tmp_path / "files" / ".unfinished"
    unfinished.mkdir(parents=True)
    old, young = (f"{time.time_ns() - age * 10**9}-x" for age in (7200, 60))
    for name in (old, young):
        (unfinished / name).touch()
    report = archive.files.sweep(engine, grace=HOUR)
    assert report["local"].unfinished == 1
    assert [path.name for path in unfinished.iterdir()] == [young]


@sqlite
def test_storages_of_a_pattern_are_those_that_the_ledger_knows(engine: Engine, tmp_path: Path) -> None:
    """Hole 21."""
    archive = Archive(engine, {"tenant-*": f"local:{tmp_path}/{{name}}?durable=false", "alias-*": "default"})
    with archive.session() as session:
        session.add(archive.Doc(file=Attachment.upload(b"x", storage="tenant-7")))
        session.commit()
    report = archive.files.sweep(engine)
    assert sorted(each.name for each in report.storages) == ["default", "tenant-7"]


@everywhere
@on("later", [{}, {"old": "default"}])
def test_what_is_due_where_nobody_sweeps_any_more_is_told(engine: Engine, later: dict[str, Any]) -> None:
    """The storage was taken out of the configuration, or became an alias of another one, too early."""
    old = MemoryStorage()
    archive = Archive(engine, {"old": old}, retain=DAY)
    with archive.session() as session:
        doc = archive.Doc(file=Attachment.upload(b"x", storage="old"))
        session.add(doc)
        session.commit()
        key = doc.file.key
        session.delete(doc)
        session.commit()
    with archive.files.override({"default": archive.storage, **later}):
        archive.change(key, purge_after=int(time.time() * 1000) - 1000)
        assert archive.files.sweep(engine).ok, "it is due since a moment, and another process may be about to purge it"
        archive.change(key, purge_after=int(time.time() * 1000) - 86_400_000)
        report = archive.files.sweep(engine)
        assert not report.ok
        assert str(report["old"].problem).startswith("1 dropped files are due, but no storage of its own has this name")
        assert report["default"].problem is None
    report = archive.files.sweep(engine)
    assert report.ok
    assert report["old"].purged == 1


@sqlite
def test_the_only_file_of_a_storage_of_a_pattern_may_be_a_stranger(engine: Engine, tmp_path: Path) -> None:
    archive = Archive(engine, {"tenant-*": f"local:{tmp_path}/{{name}}?durable=false"})
    with archive.session() as session:
        doc = archive.Doc(file=Attachment.upload(b"x", storage="tenant-7"))
        session.add(doc)
        session.commit()
        session.delete(doc)
        session.commit()
    assert archive.files.settled(20)
    put(archive.files.resolve("tenant-7"), mint(1_700_000_000_000), b"of a killed process")
    time.sleep(0.01)
    assert archive.files.sweep(engine, grace=NO_TIME)["tenant-7"].strangers == 1
    with archive.engine.begin() as connection:
        connection.execute(delete(archive.ledger.lines))
    shutil.rmtree(tmp_path / "tenant-7")
    report = archive.files.sweep(engine)
    assert report.ok
    assert [each.name for each in report.storages] == ["default"]


@everywhere
def test_a_storage_of_a_pattern_is_swept_though_the_first_process_that_used_it_died_before_it_cleaned(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hole 21: it is the cleaning that notes the place, so that only the ledger knows the name."""
    storages = {"tenant-*": f"local:{tmp_path}/{{name}}?durable=false"}
    died = Archive(engine, storages)
    monkeypatch.setattr(died.files, "settle", lambda frame: None)
    with died.session() as session:
        session.add(died.Doc(file=Attachment.upload(b"kept", storage="tenant-7")))
        session.commit()
    put(died.files.resolve("tenant-7"), mint(1_700_000_000_000), b"of the same process")
    with engine.connect() as connection:
        assert connection.scalars(select(died.ledger.places.c.name)).all() == []
    time.sleep(0.01)
    archive = Archive(engine, storages)
    swept = archive.files.sweep(engine, grace=NO_TIME, stranger_retain=NO_TIME)["tenant-7"]
    assert (swept.listed, swept.strangers, swept.purged, swept.problem) == (2, 1, 1, None)


@sqlite
def test_without_columns_there_is_nothing_to_sweep(engine: Engine) -> None:
    assert Storages("memory:").sweep(engine).storages == []


@sqlite
def test_somebody_elses_place_is_not_swept(
    archive: Archive, tmp_path: Path, open_engine: Callable[..., Engine]
) -> None:
    archive.keep(b"theirs")
    stranger = archive.stranger(DAY)
    second = Archive(open_engine(f"sqlite:///{tmp_path}/other.db"), {"default": archive.storage})
    with pytest.warns(AttachmentWarning):
        swept = second.sweep()
    assert "belongs to another database" in swept.problem
    assert swept.listed == 0
    assert stranger in archive.stored()


# Reports


@sqlite
def test_progress_is_told(archive: Archive) -> None:
    for _ in range(3):
        archive.stranger(DAY)
    told: list[tuple[str, int]] = []
    archive.sweep(progress=lambda storage, count: told.append((storage, count)))
    assert told == [("default", 3), ("default", 1), ("default", 1), ("default", 1)]


def test_a_report() -> None:
    report = SweepReport([SweptStorage("a", listed=3), SweptStorage("b", problem="gone")])
    assert report["b"].problem == "gone"
    assert not report.ok
    assert "name='a'" in str(report)
    assert SweepReport([SweptStorage("a", strangers=1, purged=1, skipped=2)]).ok
    assert not SweepReport([SweptStorage("a", failed=1)]).ok
    with pytest.raises(KeyError, match="'c'"):
        report["c"]


async def test_asweep(async_engine: AsyncEngine) -> None:
    archive = await async_engine_archive(async_engine)
    archive.stranger(DAY)
    report = await archive.files.asweep(async_engine, grace=NO_TIME, stranger_retain=NO_TIME)
    assert (report["default"].strangers, report["default"].purged) == (1, 1)


async def async_engine_archive(engine: AsyncEngine) -> Archive:
    return await greenlet_spawn(Archive, engine.sync_engine)


@on("engine", ["postgres"], indirect=True)
def test_a_sweep_leaves_the_connection_as_it_was(archive: Archive) -> None:
    settings = ("lock_timeout", "synchronous_commit", "transaction_isolation")

    def look() -> list[Any]:
        with archive.engine.connect() as connection:
            return [connection.scalar(text(f"SHOW {name}")) for name in settings]

    before = look()
    archive.stranger(DAY)
    archive.sweep()
    assert look() == before


@on("how", ["option", "driver"])
@on("engine", ["sqlite"], indirect=True)
def test_each_of_its_steps_is_one_where_the_driver_commits_each_statement(
    archive: Archive, open_engine: Callable[..., Engine], how: str
) -> None:
    """A file that was taken back between two statements was purged."""
    (id_,) = archive.keep(b"one")
    named = archive.named(id_)
    archive.change(named.key, state=CONDEMNED, purge_after=1)
    options = {"isolation_level": "AUTOCOMMIT"} if how == "option" else {}
    engine = open_engine(archive.engine.url, legacy=True, **options)
    if how == "driver":
        event.listen(engine, "connect", lambda driver, _: setattr(driver, "isolation_level", None))
    taken_back = []

    @event.listens_for(engine, "before_cursor_execute")
    def meanwhile(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "state=?" not in statement or taken_back:
            return
        with archive.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA busy_timeout = 0")
            with suppress(OperationalError):
                taken_back.append(archive.ledger.reclaim(connection, Line(named, "docs", "file")))
            connection.commit()

    with suppress(OperationalError):
        archive.files.sweep(engine)
    engine.dispose()
    assert taken_back == []
    assert archive.stored() == {}
