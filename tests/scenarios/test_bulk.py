"""ORM-enabled INSERT, UPDATE and DELETE statements, which no flush sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import (
    String,
    TypeDecorator,
    bindparam,
    delete,
    event,
    exists,
    func,
    insert,
    null,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    IntegrityError,
    InvalidRequestError,
    OperationalError,
    PendingRollbackError,
    StatementError,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column
from sqlalchemy.orm.exc import StaleDataError

from sa_attachments import Attachment, AttachmentType, OwnershipLost

from .models import Doc, Note, files
from .world import World

on = pytest.mark.parametrize


def seed(world: World, *contents: bytes | None) -> None:
    """Committed documents 1, 2, ..., titled by their number."""
    with world.session() as session:
        session.add_all([Doc(id=i, title=str(i), file=data) for i, data in enumerate(contents, 1)])
        session.commit()


def read(session: Session) -> dict[int, bytes | None]:
    session.expire_all()
    rows = session.execute(select(Doc.id, Doc.file).order_by(Doc.id))
    return {key: file and file.read() for key, file in rows}


# INSERT

ROWS: list[dict[str, Any]] = [
    {"id": 1, "file": b"one", "pages": [b"page", b"another"]},
    {"id": 2, "file": Attachment.upload(b"two", "two.txt"), "pages": []},
    {"id": 3, "file": None, "pages": [b"last"]},
]
CONTENTS = [b"one", b"page", b"another", b"two", b"last"]

INSERTS: dict[str, Callable[[Session], Any]] = {
    "executemany": lambda session: session.execute(insert(Doc), ROWS),
    "values, a list": lambda session: session.execute(insert(Doc).values(ROWS)),
    "values, one by one": lambda session: [session.execute(insert(Doc).values(**row)) for row in ROWS],
    "parameters, one by one": lambda session: [session.execute(insert(Doc), row) for row in ROWS],
    "values by attribute": lambda session: [
        session.execute(insert(Doc).values({getattr(Doc, key): value for key, value in row.items()})) for row in ROWS
    ],
    "values and parameters": lambda session: [
        session.execute(insert(Doc).values(file=row["file"]), {"id": row["id"], "pages": row["pages"]}) for row in ROWS
    ],
}


@on("how", INSERTS)
@on("end", ["commit", "rollback"])
def test_insert(world: World, how: str, end: str) -> None:
    with world.session() as session:
        INSERTS[how](session)
        assert read(session) == {1: b"one", 2: b"two", 3: None}
        assert session.get_one(Doc, 2).file.filename == "two.txt"
        getattr(session, end)()
    assert ROWS[0]["file"] == b"one", "what the user passed is the user's"
    world.check(*(CONTENTS if end == "commit" else []))


@on("world", ["sqlite", "sqlite-memory", "postgres", "aiosqlite", "asyncpg", "mariadb"], indirect=True)
@on("form", ["executemany", "values"])
def test_insert_returning(world: World, form: str) -> None:
    with world.session() as session:
        statement = insert(Doc).returning(Doc, Doc.file)
        result = session.execute(statement, ROWS) if form == "executemany" else session.execute(statement.values(ROWS))
        for doc, file in result:
            assert doc.file == file
            assert file is None or file.read() == ROWS[doc.id - 1]["file"] or doc.id == 2
        session.commit()
    world.check(*CONTENTS)


def test_an_insert_that_fails_stores_nothing_for_long(world: World) -> None:
    seed(world, b"old")
    with world.session() as session:
        with pytest.raises(IntegrityError):
            session.execute(insert(Doc), [{"title": "new", "file": b"new"}, {"title": "1", "file": b"taken"}])
        session.rollback()
        session.execute(insert(Doc), [{"title": "2", "file": b"two"}])
        session.commit()
    world.check(b"old", b"two")


def test_a_failed_insert_in_a_savepoint(world: World) -> None:
    seed(world, b"old")
    with world.session() as session:
        with pytest.raises(IntegrityError), session.begin_nested():
            session.execute(insert(Doc), [{"title": "1", "file": b"taken"}])
        session.execute(insert(Doc), [{"title": "2", "file": b"two"}])
        session.commit()
    world.check(b"old", b"two")


def test_insert_copies_what_belongs_to_others(world: World) -> None:
    seed(world, b"old")
    with world.session() as session:
        file = session.get_one(Doc, 1).file
        upload = Attachment.upload(b"new")
        rows = [{"file": file}, {"file": file}, {"file": upload}, {"file": upload}]
        session.execute(insert(Note), rows)
        session.commit()
    world.check(b"old", b"old", b"old", b"new", b"new")


def test_insert_from_select_is_refused(world: World) -> None:
    """Two rows would name one file."""
    seed(world, b"old")
    with world.session() as session:
        with pytest.raises(OwnershipLost, match=r"Note\.file can't be filled by INSERT \.\.\. SELECT"):
            session.execute(insert(Note).from_select(["doc_id", "file"], select(Doc.id, Doc.file)))
        session.execute(insert(Note).from_select(["doc_id"], select(Doc.id)))
        session.commit()
    world.check(b"old")


# UPDATE


@on("synchronize", ["auto", "evaluate", "fetch", False])
def test_update_of_many_rows_with_one_upload(world: World, synchronize: Any) -> None:
    """Hole 6: each row gets a file of its own."""
    seed(world, b"one", b"two", b"three", None)
    with world.session() as session:
        docs = session.scalars(select(Doc).order_by(Doc.id)).all()
        session.execute(
            update(Doc).where(Doc.id != 2).values(file=Attachment.upload(b"new", "new.txt")),
            execution_options={"synchronize_session": synchronize},
        )
        if synchronize:
            assert [doc.file.read() for doc in docs] == [b"new", b"two", b"new", b"new"]
            assert len({doc.file for doc in docs}) == 4
        assert read(session) == {1: b"new", 2: b"two", 3: b"new", 4: b"new"}
        session.commit()
        assert {doc.file.filename for doc in docs} == {"new.txt", "unnamed"}
    world.check(b"new", b"two", b"new", b"new")


@on("where", ["one", "none"])
def test_update_of_one_row_or_none(world: World, where: str) -> None:
    """Hole 13: an UPDATE of 0 rows leaves no line without a row."""
    seed(world, b"one", b"two")
    with world.session() as session:
        result = session.execute(update(Doc).where(Doc.id == (1 if where == "one" else 404)).values(file=b"new"))
        assert result.rowcount == (where == "one")  # type: ignore[attr-defined]
        session.commit()
    world.check(b"new" if where == "one" else b"one", b"two")


def test_update_is_rolled_back(world: World) -> None:
    seed(world, b"one", b"two")
    with world.session() as session:
        session.execute(update(Doc).values(file=b"new"))
        session.execute(update(Doc).where(Doc.id == 1).values(file=None))
        session.rollback()
    world.check(b"one", b"two")


@on("value", [None, null()], ids=["None", "null()"])
def test_update_to_none(world: World, value: Any) -> None:
    seed(world, b"one", b"two")
    with world.session() as session:
        session.execute(update(Doc).where(Doc.id == 1).values(file=value))
        session.commit()
        assert session.scalars(select(Doc.id).where(Doc.file.is_(None))).all() == [1]
    world.check(b"two")


def test_update_of_a_list(world: World) -> None:
    seed(world, None, None)
    with world.session() as session:
        session.execute(update(Doc).values(pages=[b"one", b"two"]))
        session.execute(update(Doc).where(Doc.id == 1).values(pages=()))
        session.commit()
        assert [page.read() for page in session.get_one(Doc, 2).pages] == [b"one", b"two"]
    world.check(b"one", b"two")


def test_update_of_other_columns_touches_no_file(world: World) -> None:
    seed(world, b"one", b"two")
    with world.session() as session, world.nothing_stored():
        session.execute(update(Doc).where(Doc.id == 1).values(title="x"))
        session.execute(update(Doc), [{"id": 1, "title": "y"}, {"id": 2, "title": "z"}])
        session.commit()
    world.check(b"one", b"two")


def test_update_with_a_subquery(world: World) -> None:
    seed(world, b"one", b"two", b"three")
    with world.session() as session:
        session.add(Note(doc_id=2, file=b"note"))
        session.flush()
        session.execute(update(Doc).where(exists().where(Note.doc_id == Doc.id)).values(file=b"new"))
        session.execute(update(Doc).where(Doc.id.in_(select(Note.doc_id))).values(scan=b"scan"))
        session.commit()
        assert read(session) == {1: b"one", 2: b"new", 3: b"three"}
    world.check(b"one", b"new", b"three", b"scan", b"note")


@on("world", ["sqlite", "postgres", "asyncpg", "mariadb"], indirect=True)
def test_update_from_another_table(world: World) -> None:
    seed(world, b"one", b"two")
    with world.session() as session:
        session.add(Note(doc_id=2))
        session.flush()
        session.execute(
            update(Doc).where(Doc.id == Note.doc_id).values(file=b"new"),
            execution_options={"synchronize_session": False},
        )
        session.commit()
        assert read(session) == {1: b"one", 2: b"new"}
    world.check(b"one", b"new")


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_a_condition_that_can_not_be_locked(world: World) -> None:
    seed(world, b"one", b"two")
    with world.session() as session:
        session.add_all([Note(doc_id=1), Note(doc_id=2), Note(doc_id=2)])
        session.flush()
        counts = select(Note.doc_id, func.count().label("notes")).group_by(Note.doc_id).subquery()
        statement = update(Doc).where(Doc.id == counts.c.doc_id, counts.c.notes > 1).values(file=b"new")
        session.execute(statement, execution_options={"synchronize_session": False})
        session.commit()
        assert read(session) == {1: b"one", 2: b"new"}
    world.check(b"one", b"new")


@on("world", ["sqlite", "postgres"], indirect=True)
@on("what", ["file", "none", "delete"])
def test_a_statement_of_an_alias(world: World, what: str) -> None:
    seed(world, b"one", b"two", b"three")
    with world.session() as session:
        other = aliased(Doc)
        statement = delete(other) if what == "delete" else update(other).values(file=b"new" if what == "file" else None)
        first = select(func.min(Doc.id)).scalar_subquery()
        session.execute(statement.where(other.id > first), execution_options={"synchronize_session": False})
        session.commit()
    world.check(b"one", *[b"new"] * (2 if what == "file" else 0))


@on("world", ["sqlite", "sqlite-memory", "postgres", "aiosqlite", "asyncpg"], indirect=True)
def test_update_returning(world: World) -> None:
    seed(world, b"one", b"two")
    with world.session() as session:
        statement = update(Doc).values(file=b"new").returning(Doc.id, Doc.file)
        assert {key: file.read() for key, file in session.execute(statement)} == {1: b"new", 2: b"new"}
        session.commit()
    world.check(b"new", b"new")


@on("end", ["commit", "rollback"])
def test_update_by_primary_key(world: World, end: str) -> None:
    seed(world, b"one", b"two", b"three", b"four")
    upload = Attachment.upload(b"new")
    with world.session() as session:
        rows: list[dict[str, Any]] = [
            {"id": 1, "file": upload},
            {"id": 2, "file": upload},
            {"id": 3, "file": None},
            {"id": 4, "title": "x"},
        ]
        session.execute(update(Doc), rows)
        assert read(session) == {1: b"new", 2: b"new", 3: None, 4: b"four"}
        getattr(session, end)()
    world.check(*([b"new", b"new", b"four"] if end == "commit" else [b"one", b"two", b"three", b"four"]))


@on("world", ["sqlite"], indirect=True)
def test_update_by_a_primary_key_that_is_not_given(world: World) -> None:
    seed(world, b"one")
    with world.session() as session:
        with world.nothing_stored(), pytest.raises(InvalidRequestError, match="primary key"):
            session.execute(update(Doc), [{"id": 1, "file": b"new"}, {"file": b"another"}])
        session.commit()
    world.check(b"one")


@on("world", ["sqlite"], indirect=True)
def test_update_in_an_order_is_refused(world: World) -> None:
    seed(world, b"one")
    with world.session() as session:
        with pytest.raises(OwnershipLost, match=r"Doc\.file: pass its file to update\(\)\.values\(\)"):
            session.execute(update(Doc).ordered_values((Doc.title, "x"), (Doc.file, Attachment.upload(b"new"))))
        session.execute(update(Doc).ordered_values((Doc.title, "x"), (Doc.file, None)))
        session.commit()
    world.check()


def test_update_by_a_primary_key_that_is_not_there(world: World) -> None:
    seed(world, b"one")
    with world.session() as session:
        expected = b"new"
        try:
            session.execute(update(Doc), [{"id": 1, "file": b"new"}, {"id": 404, "file": b"lost"}])
            session.commit()
        except StaleDataError:  # Some drivers count the rows.
            session.rollback()
            expected = b"one"
    world.check(expected)


def test_update_with_parameters_for_the_condition(world: World) -> None:
    seed(world, b"one", b"two")
    with world.session() as session:
        session.execute(update(Doc).where(Doc.id == bindparam("which")).values(file=b"new"), {"which": 2})
        session.commit()
        assert read(session) == {1: b"one", 2: b"new"}
    world.check(b"one", b"new")


@on("value", [Doc.scan, Doc.file["key"], select(Note.file).scalar_subquery()], ids=["column", "path", "subquery"])
def test_update_by_an_sql_expression_is_refused(world: World, value: Any) -> None:
    seed(world, b"one")
    with world.session() as session, world.nothing_stored():
        with pytest.raises(OwnershipLost, match=r"Doc\.file is set by an SQL expression"):
            session.execute(update(Doc).values(file=value))
        session.execute(update(Doc).values(title=None))
        session.commit()
    world.check(b"one")


# DELETE

DELETES: dict[str, Any] = {
    "all": delete(Doc).where(Doc.id > 0, Doc.id < 3),
    "in": delete(Doc).where(Doc.id.in_([1, 2])),
    "exists": delete(Doc).where(exists().where(Note.id == Doc.id)),
    "subquery": delete(Doc).where(Doc.id.in_(select(Note.id))),
    "by its file": delete(Doc).where(Doc.file["size"].as_integer() < 5),
}


@on("how", DELETES)
@on("end", ["commit", "rollback"])
def test_delete(world: World, how: str, end: str) -> None:
    seed(world, b"one", b"two", b"three")
    with world.session() as session:
        session.add_all([Note(id=1), Note(id=2)])
        session.flush()
        session.execute(DELETES[how])
        assert read(session) == {3: b"three"}
        getattr(session, end)()
    world.check(*([b"three"] if end == "commit" else [b"one", b"two", b"three"]))


@on("world", ["postgres", "asyncpg", "mariadb"], indirect=True)
def test_delete_using_another_table(world: World) -> None:
    seed(world, b"one", b"two")
    with world.session() as session:
        session.add(Note(id=2))
        session.flush()
        session.execute(delete(Doc).where(Doc.id == Note.id), execution_options={"synchronize_session": False})
        session.commit()
        assert read(session) == {1: b"one"}
    world.check(b"one")


@on("world", ["sqlite", "sqlite-memory", "postgres", "aiosqlite", "asyncpg", "mariadb"], indirect=True)
def test_delete_returning(world: World) -> None:
    seed(world, b"one", b"two")
    with world.session() as session:
        statement = delete(Doc).where(Doc.id == 1).returning(Doc.file)
        file = session.scalars(statement, execution_options={"synchronize_session": False}).one()
        assert file is not None
        assert file.read() == b"one"
        session.commit()
    world.check(b"two")


def test_the_legacy_query(world: World) -> None:
    seed(world, b"one", b"two", b"three")
    with world.session() as session:
        session.query(Doc).filter(Doc.id < 3).update({"file": b"new"})
        session.query(Doc).filter_by(id=2).delete()
        session.commit()
    world.check(b"new", b"three")


# Inside of a SELECT


@on("world", ["sqlite", "postgres"], indirect=True)
@on("what", ["delete", "update", "upsert", "replace"])
def test_statements_that_may_take_files_from_rows_unseen_are_refused(world: World, what: str) -> None:
    seed(world, b"one")
    upsert = (sqlite if world.name == "sqlite" else postgresql).insert(Doc).values(id=1, title="x")
    statement: Any = {
        "delete": delete(Doc),
        "update": update(Doc).values(file=None),
        "upsert": upsert.on_conflict_do_update(index_elements=["id"], set_={"file": upsert.excluded.file}),
        "replace": insert(Doc).prefix_with("OR REPLACE").values(id=1, title="x"),
    }[what]
    with world.session() as session:
        with pytest.raises(OwnershipLost, match=r"inside of from_statement\(\)"):
            session.scalars(select(Doc).from_statement(statement.returning(Doc)))
        harmless = [
            update(Doc).values(title="y"),
            insert(Doc).values(id=2),
            upsert.on_conflict_do_update(index_elements=["id"], set_={"title": upsert.excluded.title}),
        ]
        for each in harmless:
            session.scalars(select(Doc).from_statement(each.returning(Doc))).all()
        session.commit()
        assert read(session) == {1: b"one", 2: None}
    world.check(b"one")


# Failures after the statement

three = on("world", ["sqlite", "postgres", "mariadb"], indirect=True)

CHANGES: dict[str, Callable[[Session], Any]] = {
    "update": lambda session: session.execute(update(Doc).where(Doc.id == 1).values(file=b"new")),
    "by key": lambda session: session.execute(update(Doc), [{"id": 1, "file": b"new"}]),
    "insert": lambda session: session.execute(insert(Doc).values(id=2, file=b"new")),
    "delete": lambda session: session.execute(delete(Doc).where(Doc.id == 1)),
}


class SoftTimeLimitExceeded(Exception):
    """As Celery's, raised by a signal handler wherever the thread is."""


