"""All connections of a process are ended by the server, at every step of all operations, and the process goes on.

What was not committed is as it was before; the next transaction works; and nothing is lost or orphaned.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, NoResultFound
from sqlalchemy.orm import Session

from sa_attachments import AttachmentError
from sa_attachments.storages.local import LocalStorage
from tests.engines import CONCURRENT_ENGINES, open_engine

from .application import Application, content, upload
from .mortal import Mortal
from .scenes import WORKLOADS

PATIENT = timedelta(seconds=30)

OTHERS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend' AND application_name = 'loses'",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()",
}
END = {"postgresql": "SELECT pg_terminate_backend({}, 5000)", "mysql": "KILL {}"}


class Office:
    """An application that loses its connections, and another one that looks at the same rows and files."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.folder = folder
        self._engine = engine
        self._engines: list[Engine] = []
        self.observer = Application(engine, folder, LocalStorage(folder / "files", durable=False))
        self.observer.create()

    def renew(self, reached: Callable[[int], None]) -> tuple[Mortal, Application]:
        """Empty everything, and start the application."""
        self.close()
        shutil.rmtree(self.folder)
        with self._engine.begin() as connection:
            for table in reversed(self.observer.Base.metadata.sorted_tables):
                connection.execute(table.delete())
        mortal = Mortal(reached)
        url = self._engine.url
        if url.get_backend_name() == "postgresql":
            url = url.update_query_dict({"application_name": "loses"})
        storage = mortal.storage(LocalStorage(self.folder / "files", durable=False))
        self._engines.append(mortal.engine(open_engine(url)))
        app = Application(self._engines[-1], self.folder, storage, budget=PATIENT)
        app.given.mkdir(parents=True)
        (app.given / "given").write_bytes(content("given"))
        return mortal, app

    def close(self) -> None:
        """The application ends."""
        while self._engines:
            self._engines.pop().dispose()

    def end_connections(self) -> None:
        """The server ends them, and has rolled back what they did when this returns."""
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for each in self._others(connection):
                connection.execute(text(END[connection.dialect.name].format(each)))
            deadline = monotonic() + 10
            while self._others(connection):
                assert monotonic() < deadline, "connections do not end"
                sleep(0.001)

    def _others(self, connection: Connection) -> list[int]:
        return list(connection.scalars(text(OTHERS[connection.dialect.name])))


@pytest.fixture
def office(engine: Engine, tmp_path: Path) -> Iterator[Office]:
    office = Office(engine, tmp_path / "office")
    yield office
    office.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", CONCURRENT_ENGINES, indirect=True)
def test_at_some_steps(office: Office) -> None:
    lose_at_each(office, every=89)


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", CONCURRENT_ENGINES, indirect=True)
def test_at_every_step(office: Office) -> None:
    lose_at_each(office, every=1)


def lose_at_each(office: Office, every: int) -> None:
    number, failures = every, 0
    while True:

        def reached(step: int, limit: int = number) -> None:
            if step == limit:
                office.end_connections()

        mortal, app = office.renew(reached)
        failed = work(office.observer, app)
        if len(mortal.steps) < number:
            break
        where = f"at step {number}, about {mortal.steps[number - 1]!r}, which failed {failed}"
        failures += bool(failed)
        assert office.observer.problems() == [], where
        before = office.observer.state()
        try:
            assert app.sweep().ok, where
        except DBAPIError:  # the first one to notice
            assert app.sweep().ok, where
        assert office.observer.problems(swept=True) == [], where
        assert office.observer.state() == before, where
        number += every
    assert failures, "no transaction has noticed anything"


def work(observer: Application, app: Application) -> list[int]:
    """Do all that can be done; returns which transactions failed."""
    failed: list[int] = []
    for number, transaction in enumerate([*WORKLOADS["all"], add]):
        before = observer.state(), observer.marks()
        with app.session() as session:
            try:
                transaction(app, session)
                if session.in_transaction():
                    session.add(app.Mark(id=number))
                    session.commit()
            except (DBAPIError, AttachmentError):
                failed.append(number)
                session.rollback()
                if observer.marks() == before[1]:
                    assert observer.state() == before[0], f"transaction {number}"
            except (NoResultFound, AttributeError, IndexError, TypeError):
                assert failed, "it misses what an earlier one was to do"
        assert app.files.settled(10)
    assert len(failed) < 3, "each connection was lost once"
    return failed


def add(app: Application, session: Session) -> None:
    """At the end all is as usual."""
    session.add(app.Doc(id=1000, file=upload("last")))
