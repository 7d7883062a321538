"""Every way to map a class: what is true of one is true of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional
from uuid import UUID, uuid4

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    join,
    select,
    text,
    update,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    aliased,
    column_property,
    composite,
    declared_attr,
    mapped_column,
    registry,
    undefer,
)
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.util import await_only
from sqlmodel import Field, SQLModel

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages
from sa_attachments.storages.memory import MemoryStorage

from .models import Doc, files
from .world import World

on = pytest.mark.parametrize
databases = on("world", ["sqlite", "postgres", "aiosqlite", "asyncpg"], indirect=True)


class Picture(Attachment):
    """What a subclass adds."""

    @property
    def is_image(self) -> bool:
        return self.content_type.startswith("image/")


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's form
        Attachment: AttachmentType(files),
        Sequence[Attachment]: AttachmentListType(files),
        Picture: AttachmentType(files, attachment_class=Picture),
    }


class Mapped_(Base):
    """By annotations alone."""

    __tablename__ = "mapped"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None]
    pages: Mapped[Sequence[Attachment]]
    picture: Mapped[Picture | None]


class Dataclass(MappedAsDataclass, Base):
    __tablename__ = "dataclasses"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    file: Mapped[Attachment | None] = mapped_column(default=None)
    pages: Mapped[Sequence[Attachment]] = mapped_column(default_factory=tuple)


class HasFile:
    """A mixin; each class gets a column of its own."""

    file: Mapped[Attachment | None]

    @declared_attr
    @classmethod
    def scan(cls) -> Mapped[Attachment | None]:
        return mapped_column(AttachmentType(files), deferred=True)


class Light:
    """Another class for the same table, of whose files it has one, by the name of another one's column."""


mapped: Any = Mapped_.__table__
Base.registry.map_imperatively(
    Light, mapped, exclude_properties=[mapped.c.file, mapped.c.pages], properties={"file": mapped.c.picture}
)


class MixedOne(HasFile, Base):
    __tablename__ = "mixed_one"
    id: Mapped[int] = mapped_column(primary_key=True)


class Abstract(Base):
    __abstract__ = True
    file: Mapped[Attachment | None]
    pages: Mapped[Sequence[Attachment]]


class MixedTwo(HasFile, Abstract):
    __tablename__ = "mixed_two"
    id: Mapped[int] = mapped_column(primary_key=True)


class Composite(Base):
    __tablename__ = "composite"
    left: Mapped[int] = mapped_column(primary_key=True)
    right: Mapped[str] = mapped_column(String(10), primary_key=True)
    file: Mapped[Attachment | None]


@dataclass
class Sides:
    front: Any
    back: Any


class Card(Base):
    """Two attachments as one attribute."""

    __tablename__ = "cards"
    id: Mapped[int] = mapped_column(primary_key=True)
    front: Mapped[Attachment | None]
    back: Mapped[Attachment | None]
    sides: Mapped[Sides] = composite("front", "back")


class Covered(Base):
    """An attachment by another name as well."""

    __tablename__ = "covered"
    id: Mapped[int] = mapped_column(primary_key=True)
    front: Mapped[Attachment | None]

    def _get(self) -> Any:
        return self.front

    def _spread(self, mapping: Any, value: Any) -> None:
        mapping["front"] = value

    cover: Any = hybrid_property(_get)
    if hasattr(cover, "bulk_dml_setter"):
        cover = hybrid_property(_get, bulk_dml_setter=classmethod(_spread))  # type: ignore[call-arg, unused-ignore]


class Renamed(Base):
    """Attributes that are not called like their columns, one of them like another column."""

    __tablename__ = "renamed"
    key: Mapped[UUID] = mapped_column("id", primary_key=True, default=uuid4)
    photo: Mapped[Attachment | None] = mapped_column("file")
    file: Mapped[Attachment | None] = mapped_column("other")


class Versioned(Base):
    __tablename__ = "versioned"
    id: Mapped[int] = mapped_column(primary_key=True)
    version = mapped_column(Integer, nullable=False)
    file: Mapped[Attachment | None]
    size: Mapped[int | None] = column_property(select(text("42")).scalar_subquery())
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012 - SQLAlchemy's form