@three
@on("form", CHANGES)
def test_a_statement_that_is_interrupted_somewhere(world: World, form: str) -> None:
    """Before or after any of the calls of the database: what is committed then is a whole, or nothing is."""
    for step in range(100):
        seed(world, b"old")
        calls = iter(range(100))

        def interrupt(*_: object, step: int = step, calls: Iterator[int] = calls) -> None:
            if next(calls) == step:
                raise SoftTimeLimitExceeded

        with world.session() as session:
            for name in ("before_cursor_execute", "after_cursor_execute"):
                event.listen(world.engine, name, interrupt)
            try:
                CHANGES[form](session)
                failed = False
            except SoftTimeLimitExceeded:
                failed = True
            finally:
                for name in ("before_cursor_execute", "after_cursor_execute"):
                    event.remove(world.engine, name, interrupt)
            with suppress(PendingRollbackError):
                session.commit()
            session.rollback()
            world.sweep()
            if not failed:
                break
            world.check(b"old", swept=True)
            session.execute(delete(Doc))
            session.commit()
            world.sweep()
    else:
        pytest.fail("it never came to its end")
    assert step > 3
    world.check(*{"delete": [], "insert": [b"old", b"new"]}.get(form, [b"new"]), swept=True)


class Unlucky(TypeDecorator[Any]):
    impl = String(20)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if value == "13":
            raise ValueError(value)
        return value


