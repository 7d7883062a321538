"""A server that speaks MongoDB's protocol, for the tests: SecantusDB, from the wheel of that name.

``serve(folder)`` gives the one server that all workers of a test run share; whoever asks first starts it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

from tests.servers import ServerUnavailable, free_port

READY_WITHIN = 60.0


def serve(folder: Path) -> str:
    """The server's URL, without a database."""
    if importlib.util.find_spec("secantus") is None:
        raise ServerUnavailable("no MongoDB: install the wheel secantusdb")
    with (folder / "mongo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = folder / "mongo.json"
        if not known.exists():
            known.write_text(json.dumps({"url": _start(folder / "mongo")}))
        return str(json.loads(known.read_text())["url"])


def _start(folder: Path) -> str:
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    folder.mkdir()
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "secantus", "--host", "127.0.0.1", "--port", str(port),
                "--storage-path", str(folder / "data"), "--log-level", "ERROR",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, start_new_session=True,
        )  # fmt: skip
    (folder / "pid").write_text(str(process.pid))
    url = f"mongodb://127.0.0.1:{port}/"
    deadline = time.monotonic() + READY_WITHIN
    with MongoClient(url, serverSelectionTimeoutMS=200) as client:
        while True:
            try:
                client.admin.command("ping")
            except PyMongoError:
                if process.poll() is not None or time.monotonic() > deadline:
                    process.kill()
                    raise RuntimeError(f"SecantusDB did not start:\n{(folder / 'log').read_text()[-2000:]}") from None
            else:
                return url
