"""Upserts leak and lose nothing: whether a row was inserted, changed or left alone is read back from the database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Index, String, UniqueConstraint, func, insert, select, text, true, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, OwnershipLost

from .models import Doc, Note, files
from .world import World

on = pytest.mark.parametrize
everywhere = on("world", ["sqlite", "sqlite-memory", "postgres", "mariadb", "aiosqlite", "asyncpg"], indirect=True)
with_targets = on("world", ["sqlite", "sqlite-memory", "postgres", "aiosqlite", "asyncpg"], indirect=True)


def upsert(world: World, entity: Any = Doc) -> Any:
    """The dialect's INSERT."""
    name = world.engine.dialect.name
    return {"sqlite": sqlite.insert, "postgresql": postgresql.insert}.get(name, mysql.insert)(entity)


def or_update(world: World, *columns: str, entity: Any = Doc, on: str = "title") -> Any:
    """An upsert that takes these columns from the row that it could not insert."""
    statement = upsert(world, entity)
    if world.engine.dialect.name in ("mysql", "mariadb"):
        return statement.on_duplicate_key_update({column: statement.inserted[column] for column in columns})
    return statement.on_conflict_do_update(
        index_elements=[on], set_={column: statement.excluded[column] for column in columns}
    )


def or_nothing(world: World) -> Any:
    if world.engine.dialect.name in ("mysql", "mariadb"):
        return insert(Doc).prefix_with("IGNORE")
    if world.name == "sqlite-memory":
        return insert(Doc).prefix_with("OR IGNORE")
    return upsert(world).on_conflict_do_nothing()


def seed(world: World) -> None:
    """Documents titled a and b."""
    with world.session() as session:
        session.add_all([Doc(title="a", file=b"old a"), Doc(title="b", file=b"old b", scan=b"scan b")])
        session.commit()


def read(session: Session) -> dict[str | None, bytes | None]:
    session.expire_all()
    return {title: file and file.read() for title, file in session.execute(select(Doc.title, Doc.file))}


FORMS: dict[str, Callable[[Session, Any, list[dict[str, Any]]], Any]] = {
    "executemany": lambda session, statement, rows: session.execute(statement, rows),
    "values, a list": lambda session, statement, rows: session.execute(statement.values(rows)),
    "one by one": lambda session, statement, rows: [session.execute(statement.values(**row)) for row in rows],
    "parameters": lambda session, statement, rows: [session.execute(statement, row) for row in rows],
}


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_more_rows_than_a_condition_takes(world: World) -> None:
    """SQLite refuses an OR of more than 1,000 comparisons, and there are two for each row."""
    seed(world)
    titles = ["a", "b", *map(str, range(600))]
    with world.session() as session:
        rows = [{"id": 10 + n, "title": title, "file": b"new"} for n, title in enumerate(titles)]
        session.execute(or_update(world, "file"), rows)
        session.commit()
    world.check(*[b"new"] * len(titles), b"scan b")


@everywhere
@on("form", FORMS)
@on("end", ["commit", "rollback"])
def test_update_on_conflict(world: World, form: str, end: str) -> None:
    """Hole 13."""
    seed(world)
    with world.session() as session:
        rows = [{"title": "a", "file": b"new a"}, {"title": "c", "file": b"new c"}]
        FORMS[form](session, or_update(world, "file"), rows)
        assert read(session) == {"a": b"new a", "b": b"old b", "c": b"new c"}
        getattr(session, end)()
    world.check(b"old b", b"scan b", *([b"new a", b"new c"] if end == "commit" else [b"old a"]))


@everywhere
@on("form", FORMS)
def test_nothing_on_conflict(world: World, form: str) -> None:
    """Hole 13: the file of the row that was not inserted is nobody's."""
    seed(world)
    with world.session() as session:
        rows = [{"title": "a", "file": b"new a"}, {"title": "c", "file": b"new c"}]
        FORMS[form](session, or_nothing(world), rows)
        session.commit()
        assert read(session) == {"a": b"old a", "b": b"old b", "c": b"new c"}
    world.check(b"old a", b"old b", b"scan b", b"new c")