@three
@on("form", ["insert", "update"])
def test_a_part_of_a_statement_fails_before_the_database_hears_of_it(world: World, form: str) -> None:
    """Rows that are given other columns are carried out apart."""

    class Other(DeclarativeBase):
        pass

    class Room(Other):
        __tablename__ = "rooms"
        id: Mapped[int] = mapped_column(primary_key=True)
        title: Mapped[str | None] = mapped_column(Unlucky())
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))

    world.create(Other.metadata)
    with world.session() as session:
        session.add_all([Room(id=1, file=b"one"), Room(id=2, file=b"two")])
        session.commit()
        first = 1 if form == "update" else 3
        rows = [{"id": first, "file": b"new"}, {"id": first + 1, "file": b"another", "title": "13"}]
        with pytest.raises(StatementError, match="13"):
            session.execute(update(Room) if form == "update" else insert(Room), rows)
        session.commit()
    world.check(b"one", b"two")


@three
@on("count", [1, 2])
def test_rows_that_are_gone_by_primary_key_and_the_transaction_goes_on(world: World, count: int) -> None:
    seed(world, b"one")
    rows = [{"id": 1, "file": b"new"}, {"id": 404, "file": b"lost"}][-count:]
    with world.session() as session:
        try:
            session.execute(update(Doc), rows)
            expected = b"one" if count == 1 else b"new"
        except StaleDataError:
            expected = b"one"
        session.commit()
    world.check(expected)


