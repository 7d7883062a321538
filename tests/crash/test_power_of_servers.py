"""PostgreSQL crashes under ``synchronous_commit=off``: it forgets commits that it had confirmed, and no file is
missed.

What a commit dropped may be purged only after the server can't forget that commit any more (the claim that comes
before a purge is committed durably, and with it all that was committed before).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from sa_attachments import AttachmentError
from sa_attachments.storages.local import LocalStorage
from sa_attachments.testing import Faulty
from tests.servers import Server

from . import scenes
from .application import Application, content, upload
from .mortal import Mortal

PATIENT = timedelta(seconds=30)


class Shop:
    """An application whose server forgets what it did in the last ten seconds when it crashes."""

    def __init__(self, server: Server, open_engine: Callable[..., Engine], folder: Path) -> None:
        self.server = server
        self.folder = folder
        self._open_engine = open_engine
        self._engines: list[Engine] = []

    def application(self, storage: Any = None) -> Application:
        """The application, as a process that starts now has it."""
        self._engines.append(self._open_engine(self.server.url))
        app = Application(self._engines[-1], self.folder, storage, budget=PATIENT)
        app.create()
        return app

    def crash(self) -> None:
        """The server's processes end, and what they had not written is lost."""
        self.server.stop("immediate")

    def restart(self) -> Application:
        """The server recovers, and the application starts again."""
        for engine in self._engines:
            engine.dispose()
        self._engines.clear()
        self.server.start()
        return self.application()

    def renew(self) -> None:
        """Empty the folder and the tables."""
        shutil.rmtree(self.folder, ignore_errors=True)
        app = self.application()
        (app.given / "given").write_bytes(content("given"))
        with app.engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {', '.join(app.Base.metadata.tables)}"))
            connection.execute(text("SET LOCAL synchronous_commit = on"))


@pytest.fixture
def shop(private_postgres: Callable[..., Server], open_engine: Callable[..., Engine], tmp_path: Path) -> Iterator[Shop]:
    # The writer of the log, which would make commits durable by and by, sleeps as long as it can.
    server = private_postgres(
        fsync="on", full_page_writes="on", synchronous_commit="off", wal_writer_delay="10s", wal_writer_flush_after="0"
    )
    shop = Shop(server, open_engine, tmp_path / "shop")
    shop.renew()
    return shop


def seed(app: Application) -> None:
    """A committed row, that no crash takes."""
    with app.session() as session:
        session.execute(text("SET LOCAL synchronous_commit = on"))
        session.add(app.Doc(id=1, file=upload("old")))
        session.commit()
    assert app.files.settled(10)


def test_a_commit_can_be_lost(shop: Shop) -> None:
    """What the other tests rely on; and what was stored is swept."""
    app = shop.application()
    seed(app)
    with app.session() as session:
        session.add(app.Doc(id=2, file=upload("new")))
        session.commit()
    assert app.files.settled(10)
    shop.crash()
    later = shop.restart()
    assert later.state() == {"1.file": ["old"]}
    assert later.problems() == []
    assert later.sweep()["default"].purged == 1
    assert later.problems(swept=True) == []


@pytest.mark.parametrize("after", [False, True])
def test_bytes_are_deleted_only_when_the_drop_cannot_be_lost(shop: Shop, after: bool) -> None:
    storage = Faulty(LocalStorage(shop.folder / "files"))
    app = shop.application(storage)
    seed(app)
    storage.at("delete", 1, shop.crash, after=after)
    with app.session() as session:
        session.get_one(app.Doc, 1).file = upload("new")
        session.commit()
    assert app.files.settled(10)
    assert [call.verb for call in storage.calls].count("delete") == 1
    later = shop.restart()
    assert later.problems() == []
    assert later.state() == {"1.file": ["new"]}
    assert later.sweep().ok
    assert later.problems(swept=True) == []


def test_a_file_given_away_is_removed_only_when_the_commit_cannot_be_lost(shop: Shop) -> None:
    app = shop.application()
    seed(app)
    with app.session() as session:
        session.add(app.Doc(id=2, file=app.give("given")))
        session.commit()
    assert app.files.settled(10)
    assert not (app.given / "given").exists()
    shop.crash()
    later = shop.restart()
    assert later.state().get("2.file") == ["given"] or (later.given / "given").exists()
    assert later.problems() == []


@pytest.mark.timeout(600)
def test_a_crash_at_many_steps_of_all_operations(shop: Shop) -> None:
    crash_at_each(shop, every=131)


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_crash_at_every_step_of_all_operations(shop: Shop) -> None:
    crash_at_each(shop, every=1)


def crash_at_each(shop: Shop, every: int) -> None:
    """Let the server crash at every so many steps of a workload that goes on as far as it can."""
    app = shop.application()
    states = {0: app.state()}
    scenes.run("all", app, lambda: states.update({app.marks(): app.state()}))
    crashes = lost = 0
    number, ended = every, False
    while not ended:
        shop.renew()
        done, ended, where = work_until(shop, number)
        if not ended:
            later = shop.restart()
            marks = later.marks()
            assert later.problems() == [], where
            assert later.state() == states[marks], where
            assert (later.given / "given").exists() or states[marks].get("5.cover") == ["given"], where
            assert later.sweep().ok
            assert later.problems(swept=True) == [], where
            assert later.state() == states[marks], where
            crashes, lost = crashes + 1, lost + (marks < done)
        number += every
    assert crashes >= 5
    assert lost, "no commit was lost: the test has seen nothing"


def work_until(shop: Shop, limit: int) -> tuple[int, bool, str]:
    """Run the workload; the server crashes at a step. Returns how many commits were confirmed, whether the workload
    ended before, and words for it.
    """

    def reached(number: int) -> None:
        if number == limit:
            shop.crash()

    mortal = Mortal(reached)
    app = shop.application(mortal.storage(LocalStorage(shop.folder / "files")))
    mortal.engine(app.engine)
    done: list[None] = []
    try:
        scenes.run("all", app, lambda: done.append(None))
    except (DBAPIError, AttachmentError):
        assert len(mortal.steps) >= limit
    assert app.files.settled(10)
    ended = len(mortal.steps) < limit
    committed = len(done) - (len(done) > scenes.WORKLOADS["all"].index(scenes.roll_back))
    return committed, ended, f"crash at step {limit}" + ("" if ended else f", about {mortal.steps[limit - 1]!r}")