class Coded(Base):
    """The mapping takes something else than the table for its primary key."""

    __tablename__ = "coded"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(32), unique=True, default=lambda: uuid4().hex)
    file: Mapped[Attachment | None]
    __mapper_args__ = {"primary_key": [code]}  # noqa: RUF012 - SQLAlchemy's form


lefts = Table("lefts", Base.metadata, Column("id", Integer, primary_key=True), Column("file", AttachmentType(files)))
rights = Table(
    "rights",
    Base.metadata,
    Column("id", ForeignKey("lefts.id"), primary_key=True),
    Column("scan", AttachmentType(files)),
)


class Joined(Base):
    """Two tables, with one attribute for their primary keys."""

    __table__ = join(lefts, rights)
    id = column_property(lefts.c.id, rights.c.id)


shelves = Table(
    "shelves",
    Base.metadata,
    Column("id", Integer, primary_key=True),
    Column("file", AttachmentType(files)),
    Column("pages", AttachmentListType(files)),
)


class Selected(Base):
    """A subquery, through which SQLAlchemy writes the table in it."""

    __table__ = select(shelves.c.id.label("number"), shelves.c.file.label("scan"), shelves.c.pages).subquery()


class Slim(Base):
    """Another one, without the files."""

    __table__ = select(shelves.c.id).where(shelves.c.file.is_not(None)).subquery()


class Imperative:
    def __init__(self, **values: object) -> None:
        for name, value in values.items():
            setattr(self, name, value)


registry(metadata=Base.metadata).map_imperatively(
    Imperative,
    Table(
        "imperative",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("file", AttachmentType(files)),
        Column("pages", AttachmentListType(files)),
    ),
)


class Modelled(SQLModel, table=True):
    __tablename__ = "modelled"
    model_config = {"arbitrary_types_allowed": True}
    id: Optional[int] = Field(default=None, primary_key=True)  # noqa: UP045 - SQLModel reads it at run time
    file: Any = Field(default=None, sa_column=Column(AttachmentType(files)))
    pages: Any = Field(default=(), sa_column=Column(AttachmentListType(files)))


KINDS: dict[str, tuple[Any, list[str], list[str]]] = {
    "annotations": (Mapped_, ["file", "picture"], ["pages"]),
    "dataclass": (Dataclass, ["file"], ["pages"]),
    "mixin": (MixedOne, ["file", "scan"], []),
    "mixin and abstract": (MixedTwo, ["file", "scan"], ["pages"]),
    "composite": (Composite, ["file"], []),
    "renamed": (Renamed, ["photo", "file"], []),
    "imperative": (Imperative, ["file"], ["pages"]),
    "sqlmodel": (Modelled, ["file"], ["pages"]),
    "versioned": (Versioned, ["file"], []),
    "another primary key": (Coded, ["file"], []),
    "two tables": (Joined, ["file", "scan"], []),
    "subquery": (Selected, ["scan"], ["pages"]),
}


def made(cls: Any, number: int, **values: object) -> Any:
    """An object with this primary key, set after its construction: dataclasses do not take it."""
    obj = cls(**values)
    match cls:
        case _ if cls is Composite:
            obj.left, obj.right = number, "x"
        case _ if cls is Renamed:
            obj.key = UUID(int=number)
        case _ if cls is Selected:
            obj.number = number
        case _:
            obj.id = number
    return obj


@databases
@on("kind", KINDS)
def test_the_life_of_a_row(world: World, kind: str) -> None:
    cls, single, plural = KINDS[kind]
    world.create(SQLModel.metadata if kind == "sqlmodel" else Base.metadata)
    with world.session() as session:
        first = made(cls, 1, **{name: f"{name} 1".encode() for name in single}, **{name: [b"p1"] for name in plural})
        second = made(cls, 2, **{name: f"{name} 2".encode() for name in single})
        session.add_all([first, second])
        session.commit()
        for name in single:
            assert getattr(first, name).read() == f"{name} 1".encode()
            setattr(first, name, b"new " + name.encode())
        for name in plural:
            setattr(first, name, [*getattr(first, name), b"p2"])
        session.flush()
        session.rollback()
        for name in single:
            setattr(first, name, b"newer " + name.encode())
        for name in plural:
            setattr(first, name, [b"p3", *getattr(first, name)])
        session.commit()
        session.delete(second)
        session.commit()
    world.check(*(b"newer " + name.encode() for name in single), *([b"p3", b"p1"] if plural else []))


