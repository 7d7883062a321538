"""The proxy does what its tests believe: first on an echo server, then on real databases."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from tests import engines
from tests.proxy import Proxy

MARIADB_DRIVERS = ["mysql+pymysql"] if engines.MARIADB else []


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that answers each byte with the same."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    connection.sendall(data)
            except ConnectionError:
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", echo) as proxy:
        yield proxy


def dial(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def ask(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return client.recv(65536)


def until_reset(client: socket.socket) -> bytes:
    """What still arrives: the reset may overtake the last bytes, as in nature."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65536):
            received += data
        pytest.fail("an orderly end instead of a reset")
    return received


def test_forwards_in_both_directions(proxy: Proxy) -> None:
    with dial(proxy) as one, dial(proxy) as other:
        assert ask(one, b"one") == b"one"
        assert ask(other, b"other") == b"other"
    assert proxy.accepted == 2


def test_an_orderly_end_passes_too(proxy: Proxy) -> None:
    with dial(proxy) as client:
        ask(client, b"x")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""


def test_refuses_new_connections_until_healed_on_the_same_port(proxy: Proxy) -> None:
    with dial(proxy) as open_before:
        ask(open_before, b"x")
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
        assert ask(open_before, b"goes on") == b"goes on"
    proxy.heal()
    with dial(proxy) as client:
        assert ask(client, b"back") == b"back"


def test_a_blackhole_accepts_and_never_answers(proxy: Proxy) -> None:
    proxy.blackhole()
    with dial(proxy) as client:
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            ask(client, b"anybody?")
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with dial(proxy) as client:
        assert ask(client, b"back") == b"back"


def test_delays_each_direction(proxy: Proxy) -> None:
    proxy.delay(0.1)
    with dial(proxy) as client:
        begin = time.monotonic()
        assert ask(client, b"x") == b"x"
        assert 0.2 <= time.monotonic() - begin < 5


def test_cuts_after_so_many_bytes_up(proxy: Proxy) -> None:
    with dial(proxy) as client:
        proxy.cut(up=3)
        client.sendall(b"ab")
        assert client.recv(10) == b"ab"
        client.sendall(b"cd")
        assert until_reset(client) in (b"", b"c")


def test_cuts_after_so_many_bytes_down(proxy: Proxy) -> None:
    with dial(proxy) as client:
        proxy.cut(down=5)
        assert ask(client, b"abc") == b"abc"
        client.sendall(b"def")
        assert until_reset(client) in (b"", b"de")


def test_drops_open_connections_and_takes_new_ones(proxy: Proxy) -> None:
    with dial(proxy) as client:
        ask(client, b"x")
        proxy.drop()
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with dial(proxy) as client:
        assert ask(client, b"back") == b"back"


def test_a_server_that_is_gone_resets() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = probe.getsockname()[1]
    with Proxy("127.0.0.1", nobody) as proxy, pytest.raises(ConnectionResetError), dial(proxy) as client:
        client.recv(10)


def through(url: URL, proxy: Proxy) -> URL:
    return url.set(host="127.0.0.1", port=proxy.port)


def titles(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT title FROM docs ORDER BY title")))


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+psycopg2", *MARIADB_DRIVERS])
@pytest.mark.parametrize("lost", ["request", "answer"])
def test_only_a_lost_request_keeps_the_row_from_being_committed(
    driver: str, lost: str, request: pytest.FixtureRequest, open_engine: Callable[..., Engine]
) -> None:
    url: URL = request.getfixturevalue("mariadb_url" if "mysql" in driver else "postgres_url").set(drivername=driver)
    direct = open_engine(url)
    with direct.begin() as connection:
        connection.execute(text("CREATE TABLE docs (title varchar(20))"))
    assert url.port is not None
    with Proxy("127.0.0.1", url.port) as proxy:
        engine = open_engine(through(url, proxy))
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO docs VALUES ('a first')"))
        if lost == "answer":
            proxy.lose_answer_to_commit()
        else:
            proxy.lose_commit()
        with pytest.raises(DBAPIError) as raised, engine.begin() as connection:
            connection.execute(text("INSERT INTO docs VALUES ('b COMMIT')"))
        assert raised.value.connection_invalidated
        assert proxy.commits_lost == 1
        assert titles(direct) == (["a first", "b COMMIT"] if lost == "answer" else ["a first"])
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO docs VALUES ('c after')"))
        assert titles(direct)[-1] == "c after"


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_asyncpg_loses_commits_too(lost: str, postgres_url: URL, open_engine: Callable[..., Engine]) -> None:
    direct = open_engine(postgres_url)
    with direct.begin() as connection:
        connection.execute(text("CREATE TABLE docs (title varchar(20))"))
    assert postgres_url.port is not None
    with Proxy("127.0.0.1", postgres_url.port) as proxy:
        engine = engines.open_async_engine(engines.with_driver(through(postgres_url, proxy), "asyncpg"))
        connection_ = await engine.connect()
        await connection_.execute(text("INSERT INTO docs VALUES ('x')"))
        if lost == "answer":
            proxy.lose_answer_to_commit()
        else:
            proxy.lose_commit()
        with pytest.raises((DBAPIError, ConnectionError)):
            await connection_.commit()
        await connection_.close()
        await engine.dispose()
        assert titles(direct) == (["x"] if lost == "answer" else [])
