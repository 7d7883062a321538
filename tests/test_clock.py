"""The database's clock ticks in milliseconds, at the moment of the statement, on every database that has a ledger."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo

import pytest
from sqlalchemy import BigInteger, Engine, func, select
from sqlalchemy.dialects import mssql, mysql, oracle, postgresql, sqlite

from sa_attachments import BadConfiguration
from sa_attachments.clock import milliseconds, now
from sa_attachments.queries import CONDEMNED
from tests.archive import DAY, DIALECTS, Archive

on = pytest.mark.parametrize
HOUR = timedelta(hours=1)


@on("engine", DIALECTS, indirect=True)
def test_tells_the_time(engine: Engine) -> None:
    with engine.connect() as connection:
        before = time.time_ns() // 1_000_000
        said = connection.scalar(select(now()))
        after = time.time_ns() // 1_000_000
    assert isinstance(said, int)
    assert before - 2 <= said <= after + 2


@on("engine", DIALECTS, indirect=True)
def test_ticks_inside_of_a_transaction(engine: Engine) -> None:
    """The time of the transaction's start would let an owner that waited come too early."""
    with engine.begin() as connection:
        first = connection.scalar(select(now()))
        time.sleep(0.05)
        second = connection.scalar(select(now()))
    assert first is not None
    assert second is not None
    assert 40 <= second - first < 5000


@on("engine", DIALECTS, indirect=True)
def test_counts(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(select(now() + 1000 > now())) in (True, 1)
        assert connection.scalar(select(now() - 1000 < now())) in (True, 1)


@on("engine", [name for name in DIALECTS if name == "mariadb"], indirect=True)
@on("zone", ["+00:00", "-09:30", "+13:00"])
def test_on_mariadb_it_ticks_inside_of_a_statement_in_any_zone(engine: Engine, zone: str) -> None:
    """One that waits for a lock asks for the time when it has it."""
    with engine.connect() as connection:
        connection.exec_driver_sql(f"SET time_zone = '{zone}'")
        here = time.time_ns() // 1_000_000
        first, _, second = connection.execute(select(now(), func.sleep(0.1), now())).one()
        connection.invalidate()
    assert here - 2 <= first < second - 90 < here + 60_000


@on("dialect", [sqlite.dialect(), postgresql.dialect(), mysql.dialect()])
def test_is_a_big_integer_that_statements_can_be_cached_with(dialect: object) -> None:
    assert isinstance(now().type, BigInteger)
    assert select(now())._generate_cache_key() is not None
    assert str(select(now()).compile(dialect=dialect))  # type: ignore[arg-type]


@on("dialect", [mssql.dialect(), oracle.dialect()])
def test_other_databases_have_no_ledger(dialect: object) -> None:
    with pytest.raises(BadConfiguration, match=r"no ledger on '.*': expected sqlite, postgresql, mysql or mariadb"):
        select(now()).compile(dialect=dialect)  # type: ignore[arg-type]


@on(
    ("delta", "expected"),
    [
        (timedelta(0), 0),
        (timedelta(milliseconds=1), 1),
        (timedelta(microseconds=400), 0),
        (timedelta(days=7), 604_800_000),
        (timedelta(seconds=-1), -1000),
    ],
)
def test_milliseconds(delta: timedelta, expected: int) -> None:
    assert milliseconds(delta) == expected


# A machine whose clock is wrong


@pytest.fixture(params=[DAY, -DAY], ids=["fast", "slow"])
def go_wrong(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From then on this machine's clock, as the library can read it, is a day fast or slow."""
    by: timedelta = request.param
    right, right_ns = time.time, time.time_ns

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + by

    def go() -> None:
        monkeypatch.setattr(time, "time", lambda: right() + by.total_seconds())
        monkeypatch.setattr(time, "time_ns", lambda: right_ns() + milliseconds(by) * 1_000_000)
        for name, module in list(sys.modules.items()):
            if name.startswith("sa_attachments.") and vars(module).get("datetime") is datetime:
                monkeypatch.setattr(module, "datetime", Wrong)

    return go


def is_near(said: int | None, expected: float) -> bool:
    return said is not None and abs(said - expected) < 60_000


@on("engine", DIALECTS, indirect=True)
def test_a_sweep_goes_by_the_clock_of_the_database(engine: Engine, go_wrong: Callable[[], None]) -> None:
    """Hole 10."""
    archive, now = Archive(engine), time.time() * 1000
    archive.sweep(grace=2 * HOUR)
    old, young = archive.stranger(90 * timedelta(minutes=1)), archive.stranger(HOUR / 2)
    kept = archive.key(*archive.keep(b"kept"))
    archive.change(kept, state=CONDEMNED, purge_after=round(now) + 3_600_000)
    go_wrong()
    swept = archive.sweep(grace=HOUR, stranger_retain=HOUR)
    assert (swept.strangers, swept.purged, set(archive.stored())) == (1, 0, {old, young, kept})
    assert archive.states() == {old: CONDEMNED, kept: CONDEMNED}
    assert is_near(archive.line(old).since, now)
    assert is_near(archive.line(old).purge_after, now + 3_600_000)
    assert is_near(archive.watermark(), now - 3_600_000)
    archive.change(kept, purge_after=round(now) - 3_600_000)
    assert archive.sweep(grace=HOUR, stranger_retain=HOUR).purged == 1
    assert set(archive.stored()) == {old, young}


@on("engine", DIALECTS, indirect=True)
def test_verify_goes_by_the_clock_of_the_database(engine: Engine, go_wrong: Callable[[], None]) -> None:
    """Hole 10."""
    archive = Archive(engine, grace=HOUR)
    old, _ = archive.stranger(2 * HOUR), archive.stranger(HOUR / 2)
    go_wrong()
    assert [(each.kind, each.key) for each in archive.files.verify(engine).findings] == [("stranger", old)]


@on("engine", DIALECTS, indirect=True)
def test_what_is_dropped_is_kept_by_the_clock_of_the_database(engine: Engine, go_wrong: Callable[[], None]) -> None:
    """Hole 10."""
    archive, now = Archive(engine, retain=HOUR), time.time() * 1000
    (id_,) = archive.keep(b"one")
    key = archive.key(id_)
    go_wrong()
    archive.remove(id_)
    assert archive.states() == {key: CONDEMNED}
    assert is_near(archive.line(key).since, now)
    assert is_near(archive.line(key).purge_after, now + 3_600_000)
