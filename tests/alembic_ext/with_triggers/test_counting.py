"""Triggers: every way of losing a name, and every way of keeping one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

import psycopg
import pymysql
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import ForeignKey, delete, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty
from tests.alembic_ext.counting_world import CountingWorld
from tests.alembic_ext.installing import operations
from tests.engines import MARIADB
from tests.scenarios.models import Doc, files

on = pytest.mark.parametrize
DATABASES = ["sqlite", "postgres", *(["mariadb"] if MARIADB else [])]
everywhere = on("world", DATABASES, indirect=True)
docs: Any = Doc.__table__
Way = Callable[[CountingWorld, Session], None]


class Own(DeclarativeBase):
    pass


class Album(Own):
    __tablename__ = "albums"
    id: Mapped[int] = mapped_column(primary_key=True)
    cover: Mapped[Attachment | None] = mapped_column(AttachmentType(files, triggers=True))


class Photo(Own):
    __tablename__ = "photos"
    id: Mapped[int] = mapped_column(primary_key=True)
    album_id: Mapped[int] = mapped_column(ForeignKey("albums.id", ondelete="CASCADE"))
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, triggers=True))


class Kept(Own):
    __tablename__ = "kept"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, retain=timedelta(days=1)))


def seed(world: CountingWorld) -> None:
    with world.session() as session:
        session.add(Doc(id=1, title="a", file=b"one", scan=b"scan", pages=[b"p1", b"p2"]))
        session.add(Doc(id=2, title="b", file=b"two"))
        session.commit()


ROW_ONE = [b"one", b"scan", b"p1", b"p2"]


def run(session: Session, statement: str, **parameters: Any) -> None:
    session.execute(text(statement), parameters)


def value(session: Session, column: str, pk: int) -> str:
    """A descriptor as text."""
    return str(
        session.scalar(text(f"SELECT CAST({column} AS CHAR(2000)) FROM docs WHERE id = :pk"), {"pk": pk})
    ).strip()


def set_file(session: Session, pk: int, descriptor: str | None, column: str = "file") -> None:
    run(session, f"UPDATE docs SET {column} = {json_of(session)} WHERE id = :pk", value=descriptor, pk=pk)


def json_of(session: Session) -> str:
    """A parameter that holds JSON."""
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    return "CAST(:value AS JSONB)" if is_postgresql else ":value"


# Losing


def orm_delete(world: CountingWorld, session: Session) -> None:
    session.delete(session.get_one(Doc, 1))
    session.flush()


def orm_clear(world: CountingWorld, session: Session) -> None:
    doc = session.get_one(Doc, 1)
    doc.file, doc.scan, doc.pages = None, None, []
    session.flush()


def bulk_delete(world: CountingWorld, session: Session) -> None:
    session.execute(delete(Doc).where(Doc.id == 1))


def bulk_mappings(world: CountingWorld, session: Session) -> None:
    cleared = {"id": 1, "file": None, "scan": None, "pages": []}
    session.bulk_update_mappings(Doc, [cleared])  # type: ignore[arg-type]


def core_delete(world: CountingWorld, session: Session) -> None:
    session.execute(docs.delete().where(docs.c.id == 1))


def core_update(world: CountingWorld, session: Session) -> None:
    session.execute(update(docs).where(docs.c.id == 1).values(file=None, scan=None, pages=[]))


def raw_delete(world: CountingWorld, session: Session) -> None:
    run(session, "DELETE FROM docs WHERE id = 1")


def raw_update(world: CountingWorld, session: Session) -> None:
    run(session, "UPDATE docs SET file = NULL, scan = 'null', pages = '[]' WHERE id = 1")


def raw_upsert(world: CountingWorld, session: Session) -> None:
    conflict = "ON CONFLICT (id) DO UPDATE SET"
    if world.engine.dialect.name == "mysql":
        conflict = "ON DUPLICATE KEY UPDATE"
    run(
        session,
        f"INSERT INTO docs (id, pages) VALUES (1, '[]') {conflict} file = NULL, scan = NULL, pages = '[]'",
    )


LOSING: dict[str, Way] = {
    way.__name__: way
    for way in (
        orm_delete,
        orm_clear,
        bulk_delete,
        bulk_mappings,
        core_delete,
        core_update,
        raw_delete,
        raw_update,
        raw_upsert,
    )
}
ENDS = ["commit", "release", "rollback to savepoint", "rollback"]


def carry_out(world: CountingWorld, way: Way, end: str) -> bool:
    """Returns whether it stands."""
    with world.session() as session:
        if end in ("release", "rollback to savepoint"):
            session.connection()
            savepoint = session.begin_nested()
            way(world, session)
            savepoint.commit() if end == "release" else savepoint.rollback()
        else:
            way(world, session)
        session.rollback() if end == "rollback" else session.commit()
    return end in ("commit", "release")


@everywhere
@on("end", ENDS)
@on("how", LOSING)
def test_what_loses_its_name_is_condemned_and_purged(world: CountingWorld, how: str, end: str) -> None:
    seed(world)
    lost = carry_out(world, LOSING[how], end)
    world.sweep()
    world.check(b"two", *([] if lost else ROW_ONE))


@everywhere
def test_what_a_program_without_sqlalchemy_deletes(world: CountingWorld) -> None:
    seed(world)
    url = world.engine.url
    if world.name == "sqlite":
        client: Any = sqlite3.connect(str(url.database))
    elif world.name == "postgres":
        client = psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
    else:
        client = pymysql.connect(
            host=url.host, port=url.port or 3306, user=url.username, password=url.password or "", database=url.database
        )
    client.cursor().execute("DELETE FROM docs WHERE id = 1")
    client.commit()
    client.close()
    world.sweep()
    world.check(b"two")


@everywhere
@on("end", ENDS)
def test_what_a_foreign_key_cascades_to_is_condemned(world: CountingWorld, end: str) -> None:
    """MariaDB's cascades fire no triggers: there it is left to ``verify``."""
    world.create(Own.metadata)
    with world.session() as session:
        session.add_all([Album(id=1, cover=b"cover"), Photo(id=1, album_id=1, file=b"photo")])
        session.commit()
    gone = carry_out(world, lambda world, session: run(session, "DELETE FROM albums WHERE id = 1"), end)
    world.sweep()
    if gone and world.name == "mariadb":
        assert sorted(world.stored().values()) == [b"photo"]
        assert world.files.verify(world.engine, repair=True).counts == {"unnamed": 1}
        world.sweep()
    world.check(*([] if gone else [b"cover", b"photo"]))