@everywhere
def test_update_of_other_columns_on_conflict(world: World) -> None:
    """The new file came for nothing, the old one stays."""
    seed(world)
    with world.session() as session:
        session.execute(or_update(world, "title"), [{"title": "a", "file": b"new a"}, {"title": "c", "file": b"new c"}])
        session.commit()
        assert read(session) == {"a": b"old a", "b": b"old b", "c": b"new c"}
    world.check(b"old a", b"old b", b"scan b", b"new c")


@everywhere
def test_update_to_none_on_conflict(world: World) -> None:
    seed(world)
    with world.session() as session:
        session.execute(or_update(world, "file"), [{"title": "a", "file": None}, {"title": "b", "file": None}])
        session.commit()
    world.check(b"scan b")


@everywhere
def test_a_row_that_conflicts_by_its_primary_key(world: World) -> None:
    seed(world)
    with world.session() as session:
        key = session.scalars(select(Doc.id).where(Doc.title == "a")).one()
        rows = [{"id": key, "file": b"new a"}, {"id": key + 50, "file": b"new"}]
        session.execute(or_update(world, "file", on="id"), rows)
        session.commit()
        assert read(session) == {"a": b"new a", "b": b"old b", None: b"new"}
    world.check(b"new a", b"old b", b"scan b", b"new")


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
@on("what", ["update", "replace"])
def test_an_upsert_from_a_select_that_may_take_files_from_rows_is_refused(world: World, what: str) -> None:
    seed(world)
    statement = insert(Doc).prefix_with("OR REPLACE") if what == "replace" else or_update(world, "file")
    with world.session() as session:
        with pytest.raises(OwnershipLost, match=r"rows may lose Doc\.file by INSERT \.\.\. SELECT"):
            session.execute(statement.from_select(["title"], select(Doc.title)))
        session.execute(or_update(world, "title").from_select(["title"], select(Doc.title).where(true())))
        session.commit()
    world.check(b"old a", b"old b", b"scan b")


@with_targets
def test_a_condition_for_the_update(world: World) -> None:
    seed(world)
    with world.session() as session:
        statement = upsert(world)
        statement = statement.on_conflict_do_update(
            index_elements=["title"], set_={"file": statement.excluded.file}, where=Doc.scan.is_(None)
        )
        session.execute(statement, [{"title": "a", "file": b"new a"}, {"title": "b", "file": b"new b"}])
        session.commit()
        assert read(session) == {"a": b"new a", "b": b"old b"}
    world.check(b"new a", b"old b", b"scan b")


@with_targets
def test_returning(world: World) -> None:
    seed(world)
    with world.session() as session:
        statement = or_update(world, "file").returning(Doc)
        found = session.scalars(
            statement,
            [{"title": "a", "file": b"new a"}, {"title": "c", "file": b"new c"}],
            execution_options={"populate_existing": True},
        )
        assert {doc.title: doc.file.read() for doc in found} == {"a": b"new a", "c": b"new c"}
        session.commit()
    world.check(b"new a", b"new c", b"old b", b"scan b")


@on("world", ["sqlite", "sqlite-memory", "mariadb", "aiosqlite"], indirect=True)
@on("form", ["executemany", "values, a list"])
def test_the_same_new_row_twice_in_a_statement(world: World, form: str) -> None:
    with world.session() as session:
        FORMS[form](session, or_update(world, "file"), [{"title": "a", "file": b"1"}, {"title": "a", "file": b"2"}])
        session.commit()
        assert read(session) == {"a": b"2"}
    world.check(b"2")


@on("world", ["sqlite", "sqlite-memory", "aiosqlite"], indirect=True)
@on("form", FORMS)
@on("end", ["commit", "rollback"])
def test_replace(world: World, form: str, end: str) -> None:
    """INSERT OR REPLACE deletes the rows that are in the way: all of their files go."""
    seed(world)
    with world.session() as session:
        rows = [{"title": "b", "file": b"new b"}, {"title": "c", "file": b"new c"}]
        FORMS[form](session, insert(Doc).prefix_with("OR REPLACE"), rows)
        assert read(session) == {"a": b"old a", "b": b"new b", "c": b"new c"}
        getattr(session, end)()
    world.check(b"old a", *([b"new b", b"new c"] if end == "commit" else [b"old b", b"scan b"]))


