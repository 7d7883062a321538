"""References: every attribute of a mapped class that names files is found, however it is mapped, and only those."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Column, Engine, ForeignKey, Integer, MetaData, String, Table, func, inspect, select, text
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    configure_mappers,
    declared_attr,
    deferred,
    mapped_column,
    registry,
)

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages
from sa_attachments.references import meant, names, of_class, of_state, read_locked, read_rows
from tests.archive import DIALECTS, Archive

on = pytest.mark.parametrize
everywhere = on("engine", DIALECTS, indirect=True)
files = Storages("memory:")


class Base(DeclarativeBase):
    pass


class Illustrated:
    """A mixin."""

    image: Mapped[Attachment | None] = mapped_column(AttachmentType(files))

    @declared_attr
    def scans(cls) -> Mapped[Sequence[Attachment]]:
        return mapped_column("scans_of", AttachmentListType(files))


class Plain(Base):
    __tablename__ = "plain"
    id: Mapped[int] = mapped_column(primary_key=True)


class Page(Illustrated, Base):
    __tablename__ = "pages"
    id: Mapped[int] = mapped_column(primary_key=True)
    late: Mapped[Attachment | None] = deferred(mapped_column("late_column", AttachmentType(files)))


class Animal(Base):
    __tablename__ = "animals"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    photo: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012


class Dog(Animal):
    """Joined; its primary key has another name."""

    __tablename__ = "dogs"
    dog_id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
    pedigree: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


class Cat(Animal):
    """In the same table."""

    scratch: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012


class Sphynx(Cat):
    """Concrete."""

    __tablename__ = "sphynxes"
    id: Mapped[int] = mapped_column(primary_key=True)
    photo: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    __mapper_args__ = {"concrete": True, "polymorphic_identity": "sphynx"}  # noqa: RUF012


class Counted(Base):
    """With attributes that only look like columns of attachments."""

    __tablename__ = "counted"
    first: Mapped[int] = mapped_column(primary_key=True)
    second: Mapped[int] = mapped_column("second_column", primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    latest: Mapped[Any] = column_property(select(Page.image).limit(1).scalar_subquery())
    pages: Mapped[int] = column_property(select(func.count(Page.id)).scalar_subquery())


def found(cls: type[Any]) -> list[tuple[str, str, str]]:
    configure_mappers()
    return [(each.key, each.table.name, each.column.name) for each in of_class(cls)]


@on(
    ("cls", "expected"),
    [
        (Plain, []),
        (Page, [("image", "pages", "image"), ("late", "pages", "late_column"), ("scans", "pages", "scans_of")]),
        (Animal, [("photo", "animals", "photo")]),
        (Dog, [("pedigree", "dogs", "pedigree"), ("photo", "animals", "photo")]),
        (Cat, [("photo", "animals", "photo"), ("scratch", "animals", "scratch")]),
        (Sphynx, [("photo", "sphynxes", "photo")]),
        (Counted, [("file", "counted", "file")]),
    ],
)
def test_finds_every_attribute_that_names_files_and_no_other(cls: type[Any], expected: list[Any]) -> None:
    assert sorted(found(cls)) == expected


def test_an_imperative_mapping_is_found_too() -> None:
    metadata = MetaData()
    table = Table("t", metadata, Column("id", Integer, primary_key=True), Column("c", AttachmentType(files)))

    class Thing:
        pass

    registry(metadata=metadata).map_imperatively(Thing, table, properties={"file": table.c.c})
    assert found(Thing) == [("file", "t", "c")]
    (reference,) = of_class(Thing)
    assert reference.target == "Thing.file"
    assert of_state(inspect(Thing())) == (reference,)


def test_a_class_of_several_tables_that_writes_none_has_nothing() -> None:
    class Own(DeclarativeBase):
        pass

    class Any_(AbstractConcreteBase, Own):
        strict_attrs = True
        id: Mapped[int] = mapped_column(primary_key=True)

    class One(Any_):
        __tablename__ = "one"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment] = mapped_column(AttachmentType(files))
        __mapper_args__ = {"polymorphic_identity": "one", "concrete": True}  # noqa: RUF012 - SQLAlchemy's form

    configure_mappers()
    assert [reference.key for reference in of_class(One)] == ["file"]
    assert of_class(Any_) == ()


@everywhere
def test_the_identity_is_that_of_the_table_that_holds_the_column(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    with files.override("memory:"), Session(engine) as session:
        dog, counted = Dog(kind="dog", photo=b"p", pedigree=b"q"), Counted(first=7, second=8, file=b"f")
        session.add_all([Plain(), Animal(kind="animal"), dog, counted])
        session.commit()
        by_key = {each.key: each.identity(inspect(dog)) for each in of_class(Dog)}
        assert by_key == {"photo": (dog.id,), "pedigree": (dog.dog_id,)}
        (reference,) = of_class(Counted)
        assert reference.identity(inspect(counted)) == (7, 8)
        assert [column.name for column in reference.primary_key] == ["first", "second_column"]
        assert reference.identity_keys == ("first", "second")
        rows = read_locked(session.connection(), [reference], [(7, 8), (7, 9)])
        assert rows == {(7, 8): {"file": (counted.file,)}}
        for each in of_class(Dog):
            (row,) = read_locked(session.connection(), [each], [(dog.id,)]).values()
            assert row == {each.column.name: (getattr(dog, each.key),)}


@on(
    ("key", "expected"),
    [
        ("late", "late_column"),
        ("late_column", "late_column"),
        ("image", "image"),
        ("scans", "scans_of"),
        ("nowhere", None),
        (Page.late, "late_column"),
        (Page.__table__.c.image, "image"),
    ],
)
def test_what_a_key_of_values_stands_for(key: Any, expected: str | None) -> None:
    configure_mappers()
    column = meant(of_class(Page)[0], key)
    assert (None if column is None else column.name) == expected


# What rows name


def test_names() -> None:
    one, two = (files.stage(Attachment.upload(data)) for data in (b"one", b"two"))
    facts = {**json.loads(one.to_json()), "variants": {"thumb": {"key": "t", "size": 1}}}
    varied, damaged = files.bind(json.dumps(facts)), Attachment.upload(b"new")
    assert names([one, two, one]) == {("default", one.key), ("default", two.key)}
    assert names([varied]) == {("default", one.key), ("default", "t")}
    assert names([damaged]) == names([]) == set()


@everywhere
def test_rows_are_read_as_they_are_now(engine: Engine) -> None:
    archive = Archive(engine)
    ids = archive.keep(b"one", b"two", b"three", pages=[b"four", b"five"])
    references = of_class(archive.Doc)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE docs SET file = NULL WHERE id = {ids[1]}"))
        connection.execute(text(f"UPDATE docs SET file = '{{\"odd\": 1}}' WHERE id = {ids[2]}"))
        rows = read_locked(connection, references, [(id_,) for id_ in (*reversed(ids), 404)])
    assert list(rows) == [(id_,) for id_ in ids]  # in the order of the key, so that nobody deadlocks
    assert [len(row["file"]) for row in rows.values()] == [1, 0, 1]
    assert [len(row["pages"]) for row in rows.values()] == [2, 2, 2]
    assert len(names(rows[ids[2],]["file"])) == 0  # damaged: it names nothing, and fails nothing
    with engine.connect() as connection:
        assert read_locked(connection, references, []) == {}
        key, file = archive.Doc.__table__.c.id, archive.Doc.__table__.c.file
        one = read_rows(connection, select(key, file).where(key == ids[0]), references[:1])
    assert [item.read() for item in one[ids[0],]["file"]] == [b"one"]


@on("engine", ["sqlite"], indirect=True)
def test_many_rows_are_read_in_chunks(engine: Engine) -> None:
    archive = Archive(engine)
    ids = archive.keep(*[b"x"] * 1001)
    with engine.connect() as connection:
        assert len(read_locked(connection, of_class(archive.Doc), [(id_,) for id_ in ids])) == 1001


@on("engine", ["postgres"], indirect=True)
def test_the_lock_lets_children_be_inserted_and_keeps_other_writers_out(engine: Engine) -> None:
    """Hole 19."""
    archive = Archive(engine)
    (id_,) = archive.keep(b"one")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE children (doc INTEGER REFERENCES docs)"))
    with engine.connect() as reader, engine.connect() as other:
        read_locked(reader, of_class(archive.Doc), [(id_,)])
        other.execute(text("SET LOCAL lock_timeout = 200"))
        other.execute(text(f"INSERT INTO children VALUES ({id_})"))
        with pytest.raises(Exception, match="lock timeout"):
            other.execute(text(f"UPDATE docs SET file = NULL WHERE id = {id_}"))
        other.rollback()