@on("world", ["sqlite"], indirect=True)
@on("recursive", [True, False])
def test_replace_on_sqlite_is_seen_with_recursive_triggers_only(world: CountingWorld, recursive: bool) -> None:
    """Without them SQLite removes rows and tells nobody: what they named is left to ``verify``."""
    seed(world)
    with world.session() as session:
        session.connection().exec_driver_sql(f"PRAGMA recursive_triggers = {recursive}")
        run(session, "INSERT OR REPLACE INTO docs (id, pages) VALUES (1, '[]')")
        session.commit()
    world.sweep()
    if not recursive:
        assert world.files.verify(world.engine, repair=True).counts == {"unnamed": 4}
        world.sweep()
    world.check(b"two")


@on("world", [name for name in DATABASES if name == "mariadb"], indirect=True)
def test_replace_on_mariadb_is_seen(world: CountingWorld) -> None:
    seed(world)
    world.raw("REPLACE INTO docs (id, pages) VALUES (1, '[]')")
    world.sweep()
    world.check(b"two")


@everywhere
def test_truncate_is_seen_by_postgresql_only(world: CountingWorld) -> None:
    seed(world)
    if world.name == "sqlite":
        world.raw("DELETE FROM docs")  # which is what it has for TRUNCATE
    elif world.name == "postgres":
        world.raw("TRUNCATE docs CASCADE")
    else:
        with world.observer.connect() as connection:
            connection.execute(text("SET foreign_key_checks = 0"))
            connection.execute(text("TRUNCATE docs"))
            connection.execute(text("SET foreign_key_checks = 1"))
        assert world.files.verify(world.engine, repair=True).counts == {"unnamed": 5}
    world.sweep()
    world.check()


