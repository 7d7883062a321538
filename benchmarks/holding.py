"""How long connections are held while files are stored: ``python benchmarks/holding.py URL``, of a server's database in
which two tables may be made and dropped.

Requests come from more threads than there are connections, each with a file from a slow client. A request reads
something, as to see who is asking, and stores its file

``in the flush``    of the same session, which holds its connection meanwhile;
``flushed first``   of a session that has not read anything before: it takes its connection when the files are stored;
``staged``          by ``files.stage``, after the session that read was closed: two short transactions.

Beside them one thread asks for a row, again and again, and waits for a connection like everybody.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, Storages

THREADS = 16
CONNECTIONS = 4
REQUESTS = 64
PIECES = 10
DURATIONS = [0, 5, 20, 100, 500]
"""Milliseconds that an upload takes."""

files = Storages("memory:")


class Base(DeclarativeBase):
    pass


class Held(Base):
    __tablename__ = "holding_docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


@dataclass
class Seen:
    """What one run measured; seconds."""

    wall: float = 0.0
    held: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)


def slow_client(milliseconds: float) -> Iterator[bytes]:
    """A file that comes in pieces."""
    for _ in range(PIECES):
        if milliseconds:
            time.sleep(milliseconds / 1000 / PIECES)
        yield b"x" * 2_000


def in_the_flush(engine: Engine, milliseconds: float) -> None:
    with Session(engine) as session:
        session.get(Held, 0)
        session.add(Held(file=Attachment.upload(slow_client(milliseconds))))
        session.commit()


def flushed_first(engine: Engine, milliseconds: float) -> None:
    with Session(engine) as session:
        session.add(Held(file=Attachment.upload(slow_client(milliseconds))))
        session.commit()


def staged(engine: Engine, milliseconds: float) -> None:
    with Session(engine) as session:
        session.get(Held, 0)
    file = files.stage(Attachment.upload(slow_client(milliseconds)), Held.file)
    with Session(engine) as session:
        session.add(Held(file=file))
        session.commit()


WAYS: dict[str, Callable[[Engine, float], None]] = {
    "in the flush": in_the_flush,
    "flushed first": flushed_first,
    "staged": staged,
}


def measure(engine: Engine, way: Callable[[Engine, float], None], milliseconds: float) -> Seen:
    """All requests of one way."""
    seen = Seen()
    since: dict[int, float] = {}
    over = threading.Event()

    def checkout(connection: Any, record: Any, proxy: Any) -> None:
        since[id(record)] = time.perf_counter()

    def checkin(connection: Any, record: Any) -> None:
        if threading.current_thread().name.startswith("request"):
            seen.held.append(time.perf_counter() - since[id(record)])

    def other() -> None:
        while not over.is_set():
            began = time.perf_counter()
            with engine.connect() as connection:
                connection.execute(select(1))
            seen.waited.append(time.perf_counter() - began)
            time.sleep(0.002)

    event.listen(engine, "checkout", checkout)
    event.listen(engine, "checkin", checkin)
    beside = threading.Thread(target=other)
    with ThreadPoolExecutor(THREADS, "request") as pool:
        beside.start()
        began = time.perf_counter()
        list(pool.map(lambda _: way(engine, milliseconds), range(REQUESTS)))
        seen.wall = time.perf_counter() - began
        over.set()
        beside.join()
    event.remove(engine, "checkout", checkout)
    event.remove(engine, "checkin", checkin)
    return seen


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url")
    said = parser.parse_args(arguments)
    engine = create_engine(said.url, pool_size=CONNECTIONS, max_overflow=0, pool_timeout=60)
    Base.metadata.create_all(engine)
    try:
        in_the_flush(engine, 0)
        print(f"{REQUESTS} requests, {THREADS} threads, {CONNECTIONS} connections")
        print("| upload | way | connection held, of a request | all requests | another one waits, median and worst |")
        print("|---|---|---|---|---|")
        for milliseconds in DURATIONS:
            for name, way in WAYS.items():
                seen = measure(engine, way, milliseconds)
                assert files.settled(10)
                held = sum(seen.held) / REQUESTS * 1000
                waited = sorted(each * 1000 for each in seen.waited)
                print(
                    f"| {milliseconds} ms | {name} | {held:.1f} ms | {seen.wall:.2f} s "
                    f"| {statistics.median(waited):.0f} ms, {waited[-1]:.0f} ms |"
                )
    finally:
        Base.metadata.drop_all(engine)
        engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
