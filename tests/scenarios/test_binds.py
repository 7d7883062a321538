"""Sessions that choose their connection themselves: by statement, by what they are doing, by shard."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import Delete, Engine, ForeignKey, Update, delete, insert, update
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, BadConfiguration

from .models import Base, Doc, files
from .world import World

on = pytest.mark.parametrize
ENGINES = on("world", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def follower(tmp_path: Path, open_engine: Callable[..., Engine]) -> Engine:
    """A database in which nothing may be written, as far as we know."""
    engine = open_engine(f"sqlite:///{tmp_path}/follower.db")
    Base.metadata.create_all(engine)
    return engine


def seed(world: World) -> int:
    with world.session() as session:
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        return doc.id


STATEMENTS = {
    "insert": lambda: insert(Doc).values(file=b"more"),
    "update": lambda: update(Doc).values(file=b"new"),
    "delete": lambda: delete(Doc),
}
EXPECTED = {"insert": [b"old", b"more"], "update": [b"new"], "delete": []}


@ENGINES
@on("how", ["update", "delete"])
def test_a_session_that_reads_from_a_follower(world: World, follower: Engine, how: str) -> None:
    """As in SQLAlchemy's documentation of custom vertical partitioning."""

    class Routing(Session):
        def get_bind(self, mapper: Any = None, clause: Any = None, **kw: Any) -> Any:
            return world.engine if self._flushing or isinstance(clause, Update | Delete) else follower

    seed(world)
    with Routing() as session:
        session.execute(STATEMENTS[how]())
        session.commit()
    world.check(*EXPECTED[how])


@ENGINES
@on("how", list(EXPECTED))
def test_a_statement_that_names_its_bind(world: World, follower: Engine, how: str) -> None:
    seed(world)
    with Session(follower) as session:
        session.execute(STATEMENTS[how](), bind_arguments={"bind": world.engine})
        session.commit()
    world.check(*EXPECTED[how])


@on("world", ["postgres"], indirect=True)
def test_a_subclass_with_a_bind_of_its_own_is_written_as_its_base(world: World) -> None:
    """A flush asks for the connection of the hierarchy's base alone."""

    class Other(DeclarativeBase):
        pass

    class Employee(Other):
        __tablename__ = "employees"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        photo: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
        __mapper_args__: ClassVar[dict[str, str]] = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}

    class Manager(Employee):
        __tablename__ = "managers"
        id: Mapped[int] = mapped_column(ForeignKey("employees.id"), primary_key=True)
        card: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
        __mapper_args__: ClassVar[dict[str, str]] = {"polymorphic_identity": "manager"}

    world.create(Other.metadata)
    with Session(binds={Employee: world.engine, Manager: world.observer}) as session:
        session.add(manager := Manager(photo=b"photo", card=b"card"))
        session.commit()
        manager.card = b"new"
        session.commit()
        session.execute(update(Manager), [{"id": manager.id, "card": b"newer"}])
        session.commit()
    world.check(b"photo", b"newer")


@on("world", ["sqlite"], indirect=True)
@on("how", ["flush", "replace", "delete", "statement"])
def test_a_sharded_session_is_refused(world: World, follower: Engine, how: str) -> None:
    """The rows of one flush go to several databases, and nobody asks which before it has begun."""
    key = seed(world)
    shards = {"here": world.engine, "there": follower}
    with (
        ShardedSession(
            shard_chooser=lambda *_, **__: "here",
            identity_chooser=lambda *_, **__: ["here"],
            execute_chooser=lambda _: ["here"],
            shards=shards,
        ) as session,
        world.nothing_stored(),
    ):
        doc = session.get_one(Doc, key)
        assert doc.file is not None
        assert doc.file.read() == b"old"
        match how:
            case "flush":
                session.add(Doc(file=b"new"))
            case "replace":
                doc.file = b"new"
            case "delete":
                session.delete(doc)
        with pytest.raises(BadConfiguration, match="ShardedSession chooses a database for each row"):
            session.execute(delete(Doc)) if how == "statement" else session.flush()
        session.rollback()
    world.check(b"old")