def about(milliseconds: int) -> Any:
    """A statement may read the clock twice, and the clock goes on meanwhile."""
    return pytest.approx(milliseconds, abs=400)


@everywhere
def test_dropped_files_are_kept_as_long_as_the_triggers_say(world: CountingWorld) -> None:
    with world.observer.begin() as connection:
        retain = {"scan": 3600, "pages": 60.5}
        operations(connection).create_attachment_triggers("docs", ["file", "scan", "pages"], retain=retain)
    seed(world)
    world.raw("DELETE FROM docs WHERE id = 1")
    world.sweep()
    assert sorted(world.stored().values()) == [b"p1", b"p2", b"scan", b"two"]
    with world.observer.connect() as connection:
        statement = "SELECT purge_after - since FROM attachment_ledger WHERE state = 'condemned' ORDER BY 1"
        assert connection.scalars(text(statement)).all() == [about(60_500), about(60_500), about(3_600_000)]


# Keeping


def take_then_give(world: CountingWorld, session: Session) -> None:
    descriptor = value(session, "file", 1)
    set_file(session, 1, None)
    set_file(session, 2, descriptor)


def give_then_take(world: CountingWorld, session: Session) -> None:
    set_file(session, 2, value(session, "file", 1))
    set_file(session, 1, None)


def swap_in_one_update(world: CountingWorld, session: Session) -> None:
    statement = f"UPDATE docs SET file = CASE id WHEN 1 THEN {json_of(session).replace('value', 'two')} ELSE"
    statement += f" {json_of(session).replace('value', 'one')} END"
    run(session, statement, one=value(session, "file", 1), two=value(session, "file", 2))


def to_another_column(world: CountingWorld, session: Session) -> None:
    run(session, "UPDATE docs SET scan = file WHERE id = 2")
    run(session, "UPDATE docs SET file = NULL WHERE id = 2")


def columns_in_one_update(world: CountingWorld, session: Session) -> None:
    descriptor = value(session, "file", 2)
    run(session, f"UPDATE docs SET file = NULL, scan = {json_of(session)} WHERE id = 2", value=descriptor)


def into_a_list(world: CountingWorld, session: Session) -> None:
    descriptor = value(session, "file", 2)
    run(session, f"UPDATE docs SET file = NULL, pages = {json_of(session)} WHERE id = 2", value=f"[{descriptor}]")


def insert_from_select_then_delete(world: CountingWorld, session: Session) -> None:
    run(session, "INSERT INTO docs (id, title, file, pages) SELECT 3, 'c', file, '[]' FROM docs WHERE id = 2")
    run(session, "DELETE FROM docs WHERE id = 2")


def insert_from_select_then_orm_delete(world: CountingWorld, session: Session) -> None:
    run(session, "INSERT INTO docs (id, title, file, pages) SELECT 3, 'c', file, '[]' FROM docs WHERE id = 2")
    session.delete(session.get_one(Doc, 2))
    session.flush()


def to_another_table(world: CountingWorld, session: Session) -> None:
    run(session, "INSERT INTO notes (id, file) SELECT 7, file FROM docs WHERE id = 2")
    run(session, "DELETE FROM docs WHERE id = 2")


def delete_and_insert_again(world: CountingWorld, session: Session) -> None:
    descriptor = value(session, "file", 2)
    run(session, "DELETE FROM docs WHERE id = 2")
    run(session, f"INSERT INTO docs (id, file, pages) VALUES (2, {json_of(session)}, '[]')", value=descriptor)