@three
@on("error", [InvalidRequestError, OwnershipLost, SoftTimeLimitExceeded])
@on("inner", [False, True])
def test_a_listener_refuses_what_was_executed(world: World, error: type[Exception], inner: bool) -> None:
    """Perhaps after another statement of its own, whose savepoint is not that of the first one."""
    seed(world, b"one", b"two")
    with world.session() as session:

        def refuse(connection: object, cursor: object, statement: str, *_: object) -> None:
            if statement.startswith("UPDATE docs") and not refused:
                refused.append(statement)
                if inner:
                    session.execute(update(Doc).where(Doc.id == 2).values(file=b"inner"))
                raise error

        refused: list[str] = []
        event.listen(world.engine, "after_cursor_execute", refuse)
        try:
            with pytest.raises(error):
                session.execute(update(Doc).where(Doc.id == 1).values(file=b"new"))
        finally:
            event.remove(world.engine, "after_cursor_execute", refuse)
        session.commit()
    world.sweep()
    world.check(b"one", b"two", swept=True)


@on("world", ["mariadb"], indirect=True)
def test_a_lock_that_cannot_be_had_after_the_statement(world: World) -> None:
    seed(world, b"old")
    with world.engine.connect() as other, world.session() as session:
        world.files.drop(session.get_one(Doc, 1).file, other)
        session.commit()
        session.execute(text("SET SESSION innodb_lock_wait_timeout = 1"))
        with pytest.raises(OperationalError, match="1205"):
            session.execute(update(Doc).where(Doc.id == 1).values(file=b"new"))
        session.commit()
        other.rollback()
    world.check(b"old")


@on("world", ["postgres"], indirect=True)
@on("form", ["delete", "update"])
def test_a_condition_that_writes_is_refused(world: World, form: str) -> None:
    """It would be carried out twice, and the statement itself meet nothing."""
    seed(world, b"old")
    with world.session() as session:
        gone = delete(Note).returning(Note.doc_id).cte("gone")
        statement: Any = delete(Doc) if form == "delete" else update(Doc).values(file=b"new")
        with pytest.raises(OwnershipLost, match="carried out twice"):
            session.execute(
                statement.where(Doc.id.in_(select(gone.c.doc_id))), execution_options={"synchronize_session": False}
            )
        session.commit()
    world.check(b"old")


@three
def test_a_parameter_that_is_called_as_its_column(world: World) -> None:
    class Other(DeclarativeBase):
        pass

    class Renamed(Other):
        __tablename__ = "renamed"
        id: Mapped[int] = mapped_column(primary_key=True)
        photo: Mapped[Attachment | None] = mapped_column("file", AttachmentType(files))

    world.create(Other.metadata)
    with world.session() as session:
        session.add(Renamed(id=1, photo=b"old"))
        session.commit()
        session.execute(update(Renamed).where(Renamed.id == 1), {"file": None})
        session.commit()
    world.check()
