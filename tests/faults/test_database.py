"""A database that is out of reach while cleaning, and a COMMIT whose answer, or that itself, gets lost on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic, sleep

import pytest
from sqlalchemy import Engine, event, func, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from sa_attachments import Attachment, OwnershipLost
from tests import engines
from tests.proxy import Proxy
from tests.scenarios.models import Doc, files
from tests.scenarios.world import World

from .patience import BUDGET, SLACK, within
from .site import Site

on = pytest.mark.parametrize


@pytest.fixture
def proxy(postgres_url: object) -> Iterator[Proxy]:
    url = make_url(str(postgres_url))
    with Proxy(url.host or "127.0.0.1", url.port or 5432) as proxy:
        yield proxy


@pytest.fixture(params=["psycopg", "asyncpg"])
def world(
    request: pytest.FixtureRequest, proxy: Proxy, postgres_url: object, open_engine: Callable[..., Engine]
) -> Iterator[World]:
    """A PostgreSQL behind the proxy; the observer goes straight to it."""
    observer = open_engine(postgres_url)
    url = engines.with_driver(observer.url, request.param).set(host="127.0.0.1", port=proxy.port)
    engine = engines.open_async_engine(url).sync_engine if request.param == "asyncpg" else open_engine(url)
    made = World(request.param, engine, observer)
    with files.override(made.storages):
        yield made
        proxy.heal()
        made.heal()


def seed(world: World, data: bytes = b"old") -> int:
    with world.session() as session:
        doc = Doc(file=data)
        session.add(doc)
        session.commit()
        key = doc.id
    world.settle()
    return key


def gone_from_the_server(world: World) -> None:
    """Wait until the server has noticed that connections are cut: until then their transactions are open."""
    deadline = monotonic() + 10
    others = text(
        "SELECT state, query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND backend_type = 'client backend' AND state <> 'idle'"
    )
    with world.observer.connect() as connection:
        while open_ := connection.execute(others).all():
            assert monotonic() < deadline, f"the server still waits for a connection that is gone: {open_}"
            connection.rollback()
            sleep(0.02)


def recover(world: World, proxy: Proxy, *contents: bytes) -> None:
    proxy.heal()
    world.settle()
    gone_from_the_server(world)
    for _ in range(3):  # the pool may still hold connections that are dead: it tells one by one
        try:
            report = world.sweep()
        except DBAPIError:
            continue
        assert report.ok, str(report)
        break
    world.check(*contents, swept=True)


# Lost in the pool

LOSE = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({}, 5000)"),
    "mysql": ("SELECT CONNECTION_ID()", "KILL {}"),
}


@on("engine", engines.CONCURRENT_ENGINES, indirect=True)
def test_connections_that_were_lost_in_their_pool_fail_once(engine: Engine, open_engine: Callable[..., Engine]) -> None:
    """After a restart of MariaDB, or its ``wait_timeout``, each of them failed, with an error that is the driver's."""
    site = Site(engine, {"default": "memory:"})
    me, lose = LOSE[engine.dialect.name]
    with engine.connect() as one, engine.connect() as two, engine.connect() as three:
        lost = [connection.scalar(text(me)) for connection in (one, two, three)]
    with open_engine(engine.url).connect() as connection:
        for each in lost:
            connection.execute(text(lose.format(each)))
    with pytest.raises(DBAPIError):
        site.files.sweep(engine)
    assert site.files.sweep(engine).ok


# Out of reach