def replace(world: CountingWorld, session: Session) -> None:
    """REPLACE, or what the database has for it."""
    verb, tail = "REPLACE", ""
    if world.name == "sqlite":
        session.connection().exec_driver_sql("PRAGMA recursive_triggers = ON")
    elif world.name == "postgres":
        verb, tail = "INSERT", "ON CONFLICT (id) DO UPDATE SET file = excluded.file"
    statement = f"{verb} INTO docs (id, file, pages) VALUES (2, {json_of(session)}, '[]') {tail}"
    run(session, statement, value=value(session, "file", 2))


def upsert(world: CountingWorld, session: Session) -> None:
    tail = "ON CONFLICT (id) DO UPDATE SET file = excluded.file"
    if world.name == "mariadb":
        tail = "ON DUPLICATE KEY UPDATE file = VALUES(file)"
    statement = f"INSERT INTO docs (id, file, pages) VALUES (2, {json_of(session)}, '[]') {tail}"
    run(session, statement, value=value(session, "file", 2))


def new_primary_key(world: CountingWorld, session: Session) -> None:
    run(session, "UPDATE docs SET id = 20 WHERE id = 2")


def new_description(world: CountingWorld, session: Session) -> None:
    facts = json.loads(value(session, "file", 2))
    set_file(session, 2, json.dumps({**facts, "filename": "other"}))


def orm_move(world: CountingWorld, session: Session) -> None:
    one, two = session.get_one(Doc, 1), session.get_one(Doc, 2)
    two.scan, two.file = two.file, None
    one.file, one.scan = one.scan, one.file
    session.flush()


def undo(world: CountingWorld, session: Session) -> None:
    """Dropped by raw SQL, and taken back by the ORM."""
    doc = session.get_one(Doc, 2)
    file = doc.file
    set_file(session, 2, None)
    session.refresh(doc)
    doc.file = file
    session.flush()


SCAN_AND_PAGES = [b"scan", b"p1", b"p2"]
KEEPING: dict[str, tuple[Way, list[bytes]]] = {
    "take, then give": (take_then_give, [b"one", *SCAN_AND_PAGES]),
    "give, then take": (give_then_take, [b"one", *SCAN_AND_PAGES]),
    **{
        way.__name__: (way, [b"two", *ROW_ONE])
        for way in (
            swap_in_one_update,
            to_another_column,
            columns_in_one_update,
            into_a_list,
            insert_from_select_then_delete,
            insert_from_select_then_orm_delete,
            to_another_table,
            delete_and_insert_again,
            replace,
            upsert,
            new_primary_key,
            new_description,
            orm_move,
            undo,
        )
    },
}


@everywhere
@on("end", ENDS)
@on("how", KEEPING)
def test_what_keeps_a_name_stays_owned(world: CountingWorld, how: str, end: str) -> None:
    seed(world)
    way, left = KEEPING[how]
    stands = carry_out(world, way, end)
    world.sweep()
    world.check(*(left if stands else [b"two", *ROW_ONE]))
    world.raw("DELETE FROM docs")
    world.raw("DELETE FROM notes")
    world.sweep()
    world.check()


@on("world", ["postgres"], indirect=True)
def test_a_row_that_goes_to_another_partition_keeps_its_files(world: CountingWorld) -> None:
    world.raw("CREATE TABLE events (id int, day int, file jsonb, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)")
    world.raw("CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10)")
    world.raw("CREATE TABLE events_2 PARTITION OF events FOR VALUES FROM (10) TO (20)")
    with world.observer.begin() as connection:
        operations(connection).create_attachment_triggers("events", ["file"])
    facts = world.owned(b"one")
    world.raw("INSERT INTO events VALUES (1, 1, CAST(:file AS JSONB))", file=json.dumps(facts))
    name = facts["storage"], facts["key"]
    assert (world.counts()[name], world.ledger()[name]) == (1, "owned")
    world.raw("UPDATE events SET day = 11")
    assert (world.counts()[name], world.ledger()[name]) == (1, "owned")
    world.raw("UPDATE events_2 SET day = 12, id = 5")
    assert (world.counts()[name], world.ledger()[name]) == (1, "owned")
    world.raw("DELETE FROM events")
    assert (world.counts()[name], world.ledger()[name]) == (0, "condemned")