@databases
@on("kind", [kind for kind in KINDS if kind not in ("versioned", "another primary key", "two tables", "subquery")])
def test_bulk_statements(world: World, kind: str) -> None:
    cls, single, plural = KINDS[kind]
    world.create(SQLModel.metadata if kind == "sqlmodel" else Base.metadata)
    keys = {"composite": lambda i: {"left": i, "right": "x"}, "renamed": lambda i: {"key": UUID(int=i)}}
    key = keys.get(kind, lambda i: {"id": i})
    more: dict[str, Any] = {name: [b"page"] for name in plural}
    with world.session() as session:
        rows = [{**key(i), single[0]: b"%d" % i, **more} for i in (1, 2, 3)]
        session.execute(insert(cls), rows)
        session.execute(update(cls).where(getattr(cls, single[0]).is_not(None)).values({single[0]: b"all"}))
        session.execute(update(cls), [{**key(1), single[0]: b"one"}, {**key(2), single[0]: None}])
        session.commit()
    world.check(b"one", b"all", *[b"page"] * 3 * len(plural))


@databases
def test_a_row_that_is_deleted_through_a_subquery_without_its_files(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add_all([Selected(number=1, scan=b"file", pages=[b"page"]), Selected(number=2, scan=b"kept")])
        session.commit()
        session.delete(session.get_one(Slim, 1))
        session.commit()
    world.check(b"kept")


@databases
def test_bulk_statements_with_composites(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        rows = [{"id": i, "sides": Sides(b"front", b"back")} for i in (1, 2, 3)]
        session.execute(insert(Card), rows)
        session.execute(insert(Card), {"id": 4, "sides": Sides(b"last", None)})
        assert rows[0].keys() == {"id", "sides"}
        session.execute(update(Card), [{"id": 1, "sides": Sides(None, None)}, {"id": 2, "sides": Sides(b"new", None)}])
        session.commit()
    world.check(b"new", b"front", b"back", b"last")


@pytest.mark.skipif(
    not hasattr(hybrid_property, "bulk_dml"), reason="SQLAlchemy 2.0 has no hybrids in lists of parameters"
)
def test_bulk_statements_with_hybrids(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.execute(insert(Covered), [{"id": i, "cover": Attachment.upload(b"old")} for i in (1, 2, 3)])
        session.execute(update(Covered), [{"id": 1, "cover": None}, {"id": 2, "cover": Attachment.upload(b"new")}])
        session.commit()
    world.check(b"new", b"old")


def test_the_class_of_the_values(world: World) -> None:
    world.create(Base.metadata)
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    with world.session() as session:
        row = Mapped_(picture=png)
        assert isinstance(row.picture, Picture)
        session.add_all([row, Mapped_(picture=Attachment.upload(png))])
        session.flush()
        assert isinstance(row.picture, Picture)
        assert row.picture.is_image
        session.commit()
        assert all(isinstance(each, Picture) and each.is_image for each in session.scalars(select(Mapped_.picture)))
        row.file = row.picture
        session.flush()
        assert type(row.file) is Attachment
        session.commit()
    world.check(png, png, png)


@databases
@on("before", [None, b"old"])
def test_objects_of_two_classes_write_one_row(world: World, before: bytes | None) -> None:
    """It names what was written last, and what the other one was given is deleted."""

    class TwinBase(DeclarativeBase): ...

    class Twin(TwinBase):
        __table__ = Doc.__table__

    with world.session() as session:
        session.add(Doc(id=1, file=before))
        session.commit()
        doc, twin = session.get_one(Doc, 1), session.get_one(Twin, 1)
        doc.file, twin.file = b"same size", b"size same"  # type: ignore[assignment]
        session.commit()
        session.expire_all()
        assert doc.file == twin.file
        kept = doc.file.read()
    world.check(kept)


@databases
def test_a_file_moves_between_classes(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add(Composite(left=1, right="a", file=b"one"))
        session.commit()
        with world.nothing_stored():
            row = session.get_one(Composite, (1, "a"))
            session.add(Dataclass(file=row.file))
            row.file = None
            session.commit()
            moved = session.scalars(select(Dataclass)).one()
            session.add(made(Imperative, 1, pages=[moved.file]))
            session.delete(moved)
            session.commit()
    world.check(b"one")


@databases
def test_a_stale_version_stores_nothing_for_long(world: World) -> None:
    world.create(Base.metadata)
    with world.session(expire_on_commit=False) as session:
        row = Versioned(file=b"old")
        session.add(row)
        session.commit()
        with world.observer.begin() as connection:
            connection.execute(text("UPDATE versioned SET version = version + 1"))
        row.file = b"new"
        with pytest.raises(StaleDataError):
            session.commit()
        session.rollback()
        assert row.size == 42
        row.file = b"newer"
        session.commit()
    world.check(b"newer")


@databases
def test_deferred_columns_and_aliases(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add(MixedOne(id=1, file=b"file", scan=b"scan"))
        session.commit()
        session.expunge_all()
        other = aliased(MixedOne)
        row = session.scalars(select(other).where(other.file.is_not(None))).one()
        assert "scan" not in row.__dict__
        assert (
            session.execute(select(other.scan, func.count()).group_by(other.id, other.scan)).one()[0].read() == b"scan"
        )
        session.expunge_all()
        assert session.scalars(select(other).options(undefer(other.scan))).one().__dict__["scan"].read() == b"scan"
        session.delete(session.get_one(MixedOne, 1))
        session.commit()
    world.check()


@on("world", ["sqlite", "postgres"], indirect=True)
@on("how", ["delete", "bulk", "change"])
def test_a_class_that_leaves_the_files_of_its_table_out(world: World, how: str) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add_all([Mapped_(id=id_, file=b"file", picture=b"picture", pages=[b"page"]) for id_ in (1, 2)])
        session.commit()
        session.expunge_all()
        light: Any = session.get_one(Light, 2)
        if how == "change":
            light.id = 3
        elif how == "delete":
            session.delete(light)
        else:
            session.execute(delete(Light).where(Light.id == 2))
        session.commit()
    world.check(*[b"file", b"picture", b"page"] * (2 if how == "change" else 1))


# A schema


own = Storages("memory:")


class InSchema(DeclarativeBase):
    """The ledger is in the schema too."""

    metadata = MetaData(schema="elsewhere")


class Filed(InSchema):
    __tablename__ = "filed"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(own))


class Apart(DeclarativeBase):
    """The ledger is in the default schema."""


class FiledApart(Apart):
    __tablename__ = "apart"
    __table_args__ = {"schema": "elsewhere"}  # noqa: RUF012 - SQLAlchemy's form
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(own))


@on("world", ["postgres", "asyncpg"], indirect=True)
@on("cls", [Filed, FiledApart])
def test_tables_in_a_schema(world: World, cls: Any) -> None:
    with world.observer.begin() as connection:
        connection.execute(text("CREATE SCHEMA elsewhere"))
    cls.metadata.create_all(world.observer)
    storage = MemoryStorage()
    with own.override(storage), world.session() as session:
        session.add(cls(id=1, file=b"old"))
        session.commit()
        for end in (session.rollback, session.commit):
            session.get_one(cls, 1).file = b"new"
            session.add(cls(id=2, file=b"two"))
            session.execute(update(cls).where(cls.id == 1).values(file=b"newer"))
            end()
        session.close()
        await_only(own.asettled()) if world.is_async else own.settled()
        assert sorted(storage.open(key).read() for key, _ in storage.keys(None)) == [b"newer", b"two"]
        ledger = cls.metadata.tables[("elsewhere." if cls is Filed else "") + "attachment_ledger"]
        assert set(session.scalars(select(ledger.c.state))) == {"owned"}
