"""Databases for the tests: see ``tests/engines.py`` for their names.

Servers are started by the first test that needs one and shared by all workers; the process that runs the whole suite
ends them. A server that SA_ATTACHMENTS_TEST_POSTGRES names instead needs ``max_prepared_transactions`` > 0.
"""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

from tests import engines, sampling
from tests.databases import MariaDatabase, PostgresDatabase
from tests.mongo import serve as serve_mongo
from tests.seaweed import Seaweed
from tests.seaweed import serve as serve_s3
from tests.servers import Keeper, Server, ServerUnavailable, serve, start_postgres

collect_ignore = ["alembic_ext/project"]  # whose modules Alembic runs
KEEPER = pytest.StashKey[Keeper]()
FOLDER = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    given = getattr(config, "workerinput", None)
    if given is None:
        config.stash[KEEPER] = keeper = Keeper()
        config.stash[FOLDER] = keeper.folder
    else:
        config.stash[FOLDER] = Path(given["servers"])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """``-n auto``: one more than there are processors, since tests wait for servers."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["servers"] = str(node.config.stash[FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    if KEEPER in config.stash:
        config.stash[KEEPER].close()


def pytest_report_header() -> list[str]:
    return [
        f"PostgreSQL: {engines.POSTGRES or 'an own server'} (SA_ATTACHMENTS_TEST_POSTGRES)",
        f"MariaDB: {engines.MARIADB or 'none, its tests are left out'} (SA_ATTACHMENTS_TEST_MARIADB)",
        f"torture, minutes long: {os.environ.get('SA_ATTACHMENTS_TORTURE') == '1'} (SA_ATTACHMENTS_TORTURE)",
    ]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """By ``@pytest.mark.sampled("parameter")`` a test leaves most of its cases to the torture."""
    marked = [(item, marker.args[0]) for item in items for marker in item.iter_markers("sampled")]
    for parameter in sorted({parameter for _, parameter in marked}):
        sampling.leave_all_but_a_sample([item for item, other in marked if other == parameter], parameter)
    yield  # to the folders, which leave more to it, and to the option -m
    if os.environ.get("SA_ATTACHMENTS_TORTURE") != "1":
        sampling.take_out(config, items, [item for item in items if item.get_closest_marker("torture")])


def pytest_collection_finish() -> None:
    """What was collected stays until the end: the garbage collector does not have to look at it all the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_database(pytestconfig: pytest.Config) -> Iterator[PostgresDatabase]:
    try:
        server = engines.POSTGRES or serve(pytestconfig.stash[FOLDER]).url
    except ServerUnavailable as error:
        pytest.skip(str(error))
    database = PostgresDatabase(server, _name())
    yield database
    database.drop()


@pytest.fixture(scope="session")
def mariadb_database() -> Iterator[MariaDatabase]:
    if engines.MARIADB is None:
        pytest.skip("no MariaDB: set SA_ATTACHMENTS_TEST_MARIADB=mysql+pymysql://root@127.0.0.1:3306/")
    database = MariaDatabase(engines.MARIADB, _name())
    yield database
    database.drop()


@pytest.fixture(scope="session")
def seaweed(pytestconfig: pytest.Config) -> Seaweed:
    """An S3 server."""
    try:
        return serve_s3(pytestconfig.stash[FOLDER])
    except ServerUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def mongo(pytestconfig: pytest.Config) -> str:
    """The URL of a server that speaks MongoDB's protocol, without a database."""
    try:
        return serve_mongo(pytestconfig.stash[FOLDER])
    except ServerUnavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def bucket(seaweed: Seaweed) -> Iterator[str]:
    """An empty bucket of this test."""
    name = f"test-{uuid4().hex}"
    client = seaweed.client()
    client.create_bucket(Bucket=name)
    yield name
    client.delete_bucket(Bucket=name)  # each one reserves several volumes, of which a server has a few hundred


@pytest.fixture
def postgres_url(postgres_database: PostgresDatabase) -> URL:
    """An empty database of this test; psycopg 3, see ``engines.with_driver`` for others."""
    return postgres_database.empty()


@pytest.fixture
def mariadb_url(mariadb_database: MariaDatabase) -> URL:
    """An empty database of this test, by PyMySQL."""
    return mariadb_database.empty()


@pytest.fixture
def private_postgres(pytestconfig: pytest.Config) -> Iterator[Callable[..., Server]]:
    """``private_postgres(fsync="on")`` starts a server that the test may stop, kill and start again."""
    started: list[Server] = []

    def start(**settings: str | int) -> Server:
        try:
            started.append(start_postgres(pytestconfig.stash[FOLDER] / f"private-{uuid4().hex}", **settings))
        except ServerUnavailable as error:
            pytest.skip(str(error))
        return started[-1]

    yield start
    for server in started:
        server.remove()


@pytest.fixture
def open_engine() -> Iterator[Callable[..., Engine]]:
    """``engines.open_engine`` for a test that needs engines of its own: they are disposed of after it."""
    opened: list[Engine] = []

    def open_(url: str | URL, **options: Any) -> Engine:
        opened.append(engines.open_engine(url, **options))
        return opened[-1]

    yield open_
    for engine in opened:
        engine.dispose()


@pytest.fixture(params=engines.ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]) -> Engine:
    """The test runs once for each of ``engines.ENGINES``; fewer by
    ``@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)``.
    """
    match request.param:
        case "sqlite":
            return open_engine(f"sqlite:///{tmp_path}/test.db")
        case "sqlite-legacy":
            return open_engine(f"sqlite:///{tmp_path}/test.db", legacy=True)
        case "sqlite-memory":
            return open_engine("sqlite://")
        case "postgres" | "mariadb" as name:
            return open_engine(request.getfixturevalue(f"{name}_url"))
        case other:
            raise ValueError(f"no engine {other!r}; there are {engines.ENGINES}")


@pytest.fixture(params=engines.ASYNC_ENGINES)
async def async_engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    match request.param:
        case "aiosqlite":
            url: str | URL = f"sqlite+aiosqlite:///{tmp_path}/test.db"
        case "asyncpg":
            url = engines.with_driver(request.getfixturevalue("postgres_url"), "asyncpg")
        case other:
            raise ValueError(f"no engine {other!r}; there are {engines.ASYNC_ENGINES}")
    engine = engines.open_async_engine(url)
    yield engine
    await engine.dispose()


def _name() -> str:
    return f"sa_attachments_{uuid4().hex[:12]}"
