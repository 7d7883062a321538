"""PgBouncer before PostgreSQL: each transaction may get another of the server's connections, and leave there what it
set.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, select
from sqlalchemy.exc import DBAPIError

from tests.crash.application import Application, upload
from tests.engines import with_driver
from tests.servers import free_port

on = pytest.mark.parametrize

Behind = Callable[..., URL]


@pytest.fixture
def behind(postgres_url: URL, tmp_path: Path) -> Iterator[Behind]:
    """``behind("transaction")`` starts a pooler with two of the server's connections; returns the address to use."""
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if program is None:
        pytest.skip("no pgbouncer")
    started: list[subprocess.Popen[bytes]] = []

    def start(mode: str) -> URL:
        port, server = free_port(), f"host={postgres_url.host} port={postgres_url.port} user={postgres_url.username}"
        settings = tmp_path / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = {server} password={postgres_url.password or 'none'}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {mode}\ndefault_pool_size = 2\nignore_startup_parameters = extra_float_digits\n"
        )
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        started.append(subprocess.Popen([program, "-q", *user, str(settings)], stderr=subprocess.DEVNULL))
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                assert time.monotonic() < deadline, "pgbouncer does not start"
                time.sleep(0.02)
            else:
                return postgres_url.set(host="127.0.0.1", port=port)

    yield start
    for process in started:
        process.kill()
        process.wait()


@on(("driver", "options"), [("psycopg", {"prepare_threshold": None}), ("psycopg2", {})])
def test_transactions_that_share_connections(
    behind: Behind, tmp_path: Path, open_engine: Callable[..., Engine], driver: str, options: dict[str, Any]
) -> None:
    engine = open_engine(with_driver(behind("transaction"), driver), connect_args=options)
    app = Application(engine, tmp_path / "app", budget=timedelta(milliseconds=1))
    app.create()

    def work(first: int) -> None:
        for number in range(first, first + 3):
            with app.session() as session:
                session.add_all([app.Doc(id=number, file=upload("a"), pages=[upload("b"), upload("c")])])
                session.commit()
                doc = session.get_one(app.Doc, number)
                doc.file, doc.pages = upload("d"), doc.pages[1:]
                session.commit()
                with session.begin_nested() as savepoint:
                    doc.cover = upload("e")
                    session.flush()
                    savepoint.rollback()
                doc.cover = upload("f")
                session.flush()
                session.rollback()
                session.delete(session.get_one(app.Doc, number)) if number % 3 else None
                session.commit()

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 12, 3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert app.files.settled(60)
    assert app.state() == {f"{n}.{c}": [f] for n in range(0, 12, 3) for c, f in [("file", "d"), ("pages", "c")]}
    with engine.connect() as connection:
        assert Counter(connection.scalars(select(app.ledger.c.state))) == {"owned": 8}
    assert app.problems(swept=True) == [], "nothing is left to a sweep"
    assert app.sweep().ok
    assert app.files.verify(engine, checksums=True, repair=True).ok
    assert app.problems(swept=True) == []


def test_a_pooler_of_statements_refuses_before_anything_is_stored(
    behind: Behind, tmp_path: Path, open_engine: Callable[..., Engine], postgres_url: URL
) -> None:
    watcher = Application(open_engine(postgres_url), tmp_path / "app")
    watcher.create()
    app = Application(open_engine(behind("statement")), tmp_path / "app")
    with app.session() as session:
        session.add(app.Doc(id=1, file=upload("a")))
        with pytest.raises(DBAPIError, match="not allowed in statement pooling mode"):
            session.flush()
    with pytest.raises(DBAPIError, match="not allowed in statement pooling mode"):
        app.sweep()
    assert app.files.settled(20)
    assert not (tmp_path / "app" / "files").exists()
    assert watcher.problems(swept=True) == []
