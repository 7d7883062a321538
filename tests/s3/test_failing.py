"""A bucket that can't be reached, or only sometimes: the suite of failing storages, with S3 and PostgreSQL.

Faults are those of connections, see ``tests/proxy.py``: refused, cut after some bytes, swallowed. Whatever fails then,
once the network works again and all was swept, nothing is lost and nothing orphaned.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import func, select

from sa_attachments import StorageFailed
from sa_attachments.storages.s3 import MIB, S3Storage
from sa_attachments.testing import Faulty
from tests.faults import test_storage as suite
from tests.faults.patience import BUDGET, within
from tests.proxy import Proxy
from tests.scenarios.models import Doc, files
from tests.scenarios.world import World

from .conftest import Make, unfinished

on = pytest.mark.parametrize
everywhere = on("world", ["postgres", "asyncpg"], indirect=True)

LARGE = os.urandom(MIB) * 6


@pytest.fixture(autouse=True)
def storage(world: World, make: Make, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Storage]:
    """What the world stores in: a bucket behind the proxy."""
    made = make(endpoint_url=f"http://127.0.0.1:{proxy.port}", attempts=1, connect_timeout=1, read_timeout=2)
    # Less than it takes to give a request up, so that whoever waits for cleaning is caught.
    monkeypatch.setattr(files._settler, "_budget", BUDGET)
    world.storages = {"default": Faulty(made)}
    with files.override(world.storages):
        yield made
        proxy.heal()


def refuse(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.drop()


def swallow(proxy: Proxy) -> None:
    proxy.blackhole()


def cut_up(proxy: Proxy) -> None:
    proxy.cut(up=700)


def cut_down(proxy: Proxy) -> None:
    proxy.cut(down=20)


FAULTS: dict[str, Callable[[Proxy], None]] = {
    "refused": refuse,
    "blackhole": swallow,
    "cut-up": cut_up,
    "cut-down": cut_down,
}


def recover(world: World, proxy: Proxy, *contents: bytes) -> None:
    proxy.heal()
    proxy.drop()  # a connection that was cut may be in the pool
    suite.recover(world, *contents)


@on("world", ["postgres", *suite.tortured("asyncpg")], indirect=True)
@on("fault", FAULTS)
def test_a_put_that_can_t_reach_the_bucket_undoes_the_others(world: World, proxy: Proxy, fault: str) -> None:
    suite.seed(world, file=b"old")
    FAULTS[fault](proxy)
    with world.session() as session:
        suite.add_documents(session)
        with within(10), pytest.raises(StorageFailed, match=f"127.0.0.1:{proxy.port} can't be reached") as caught:
            session.flush()
        assert (caught.value.storage, caught.value.operation) == ("default", "put")
        with session.no_autoflush:
            assert session.scalar(select(func.count()).select_from(Doc)) == 1  # usable as it is
        proxy.heal()
        session.commit()  # with the same objects
    recover(world, proxy, b"old", b"one", b"two", b"three", b"four")


@on("world", ["postgres"], indirect=True)
@on("at", [1000, 3 * MIB, 5 * MIB + 100_000, 6 * MIB])
def test_an_upload_in_parts_that_is_cut_leaves_no_parts(
    world: World, proxy: Proxy, storage: S3Storage, at: int
) -> None:
    suite.seed(world, file=b"old")
    with world.session() as session:
        session.add(Doc(file=LARGE, scan=b"small"))  # type: ignore[arg-type]
        proxy.cut(up=at)
        with pytest.raises(StorageFailed, match="can't be reached"):
            session.flush()
        session.rollback()
    recover(world, proxy, b"old")
    assert unfinished(storage) == []


@on("world", ["postgres", *suite.tortured("asyncpg")], indirect=True)
@on("end", suite.ENDS)
@on("fault", ["blackhole", *suite.tortured("refused", "cut-up", "cut-down")])
def test_no_end_of_a_transaction_raises_or_waits_for_cleaning(world: World, proxy: Proxy, fault: str, end: str) -> None:
    change, finish, contents = suite.ENDS[end]
    key = suite.seed(world, file=b"old")
    files.places._known.clear()  # as in a new process, which has still to find out whose place it is
    with world.session() as session:
        change(session, session.get_one(Doc, key))
        session.flush()
        FAULTS[fault](proxy)
        with within():
            finish(session)
        assert session.scalar(select(func.count()).select_from(Doc)) == len(contents)
        with within():
            session.close()
    recover(world, proxy, *contents)


@everywhere
def test_a_sweep_tells_of_a_bucket_that_can_t_be_reached(world: World, proxy: Proxy) -> None:
    key = suite.seed(world, file=b"old")
    refuse(proxy)
    with world.session() as session:
        session.delete(session.get_one(Doc, key))
        session.commit()
    report = world.sweep()
    assert not report.ok
    assert "can't be reached" in str(report["default"].problem)
    recover(world, proxy)


@everywhere
@on("fault", ["refused", "cut-down", *suite.tortured("blackhole")])
def test_reading_tells_that_the_bucket_can_t_be_reached(world: World, proxy: Proxy, fault: str) -> None:
    key = suite.seed(world, file=b"old")
    with world.session() as session:
        attachment = session.get_one(Doc, key).file
        assert attachment is not None
        FAULTS[fault](proxy)
        with pytest.raises(StorageFailed, match="can't be reached") as caught:
            attachment.read()
        assert (caught.value.storage, caught.value.key) == ("default", attachment.key)
    recover(world, proxy, b"old")


# Every call of a workload


@on("world", ["postgres", *suite.tortured("asyncpg")], indirect=True)
@on("kind", suite.KINDS)
def test_a_failure_at_some_calls_of_a_workload(world: World, kind: str) -> None:
    """The storage itself fails, before or after the bucket did it."""
    for nth in (4 + 5 * list(suite.KINDS).index(kind), 25):
        suite.KINDS[kind](world.storage, nth)
        contents = suite.work(world)
        assert len(world.storage.calls) >= nth
        suite.recover(world, *contents)
        _clear(world)


@on("world", ["postgres", *suite.tortured("asyncpg")], indirect=True)
@on("fault", ["refused", "cut-up", "cut-down"])
def test_the_network_goes_at_some_calls_of_a_workload(world: World, proxy: Proxy, fault: str) -> None:
    for nth in (6, 17):
        _go_at(world, proxy, fault, nth)


@pytest.mark.torture
@pytest.mark.timeout(1800)
@on("world", ["postgres"], indirect=True)
@on("fault", FAULTS)
def test_the_network_goes_at_every_call_of_a_workload(world: World, proxy: Proxy, fault: str) -> None:
    nth = 1
    while _go_at(world, proxy, fault, nth):
        nth += 1
    assert nth > 25, "the workload makes more calls than that"


def _go_at(world: World, proxy: Proxy, fault: str, nth: int) -> bool:
    """From the n-th call of the workload on the network has this fault; whether there was such a call."""
    before = len(world.storage.calls)
    world.storage.at("*", nth, lambda: FAULTS[fault](proxy))
    contents = suite.work(world)
    struck = len(world.storage.calls) - before >= nth
    recover(world, proxy, *contents)
    _clear(world)
    return struck


def _clear(world: World) -> None:
    with world.session() as session:
        for doc in session.scalars(select(Doc)):
            session.delete(doc)
        session.commit()
    suite.recover(world)