def _partitioned(world: CountingWorld) -> tuple[str, str]:
    """A table with a row in its first partition; returns the row's file."""
    kind = "jsonb" if world.observer.dialect.name == "postgresql" else "json"
    world.raw(
        f"CREATE TABLE events (id int, day int, file {kind}, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)"
        + ("" if kind == "jsonb" else " (PARTITION a VALUES LESS THAN (10), PARTITION b VALUES LESS THAN (20))")
    )
    if kind == "jsonb":
        world.raw("CREATE TABLE events_rest PARTITION OF events DEFAULT")
    with world.observer.begin() as connection:
        operations(connection).create_attachment_triggers("events", ["file"])
    facts = world.owned(b"one")
    file = "CAST(:file AS JSONB)" if kind == "jsonb" else ":file"
    world.raw(f"INSERT INTO events VALUES (1, 1, {file})", file=json.dumps(facts))
    return facts["storage"], facts["key"]


ATTACHED = """CREATE TABLE events_1 (LIKE events INCLUDING ALL);
WITH gone AS (DELETE FROM events_rest WHERE day < 10 RETURNING *) INSERT INTO events_1 SELECT * FROM gone;
ALTER TABLE events ATTACH PARTITION events_1 FOR VALUES FROM (0) TO (10)"""
EXCHANGED = """CREATE TABLE side LIKE events; ALTER TABLE side REMOVE PARTITIONING;
INSERT INTO side SELECT * FROM events WHERE day < 10; DELETE FROM events WHERE day < 10;
ALTER TABLE events EXCHANGE PARTITION a WITH TABLE side"""


@on("world", [name for name in DATABASES if name != "sqlite"], indirect=True)
@on("cure", ["none", "after", "around"])
def test_a_partition_that_is_attached_or_exchanged_is_not_seen_before_it_is_counted(
    world: CountingWorld, cure: str
) -> None:
    name = _partitioned(world)
    postgres = world.observer.dialect.name == "postgresql"
    with world.observer.connect() as connection:
        context = MigrationContext.configure(connection)
        with context.begin_transaction(), context.begin_transaction(_per_migration=True):
            op = Operations(context)
            if cure == "around":
                op.drop_attachment_triggers("events", ["file"])
            # MariaDB waits for itself when it exchanges in a transaction.
            with nullcontext() if postgres else context.autocommit_block():
                for statement in (ATTACHED if postgres else EXCHANGED).split(";"):
                    op.execute(statement)
            if cure != "none":
                op.create_attachment_triggers("events", ["file"])
    expected = (0, "condemned") if cure == "none" else (1, "owned")
    assert (world.counts()[name], world.ledger()[name]) == expected
    world.sweep()
    assert (name in world.ledger()) == (cure != "none"), "purged, though a row names it"
    if cure != "none":
        world.raw("DELETE FROM events")
        assert (world.counts()[name], world.ledger()[name]) == (0, "condemned")


# What names a file, and what does not