@on("world", ["sqlite", "aiosqlite"], indirect=True)
def test_replace_that_meets_two_rows(world: World) -> None:
    """By its primary key one, by its title another."""
    seed(world)
    with world.session() as session:
        key = session.scalars(select(Doc.id).where(Doc.title == "a")).one()
        session.execute(insert(Doc).prefix_with("OR REPLACE"), [{"id": key, "title": "b", "file": b"new"}])
        session.commit()
        assert read(session) == {"b": b"new"}
    world.check(b"new")


@on("world", ["sqlite", "aiosqlite"], indirect=True)
@on("values", [{"title": "b"}, {"title": "b", "file": b"new"}])
@on("form", ["condition", "by key"])
def test_an_update_that_replaces_is_refused(world: World, values: dict[str, Any], form: str) -> None:
    """It deletes the row that has the title, which is none of those that it is to change."""
    seed(world)
    with world.session() as session:
        key = session.scalars(select(Doc.id).where(Doc.title == "a")).one()
        statement, rows = update(Doc).prefix_with("OR REPLACE"), [{"id": key, **values}]
        if form == "condition":
            statement, rows = statement.where(Doc.id == key).values(values), []
        with pytest.raises(OwnershipLost, match=r"rows may lose Doc\.file by UPDATE OR REPLACE"):
            session.execute(statement, rows)
        session.commit()
    world.check(b"old a", b"old b", b"scan b")


@everywhere
def test_a_stored_file_in_an_upsert_is_copied(world: World) -> None:
    """Even the row's own: nobody can tell beforehand which row it meets."""
    seed(world)
    with world.session() as session:
        file = session.scalars(select(Doc.file).where(Doc.title == "a")).one()
        session.execute(or_update(world, "file"), [{"title": "a", "file": file}, {"title": "c", "file": file}])
        session.commit()
        assert read(session) == {"a": b"old a", "b": b"old b", "c": b"old a"}
    world.check(b"old a", b"old a", b"old b", b"scan b")


class OwnBase(DeclarativeBase):
    pass


