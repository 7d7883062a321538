"""The database's clock ticks in milliseconds, at the moment of the statement, on every database that has a ledger."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from sqlalchemy import BigInteger, Engine, select
from sqlalchemy.dialects import mssql, mysql, oracle, postgresql, sqlite

from sa_attachments import BadConfiguration
from sa_attachments.clock import milliseconds, now
from tests.archive import DIALECTS

on = pytest.mark.parametrize


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