def refuse(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.drop()


FAULTS: dict[str, Callable[[Proxy], None]] = {"refuse": refuse, "blackhole": Proxy.blackhole}

ENDS: dict[str, tuple[Callable[[Session], None], list[bytes]]] = {
    "commit": (Session.commit, [b"new", b"added"]),
    "rollback": (Session.rollback, [b"old"]),
    "close": (Session.close, [b"old"]),
}


@on("end", ENDS)
@on("fault", FAULTS)
@on("pooled", [True, False], ids=["pooled", "connecting"])
def test_a_database_out_of_reach_holds_up_nobody(
    world: World, proxy: Proxy, fault: str, end: str, pooled: bool
) -> None:
    finish, contents = ENDS[end]
    took = end_out_of_reach(world, proxy, fault, finish, pooled=pooled)
    assert took <= BUDGET + SLACK, f"{end} took {took:.3f} s"
    recover(world, proxy, *contents)


@on("end", ENDS)
@on("fault", FAULTS)
def test_a_database_out_of_reach_takes_the_budget_and_no_longer(
    world: World, proxy: Proxy, fault: str, end: str
) -> None:
    """The best of some attempts, since a busy machine may take the processor away."""
    least = SLACK
    for _ in range(8):
        least = min(least, end_out_of_reach(world, proxy, fault, ENDS[end][0], pooled=True))
        proxy.heal()
        world.settle()
        world.engine.dispose()
        if least < BUDGET + 0.1:
            break
    assert least < BUDGET + 0.1


def end_out_of_reach(
    world: World, proxy: Proxy, fault: str, finish: Callable[[Session], None], *, pooled: bool
) -> float:
    """How many seconds the end of a transaction took, whose cleaning could not reach the database."""
    key = seed(world)
    struck: list[float] = []

    def strike(dbapi_connection: object, record: object) -> None:
        """The user's transaction has just ended, and its cleaning has not begun."""
        if not struck:
            struck.append(monotonic())
            if not pooled:
                record.invalidate()  # type: ignore[attr-defined]
            FAULTS[fault](proxy)

    with world.session() as session:
        session.get_one(Doc, key).file = b"new"  # type: ignore[assignment]
        session.add(Doc(file=b"added"))
        session.flush()
        event.listen(world.engine.pool, "checkin", strike)
        finish(session)
        return monotonic() - struck[0]


def test_a_session_goes_on_after_the_database_was_out_of_reach(world: World, proxy: Proxy) -> None:
    seed(world)
    with world.session() as session:
        session.add(Doc(file=b"lost"))
        session.flush()
        proxy.refuse()
        proxy.drop()
        with pytest.raises(DBAPIError):
            session.commit()
        with within():
            session.rollback()
        proxy.heal()
        session.add(Doc(file=b"new"))
        session.commit()
    recover(world, proxy, b"old", b"new")


@on("writes", ["in the savepoint", "before it too"])
def test_a_connection_that_is_lost_in_a_savepoint(world: World, proxy: Proxy, writes: str) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        if writes == "before it too":
            session.add(Doc(file=b"before"))
            session.flush()
        savepoint = session.begin_nested()
        session.add(Doc(file=b"added"))
        session.flush()
        doc.file = new = Attachment.upload(b"new")  # type: ignore[assignment]
        proxy.drop()
        with pytest.raises(DBAPIError):
            savepoint.commit()
        with within():
            session.rollback()
        assert doc.file is not None
        assert doc.file.read() == b"old"
        doc.file = new  # which has its bytes still
        session.commit()
    recover(world, proxy, b"new")


# Lost acknowledgements


def change(session: Session, key: int) -> None:
    """Replaces one file, adds one, and adds and drops one in the same transaction."""
    session.get_one(Doc, key).file = b"new"  # type: ignore[assignment]
    session.add(Doc(file=b"added"))
    passing = Doc(file=b"passing")
    session.add(passing)
    session.flush()
    session.delete(passing)
    session.flush()


@on("end", ["rollback", "close", "nothing"])
def test_a_commit_whose_answer_is_lost_keeps_what_was_committed(world: World, proxy: Proxy, end: str) -> None:
    key = seed(world)
    session = world.session()
    change(session, key)
    proxy.lose_answer_to_commit()
    with pytest.raises(DBAPIError):
        session.commit()
    assert proxy.commits_lost == 1
    if end != "nothing":
        with within():
            getattr(session, end)()
    world.settle()
    assert sorted(world.stored().values()).count(b"new") == 1, "a live file was deleted"
    session.close()
    recover(world, proxy, b"new", b"added")


@on("end", ["rollback", "close", "nothing"])
def test_a_commit_that_never_arrives_keeps_what_was_there(world: World, proxy: Proxy, end: str) -> None:
    key = seed(world)
    session = world.session()
    change(session, key)
    proxy.lose_commit()
    with pytest.raises(DBAPIError):
        session.commit()
    assert proxy.commits_lost == 1
    if end != "nothing":
        with within():
            getattr(session, end)()
    world.settle()
    assert b"old" in world.stored().values(), "a live file was deleted"
    session.close()
    recover(world, proxy, b"old")


def test_who_tries_again_after_a_lost_answer_stores_another_file(world: World, proxy: Proxy) -> None:
    """The first attempt was committed: each row has a file of its own."""
    seed(world)
    with world.session() as session:
        doc = Doc(file=b"new")
        session.add(doc)
        proxy.lose_answer_to_commit()
        with pytest.raises(DBAPIError):
            session.commit()
        session.rollback()
        session.add(Doc(file=doc.file))
        session.commit()
        assert session.scalar(select(func.count()).select_from(Doc)) == 3
    recover(world, proxy, b"old", b"new", b"new")


def test_a_staged_file_that_was_dropped_unheard_is_not_named_again(world: World, proxy: Proxy) -> None:
    """The transaction owned it for no row, and dropped it; its session heard of an error, and tries again."""
    staged = files.stage(Attachment.upload(b"staged"))
    with world.session() as session:
        session.execute(update(Doc).where(Doc.id == 99).values(file=staged))
        proxy.lose_answer_to_commit()
        with pytest.raises(DBAPIError):
            session.commit()
        session.rollback()
        world.settle()
        session.add(Doc(file=staged))
        with pytest.raises(OwnershipLost, match="was deleted"):
            session.flush()
        session.rollback()
        session.add(Doc(file=b"again"))
        session.commit()
    recover(world, proxy, b"again")


def test_an_answer_lost_in_a_savepoint_s_release_is_one_lost_transaction(world: World, proxy: Proxy) -> None:
    key = seed(world)
    with world.session() as session:
        with session.begin_nested():
            session.get_one(Doc, key).file = b"new"  # type: ignore[assignment]
        void = session.begin_nested()
        session.add(Doc(file=b"void"))
        session.flush()
        void.rollback()
        proxy.lose_answer_to_commit()
        with pytest.raises(DBAPIError):
            session.commit()
    recover(world, proxy, b"new")


def test_an_answer_lost_while_cleaning_leaves_the_rest_to_the_sweep(world: World, proxy: Proxy) -> None:
    """The claim of the dropped file was committed, and nobody knows: it is ``purging``, which only a sweep ends."""
    key = seed(world)
    with world.session() as session:
        session.get_one(Doc, key).file = b"new"  # type: ignore[assignment]
        session.flush()
        event.listen(world.engine.pool, "checkin", lambda *_: proxy.lose_answer_to_commit(), once=True)
        session.commit()
    world.settle()
    assert proxy.commits_lost == 1
    recover(world, proxy, b"new")