class Paper(OwnBase):
    """Keys of two columns, one of which has a default, and of an expression."""

    __tablename__ = "papers"
    __table_args__ = (UniqueConstraint("year", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    year: Mapped[int] = mapped_column(default=lambda: 2000)
    number: Mapped[int]
    slug: Mapped[str | None] = mapped_column(String(20))
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


class Named(OwnBase):
    """A key that tells no capitals, and an attribute that is not called like its column."""

    __tablename__ = "named"
    id: Mapped[int] = mapped_column(primary_key=True)
    called: Mapped[str] = mapped_column("name", String(20))
    photo: Mapped[Attachment | None] = mapped_column("file", AttachmentType(files))


class Front(OwnBase):
    """A key that has a default."""

    __tablename__ = "fronts"
    id: Mapped[int] = mapped_column(primary_key=True)
    slot: Mapped[str] = mapped_column(String(20), unique=True, default="main")
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


Index("named_name", func.lower(Named.called), unique=True).ddl_if(dialect=("sqlite", "postgresql"))


@on("world", ["sqlite", "postgres", "asyncpg"], indirect=True)
def test_a_conflict_of_an_expression(world: World) -> None:
    world.create(OwnBase.metadata)
    with world.session() as session:
        session.add_all([Named(called="Ann", photo=b"ann"), Named(called="Bob", photo=b"bob")])
        session.commit()
        statement = upsert(world, Named)
        statement = statement.on_conflict_do_update(
            index_elements=[func.lower(Named.called)], set_={"file": statement.excluded.file}
        )
        session.execute(statement, [{"called": "ANN", "photo": b"new ann"}, {"called": "Cid", "photo": b"cid"}])
        session.commit()
    world.check(b"new ann", b"bob", b"cid")


@on("world", ["sqlite", "aiosqlite"], indirect=True)
def test_a_replacement_by_an_index(world: World) -> None:
    world.create(OwnBase.metadata)
    with world.session() as session:
        session.add_all([Named(called="Ann", photo=b"ann"), Named(called="Bob", photo=b"bob")])
        session.commit()
        session.execute(insert(Named).prefix_with("OR REPLACE"), [{"called": "ANN", "photo": b"new ann"}])
        session.commit()
    world.check(b"new ann", b"bob")


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_a_conflict_through_a_default_that_is_a_value(world: World) -> None:
    world.create(OwnBase.metadata)
    with world.session() as session:
        session.add_all([Front(file=b"old"), Front(slot="other", file=b"other")])
        session.commit()
        session.execute(or_update(world, "file", entity=Front, on="slot"), [{"file": b"new"}])
        session.commit()
    world.check(b"new", b"other")


@on("world", ["sqlite", "postgres", "aiosqlite", "asyncpg"], indirect=True)
def test_a_conflict_of_two_columns(world: World) -> None:
    world.create(OwnBase.metadata)
    with world.session() as session:
        session.add_all([Paper(year=1999, number=1, file=b"1"), Paper(year=2000, number=1, file=b"2")])
        session.commit()
        statement = upsert(world, Paper)
        statement = statement.on_conflict_do_update(
            index_elements=["year", "number"], set_={"file": statement.excluded.file}
        )
        rows = [{"year": 1999, "number": 1, "file": b"new"}, {"year": 1999, "number": 2, "file": b"3"}]
        session.execute(statement, rows)
        session.commit()
    world.check(b"new", b"2", b"3")


@on("world", ["sqlite", "postgres", "mariadb", "asyncpg"], indirect=True)
@on("nothing", [False, True])
def test_a_conflict_through_a_default(world: World, nothing: bool) -> None:
    """Hole 13: the column that conflicts is in no parameter."""
    world.create(OwnBase.metadata)
    with world.session() as session:
        session.add(Paper(year=2000, number=1, file=b"old"))
        session.commit()
        if nothing and world.name == "mariadb":
            statement: Any = insert(Paper).prefix_with("IGNORE")
        elif nothing:
            statement = upsert(world, Paper).on_conflict_do_nothing()
        elif world.name == "mariadb":
            statement = upsert(world, Paper)
            statement = statement.on_duplicate_key_update(file=statement.inserted.file)
        else:
            statement = upsert(world, Paper)
            statement = statement.on_conflict_do_update(
                index_elements=["year", "number"], set_={"file": statement.excluded.file}
            )
        session.execute(statement, [{"number": 1, "file": b"new"}])
        session.commit()
        assert session.scalars(select(Paper.file)).one().read() == (b"old" if nothing else b"new")
    world.check(b"old" if nothing else b"new")


@with_targets
def test_a_file_from_an_sql_expression_is_refused(world: World) -> None:
    """The file of another column, or of a literal, would be named twice."""
    seed(world)
    with world.session() as session:
        statement = upsert(world).on_conflict_do_update(index_elements=["title"], set_={"file": Doc.scan})
        with pytest.raises(OwnershipLost, match=r"Doc\.file"):
            session.execute(statement, [{"title": "b", "file": b"new"}])
        session.rollback()
        subquery = select(Doc.file).where(Doc.title == "a").scalar_subquery()
        statement = upsert(world).on_conflict_do_update(index_elements=["title"], set_={"file": subquery})
        with pytest.raises(OwnershipLost, match=r"Doc\.file"):
            session.execute(statement, [{"title": "b", "file": b"new"}])
        session.rollback()
        statement = upsert(world)
        statement = statement.on_conflict_do_update(
            index_elements=["title"], set_={"scan": statement.excluded.file, "file": statement.excluded.file}
        )
        with pytest.raises(OwnershipLost, match=r"Doc\.scan"):
            session.execute(statement, [{"title": "b", "file": b"new"}])
        session.rollback()
    world.check(b"old a", b"old b", b"scan b")


@with_targets
def test_keep_the_old_file_where_there_is_no_new_one(world: World) -> None:
    seed(world)
    with world.session() as session:
        statement = upsert(world)
        statement = statement.on_conflict_do_update(
            index_elements=["title"], set_={"file": func.coalesce(statement.excluded.file, Doc.file)}
        )
        session.execute(statement, [{"title": "a", "file": None}, {"title": "b", "file": b"new b"}])
        session.commit()
        assert read(session) == {"a": b"old a", "b": b"new b"}
    world.check(b"old a", b"new b", b"scan b")


@with_targets
def test_a_file_of_its_own_for_the_update(world: World) -> None:
    """A constant in ``set_`` may be written to one row, to many, or to none."""
    seed(world)
    with world.session() as session:
        statement = upsert(world).on_conflict_do_update(
            index_elements=["title"], set_={"file": Attachment.upload(b"updated")}
        )
        with pytest.raises(OwnershipLost, match=r"Doc\.file"):
            session.execute(statement, [{"title": "a", "file": b"new"}, {"title": "c", "file": b"new c"}])
        session.rollback()
        session.execute(
            upsert(world).on_conflict_do_update(index_elements=["title"], set_={"file": None}),
            [{"title": "a", "file": b"new"}, {"title": "c", "file": b"new c"}],
        )
        session.commit()
    world.check(b"old b", b"scan b", b"new c")


@on("world", ["postgres", "asyncpg"], indirect=True)
def test_a_row_that_a_trigger_locks_was_in_nobodys_way(world: World) -> None:
    """A foreign key does, to the row that was just inserted. It is looked for once, not again and again."""
    with world.observer.begin() as connection:
        connection.execute(text("CREATE SEQUENCE executions"))
        body = "BEGIN PERFORM nextval('executions'); INSERT INTO notes (doc_id) VALUES (NEW.id); RETURN NEW; END"
        connection.execute(text(f"CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$"))
        connection.execute(text("CREATE TRIGGER noted AFTER INSERT ON docs FOR EACH ROW EXECUTE FUNCTION noted()"))
    with world.session() as session:
        session.execute(or_update(world, "file"), {"title": "a", "file": b"new"})
        assert session.scalar(text("SELECT last_value FROM executions")) == 2
        assert session.scalar(select(func.count()).select_from(Note)) == 1
        session.commit()
    world.check(b"new")


# Names


class OtherBase(DeclarativeBase):
    pass


class Renamed(OtherBase):
    """The attribute, the column and its key each have a name of their own."""

    __tablename__ = "renamed"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(20), unique=True)
    photo: Mapped[Attachment | None] = mapped_column("file", AttachmentType(files), key="photo_key")
    plain: Mapped[Attachment | None] = mapped_column("simple", AttachmentType(files))
    scan: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
@on("name", ["file", "photo_key", "FILE", "column", "attribute", "simple", "plain attribute"])
def test_a_foreign_file_is_refused_whatever_the_column_is_called(world: World, name: str) -> None:
    world.create(OtherBase.metadata)
    with world.session() as session:
        session.add(Renamed(id=1, title="a", photo=b"photo", plain=b"plain", scan=b"scan"))
        session.commit()
        key = {
            "column": Renamed.__table__.c.photo_key,
            "attribute": Renamed.photo,
            "plain attribute": Renamed.plain,
        }.get(name, name)
        statement = upsert(world, Renamed)
        if world.name == "mariadb":
            statement = statement.on_duplicate_key_update({key: Renamed.scan})
        else:
            statement = statement.on_conflict_do_update(index_elements=["title"], set_={key: Renamed.scan})
        with pytest.raises(OwnershipLost, match="on conflict"):
            session.execute(statement, {"title": "a", "photo": b"new"})
        session.commit()
    world.check(b"photo", b"plain", b"scan")


@pytest.mark.skipif(not hasattr(sqlite.dml.OnConflictClause, "apply_to_insert"), reason="SQLAlchemy 2.1 takes several")
@on("world", ["sqlite"], indirect=True)
def test_several_clauses(world: World) -> None:
    seed(world)
    with world.session() as session:
        statement = sqlite.insert(Doc)
        foreign = statement.on_conflict_do_update(index_elements=["id"], set_={"file": Doc.scan})
        with pytest.raises(OwnershipLost, match="on conflict"):
            session.execute(foreign.on_conflict_do_nothing(), {"id": 2, "file": b"new"})
        own = statement.on_conflict_do_update(index_elements=["id"], set_={"file": statement.excluded.file})
        rows = [{"id": 1, "title": "c", "file": b"new a"}, {"id": 9, "title": "b", "file": b"new b"}]
        session.execute(own.on_conflict_do_nothing(), rows)
        assert read(session) == {"a": b"new a", "b": b"old b"}
        session.commit()
    world.check(b"new a", b"old b", b"scan b")
