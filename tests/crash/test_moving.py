"""A move that is killed again and again, while the application reads and writes, loses nothing and leaves nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, Storages
from tests.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed

NOW = timedelta(0)
RETAIN = timedelta(seconds=2)
files = Storages()


class Base(DeclarativeBase):
    pass


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    file: Mapped[Attachment] = mapped_column(AttachmentType(files))


def configure(folder: str, bucket: str, endpoint: str) -> None:
    """``old`` is a folder, ``new`` another one, or a bucket if there is one."""
    old = f"local:{folder}/old?durable=false"
    credentials = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
    new: Any = f"local:{folder}/new?durable=false"
    if bucket:
        from sa_attachments.storages.s3 import S3Storage  # takes a process half a second

        new = S3Storage(bucket, endpoint_url=endpoint, **credentials)
    files.configure({"old": old, "new": new, "default": "new"})


@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)
def test_a_move_that_is_killed_loses_nothing(engine: Engine, tmp_path: Path) -> None:
    configure(str(tmp_path), "", "")
    _move_under_fire(engine, tmp_path, 200, "", "", pause=0.05, least=1, most=2)


@pytest.mark.torture
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_ten_thousand_files_to_s3(engine: Engine, tmp_path: Path, seaweed: Seaweed, bucket: str) -> None:
    configure(str(tmp_path), bucket, seaweed.endpoint)
    _move_under_fire(engine, tmp_path, 10_000, bucket, seaweed.endpoint, pause=8, least=5, most=5)


def _move_under_fire(
    engine: Engine, folder: Path, rows: int, bucket: str, endpoint: str, pause: float, least: int, most: int
) -> None:
    """``least``: how many kills there must have been; a quick machine is done before there were ``most`` of them."""
    Base.metadata.create_all(engine)
    for first in range(0, rows, 500):
        with Session(engine) as session:
            for number in range(first, min(first + 500, rows)):
                session.add(Doc(number=number, file=Attachment.upload(b"%d:0" % number, storage="old")))
            session.commit()
    kills = 0
    with _users(engine, rows) as expected:
        while True:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.test_moving", str(engine.url), str(folder), bucket, endpoint],
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None
            assert process.stdout.readline() == b"moving\n"
            try:
                process.wait(pause if kills < most else 600)
                assert process.returncode == 0
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
    assert kills >= least
    for _ in range(5):  # what users held until the end
        if files.move(engine, "old", "new", retain=NOW).ok:
            break
    assert files.settled(60)
    with Session(engine) as session:
        docs = session.scalars(select(Doc)).all()
        assert {doc.number: doc.file.read() for doc in docs} == {
            number: b"%d:%d" % (number, version) for number, version in expected.items()
        }
        assert {doc.file.storage for doc in docs} == {"new"}
    time.sleep(RETAIN.total_seconds())
    for _ in range(2):
        assert files.sweep(engine, full=True, grace=NOW, stranger_retain=NOW).ok
    report = files.verify(engine)
    assert report.ok, report.findings[:5]
    assert list(files.resolve("old").keys()) == []
    assert len(list(files.resolve("new").keys())) == len(expected)


@contextmanager
def _users(engine: Engine, rows: int) -> Iterator[dict[int, int]]:
    """A thread that replaces, deletes and reads; yields the version that each row has at last."""
    versions = dict.fromkeys(range(rows), 0)
    stop = threading.Event()
    errors: list[BaseException] = []

    def one(random_: random.Random) -> None:
        number = random_.choice(list(versions))
        with Session(engine) as session:
            doc = session.scalars(select(Doc).where(Doc.number == number)).one()
            assert doc.file.read() == b"%d:%d" % (number, versions[number])
            action = random_.choice(["replace", "delete", "describe", "read"])
            if action == "replace":
                doc.file = Attachment.upload(b"%d:%d" % (number, versions[number] + 1))
            elif action == "describe":
                doc.file = doc.file.replace(filename=f"{random_.random()}.txt")
            elif action == "delete":
                session.delete(doc)
            session.commit()
            if action == "replace":
                versions[number] += 1
            elif action == "delete":
                del versions[number]

    def work() -> None:
        random_ = random.Random(7)
        while not stop.is_set():
            try:
                one(random_)
            except OperationalError as error:
                if "locked" not in str(error):  # SQLite has one writer
                    errors.append(error)
                    return
            except BaseException as error:  # noqa: BLE001 - raised in the test's thread
                errors.append(error)
                return
            time.sleep(0.005)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield versions
    finally:
        stop.set()
        thread.join()
    if errors:
        raise errors[0]


if __name__ == "__main__":
    url, folder, bucket, endpoint = sys.argv[1:]
    configure(folder, bucket, endpoint)
    print("moving", flush=True)
    report = files.move(create_engine(url), "old", "new", retain=RETAIN)
    os._exit(0 if not report.failed else 1)