@everywhere
def test_variants_are_names_and_metadata_is_none(world: CountingWorld) -> None:
    own, thumb, other, victim = (world.owned(content) for content in (b"own", b"thumb", b"other", b"victim"))
    with world.session() as session:
        run(session, "INSERT INTO docs (id, pages) VALUES (9, '[]')")
        set_file(session, 9, json.dumps(victim))
        session.commit()
    imitated = {"key": victim["key"], "storage": victim["storage"]}
    descriptor = {
        **own,
        "variants": {
            "thumb": {"key": thumb["key"], "size": 1},  # in the storage of its attachment
            "other": {**other, "storage": other["storage"]},
            "failed": {"error": "too large", "recipe": "r"},
            "odd": 7,
        },
        "metadata": {**imitated, "variants": {"thumb": imitated}, "list": [imitated]},
    }
    with world.session() as session:
        for column, new in (("file", json.dumps(descriptor)), ("pages", json.dumps([descriptor]))):
            run(session, "DELETE FROM docs WHERE id = 1")
            run(session, "INSERT INTO docs (id, pages) VALUES (1, '[]')")
            set_file(session, 1, new, column)
            session.commit()
            assert set(world.counts().values()) == {1}
    world.raw("DELETE FROM docs WHERE id = 1")
    world.sweep()
    assert list(world.stored().values()) == [b"victim"]
    world.check(b"victim")


DAMAGED = [
    "[",
    "{}",
    '"text"',
    "7",
    "null",
    "",
    "[[]]",
    '[null, 7, "x", [{"key": "k", "storage": "s"}]]',
    '{"key": 7, "storage": "default"}',
    '{"key": {"a": 1}, "storage": []}',
    '{"key": "k", "storage": "default", "variants": [1, {"key": "x"}]}',
    '{"key": "k", "storage": "default", "variants": {"a": null, "b": [], "c": {"key": 5}, "d": "x"}}',
    '{"key": "' + "k" * 300 + '", "storage": "default"}',
    '{"key": "it\'s %s :value \\\\ \\"quoted\\"", "storage": "default"}',
]


@everywhere
def test_damaged_json_fails_no_statement(world: CountingWorld) -> None:
    if world.name == "mariadb":
        world.raw("ALTER TABLE docs MODIFY file LONGTEXT, MODIFY pages LONGTEXT")  # takes what is not JSON at all
    seed(world)
    for number, damaged in enumerate(DAMAGED, start=10):
        if world.name == "postgres" and damaged in ("[", ""):
            continue
        with world.session() as session:
            run(session, "INSERT INTO docs (id, pages) VALUES (:pk, '[]')", pk=number)
            for column in ("file", "pages"):
                set_file(session, number, damaged, column)
                set_file(session, number, None if column == "file" else "[]", column)
                set_file(session, number, damaged, column)
            session.commit()
            run(session, "UPDATE docs SET title = 'x' WHERE id = :pk", pk=number)
            run(session, "DELETE FROM docs WHERE id = :pk", pk=number)
            session.commit()
    world.sweep()
    world.check(b"two", *ROW_ONE)


@on("world", [name for name in DATABASES if name != "postgres"], indirect=True)
def test_what_becomes_unreadable_is_left_to_verify(world: CountingWorld) -> None:
    """Half a descriptor may be mended by hand: its file is not deleted for that."""
    if world.name == "mariadb":
        world.raw("ALTER TABLE docs MODIFY file LONGTEXT")
    seed(world)
    with world.session() as session:
        half = value(session, "file", 1)[:-5]
        set_file(session, 1, half)
        session.commit()
    world.sweep()
    assert b"one" in world.stored().values()
    with world.session() as session:
        set_file(session, 1, None)
        session.commit()
    assert world.files.verify(world.engine, repair=True).counts == {"unnamed": 1}
    world.sweep()
    world.check(b"two", *SCAN_AND_PAGES)


