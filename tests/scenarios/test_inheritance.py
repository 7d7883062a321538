"""Inheritance: joined tables, one table, and tables of their own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import ForeignKey, ForeignKeyConstraint, String, delete, insert, inspect, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.declarative import ConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, selectin_polymorphic, with_polymorphic

from sa_attachments import Attachment, AttachmentListType, AttachmentType, BadConfiguration

from .models import files
from .world import World

on = pytest.mark.parametrize
databases = on("world", ["sqlite", "postgres", "mariadb", "aiosqlite", "asyncpg"], indirect=True)


class Base(DeclarativeBase):
    pass


class Person(Base):
    """Joined: ``Worker`` and ``Boss`` have tables of their own; ``Guest`` lives in this one."""

    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    photo: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    __mapper_args__ = {"polymorphic_on": kind, "polymorphic_identity": "person"}  # noqa: RUF012 - SQLAlchemy's form


class Worker(Person):
    __tablename__ = "workers"
    worker_id: Mapped[int] = mapped_column(ForeignKey("people.id"), primary_key=True)
    badge: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    papers: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files))
    __mapper_args__ = {"polymorphic_identity": "worker"}  # noqa: RUF012 - SQLAlchemy's form


class Boss(Worker):
    __tablename__ = "bosses"
    boss_id: Mapped[int] = mapped_column(ForeignKey("workers.worker_id"), primary_key=True)
    contract: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    __mapper_args__ = {"polymorphic_identity": "boss"}  # noqa: RUF012 - SQLAlchemy's form


class Guest(Person):
    ticket: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    __mapper_args__ = {"polymorphic_identity": "guest"}  # noqa: RUF012 - SQLAlchemy's form


class Thing(ConcreteBase, Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    __mapper_args__ = {"polymorphic_identity": "thing", "concrete": True}  # noqa: RUF012 - SQLAlchemy's form


class Tool(Thing):
    __tablename__ = "tools"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    manual: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    __mapper_args__ = {"polymorphic_identity": "tool", "concrete": True}  # noqa: RUF012 - SQLAlchemy's form


BOSS: dict[str, Any] = {"photo": b"photo", "badge": b"badge", "papers": [b"paper"], "contract": b"contract"}
ALL = [b"photo", b"badge", b"paper", b"contract"]


def seed(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add_all([Boss(id=1, **BOSS), Guest(id=2, photo=b"guest", ticket=b"ticket")])
        session.commit()


@databases
def test_one_object_in_three_tables(world: World) -> None:
    seed(world)
    with world.session() as session:
        boss = session.get_one(Boss, 1)
        assert [file.read() for file in (boss.photo, boss.badge, *boss.papers, boss.contract)] == ALL
        boss.photo, boss.contract = boss.contract, boss.photo
        boss.badge = None
        session.commit()
        assert (boss.photo.read(), boss.contract.read()) == (b"contract", b"photo")
    world.check(b"photo", b"paper", b"contract", b"guest", b"ticket")


@databases
@on("loaded", [True, False])
def test_a_subclass_is_deleted_through_its_base(world: World, loaded: bool) -> None:
    """The columns of the subclass were never loaded."""
    seed(world)
    with world.session() as session:
        query = select(Person).order_by(Person.id)
        if loaded:
            query = query.options(selectin_polymorphic(Person, [Worker, Boss, Guest]))
        boss, guest = session.scalars(query).all()
        assert ("contract" in inspect(boss).dict) is loaded
        session.delete(boss)
        session.delete(guest)
        session.commit()
    world.check()


@databases
def test_a_subclass_is_changed_through_its_base(world: World) -> None:
    seed(world)
    with world.session() as session:
        boss = session.scalars(select(Person).where(Person.id == 1)).one()
        boss.contract, boss.papers = b"new", []  # type: ignore[attr-defined]
        session.commit()
        everyone = with_polymorphic(Person, "*")
        query = select(everyone).where(everyone.Boss.contract["size"].as_integer() == 3)
        assert session.scalars(query).one() is boss
    world.check(b"photo", b"badge", b"new", b"guest", b"ticket")


@databases
def test_bulk_statements_of_a_subclass(world: World) -> None:
    seed(world)
    with world.session() as session:
        session.execute(insert(Boss), [{"id": 3, **BOSS}, {"id": 4, "photo": b"photo 4", "papers": []}])
        session.execute(update(Guest).values(ticket=b"new ticket"))
        session.execute(update(Person).where(Person.kind == "guest").values(photo=b"new guest"))
        session.execute(update(Boss).where(Boss.boss_id == 4).values(contract=b"contract 4"))
        rows = [{"id": 3, "boss_id": 3, "photo": b"photo 3", "contract": b"contract 3"}, {"id": 1, "photo": None}]
        session.execute(update(Boss), rows)
        session.commit()
    expected = [*ALL[1:], b"badge", b"paper", b"photo 3", b"contract 3", b"photo 4", b"contract 4"]
    world.check(*expected, b"new guest", b"new ticket")


@databases
def test_a_bulk_delete_of_one_of_the_tables(world: World) -> None:
    seed(world)
    with world.session() as session:
        session.execute(delete(Boss).where(Boss.contract.is_not(None)))
        session.execute(delete(Guest))
        session.commit()
    world.check(b"photo", b"badge", b"paper")


@on("world", ["sqlite", "postgres"], indirect=True)
@on("what", [delete(Person), update(Person).values({"ticket": None})], ids=["delete", "update"])
def test_a_bulk_statement_of_a_class_meets_the_columns_of_its_subclasses(world: World, what: Any) -> None:
    """They are in its table, and no attributes of it."""
    world.create(Base.metadata)
    with world.session() as session:
        session.add_all([Guest(id=id_, photo=b"photo", ticket=b"ticket") for id_ in (1, 2)])
        session.commit()
        session.execute(what.where(Person.id == 2), execution_options={"synchronize_session": False})
        session.commit()
    world.check(b"photo", b"ticket", *([b"photo"] if what.is_update else []))


@on("world", ["sqlite", "postgres"], indirect=True)
def test_a_row_that_became_one_of_another_class(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add(Guest(id=1, photo=b"photo", ticket=b"ticket"))
        session.execute(update(Person).values(kind="person"))
        session.commit()
        session.expunge_all()
        session.delete(session.get_one(Person, 1))
        session.commit()
    world.check()


@on("world", ["sqlite", "postgres"], indirect=True)
@on("nothing", [True, False])
def test_an_upsert_of_one_of_the_tables(world: World, nothing: bool) -> None:
    seed(world)
    upsert = (sqlite if world.name == "sqlite" else postgresql).insert(Boss).values(boss_id=1, contract=b"new")
    with world.session() as session:
        session.execute(
            upsert.on_conflict_do_nothing()
            if nothing
            else upsert.on_conflict_do_update(index_elements=["boss_id"], set_={"contract": upsert.excluded.contract})
        )
        session.commit()
    world.check(b"photo", b"badge", b"paper", b"guest", b"ticket", b"contract" if nothing else b"new")


@on("world", ["sqlite", "postgres"], indirect=True)
def test_an_update_of_a_subclass_copies_nothing_for_others_in_its_table(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add_all([Person(id=1, photo=b"one"), Person(id=2), Guest(id=3)])
        session.commit()
        before = world.puts
        session.execute(update(Guest).values(photo=b"new"))
        session.commit()
    assert world.puts == before + 1
    world.check(b"one", b"new")


@on("world", ["sqlite"], indirect=True)
def test_what_a_row_dropped_comes_back_though_its_table_has_the_key_in_another_order(world: World) -> None:
    class Other(DeclarativeBase):
        pass

    class Place(Other):
        __tablename__ = "places"
        x: Mapped[int] = mapped_column(primary_key=True)
        y: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(10))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "place"}  # noqa: RUF012 - SQLAlchemy's form

    class Town(Place):
        __tablename__ = "towns"
        down: Mapped[int] = mapped_column(primary_key=True)
        right: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, retain=timedelta(days=1)))
        __table_args__ = (ForeignKeyConstraint(["right", "down"], ["places.x", "places.y"]),)
        __mapper_args__ = {"polymorphic_identity": "town"}  # noqa: RUF012 - SQLAlchemy's form

    world.create(Other.metadata)
    keys = [(1, 2), (2, 1)]
    with world.session() as session:
        session.add_all(Town(x=x, y=y, right=x, down=y, file=b"%d %d" % (x, y)) for x, y in keys)
        session.commit()
        for town in session.scalars(select(Town)):
            town.file = None
        session.commit()
        assert [files.restore(session, Town.file, key).read() for key in keys] == [b"1 2", b"2 1"]
        with pytest.raises(BadConfiguration, match=r"7 is no primary key of Town: expected \(x, y\)"):
            files.restore(session, Town.file, 7)
        session.commit()
    world.check(b"1 2", b"2 1")


@on("world", ["sqlite", "postgres", "aiosqlite", "asyncpg"], indirect=True)
def test_concrete_tables(world: World) -> None:
    """Rows with the same primary key in two tables."""
    world.create(Base.metadata)
    with world.session() as session:
        session.add_all([Thing(id=1, file=b"thing"), Tool(id=1, file=b"tool", manual=b"manual")])
        session.commit()
        session.expunge_all()
        thing, tool = sorted(session.scalars(select(Thing)), key=lambda each: type(each).__name__)
        assert (thing.file.read(), tool.file.read()) == (b"thing", b"tool")
        thing.file, tool.file = tool.file, thing.file
        tool.manual = b"new manual"
        session.commit()
        session.delete(thing)
        session.commit()
    world.check(b"thing", b"new manual")
