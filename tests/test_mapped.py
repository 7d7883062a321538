"""Mapped classes: attributes that come late, objects that are pickled, what a database does by itself."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    PrimaryKeyConstraint,
    String,
    UniqueConstraint,
    inspect,
    select,
    update,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    column_property,
    configure_mappers,
    deferred,
    mapped_column,
)

from sa_attachments import (
    Attachment,
    AttachmentListType,
    AttachmentType,
    AttachmentWarning,
    BadSource,
    Storages,
)
from sa_attachments.attachment import binding_of
from sa_attachments.references import of_class

on = pytest.mark.parametrize


# Attributes that a class gets while it is in use


class InUse:
    """A class with a subclass in the same table, both with rows."""

    def __init__(self, first: bool) -> None:
        self.files = Storages("memory:")

        class Base(DeclarativeBase):
            pass

        class Doc(Base):
            __tablename__ = "late_docs"
            id: Mapped[int] = mapped_column(primary_key=True)
            kind: Mapped[str] = mapped_column(String(10))
            __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "doc"}  # noqa: RUF012

        class Scan(Doc):
            __mapper_args__ = {"polymorphic_identity": "scan"}  # noqa: RUF012

        self.Base, self.Doc, self.Scan = Base, Doc, Scan
        if first:
            Doc.first = mapped_column(AttachmentType(self.files))
        configure_mappers()
        assert list(Scan.__mapper__.column_attrs) == list(Doc.__mapper__.column_attrs)  # remembered from now on

    def stored(self) -> list[bytes]:
        assert self.files.settled(20)
        storage = self.files.resolve("default")
        return sorted(storage.open(key).read() for key, _ in storage.keys())  # noqa: SIM118


@on("engine", ["sqlite", "postgres"], indirect=True)
@on("first", [False, True])
@on("how", [mapped_column, deferred, column_property])
def test_an_attribute_may_be_added_to_a_class_in_use(engine: Engine, first: bool, how: Any) -> None:
    used = InUse(first)
    Doc, Scan = used.Doc, used.Scan
    one, several = AttachmentType(used.files), AttachmentListType(used.files)
    if how is mapped_column:
        Doc.file, Doc.pages = mapped_column("late_file", one), mapped_column(several)
    else:
        Doc.file, Doc.pages = how(Column("late_file", one)), how(Column("pages", several))
    for cls in (Doc, Scan):
        assert {each.key for each in of_class(cls)} == {"file", "pages", *(["first"] if first else [])}
    used.Base.metadata.create_all(engine)
    with Session(engine) as session:
        docs: list[Any] = [cls(file=b"one", pages=[b"two"]) for cls in (Doc, Scan)]
        assert Doc().pages == ()
        session.add_all(docs)
        session.commit()
        assert used.stored() == [b"one", b"one", b"two", b"two"]
        assert [doc.file.read() for doc in docs] == [b"one", b"one"]
        for doc in docs:
            doc.file = b"three"
        session.flush()
        session.rollback()
        assert used.stored() == [b"one", b"one", b"two", b"two"]
        for doc in docs:
            doc.file = b"three"
        session.commit()
        assert used.stored() == [b"three", b"three", b"two", b"two"]
        for doc in docs:
            session.delete(doc)
        session.commit()
    assert used.stored() == []


def test_what_was_there_is_listened_to_once() -> None:
    used = InUse(first=True)
    before = len(list(used.Doc.first.dispatch.set))
    used.Doc.file = mapped_column(AttachmentType(used.files))
    used.Doc.title = mapped_column(String(10))
    assert len(list(used.Doc.first.dispatch.set)) == before
    assert len(list(used.Doc.__mapper__.dispatch.before_update)) == 1
    with pytest.raises(BadSource, match="encode it"):
        used.Doc(file="text")


def by_a_subclass(used: InUse) -> tuple[Any, str]:
    used.Scan.late = mapped_column(AttachmentType(used.files))
    return used.Scan, "late"


def by_a_new_subclass(used: InUse) -> tuple[Any, str]:
    class Late(used.Doc):  # type: ignore[misc,name-defined]
        late: Mapped[Attachment] = mapped_column(AttachmentType(used.files))
        __mapper_args__ = {"polymorphic_identity": "late"}  # noqa: RUF012

    return Late, "late"


def by_another_class(used: InUse) -> tuple[Any, str]:
    class Other(used.Base):  # type: ignore[misc,name-defined]
        __table__ = used.Doc.__table__

    Other.late = mapped_column(AttachmentType(used.files))
    return Other, "late"


@on("engine", ["sqlite", "postgres"], indirect=True)
@on("bring", [by_a_subclass, by_a_new_subclass, by_another_class])
@on("first", [False, True])
def test_a_row_drops_what_another_class_brought_to_its_table(engine: Engine, first: bool, bring: Any) -> None:
    used = InUse(first)
    cls, key = bring(used)
    used.Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(cls(**{key: b"one"}, kind="doc") if bring is by_another_class else cls(**{key: b"one"}))
        session.commit()
        session.execute(update(cls).values(kind="doc"))
        session.commit()
        assert used.stored() == [b"one"]
        session.expunge_all()
        session.delete(session.scalars(select(used.Doc)).one())
        session.commit()
    assert used.stored() == []


# Pickling

files = Storages()


class PickleBase(DeclarativeBase):
    pass


class Doc(PickleBase):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files))


@on("engine", ["sqlite", "postgres"], indirect=True)
@on("touched", [False, True])
def test_a_pickled_object_knows_its_storages_again(engine: Engine, touched: bool) -> None:
    PickleBase.metadata.create_all(engine)
    with files.override("memory:"), Session(engine) as session:
        session.add(Doc(file=b"one", pages=[b"two"]))
        session.commit()
        session.expunge_all()
        doc = session.scalars(select(Doc)).one()
        assert doc.file is not None
        if touched:
            assert doc.file.size == 3
        again = pickle.loads(pickle.dumps(doc))
        assert again.file == doc.file
        assert [item.read() for item in (again.file, *again.pages)] == [b"one", b"two"]
        assert binding_of(again.file) is Doc.file.type  # type: ignore[comparison-overlap]
        session.expunge(doc)
        merged = session.merge(again)
        assert merged.file is not None
        assert merged.file.read() == b"one"
        assert not session.is_modified(merged)
        session.commit()
    assert files.settled(10)


def test_a_pickled_new_object_can_be_stored() -> None:
    again = pickle.loads(pickle.dumps(Doc(file=b"one", pages=[b"two"])))
    assert again.file.read() == b"one"
    assert binding_of(again.file) is Doc.file.type
    assert binding_of(again.pages[0]) is Doc.pages.type
    assert pickle.loads(pickle.dumps(Doc())).file is None


def test_a_pickle_of_before_is_read() -> None:
    """From a cache that an earlier version of this library filled."""
    doc = Doc(file=b"one")
    listeners = Doc.__mapper__.class_manager.dispatch.pickle  # type: ignore[attr-defined]
    state = inspect(doc).__getstate__()
    assert "sa_attachments" in state
    del state["sa_attachments"]
    assert listeners
    empty = copy.copy(Doc())
    inspect(empty).__setstate__({**state, "instance": empty})


# What a database does by itself


def warned(*arguments: Any, triggers: bool = False, late: bool | None = None, **options: Any) -> list[str]:
    """What is said of a model whose column ``number`` has these arguments and options."""
    storages = Storages("memory:")

    class Base(DeclarativeBase):
        pass

    class Folder(Base):
        __tablename__ = "folders"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Paper(Base):
        __tablename__ = "papers"
        id: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int | None] = mapped_column(*arguments, **options)
        file: Mapped[Attachment] = mapped_column(AttachmentType(storages, triggers=triggers))
        pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(storages, triggers=triggers))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            Base.registry.configure()
        counted = triggers if late is None else late
        Paper.late = mapped_column(AttachmentType(storages, triggers=counted))  # type: ignore[attr-defined]
    return [str(each.message) for each in caught if each.category is AttachmentWarning]


@on("ondelete", ["CASCADE", "cascade"])
def test_a_cascade_behind_the_back_of_the_orm_is_warned_of_once(ondelete: str) -> None:
    (warning,) = warned(ForeignKey("folders.id", ondelete=ondelete))
    assert "papers.number is ON DELETE CASCADE" in warning
    assert "verify(repair=True)" in warning


@on("ondelete", [None, "SET NULL", "RESTRICT"])
def test_other_foreign_keys_are_fine(ondelete: str | None) -> None:
    assert warned(ForeignKey("folders.id", ondelete=ondelete)) == []


def test_a_cascade_is_warned_of_when_a_column_comes_that_triggers_do_not_see() -> None:
    (warning,) = warned(ForeignKey("folders.id", ondelete="CASCADE"), triggers=True, late=False)
    assert "ON DELETE CASCADE" in warning


def test_a_cascade_is_fine_where_triggers_see_it() -> None:
    assert warned(ForeignKey("folders.id", ondelete="CASCADE"), triggers=True) == []


@on("triggers", [False, True])
def test_that_sqlite_replaces_rows_by_itself_is_warned_of_once(triggers: bool) -> None:
    (warning,) = warned(unique=True, sqlite_on_conflict_unique="replace", triggers=triggers)
    assert "papers has a constraint with ON CONFLICT REPLACE" in warning
    assert "verify(repair=True)" in warning


@on("how", ["IGNORE", "ABORT"])
def test_other_resolutions_are_fine(how: str) -> None:
    assert warned(unique=True, sqlite_on_conflict_unique=how) == []


@on("engine", ["sqlite"], indirect=True)
@on("kind", [PrimaryKeyConstraint, UniqueConstraint])
def test_what_sqlite_replaces_is_found_by_verify(engine: Engine, kind: Any) -> None:
    storages = Storages("memory:")

    class Base(DeclarativeBase):
        pass

    class Paper(Base):
        __tablename__ = "papers"
        id: Mapped[int] = mapped_column(primary_key=kind is UniqueConstraint)
        number: Mapped[int] = mapped_column()
        file: Mapped[Attachment] = mapped_column(AttachmentType(storages))
        __table_args__ = (kind("number", sqlite_on_conflict="REPLACE"),)

    with pytest.warns(AttachmentWarning, match="ON CONFLICT REPLACE"):
        configure_mappers()
    Base.metadata.create_all(engine)
    for number, data in enumerate((b"one", b"two")):
        with Session(engine) as session:
            session.add(Paper(id=number, number=1, file=data))
            session.commit()
    found = storages.verify(engine, repair=True)
    assert found.ok
    assert found.counts == {"unnamed": 1}
    storages.settled(20)
