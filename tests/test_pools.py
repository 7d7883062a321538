"""What is told of pools; that cleaning heeds it is a matter of the scenarios."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import AssertionPool, NullPool, QueuePool, StaticPool

from sa_attachments.pools import _is_in_transaction, is_full, is_scarce

on = pytest.mark.parametrize


def opened() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", check_same_thread=False)


def queue(size: int, overflow: int, timeout: float | None = 30) -> QueuePool:
    return QueuePool(opened, pool_size=size, max_overflow=overflow, timeout=timeout)  # type: ignore[arg-type]


def engine(pool: Any, dialect: str = "sqlite") -> Any:
    return SimpleNamespace(pool=pool, dialect=SimpleNamespace(name=dialect))


@on(("size", "overflow", "taken", "dialect", "full"), [
    (1, 0, 0, "sqlite", False),
    (1, 0, 1, "sqlite", True),
    (1, 0, 1, "postgresql", False),
    (1, 1, 1, "sqlite", False),
    (1, 1, 2, "sqlite", True),
    (2, 0, 1, "sqlite", False),
    (2, -1, 2, "sqlite", False),  # without a limit
    (0, 0, 0, "sqlite", False),  # so is this
    (0, 0, 1, "sqlite", False),
])  # fmt: skip
def test_a_pool_that_gives_out_no_more_is_full(size: int, overflow: int, taken: int, dialect: str, full: bool) -> None:
    pool = queue(size, overflow)
    held = [pool.connect() for _ in range(taken)]
    assert is_full(engine(pool, dialect)) is full
    del held


def test_a_pool_that_asserts_one_connection_is_full_with_it() -> None:
    pool = AssertionPool(opened)
    assert not is_full(engine(pool))
    held = pool.connect()
    assert is_full(engine(pool))
    held.close()
    assert not is_full(engine(pool))
    assert not is_full(engine(NullPool(opened)))


@on(("size", "overflow", "timeout", "taken", "scarce"), [
    (1, 0, 0.5, 0, True),
    (2, 0, 0.5, 0, False),
    (2, 0, 0.5, 1, True),
    (1, 1, 0.5, 0, False),
    (1, 1, 0.5, 1, True),
    (1, 0, 1, 0, False),  # who waits for so long gets it
    (1, 0, None, 0, False),  # for ever
    (1, -1, 0.5, 1, False),  # without a limit
])  # fmt: skip
def test_the_last_connection_of_a_pool_that_soon_refuses_is_scarce(
    size: int, overflow: int, timeout: float | None, taken: int, scarce: bool
) -> None:
    pool = queue(size, overflow, timeout)
    held = [pool.connect() for _ in range(taken)]
    assert is_scarce(engine(pool)) is scarce
    del held


def test_the_only_connection_is_scarce() -> None:
    found = {kind: is_scarce(engine(kind(opened))) for kind in (StaticPool, AssertionPool, NullPool)}
    assert found == {StaticPool: True, AssertionPool: True, NullPool: False}
    assert not is_scarce(create_engine("sqlite://"))


@on("busy", [False, True])
def test_drivers_tell_whether_they_are_in_a_transaction(busy: bool) -> None:
    drivers = [
        SimpleNamespace(is_in_transaction=lambda: busy),  # asyncpg
        SimpleNamespace(server_status=2 | busy),  # PyMySQL, which is in autocommit, too
        SimpleNamespace(info=SimpleNamespace(transaction_status=2 * busy)),  # psycopg
        SimpleNamespace(in_transaction=busy),  # sqlite3
    ]
    assert [_is_in_transaction(driver) for driver in drivers] == [busy] * 4