@everywhere
def test_keys_that_differ_by_case_are_two_files(world: CountingWorld) -> None:
    lower, upper = world.owned(b"lower"), world.owned(b"upper")
    with world.observer.begin() as connection:
        key = "`key`" if world.name == "mariadb" else "key"
        for facts, new in ((lower, "key/a"), (upper, "key/A")):
            connection.execute(
                text(f"UPDATE attachment_ledger SET {key} = :new WHERE {key} = :old"), {"new": new, "old": facts["key"]}
            )
            facts["key"] = new
    with world.session() as session:
        run(session, "INSERT INTO docs (id, pages) VALUES (1, '[]')")
        set_file(session, 1, json.dumps(lower))
        set_file(session, 1, json.dumps([lower, upper]), "pages")
        session.commit()
        assert world.counts() == {("default", "key/a"): 2, ("default", "key/A"): 1}
        set_file(session, 1, json.dumps([upper]), "pages")
        session.commit()
        set_file(session, 1, json.dumps(upper))
        session.commit()
    assert world.counts() == {("default", "key/a"): 0, ("default", "key/A"): 2}
    assert world.ledger() == {("default", "key/a"): "condemned", ("default", "key/A"): "owned"}


@everywhere
def test_what_was_never_counted_is_never_condemned(world: CountingWorld) -> None:
    """Lines that ``verify`` made for files that rows name already."""
    seed(world)
    world.raw("UPDATE attachment_ledger SET names = NULL")
    with world.session() as session:
        insert_from_select_then_delete(world, session)
        session.commit()
    world.raw("DELETE FROM docs WHERE id = 1")
    assert set(world.ledger().values()) == {"owned"}


@everywhere
@on("state", ["purging", "gone"])
def test_what_is_being_purged_is_never_owned_again(world: CountingWorld, state: str) -> None:
    facts = world.owned(b"one")
    world.raw("UPDATE attachment_ledger SET state = :state", state=state)
    with world.session() as session:
        run(session, "INSERT INTO docs (id, pages) VALUES (1, '[]')")
        set_file(session, 1, json.dumps(facts))
        session.commit()
    assert set(world.ledger().values()) == {state}


@everywhere
def test_a_retained_file_can_be_restored_though_triggers_condemned_it_first(world: CountingWorld) -> None:
    world.create(Own.metadata)
    with world.session() as session:
        session.add(Kept(id=1, file=b"precious"))
        session.commit()
        session.delete(session.get_one(Kept, 1))
        session.commit()
        world.sweep()
        session.add(Kept(id=1))
        session.commit()
        assert files.restore(session, Kept.file, 1).read() == b"precious"
        session.commit()
    world.check(b"precious")


@everywhere
def test_files_that_move_to_another_storage_are_kept_at_the_old_one_for_a_while(world: CountingWorld) -> None:
    seed(world)
    world.storages["vault"] = Faulty(MemoryStorage())
    with files.override(world.storages):
        assert files.move(world.engine, "default", "vault", retain=timedelta(hours=1)).ok
        with world.observer.connect() as connection:
            statement = "SELECT storage, state, names, purge_after - since FROM attachment_ledger"
            lines = [tuple(row) for row in connection.execute(text(statement))]
        assert sorted(lines, key=str) == [
            *[("default", "condemned", 0, about(3_600_000))] * 5,
            *[("vault", "owned", 1, None)] * 5,
        ]
        world.raw("DELETE FROM docs")
        world.raw("UPDATE attachment_ledger SET purge_after = 1 WHERE storage = 'default'")
        world.sweep()
        world.check()


@on("world", ["sqlite"], indirect=True)
def test_a_trigger_that_puts_the_old_file_back_leaves_the_new_one_to_verify(world: CountingWorld) -> None:
    """Which trigger runs first, SQLite does not say."""
    with world.session() as session:
        session.add(Doc(id=1, file=b"old"))  # type: ignore[arg-type]
        session.commit()
    world.raw(
        "CREATE TRIGGER back AFTER UPDATE OF file ON docs BEGIN UPDATE docs SET file = old.file WHERE id = old.id; END"
    )
    with world.session() as session:
        session.get_one(Doc, 1).file = b"new"  # type: ignore[assignment]
        session.commit()
    world.settle()
    assert world.files.verify(world.engine, repair=True).counts == {"unnamed": 1}
    world.sweep()
    world.check(b"old", swept=True)
