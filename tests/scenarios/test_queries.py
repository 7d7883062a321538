"""Attachments in results of every form, statements that are cached, and rows whose descriptor is damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Select, case, exists, func, literal_column, null, select, text, union_all, update
from sqlalchemy.orm import (
    Bundle,
    DeclarativeBase,
    Mapped,
    aliased,
    joinedload,
    mapped_column,
    selectinload,
    subqueryload,
)

from sa_attachments import Attachment, AttachmentListType, AttachmentType, DescriptorDamaged, Storages, UnknownStorage
from sa_attachments.storages.memory import MemoryStorage

from .models import Doc, Note, files
from .world import World

on = pytest.mark.parametrize
databases = on("world", ["sqlite", "postgres", "mariadb", "aiosqlite", "asyncpg"], indirect=True)


def seed(world: World) -> None:
    """Two documents with a note each, and one with nothing."""
    with world.session() as session:
        for name in ("one", "two"):
            metadata = {"caption": name, "deep": {"list": [1, 2]}, "größe": f"größer {name}"}
            file = Attachment.upload(name.encode(), f"{name}.txt", metadata=metadata)
            note = Note(file=b"note of " + name.encode())
            session.add(Doc(title=name, file=file, pages=[b"page of " + name.encode()], notes=[note]))
        session.add(Doc(title="three"))
        session.commit()


# What a query gives

subquery = select(Doc.title, Doc.file.label("labelled")).subquery()
cte = select(Doc.title, Doc.file).where(Doc.file.is_not(None)).cte()
other = aliased(Doc)
united = union_all(select(Doc.title, Doc.file), select(Doc.title, Doc.scan))

RESULTS: dict[str, Select[Any]] = {
    "column": select(Doc.title, Doc.file),
    "alias": select(other.title, other.file),
    "label": select(Doc.title, Doc.file.label("any")),
    "subquery": select(subquery),
    "cte": select(cte),
    "join": select(Doc.title, other.file).join(other, other.id == Doc.id),
    "distinct": select(Doc.title, Doc.file).order_by(Doc.id).limit(10),
    "coalesce": select(Doc.title, func.coalesce(Doc.scan, Doc.file, type_=Doc.file.type)),
    "case": select(Doc.title, case((Doc.scan.is_not(None), Doc.scan), else_=Doc.file)),
    "scalar subquery": select(Doc.title, select(other.file).where(other.id == Doc.id).scalar_subquery()),
    "union": select(united.subquery()),
    "from statement": select(Doc.title, Doc.file).from_statement(
        text("SELECT title, file FROM docs").columns(Doc.title, Doc.file)
    ),
    "correlated": select(Doc.title, Doc.file).where(exists().where(Note.doc_id == Doc.id)),
}


@databases
@on("form", RESULTS)
def test_attachments_in_results(world: World, form: str) -> None:
    seed(world)
    with world.session() as session:
        found = {title: file.read() for title, file in session.execute(RESULTS[form]) if file is not None}
    assert found == {"one": b"one", "two": b"two"}


@databases
@on("load", [joinedload, selectinload, subqueryload])
def test_attachments_of_related_objects(world: World, load: Callable[..., Any]) -> None:
    seed(world)
    with world.session() as session:
        docs = session.scalars(select(Doc).options(load(Doc.notes)).order_by(Doc.id)).unique().all()
        session.expunge_all()
        assert [note.file.read() for doc in docs for note in doc.notes] == [b"note of one", b"note of two"]


@databases
def test_bundles_rows_and_entities_from_text(world: World) -> None:
    seed(world)
    with world.session() as session:
        bundle = session.execute(
            select(Bundle("doc", Doc.title, Doc.file, Doc.pages)).where(Doc.title == "one")
        ).scalar_one()
        assert (bundle.file.read(), bundle.pages[0].read()) == (b"one", b"page of one")
        doc = session.scalars(select(Doc).from_statement(text("SELECT * FROM docs WHERE title = 'two'"))).one()
        assert (doc.file.read(), doc.pages[0].read(), doc.scan) == (b"two", b"page of two", None)


# Conditions

CONDITIONS: dict[str, tuple[Any, set[str]]] = {
    "filename": (Doc.file.filename == "one.txt", {"one"}),
    "like": (Doc.file.filename.like("%.txt"), {"one", "two"}),
    "size": (Doc.file.size == 3, {"one", "two"}),
    "content type": (Doc.file.content_type.in_(["text/plain", "image/png"]), {"one", "two"}),
    "sha256": (Doc.file.sha256 == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed", {"one"}),
    "storage": (Doc.file.storage == "default", {"one", "two"}),
    "metadata": (Doc.file.metadata["caption"] == "two", {"two"}),
    "deep metadata": (Doc.file.metadata["deep"]["list"][1] == 2, {"one", "two"}),
    "one of metadata": (Doc.file.metadata["deep"]["list"][1].in_({2, 3}), {"one", "two"}),
    "metadata that is missing": (Doc.file.metadata["nowhere"].is_(None), {"one", "two", "three"}),
    "metadata that is there": (Doc.file.metadata["caption"] != None, {"one", "two"}),  # noqa: E711 - SQLAlchemy's form
    "metadata beyond ASCII": (Doc.file.metadata["größe"] == "größer two", {"two"}),
    "path": (Doc.file[("metadata", "caption")].as_string() == "two", {"two"}),
    "of an item": (Doc.pages[0]["size"].as_integer() > 5, {"one", "two"}),
    "none": (Doc.file.is_(None), {"three"}),
    "none by ==": (Doc.file == None, {"three"}),  # noqa: E711 - SQLAlchemy's form
    "null()": (Doc.file == null(), {"three"}),
    "not none": (Doc.file.is_not(None), {"one", "two"}),
    "not none by !=": (Doc.file != None, {"one", "two"}),  # noqa: E711 - SQLAlchemy's form
}


@databases
@on("name", CONDITIONS)
def test_conditions(world: World, name: str) -> None:
    seed(world)
    condition, expected = CONDITIONS[name]
    with world.session() as session:
        assert set(session.scalars(select(Doc.title).where(condition))) == expected


@databases
def test_attachments_in_conditions_and_groups(world: World) -> None:
    seed(world)
    with world.session() as session:
        one, two = session.scalars(select(Doc.file).where(Doc.file.is_not(None)).order_by(Doc.id))
        titles = select(Doc.title).order_by(Doc.id)
        assert session.scalars(titles.where(Doc.file == one)).all() == ["one"]
        assert session.scalars(titles.where(Doc.file != one)).all() == ["two"]
        assert session.scalars(titles.where(Doc.file.in_([one, two]))).all() == ["one", "two"]
        assert session.scalars(titles.where(Doc.file == one.replace(filename="other"))).all() == ["one"]
        kind = Doc.file.content_type.label("kind")
        grouped = select(kind, func.count(), func.sum(Doc.file.size)).where(Doc.file.is_not(None)).group_by("kind")
        assert [(kind, count, int(size)) for kind, count, size in session.execute(grouped)] == [("text/plain", 2, 6)]
        ordered = select(Doc.title).where(Doc.file.is_not(None)).order_by(Doc.file.filename.desc())
        assert session.scalars(ordered).all() == ["two", "one"]


# The statement cache


class Base(DeclarativeBase):
    pass


elsewhere = Storages(MemoryStorage())


class Special(Attachment):
    pass


class Here(Base):
    __tablename__ = "same"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


class OtherBase(DeclarativeBase):
    pass


class There(OtherBase):
    """The same table for another application: the same SQL, other storages and another class."""

    __tablename__ = "same"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Special | None] = mapped_column(AttachmentType(elsewhere, attachment_class=Special))


@databases
def test_equal_statements_of_two_types_do_not_share_what_was_compiled(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add(Here(id=1, file=b"here"))
        session.commit()
        for _ in range(3):
            here, there = session.scalar(select(Here.file)), session.scalar(select(There.file))
            assert (type(here), type(there)) == (Attachment, Special)
            assert here is not None
            assert here.read() == b"here"
            assert there is not None
            with pytest.raises(FileNotFoundError):
                there.read()
            # The names of tables are part of a statement's key, so only types tell these apart.
            bare = [select(literal_column("file", each.file.type)).select_from(text("same")) for each in (Here, There)]
            assert [type(session.scalar(each)) for each in bare] == [Attachment, Special]
    world.check(b"here")


@databases
def test_a_statement_is_compiled_once(world: World) -> None:
    seed(world)
    cache: dict[Any, Any] = {}
    with world.session() as session:
        connection = session.connection(execution_options={"compiled_cache": cache})
        for title in ("one", "two", "three"):
            connection.execute(select(Doc.file, Doc.pages).where(Doc.title == title, Doc.file.size > 0)).all()
            assert len(cache) == 1


# Damage

WHOLE = {
    "storage": "default",
    "key": "a",
    **dict.fromkeys(["filename", "content_type", "sha256", "stored_at"], ""),
    "size": 1,
}
DAMAGE = {
    "a list": '["x", 1]',
    "an object of another kind": '{"my": "own"}',
    "text": '"just text"',
    "a number": "7",
    "a way out of the storage": json.dumps({**WHOLE, "key": "../../etc/passwd"}),
    "a size that is none": json.dumps({**WHOLE, "size": -5}),
    "variants that are none": json.dumps({**WHOLE, "variants": [1]}),
    "half of it": '{"v": 1, "storage": "default", "key": "k"}',
}


def damage(world: World, value: str, column: str = "file") -> None:
    with world.observer.begin() as connection:
        connection.execute(text(f"UPDATE docs SET {column} = :value WHERE title = 'one'"), {"value": value})


@databases
@on("how", DAMAGE)
def test_a_damaged_descriptor_is_met_when_it_is_touched_and_can_be_replaced(world: World, how: str) -> None:
    seed(world)
    damage(world, DAMAGE[how])
    with world.session() as session:
        docs = session.scalars(select(Doc).order_by(Doc.id)).all()
        assert docs[1].file.read() == b"two"
        with pytest.raises(DescriptorDamaged, match=r"docs\.file holds '.*', which does not describe") as caught:
            docs[0].file.filename  # noqa: B018 - touching it is the test
        assert DAMAGE[how][1:4] in str(caught.value)
        docs[0].title = "renamed"
        session.commit()
        docs[0].file = b"new"
        docs[1].file = docs[1].file.replace(filename="x")
        session.commit()
        assert docs[0].file.read() == b"new"
    # Nobody knows what the damaged one named: its file is found by verify, not deleted.
    assert b"one" in world.stored().values()
    assert world.files.verify(world.engine).counts == {"unnamed": 1}
    world.files.verify(world.engine, repair=True)
    world.sweep()
    notes = [b"note of one", b"note of two", b"page of one", b"page of two"]
    world.check(b"new", b"two", *notes)


@databases
def test_a_storage_that_nobody_knows_is_told_with_the_column(world: World) -> None:
    seed(world)
    damage(world, json.dumps({**WHOLE, "storage": "nono"}))
    with world.session() as session:
        doc = session.scalars(select(Doc).where(Doc.title == "one")).one()
        assert doc.file is not None
        with pytest.raises(UnknownStorage, match=r"docs\.file: there is no storage 'nono'; configured are"):
            doc.file.read()


@databases
@on("how", ["flush", "bulk", "none"])
def test_a_row_with_a_damaged_descriptor_can_be_deleted(world: World, how: str) -> None:
    seed(world)
    damage(world, '{"storage": 1}')
    damage(world, '[{"storage": 1}, 7]', "pages")
    assert world.files.verify(world.engine).counts["unreadable"] == 3
    with world.session() as session:
        doc = session.scalars(select(Doc).where(Doc.title == "one")).one()
        match how:
            case "flush":
                session.delete(doc)
            case "bulk":
                session.execute(update(Note).where(Note.doc_id == doc.id).values(doc_id=None))
                session.execute(Doc.__table__.delete().where(Doc.__table__.c.title == "one"))
            case "none":
                doc.file, doc.pages = None, []
        session.commit()
    assert world.files.verify(world.engine).counts == {"unnamed": 2}


@databases
@on("how", ["replace", "describe", "delete"])
@on("part", [{"storage": 5}, {"storage": ["default"]}, {"storage": None}, {"size": [1]}, {"size": "1"}], ids=json.dumps)
def test_a_row_whose_variant_is_damaged_can_be_changed(world: World, part: dict[str, Any], how: str) -> None:
    """What is wrong with it is no reason to fail, nor to take its file for nobody's."""
    seed(world)
    with world.session() as session:
        doc = session.scalars(select(Doc).where(Doc.title == "one")).one()
        variant = json.loads(files.stage(Attachment.upload(b"variant"), Doc.file).to_json())
        facts = json.loads(doc.file.to_json())
    damage(world, json.dumps({**facts, "variants": {"thumb": {**variant, **part}}}))
    assert world.files.verify(world.engine, repair=True).counts["unowned"] == 1
    with world.session() as session:
        doc = session.scalars(select(Doc).where(Doc.title == "one")).one()
        match how:
            case "replace":
                doc.file = b"new"
            case "describe":
                doc.file = doc.file.replace(filename="new.txt")
            case "delete":
                session.delete(doc)
        session.commit()
    files.settled()
    assert set(world.files.verify(world.engine).counts) <= {"damaged"}  # of another size than the descriptor says
    assert (b"variant" in world.stored().values()) is (how == "describe")


def test_a_storage_that_nobody_configured_is_named_with_those_that_are() -> None:
    lazy = Storages()

    class Own(DeclarativeBase):
        pass

    class Late(Own):
        __tablename__ = "late"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(lazy, "avatars"))
        pages: Mapped[Any] = mapped_column(AttachmentListType(lazy))

    with pytest.raises(
        UnknownStorage, match=r"late\.file: there is no storage 'avatars'; configured are 'default', 'x'"
    ):
        lazy.configure({"default": "memory:", "x": "memory:"})
    lazy.configure({"default": "memory:", "avatars": "default"})
    assert Late(file=b"x").file is not None


@databases
def test_a_row_of_a_storage_that_is_no_longer_configured(world: World) -> None:
    """Reading the bytes needs the storage, describing them does not."""
    seed(world)
    damage(world, json.dumps(world.named()[0] | {"storage": "old", "filename": "f"}))
    with world.session() as session:
        one, two = session.scalars(select(Doc).where(Doc.file.is_not(None)).order_by(Doc.id))
        assert (one.file.filename, two.file.read()) == ("f", b"two")
        with pytest.raises(UnknownStorage, match=r"there is no storage 'old'; configured are 'default'"):
            one.file.read()
