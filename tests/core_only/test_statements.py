"""Statements that write names on the connection that staged them: each file goes to one row, and what can't be told is
refused.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Table,
    bindparam,
    case,
    create_engine,
    event,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from sa_attachments import Attachment, AttachmentType, AttachmentWarning, OwnershipLost, Storages
from tests.scenarios.models import Doc, files
from tests.scenarios.world import World

from .models import Bench, docs, upload

on = pytest.mark.parametrize
some = on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
with_returning = on("world", ["sqlite", "postgres", "asyncpg"], indirect=True)
one = on("world", ["sqlite"], indirect=True)


def stage(connection: Any, data: bytes = b"data", column: str = "file") -> Attachment:
    return files.stage(upload(data), connection, docs.c[column])


def dialect_insert(world: World) -> Any:
    kinds: dict[str, Any] = {"sqlite": sqlite, "postgresql": postgresql}
    return kinds.get(world.engine.dialect.name, mysql).insert


# What goes


def test_many_rows_by_a_list_of_parameters(bench: Bench) -> None:
    with bench.begin() as connection:
        rows = [{"id": i, "file": stage(connection, b"%d" % i)} for i in range(3)]
        connection.execute(docs.insert(), rows)
    bench.check(b"0", b"1", b"2")


def test_many_rows_by_values(bench: Bench) -> None:
    with bench.begin() as connection:
        rows: list[Any] = [{"id": i, "file": stage(connection, b"%d" % i)} for i in range(3)]
        connection.execute(docs.insert().values([*rows, {"id": 3, "file": None}]))
    bench.check(b"0", b"1", b"2")


@with_returning
def test_many_rows_with_returning(bench: Bench) -> None:
    """In several statements, where there are more than fit into one."""
    with bench.begin() as connection:
        rows = [{"id": i, "file": stage(connection, b"%d" % i)} for i in range(5)]
        statement = docs.insert().returning(docs.c.id, sort_by_parameter_order=True)
        options = {"insertmanyvalues_page_size": 2}
        assert connection.execute(statement, rows, execution_options=options).scalars().all() == [0, 1, 2, 3, 4]
    bench.check(*(b"%d" % i for i in range(5)))


def test_several_columns_of_one_row(bench: Bench) -> None:
    with bench.begin() as connection:
        values = {"file": stage(connection, b"file"), "scan": stage(connection, b"scan", "scan")}
        connection.execute(docs.insert(), {"id": 1, **values})
        more = {"small": stage(connection, b"small", "small"), "pages": [stage(connection, b"page", "pages")]}
        connection.execute(docs.update().where(docs.c.id == 1).values(**more))
    bench.check(b"file", b"scan", b"small", b"page")


def test_updates_by_primary_key_with_a_list_of_parameters(bench: Bench) -> None:
    with bench.begin() as connection:
        connection.execute(docs.insert(), [{"id": i} for i in range(3)])
        statement = docs.update().where(docs.c.id == bindparam("pk"))
        connection.execute(statement, [{"pk": i, "file": stage(connection, b"%d" % i)} for i in range(3)])
    bench.check(b"0", b"1", b"2")


@with_returning
def test_an_update_with_returning(bench: Bench) -> None:
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 1})
        statement = docs.update().where(docs.c.id == 1, docs.c.title.is_(None)).values(file=stage(connection))
        assert connection.scalar(statement.returning(docs.c.id)) == 1
    bench.check(b"data")


def test_a_text_with_a_typed_parameter(bench: Bench) -> None:
    with bench.begin() as connection:
        statement = text("INSERT INTO plain_docs (id, file) VALUES (1, :file)")
        if bench.engine.dialect.name == "postgresql":
            statement = text("INSERT INTO plain_docs (id, file) VALUES (1, CAST(:file AS JSONB))")
        connection.execute(statement.bindparams(bindparam("file", type_=docs.c.file.type)), {"file": stage(connection)})
    bench.check(b"data")


@some
def test_insert_from_select(bench: Bench) -> None:
    with bench.begin() as connection:
        connection.execute(Doc.__table__.insert(), {"id": 7, "pages": []})  # type: ignore[attr-defined]
        rows = select(Doc.id, literal(stage(connection), docs.c.file.type))
        connection.execute(docs.insert().from_select(["id", "file"], rows))
    bench.check(b"data")


def test_a_statement_that_failed_is_tried_again(bench: Bench) -> None:
    bench.insert(1, b"taken")
    with bench.begin() as connection:
        staged = stage(connection)
        with pytest.raises(IntegrityError), connection.begin_nested():
            connection.execute(docs.insert(), {"id": 1, "file": staged})
        connection.execute(docs.insert(), {"id": 2, "file": staged})
    bench.check(b"taken", b"data")


@on("world", ["sqlite", "sqlite-legacy", "mariadb"], indirect=True)
def test_a_statement_that_failed_is_tried_again_without_a_savepoint(bench: Bench) -> None:
    """PostgreSQL ends the transaction."""
    bench.insert(1, b"taken")
    with bench.begin() as connection:
        staged = stage(connection)
        with pytest.raises(IntegrityError):
            connection.execute(docs.insert(), {"id": 1, "file": staged})
        connection.execute(docs.insert(), {"id": 2, "file": staged})
    bench.check(b"taken", b"data")


def test_a_savepoint_that_is_rolled_back_frees_the_name(bench: Bench) -> None:
    """The file was staged before it, so that it is still owned."""
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 1})
        staged = stage(connection)
        outer = connection.begin_nested()
        with connection.begin_nested():
            connection.execute(docs.insert(), {"id": 2, "file": staged})
        outer.rollback()
        connection.execute(docs.insert(), {"id": 3, "file": staged})
    bench.check(b"data")


def test_a_released_savepoint_keeps_the_name(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = stage(connection)
        with connection.begin_nested():
            connection.execute(docs.insert(), {"id": 2, "file": staged})
        with pytest.raises(OwnershipLost, match="a row has its name already"):
            connection.execute(docs.insert(), {"id": 3, "file": staged})
    bench.check(b"data")


# What does not


@some
def test_two_rows_never_get_one_file(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = stage(connection)
        statements: list[tuple[Any, Any]] = [
            (docs.insert(), [{"id": 1, "file": staged}, {"id": 2, "file": staged}]),
            (docs.insert().values([{"id": 1, "file": staged}, {"id": 2, "file": staged}]), None),
            (docs.insert(), {"id": 1, "file": staged, "scan": staged}),
            (docs.insert(), {"id": 1, "pages": [staged, staged]}),
        ]
        for statement, parameters in statements:
            with pytest.raises(OwnershipLost, match=r"may not name .*: a row has its name already; stage it again"):
                connection.execute(statement, parameters)
        connection.execute(docs.insert(), {"id": 1, "file": staged})
        with pytest.raises(OwnershipLost, match="a row has its name already"):
            connection.execute(docs.insert(), {"id": 2, "file": staged})
    bench.check(b"data")


def test_an_update_of_several_rows_can_t_be_committed(bench: Bench) -> None:
    with bench.begin() as connection:
        connection.execute(docs.insert(), [{"id": 1}, {"id": 2}])
    with bench.engine.connect() as connection:
        with pytest.raises(OwnershipLost, match="1 staged files, 1 sets of parameters, 2 rows"):
            connection.execute(docs.update().values(file=stage(connection)))
        with pytest.raises(OwnershipLost, match="Roll this transaction, or the savepoint, back"):
            connection.commit()
    bench.check()
    with bench.begin() as connection:
        with pytest.raises(OwnershipLost), connection.begin_nested():
            connection.execute(docs.update().values(file=stage(connection)))
        connection.execute(docs.update().where(docs.c.id == 2).values(file=stage(connection)))
    bench.check(b"data")


@some
def test_updates_that_can_t_be_counted(bench: Bench) -> None:
    with bench.begin() as connection:
        connection.execute(docs.insert(), [{"id": 1, "title": "a"}, {"id": 2, "title": "b"}])
        statement = docs.update().where(docs.c.title == bindparam("t"))
        rows = [{"t": title, "file": stage(connection)} for title in "ab"]
        with pytest.raises(OwnershipLost, match="name the primary key in the WHERE clause"):
            connection.execute(statement, rows)
        if bench.engine.dialect.name == "sqlite":
            with pytest.raises(OwnershipLost, match="name the primary key"):
                connection.execute(docs.update().values(file=rows[0]["file"]).returning(docs.c.id))
        for row in rows:
            connection.execute(statement, row)
    bench.check(b"data", b"data")


@some
def test_some_of_several_updates_meet_no_row(bench: Bench) -> None:
    with bench.engine.connect() as connection:
        connection.execute(docs.insert(), {"id": 1})
        statement = docs.update().where(docs.c.id == bindparam("pk"))
        with pytest.raises(OwnershipLost, match="2 staged files, 2 sets of parameters, 1 rows"):
            connection.execute(statement, [{"pk": pk, "file": stage(connection)} for pk in (1, 2)])
        with pytest.raises(OwnershipLost):
            connection.commit()
        connection.rollback()
    bench.check()


@on("world", ["sqlite", "postgres", "mariadb", "asyncpg"], indirect=True)
def test_upserts(bench: Bench) -> None:
    """Only whether one that does nothing met a row can be told."""
    bench.insert(1, b"old")
    kind = dialect_insert(bench.world)
    with bench.begin() as connection:
        statement: Any = kind(docs).values(id=1, file=stage(connection, b"void"))
        if bench.engine.dialect.name in ("mysql", "mariadb"):
            change, nothing = (
                statement.on_duplicate_key_update(file=statement.inserted.file),
                statement.prefix_with("IGNORE"),
            )
        else:
            change = statement.on_conflict_do_update(index_elements=["id"], set_={"title": "changed"})
            nothing = statement.on_conflict_do_nothing()
        with pytest.raises(OwnershipLost, match="nobody can tell whether an upsert gives it to a row"):
            connection.execute(change)
        connection.execute(nothing)
    bench.check(b"old")
    with bench.begin() as connection:
        statement = kind(docs).values(id=2, file=stage(connection, b"new"))
        mysql_like = bench.engine.dialect.name in ("mysql", "mariadb")
        connection.execute(statement.prefix_with("IGNORE") if mysql_like else statement.on_conflict_do_nothing())
    bench.check(b"old", b"new")


@one
def test_an_insert_that_may_be_ignored_and_returns(bench: Bench) -> None:
    """SQLite does not count it: what no row took would have stayed."""
    bench.insert(1, b"old")
    with bench.begin() as connection:
        staged = stage(connection)
        statement = docs.insert().prefix_with("OR IGNORE")
        with pytest.raises(OwnershipLost, match="on SQLite with RETURNING"):
            connection.execute(statement.returning(docs.c.id), {"id": 1, "file": staged})
        connection.execute(statement, {"id": 1, "file": staged})
    bench.check(b"old")


@some
def test_one_of_several_names_for_one_column(bench: Bench) -> None:
    with bench.begin() as connection:
        connection.execute(docs.insert(), [{"id": 1}, {"id": 3}])
        one, two = stage(connection, b"1"), stage(connection, b"2")
        names = {pk: literal(staged, docs.c.file.type) for pk, staged in ((1, one), (2, two))}
        statement = docs.update().where(docs.c.id < 3).values(file=case(names, value=docs.c.id))
        with pytest.raises(
            OwnershipLost, match="several for one column, and nobody can tell which of them a row takes"
        ):
            connection.execute(statement)
        connection.execute(docs.update().where(docs.c.id == 1).values(file=one))
        files.drop(two, connection)
    bench.check(b"1")


@on("world", ["sqlite", "postgres"], indirect=True)
def test_an_upsert_of_several_rows_some_of_which_are_there(bench: Bench) -> None:
    bench.insert(1, b"old")
    with bench.engine.connect() as connection:
        statement = dialect_insert(bench.world)(docs).on_conflict_do_nothing()
        rows = [{"id": pk, "file": stage(connection)} for pk in (1, 2)]
        with pytest.raises(OwnershipLost, match="2 sets of parameters, 1 rows"):
            connection.execute(statement, rows)
        connection.rollback()
    bench.check(b"old")


def test_what_no_row_takes_is_dropped_with_the_commit(bench: Bench) -> None:
    with bench.begin() as connection:
        connection.execute(docs.update().where(docs.c.id == 404).values(file=stage(connection)))
    bench.check()


@one
@on("many", [False, True])
def test_what_triggers_of_a_view_take_is_kept(bench: Bench, many: bool) -> None:
    """SQLite counts none of it."""
    change = "INSTEAD OF UPDATE ON seen BEGIN UPDATE plain_docs SET scan = NEW.scan WHERE id = NEW.id; END"
    insert = "INSTEAD OF INSERT ON seen BEGIN INSERT INTO plain_docs (id, file) VALUES (NEW.id, NEW.file); END"
    names = [Column(name, AttachmentType(files)) for name in ("file", "scan")]
    seen = Table("seen", MetaData(), Column("id", Integer, primary_key=True), *names)
    with bench.begin() as connection:
        connection.execute(text("CREATE VIEW seen AS SELECT id, file, scan FROM plain_docs"))
        for number, trigger in enumerate((change, insert)):
            connection.execute(text(f"CREATE TRIGGER hands_on_{number} {trigger}"))
    with bench.begin() as connection:
        rows = [{"id": pk, "file": files.stage(upload(b"file"), connection, seen.c.file)} for pk in range(1 + many)]
        connection.execute(seen.insert(), rows if many else rows[0])
        scan = files.stage(upload(b"scan"), connection, seen.c.scan)
        connection.execute(seen.update().where(seen.c.id == 0).values(scan=scan))
    bench.check(b"scan", *[b"file"] * len(rows))


@on("world", ["postgres"], indirect=True)
def test_what_a_trigger_gives_to_an_heir_is_kept(bench: Bench) -> None:
    """As tables were divided before there were partitions: nothing is counted."""
    hand_on = "BEGIN INSERT INTO heir VALUES (NEW.*); RETURN NULL; END"
    with bench.begin() as connection:
        connection.execute(text("CREATE TABLE heir () INHERITS (plain_docs)"))
        connection.execute(text(f"CREATE FUNCTION hand_on() RETURNS trigger LANGUAGE plpgsql AS $$ {hand_on} $$"))
        connection.execute(
            text("CREATE TRIGGER hands_on BEFORE INSERT ON plain_docs FOR EACH ROW EXECUTE FUNCTION hand_on()")
        )
    with bench.engine.connect() as connection:
        connection.execute(docs.insert(), {"id": 1, "file": stage(connection, b"1")})
        statement = text("INSERT INTO plain_docs (id, file) VALUES (2, CAST(:file AS JSONB))")
        typed = statement.bindparams(bindparam("file", type_=docs.c.file.type))
        connection.execute(typed, {"file": stage(connection, b"2")})
        with pytest.warns(AttachmentWarning, match="no statement gave it to a row"):
            connection.commit()
    bench.check(b"1", b"2")


def test_what_no_row_took_may_go_to_another(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = stage(connection)
        if connection.execute(docs.update().where(docs.c.id == 404).values(file=staged)).rowcount == 0:
            connection.execute(docs.insert(), {"id": 404, "file": staged})
    bench.check(b"data")


def test_a_name_from_a_savepoint_that_was_rolled_back(bench: Bench) -> None:
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 1})
        savepoint = connection.begin_nested()
        staged = stage(connection)
        savepoint.rollback()
        with pytest.raises(OwnershipLost, match="nobody proved"):
            connection.execute(docs.insert(), {"id": 2, "file": staged})
    bench.check()


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_a_savepoint_that_is_rolled_back_by_a_text(bench: Bench) -> None:
    """SQLAlchemy does not hear of it; the ledger is asked."""
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 1})
        connection.execute(text("SAVEPOINT mine"))
        staged = stage(connection)
        connection.execute(text("ROLLBACK TO SAVEPOINT mine"))
        with pytest.raises(OwnershipLost, match="it is not owned any more; stage it again"):
            connection.execute(docs.insert(), {"id": 2, "file": staged})
    bench.world.sweep()
    bench.check(swept=True)


@on("world", ["postgres", "mariadb"], indirect=True)
def test_another_connection_may_not_write_it(bench: Bench) -> None:
    with bench.begin() as connection, bench.begin() as other:
        staged = stage(connection)
        with pytest.raises(OwnershipLost, match="nobody proved"):
            other.execute(docs.insert(), {"id": 1, "file": staged})
        files.drop(stage(other, b"of the other"), other)
        with pytest.raises(OwnershipLost, match="nobody proved"):
            other.execute(docs.insert(), {"id": 1, "file": staged})
        connection.execute(docs.insert(), {"id": 1, "file": staged})
    bench.check(b"data")


def test_the_next_transaction_may_not_write_it(bench: Bench) -> None:
    with bench.engine.connect() as connection:
        staged = stage(connection)
        connection.rollback()
        with pytest.raises(OwnershipLost, match="nobody proved"):
            connection.execute(docs.insert(), {"id": 1, "file": staged})
        connection.rollback()
        staged = stage(connection)
        connection.execute(docs.insert(), {"id": 1, "file": staged})
        connection.commit()
        with pytest.raises(OwnershipLost, match="nobody proved"):
            connection.execute(docs.insert(), {"id": 2, "file": staged})
        connection.rollback()
    bench.check(b"data")


@one
def test_columns_of_other_storages_may_not_name_it(bench: Bench) -> None:
    other = Storages("memory:")
    table = Table("others", MetaData(), Column("id", Integer, primary_key=True), Column("file", AttachmentType(other)))
    with bench.begin() as connection:
        table.create(connection)
        staged = stage(connection)
        mine = other.stage(upload(b"mine"), connection, table.c.file)
        with pytest.raises(OwnershipLost, match=r"nobody proved that others\.file"):
            connection.execute(table.insert(), {"id": 1, "file": staged})
        connection.execute(table.insert(), {"id": 1, "file": mine})
        connection.execute(docs.insert(), {"id": 1, "file": staged})
    assert other.settled(5)
    assert mine.read() == b"mine"
    bench.world.settle()
    assert staged.read() == b"data"


@some
def test_a_column_with_other_steps_may_not_name_it(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = stage(connection, b"eleven byte")
        with pytest.raises(OwnershipLost, match=r"nobody proved that plain_docs\.small"):
            connection.execute(docs.insert(), {"id": 1, "small": staged})
        connection.execute(docs.insert(), {"id": 1, "file": staged})
    bench.check(b"eleven byte")


@some
def test_what_was_staged_again_after_a_drop_has_one_name(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = stage(connection)
        files.drop(staged, connection)
        again = files.stage(staged, connection, docs.c.file)
        connection.execute(docs.insert(), {"id": 1, "file": again})
        with pytest.raises(OwnershipLost, match="nobody proved"):
            connection.execute(docs.insert(), {"id": 2, "file": staged})
    bench.check(b"data")


@one
def test_a_query_names_nothing(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = stage(connection)
        statement = select(literal(staged, docs.c.file.type))
        assert connection.scalar(statement) == staged
        connection.execute(docs.insert(), {"id": 1, "file": staged})
        assert connection.scalar(statement) == staged
    bench.check(b"data")


@one
def test_orm_statements_on_the_same_connection_are_left_alone(bench: Bench) -> None:
    with bench.world.session() as session:
        staged = stage(session.connection())
        session.execute(insert(Doc), [{"id": 1, "file": upload(b"one")}, {"id": 2, "file": upload(b"two")}])
        session.execute(update(Doc).values(scan=upload(b"scan")))
        session.execute(docs.insert(), {"id": 1, "file": staged})
        session.commit()
    bench.check(b"one", b"two", b"scan", b"scan", b"data")


# Statements that fail, or in the middle of which others are executed


def failing(connection: Any, **values: Any) -> None:
    """A statement whose parameters were looked at, the file first, and that is not executed."""
    broken = docs.insert().values(**values, pages=[object()])
    with pytest.raises(Exception, match="holds attachments"):
        connection.execute(broken)


@one
def test_a_statement_that_failed_lets_no_other_connection_write_the_name(bench: Bench) -> None:
    with bench.engine.connect() as connection:
        staged = stage(connection)
        failing(connection, id=1, file=staged)
        other = create_engine("sqlite://")
        docs.metadata.create_all(other)
        with other.begin() as elsewhere, pytest.raises(OwnershipLost, match="nobody proved"):
            elsewhere.execute(docs.insert(), {"id": 1, "file": staged})
        other.dispose()
    bench.check()


@one
def test_the_drivers_own_sql_after_a_statement_that_failed(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = stage(connection)
        failing(connection, id=1, file=staged)
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
        connection.execute(docs.insert(), {"id": 1, "file": staged})
    bench.check(b"data")


@some
@on("when", ["before_cursor_execute", "after_cursor_execute"])
def test_a_listener_that_executes_statements_of_its_own(bench: Bench, when: str) -> None:
    @event.listens_for(bench.engine, when)
    def log(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO plain_docs" in statement:
            connection.execute(select(docs.c.id))

    try:
        with bench.begin() as connection:
            staged = stage(connection)
            connection.execute(docs.insert(), {"id": 1, "file": staged})
            with pytest.raises(OwnershipLost, match="has its name already"):
                connection.execute(docs.insert(), {"id": 2, "file": staged})
    finally:
        event.remove(bench.engine, when, log)
    bench.check(b"data")


@some
def test_a_default_that_is_executed_before(bench: Bench) -> None:
    key = select(literal(7)).scalar_subquery()
    column: Column[Any] = Column("file", AttachmentType(files))
    table = Table(
        "by_default", MetaData(), Column("id", Integer, primary_key=True, default=key), column, implicit_returning=False
    )
    table.create(bench.engine)
    with bench.begin() as connection:
        staged = files.stage(upload(b"data"), connection, column)
        assert connection.execute(table.insert(), {"file": staged}).inserted_primary_key == (7,)
        assert connection.execute(select(table.c.file)).scalar_one().read() == b"data"
        connection.rollback()
    table.drop(bench.engine)
    bench.check()


@on("tried", [False, True])
@on("world", ["sqlite", "postgres"], indirect=True)
def test_a_list_that_fails_in_the_middle_may_have_named_the_first(bench: Bench, tried: bool) -> None:
    is_kept = bench.engine.dialect.name == "sqlite"  # what was done before the failure
    told = pytest.warns(AttachmentWarning, match="was staged for") if is_kept else nullcontext()
    with told, bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 1, "title": "taken"})
        staged = [stage(connection, b"%d" % i) for i in range(2)]
        rows = [{"id": 2 + i, "title": title, "file": staged[i]} for i, title in enumerate(("free", "taken"))]
        if tried:
            connection.execute(docs.update().where(docs.c.id == 404).values(file=staged[0]))
        savepoint = None if is_kept else connection.begin_nested()
        with pytest.raises(IntegrityError):
            connection.execute(docs.insert(), rows)
        if savepoint is not None:
            savepoint.rollback()
            connection.execute(docs.insert(), rows[:1])
        else:
            with pytest.raises(OwnershipLost, match="has its name already"):
                connection.execute(docs.insert(), {"id": 9, "file": staged[0]})
        files.drop(staged[1], connection)
    bench.check(b"0")


@on("world", ["postgres"], indirect=True)
def test_statements_in_a_with_clause_are_refused(bench: Bench) -> None:
    with bench.begin() as connection:
        connection.execute(docs.insert(), [{"id": 1}, {"id": 2}])
        staged = stage(connection)
        within = docs.update().values(file=staged).returning(docs.c.id).cte("within")
        with pytest.raises(OwnershipLost, match="within another one"):
            connection.execute(select(within.c.id))
        connection.execute(docs.update().where(docs.c.id == 1).values(file=staged))
    bench.check(b"data")


@one
def test_a_text_that_returns_is_refused_where_it_cannot_be_counted(bench: Bench) -> None:
    statement = text("UPDATE plain_docs SET file = :file RETURNING id")
    statement = statement.bindparams(bindparam("file", type_=docs.c.file.type))
    with bench.begin() as connection:
        connection.execute(docs.insert(), [{"id": 1}, {"id": 2}])
        staged = stage(connection)
        with pytest.raises(OwnershipLost, match="nobody can tell"):
            connection.execute(statement, {"file": staged})
        files.drop(staged, connection)
    bench.check()


@one
def test_a_parameter_that_belongs_to_no_column(bench: Bench) -> None:
    statement = text("INSERT INTO plain_docs (id, file) VALUES (1, :file)")
    statement = statement.bindparams(bindparam("file", type_=AttachmentType(files)))
    with bench.engine.connect() as connection, pytest.raises(OwnershipLost, match="its type is no column's"):
        connection.execute(statement, {"file": stage(connection)})
    bench.check()


@some
def test_a_drop_that_a_savepoint_takes_back(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = stage(connection)
        savepoint = connection.begin_nested()
        files.drop(staged, connection)
        with pytest.raises(OwnershipLost, match="not owned any more"):
            connection.execute(docs.insert(), {"id": 1, "file": staged})
        savepoint.rollback()
        assert files.stage(staged, connection, docs.c.file) is staged
        connection.execute(docs.insert(), {"id": 1, "file": staged})
    bench.check(b"data")


# Drivers that do not count


@on("world", ["sqlite", "postgres", "asyncpg"], indirect=True)
@on("there", [0, 1])
def test_updates_by_primary_key_of_rows_that_are_not_there(bench: Bench, there: int) -> None:
    statement = docs.update().where(docs.c.id == bindparam("pk"))
    with bench.engine.connect() as connection:
        if there:
            connection.execute(docs.insert(), {"id": 1})
        rows = [{"pk": 1 + i, "file": stage(connection)} for i in range(2)]
        if there:
            with pytest.raises(OwnershipLost, match="1 rows"):
                connection.execute(statement, rows)
            connection.rollback()
        else:
            connection.execute(statement, rows)
            connection.commit()
    bench.check()


@with_returning
def test_an_update_that_returns_meets_no_row(bench: Bench) -> None:
    with bench.begin() as connection:
        for pk in (1, 2):  # the second one is compiled already
            statement = docs.update().where(docs.c.id == pk).values(file=stage(connection, b"%d" % pk))
            assert connection.execute(statement.returning(docs.c.id)).all() == []
            connection.execute(docs.insert(), {"id": 2} if pk == 1 else {"id": 3})
            if pk == 1:
                statement = docs.update().where(docs.c.id == 2).values(scan=stage(connection, b"scan", "scan"))
                assert connection.execute(statement.returning(docs.c.id)).scalars().all() == [2]
                connection.execute(docs.update().where(docs.c.id == 2).values(id=7))
    bench.check(b"scan")


@on("world", ["asyncpg"], indirect=True)
def test_a_list_of_upserts_that_nobody_counts_is_refused(bench: Bench) -> None:
    with bench.engine.connect() as connection:
        connection.execute(docs.insert(), {"id": 1})
        rows = [{"id": 1 + i, "file": stage(connection)} for i in range(2)]
        with pytest.raises(OwnershipLost, match="nobody can tell"):
            connection.execute(postgresql.insert(docs).on_conflict_do_nothing(), rows)
    bench.check()
