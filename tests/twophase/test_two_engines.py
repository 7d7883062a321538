"""Two databases in one two-phase session: both commit or neither does, even if the process dies in between; each has
a ledger of its own, and the files of each follow its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty
from tests.scenarios.models import files
from tests.scenarios.world import World

from .undecided import Undecided

on = pytest.mark.parametrize


class Two(DeclarativeBase):
    pass


class Left(Two):
    __tablename__ = "lefts"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, "left"))


class Right(Two):
    __tablename__ = "rights"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, "right"))


class Pair:
    """Two worlds, and two-phase sessions that know both."""

    def __init__(self, left: World, right: World) -> None:
        self.left, self.right = left, right
        self.undecided = {world: Undecided(world.engine, world.observer) for world in (left, right)}
        for name, world in (("left", left), ("right", right)):
            world.storages = {name: Faulty(MemoryStorage(parallel=2))}
            world.create(Two.metadata)

    def session(self) -> Session:
        binds = {Left: self.left.engine, Right: self.right.engine}
        return Session(binds=binds, expire_on_commit=False, twophase=True)

    def seed(self) -> None:
        with self.session() as session:
            session.add_all([Left(id=1, file=b"old left"), Right(id=1, file=b"old right")])
            session.commit()

    def check(self, left: list[bytes], right: list[bytes]) -> None:
        self.left.check(*left, swept=True)
        self.right.check(*right, swept=True)

    def sweep(self) -> None:
        for world in (self.left, self.right):
            with files.override(world.storages):  # the place of the other belongs to the other
                world.sweep()


@pytest.fixture(params=["postgres", "mariadb"])
def pair(request: pytest.FixtureRequest, postgres_url: Any, open_engine: Callable[..., Engine]) -> Iterator[Pair]:
    """PostgreSQL beside another database of the same server, or beside MariaDB."""
    name = f"beside_{uuid4().hex[:12]}"
    server = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    if request.param == "mariadb":
        url: Any = request.getfixturevalue("mariadb_url")
    else:
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
        url = postgres_url.set(database=name)
    engines = [open_engine(each) for each in (postgres_url, postgres_url, url, url)]
    made = Pair(World("left", *engines[:2]), World("right", *engines[2:]))
    with files.override({**made.left.storages, **made.right.storages}):
        yield made
    for undecided in made.undecided.values():
        undecided.forget()
    for engine in engines:
        engine.dispose()
    if request.param != "mariadb":
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def change(session: Session) -> None:
    session.get_one(Left, 1).file = b"new left"
    session.get_one(Right, 1).file = b"new right"
    session.add_all([Left(id=2, file=b"more left"), Right(id=2, file=b"more right")])


@pytest.fixture
def seeded(pair: Pair) -> Pair:
    pair.seed()
    return pair


NEW = [b"new left", b"more left"], [b"new right", b"more right"]
OLD = [b"old left"], [b"old right"]


@on("prepare", [False, True])
@on("end", ["commit", "rollback", "close"])
def test_both_end_alike(seeded: Pair, end: str, prepare: bool) -> None:
    with seeded.session() as session:
        change(session)
        session.flush()
        if prepare:
            session.prepare()
        getattr(session, end)()
    seeded.check(*(NEW if end == "commit" else OLD))


def test_one_that_refuses_to_be_prepared_rolls_both_back(seeded: Pair) -> None:
    """Without two phases chance would say which of them is committed."""
    if seeded.right.engine.dialect.name != "postgresql":
        pytest.skip("MariaDB defers no constraint")
    refers = "id INT REFERENCES rights (id) DEFERRABLE INITIALLY DEFERRED"
    with seeded.right.observer.begin() as connection:
        connection.execute(text(f"CREATE TABLE refers ({refers})"))
    with seeded.session() as session:
        change(session)
        session.execute(text("INSERT INTO refers VALUES (404)"), bind_arguments={"mapper": Right})
        with pytest.raises(DBAPIError):
            session.commit()
        session.close()
    for world in (seeded.left, seeded.right):
        for name in seeded.undecided[world].names():
            seeded.undecided[world].decide(name, "ROLLBACK")
    seeded.sweep()
    seeded.check(*OLD)


@on("committed", [[], ["left"], ["right"]])
@on("end", ["COMMIT", "ROLLBACK"])
def test_a_process_that_died_between_the_phases(seeded: Pair, committed: list[str], end: str) -> None:
    """Of one, nobody can decide otherwise any more once the other is committed."""
    if committed and end == "ROLLBACK":
        pytest.skip("who recovers commits what is committed elsewhere")
    session = seeded.session()
    change(session)
    session.prepare()
    session.info.clear()
    session.invalidate()
    worlds = {"left": seeded.left, "right": seeded.right}
    for name in [*committed, *(name for name in worlds if name not in committed)]:
        undecided = seeded.undecided[worlds[name]]
        seeded.sweep()
        assert set(worlds[name].stored().values()) >= {*NEW[name == "right"], *OLD[name == "right"]}
        (xid,) = undecided.names()
        undecided.decide(xid, end)
    seeded.sweep()
    seeded.check(*(NEW if end == "COMMIT" else OLD))


def test_the_second_commit_fails(seeded: Pair) -> None:
    """The session raises; one database is committed, the other one prepared, until somebody commits it as well."""
    engines = [seeded.left.engine, seeded.right.engine]
    calls: list[Any] = []

    def breaks(plain: Any) -> Any:
        def do_commit_twophase(*arguments: Any, **options: Any) -> None:
            calls.append(arguments)
            if len(calls) > 1:
                raise ConnectionResetError("the server is gone")
            plain(*arguments, **options)

        return do_commit_twophase

    def is_gone(*arguments: Any, **options: Any) -> None:
        raise ConnectionResetError("the server is still gone")

    with pytest.MonkeyPatch.context() as patch, seeded.session() as session:
        change(session)
        session.prepare()
        for engine in engines:
            patch.setattr(engine.dialect, "do_commit_twophase", breaks(engine.dialect.do_commit_twophase))
            patch.setattr(engine.dialect, "do_rollback_twophase", is_gone)
        with pytest.raises(ConnectionResetError):
            session.commit()
        session.invalidate()
    left_over = {world: undecided.names() for world, undecided in seeded.undecided.items()}
    assert sorted(len(names) for names in left_over.values()) == [0, 1]
    seeded.sweep()
    for world, names in left_over.items():
        for name in names:
            seeded.undecided[world].decide(name, "COMMIT")
    seeded.sweep()
    seeded.check(*NEW)
