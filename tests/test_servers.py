"""Servers that crash when told to, and that nobody has to clean up after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from tests import engines
from tests.servers import Server, ServerUnavailable, binaries


def test_a_crash_loses_what_was_not_flushed_and_keeps_what_was(
    private_postgres: Callable[..., Server], open_engine: Callable[..., Engine]
) -> None:
    server = private_postgres(fsync="on", synchronous_commit="off", wal_writer_delay="10s")
    engine = open_engine(server.url)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL synchronous_commit = on"))
        connection.execute(text("CREATE TABLE t (i integer)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (2)"))
    server.stop("immediate")
    with pytest.raises(OperationalError), engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    server.start()
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT i FROM t")).all() == [1]
    server.kill()
    server.start()
    engine.dispose()
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT i FROM t")).all() == [1]


@pytest.mark.skipif(engines.POSTGRES is not None, reason="starts a server of its own")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_servers_end_with_the_process_that_keeps_them_however_it_ends(tmp_path: Path, end: signal.Signals) -> None:
    try:
        binaries(tmp_path)
    except ServerUnavailable as error:
        pytest.skip(str(error))
    program = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores
from tests.servers import Keeper, serve
keeper = Keeper()
server = serve(keeper.folder)
print(keeper.folder, (server.folder / "data" / "postmaster.pid").read_text().split()[0], flush=True)
time.sleep(60)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    assert child.stdout is not None
    folder, pid = child.stdout.readline().split()
    assert Path(folder, "postgres", "data").is_dir()
    os.kill(int(pid), 0)
    child.send_signal(end)
    child.communicate()
    deadline = time.monotonic() + 10
    while (Path(folder).exists() or Path(f"/proc/{pid}/exe").exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(folder).exists()
    assert not Path(f"/proc/{pid}/exe").exists()
