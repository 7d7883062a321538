"""The ledger: who may own a file, and when; told by the database, whatever events say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, delete, inspect, select, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from sa_attachments import LedgerMissing, OwnershipLost, Storages
from sa_attachments.chunks import insert_ignoring
from sa_attachments.descriptor import Named
from sa_attachments.key import mint
from sa_attachments.ledger import Drop, Ledger, Line
from sa_attachments.queries import CONDEMNED, GONE, OWNED, PURGING
from tests.archive import DIALECTS

on = pytest.mark.parametrize
everywhere = on("engine", DIALECTS, indirect=True)
LONG = timedelta(days=3)


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    metadata = MetaData()
    ledger = Ledger.of(metadata)
    metadata.create_all(engine)
    return ledger


def line(key: str, storage: str = "default", size: int = 1) -> Line:
    return Line(Named(storage, key, size), "docs", "file")


def fresh(count: int = 1) -> list[Line]:
    return [line(mint()) for _ in range(count)]


def state(connection: Connection, ledger: Ledger, key: str) -> str | None:
    return connection.scalar(select(ledger.lines.c.state).where(ledger.lines.c.key == key))


def own(engine: Engine, ledger: Ledger, lines: list[Line]) -> Any:
    with engine.begin() as connection:
        return ledger.own(connection, lines, LONG)


# The tables


def test_joins_a_metadata_once() -> None:
    metadata = MetaData()
    ledger = Ledger.of(metadata)
    assert Ledger.of(metadata) is ledger
    assert Ledger.of(MetaData()) is not ledger
    assert sorted(metadata.tables) == ["attachment_ledger", "attachment_storage"]


def test_joins_a_metadata_that_reflected_the_whole_database_before() -> None:
    engine, metadata, reflected = create_engine("sqlite://"), MetaData(), MetaData()
    Ledger.of(metadata)
    metadata.create_all(engine)
    reflected.reflect(engine)
    ledger = Ledger.of(reflected)
    assert reflected.tables["attachment_ledger"] is ledger.lines
    reflected.drop_all(engine)
    reflected.create_all(engine)  # its index once
    assert len(inspect(engine).get_indexes("attachment_ledger")) == 1


def test_two_storages_without_a_metadata_share_the_ledger_of_the_tables() -> None:
    metadata = MetaData()
    table = Table("docs", metadata)
    assert Storages().ledger_of(table) is Storages().ledger_of(table) is Ledger.of(metadata)
    other = MetaData()
    assert Storages(ledger=other).ledger_of(table) is Ledger.of(other)


@everywhere
def test_keys_differ_by_case_and_sort_by_code_points(engine: Engine, ledger: Ledger) -> None:
    """Hole 21: a collation that ignores case would take two keys for one."""
    check_order(engine, ledger)


def check_order(engine: Engine, ledger: Ledger) -> None:
    keys = ["a", "B", "b", "A", "Z", "_", "0", "é", "e"]
    own(engine, ledger, [line(key) for key in keys])
    with engine.connect() as connection:
        c = ledger.lines.c
        assert connection.scalars(select(c.key).order_by(c.key)).all() == sorted(keys)
        assert connection.scalars(select(c.key).where(c.key > "Z").order_by(c.key)).all() == ["_", "a", "b", "e", "é"]
        assert state(connection, ledger, "b") == OWNED
        assert state(connection, ledger, "É") is None


@pytest.fixture
def sorted_as_people_do(postgres_url: URL, open_engine: Callable[..., Engine]) -> Iterator[Engine]:
    """A database of PostgreSQL whose own collation is not that of bytes."""
    name = f"{postgres_url.database}_people"
    server = open_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        try:
            connection.execute(
                text(
                    f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' "
                    "LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
                )
            )
        except DBAPIError as error:
            pytest.skip(f"a PostgreSQL with ICU sorts so: {error.orig}")
        engine = open_engine(postgres_url.set(database=name))
        yield engine
        engine.dispose()
        connection.execute(text(f"DROP DATABASE {name}"))


def test_keys_sort_by_code_points_whatever_the_collation_of_the_database(sorted_as_people_do: Engine) -> None:
    """Hole 21: the order is that of storages, which a sweep relies on."""
    ledger = Ledger.of(MetaData())
    ledger.lines.metadata.create_all(sorted_as_people_do)
    with sorted_as_people_do.connect() as connection:
        words = connection.scalars(text("SELECT word FROM (VALUES ('B'), ('a')) AS words (word) ORDER BY word"))
        assert words.all() == ["a", "B"], "the database's own order"
    check_order(sorted_as_people_do, ledger)


@on(
    ("dialect", "said"),
    [(postgresql.dialect(), 'COLLATE "C"'), (mysql.dialect(), "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")],
)
def test_names_and_keys_say_that_they_are_compared_by_their_bytes(dialect: Any, said: str) -> None:
    """Hole 21: most databases of tests sort so by themselves."""
    ledger = Ledger.of(MetaData())
    for column in (ledger.lines.c.key, ledger.lines.c.storage, ledger.places.c.name):
        assert column.type.compile(dialect).endswith(f") {said}")


def test_the_primary_key_leads_with_the_key() -> None:
    assert [column.name for column in Ledger.of(MetaData()).lines.primary_key] == ["key", "storage"]


@everywhere
def test_the_tables_are_found_as_they_were_made(engine: Engine, ledger: Ledger) -> None:
    reflected = MetaData()
    reflected.reflect(engine)
    for name, table in ledger.lines.metadata.tables.items():
        assert set(reflected.tables[name].columns.keys()) == set(table.columns.keys())
        key = inspect(engine).get_pk_constraint(name)["constrained_columns"]
        assert key == [column.name for column in table.primary_key]
    assert "ix_attachment_ledger_due" in {index["name"] for index in inspect(engine).get_indexes("attachment_ledger")}


def test_the_table_has_no_rowid_on_sqlite() -> None:
    assert "WITHOUT ROWID" in str(CreateTable(Ledger.of(MetaData()).lines).compile(dialect=sqlite.dialect()))


# Owning


@everywhere
def test_a_file_that_was_just_put_is_owned(engine: Engine, ledger: Ledger) -> None:
    lines = fresh(3)
    before = time.time() * 1000 - 2
    own(engine, ledger, lines)
    with engine.connect() as connection:
        for each in lines:
            row = connection.execute(select(ledger.lines).where(ledger.lines.c.key == each.named.key)).one()
            assert (row.storage, row.state, row.size, row.owner_table, row.owner_column) == (
                "default",
                OWNED,
                1,
                "docs",
                "file",
            )
            assert before <= row.since <= time.time() * 1000 + 2
            assert (row.held, row.purge_after, row.attempts, row.last_error) == (False, None, 0, None)


@everywhere
def test_ownership_ends_with_the_transaction_that_took_it(engine: Engine, ledger: Ledger) -> None:
    (mine,) = fresh()
    with engine.connect() as connection:
        ledger.own(connection, [mine], LONG)
        connection.rollback()
        assert state(connection, ledger, mine.named.key) is None


@everywhere
@on("present", [OWNED, CONDEMNED, PURGING, GONE])
def test_a_key_with_a_line_cannot_be_owned_again(engine: Engine, ledger: Ledger, present: str) -> None:
    (mine,) = fresh()
    own(engine, ledger, [mine])
    with engine.begin() as connection:
        connection.execute(ledger.lines.update().values(state=present))
    with pytest.raises(OwnershipLost, match="came too late: a sweep condemned it"):
        own(engine, ledger, [*fresh(), mine])
    with engine.connect() as connection:
        assert connection.scalars(select(ledger.lines.c.state)).all() == [present]


@everywhere
def test_a_key_can_be_owned_no_later_than_own_within(engine: Engine, ledger: Ledger) -> None:
    """Hole 9: else a tombstone could expire before a late owner comes."""
    now = time.time_ns() // 1_000_000
    within = timedelta(minutes=1)
    for age, allowed in ((0, True), (59_000, True), (60_001, False), (10**9, False)):
        late = line(mint(now - age))
        with engine.connect() as connection:
            if allowed:
                ledger.own(connection, [late], within)
                connection.commit()
            else:
                with pytest.raises(OwnershipLost, match=r"longer than 0:01:00 ago, or this machine's clock is slow"):
                    ledger.own(connection, [*fresh(), late], within)
                connection.rollback()
            assert (state(connection, ledger, late.named.key) is not None) is allowed


@on("engine", [name for name in DIALECTS if name == "mariadb"], indirect=True)
def test_where_null_becomes_a_default_too_late_is_too_late(engine: Engine, ledger: Ledger) -> None:
    late = line(mint(round((time.time() - 10) * 1000)))
    with engine.connect() as connection:
        connection.exec_driver_sql("SET SESSION sql_mode = ''")
        with pytest.raises(OwnershipLost, match="came too late"):
            ledger.own(connection, [*fresh(), late], timedelta(seconds=5))
        connection.rollback()
        connection.invalidate()


@everywhere
def test_the_deadline_is_that_of_the_statement_and_not_of_its_preparation(engine: Engine, ledger: Ledger) -> None:
    slow = line(mint())
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        time.sleep(0.2)
        with pytest.raises(OwnershipLost):
            ledger.own(connection, [slow], timedelta(milliseconds=100))


@everywhere
def test_keys_of_another_form_have_no_age(engine: Engine, ledger: Ledger) -> None:
    own(engine, ledger, [line("adopted/from/elsewhere.png")])


@everywhere
def test_many_lines_in_one_statement(engine: Engine, ledger: Ledger) -> None:
    own(engine, ledger, fresh(1200))
    with engine.connect() as connection:
        assert len(connection.scalars(select(ledger.lines.c.key)).all()) == 1200


@everywhere
def test_many_lines_of_an_engine_that_was_told_to_insert_one_by_one(
    engine: Engine, ledger: Ledger, open_engine: Callable[..., Engine]
) -> None:
    """On PostgreSQL no file could be stored."""
    with engine.connect() as connection:
        here = ledger.identity(connection)
    plain = open_engine(engine.url, use_insertmanyvalues=False)
    assert own(plain, ledger, fresh(3)) == here
    with engine.connect() as connection:
        assert len(connection.scalars(select(ledger.lines.c.key)).all()) == 3


@everywhere
def test_adopting_takes_a_file_however_old_it_is(engine: Engine, ledger: Ledger) -> None:
    old = line(mint(1))
    with engine.begin() as connection:
        ledger.adopt(connection, old)
    with engine.connect() as connection:
        assert state(connection, ledger, old.named.key) == OWNED


# Dropping, and taking back


@everywhere
def test_dropping_condemns_and_says_when_it_is_due(engine: Engine, ledger: Ledger) -> None:
    now_, later, kept = fresh(3)
    own(engine, ledger, [now_, later, kept])
    with engine.begin() as connection:
        ledger.drop(connection, [Drop(now_.named), Drop(later.named, 60_000, {"a": 1}, '["7"]')])
    with engine.connect() as connection:
        rows = {row.key: row for row in connection.execute(select(ledger.lines))}
    first, second, third = (rows[each.named.key] for each in (now_, later, kept))
    assert (first.state, second.state, third.state) == (CONDEMNED, CONDEMNED, OWNED)
    assert 0 <= first.purge_after - first.since <= 1000
    assert 59_000 <= second.purge_after - second.since <= 61_000
    assert (second.descriptor, second.owner_pk) == ({"a": 1}, '["7"]')
    assert (first.descriptor, first.owner_pk) == (None, None)


@everywhere
def test_dropping_what_is_not_owned_changes_nothing(engine: Engine, ledger: Ledger) -> None:
    lines = fresh(3)
    own(engine, ledger, lines)
    with engine.begin() as connection:
        for each, present in zip(lines, (CONDEMNED, PURGING, GONE), strict=True):
            connection.execute(
                ledger.lines.update()
                .where(ledger.lines.c.key == each.named.key)
                .values(state=present, purge_after=1, names=None)
            )
        ledger.drop(connection, [Drop(each.named) for each in lines])
        ledger.drop(connection, [Drop(each.named, 5, {}, "[]") for each in lines])
        ledger.drop(connection, [Drop(Named("default", "never/was", 1))])
        ledger.drop(connection, [])
        rows = connection.execute(select(ledger.lines.c.state, ledger.lines.c.purge_after)).all()
    assert sorted(rows) == [(CONDEMNED, 1), (GONE, 1), (PURGING, 1)]


@everywhere
def test_dropping_keeps_what_triggers_say_is_named(engine: Engine, ledger: Ledger) -> None:
    lines = fresh(2)
    own(engine, ledger, lines)
    with engine.begin() as connection:
        connection.execute(ledger.lines.update().values(names=1))
        ledger.drop(connection, [Drop(lines[0].named), Drop(lines[1].named, 5, {}, "[]")])
        assert connection.scalars(select(ledger.lines.c.state)).all() == [OWNED, OWNED]


@everywhere
def test_dropping_prolongs_what_triggers_condemned(engine: Engine, ledger: Ledger) -> None:
    short, none, long = fresh(3)
    own(engine, ledger, [short, none, long])
    with engine.begin() as connection:
        connection.execute(ledger.lines.update().values(state=CONDEMNED, names=0, purge_after=5))
        connection.execute(
            ledger.lines.update().where(ledger.lines.c.key == long.named.key).values(purge_after=1 << 50)
        )
        drops = [Drop(none.named), Drop(short.named, 60_000, {"a": 1}, "[7]"), Drop(long.named, 5, {"b": 2}, "[8]")]
        ledger.drop(connection, drops)
        rows = {row.key: row for row in connection.execute(select(ledger.lines))}
    assert (rows[none.named.key].purge_after, rows[long.named.key].purge_after) == (5, 1 << 50)
    assert (rows[long.named.key].descriptor, rows[long.named.key].owner_pk) == ({"b": 2}, "[8]")  # for a restore
    kept = rows[short.named.key]
    assert 59_000 <= kept.purge_after - kept.since <= 61_000
    assert (kept.descriptor, kept.owner_pk, kept.state) == ({"a": 1}, "[7]", CONDEMNED)


@everywhere
def test_dropping_many_with_several_retentions(engine: Engine, ledger: Ledger) -> None:
    lines = fresh(1100)
    own(engine, ledger, lines)
    with engine.begin() as connection:
        ledger.drop(connection, [Drop(each.named, index % 2 * 5000) for index, each in enumerate(lines)])
    with engine.connect() as connection:
        c = ledger.lines.c
        retained = connection.scalars(select(c.purge_after - c.since).where(c.state == CONDEMNED)).all()
    assert len(retained) == 1100
    assert sum(kept > 2500 for kept in retained) == 550


@everywhere
@on(("present", "allowed"), [(OWNED, False), (CONDEMNED, True), (PURGING, False), (GONE, False), (None, False)])
def test_only_what_is_condemned_can_be_taken_back(
    engine: Engine, ledger: Ledger, present: str | None, allowed: bool
) -> None:
    """Hole 4: what is being purged, or was, is never owned again."""
    (mine,) = fresh()
    own(engine, ledger, [mine])
    with engine.begin() as connection:
        if present is None:
            connection.execute(delete(ledger.lines))
        else:
            values = {"purge_after": 5, "descriptor": {"a": 1}, "owner_pk": "[]", "attempts": 3}
            connection.execute(ledger.lines.update().values(state=present, **values))
    with engine.begin() as connection:
        assert ledger.reclaim(connection, Line(mine.named, "others", "scan")) is allowed
        if allowed:
            row = connection.execute(select(ledger.lines)).one()
            assert (row.state, row.purge_after, row.descriptor, row.owner_pk, row.attempts) == (
                OWNED,
                None,
                None,
                None,
                0,
            )
            assert (row.owner_table, row.owner_column) == ("others", "scan")


@everywhere
@on(("present", "allowed"), [(OWNED, True), (CONDEMNED, False), (PURGING, False), (GONE, False)])
def test_only_what_is_owned_changes_hands(engine: Engine, ledger: Ledger, present: str, allowed: bool) -> None:
    (mine,) = fresh()
    own(engine, ledger, [mine])
    with engine.begin() as connection:
        connection.execute(ledger.lines.update().values(state=present))
        assert ledger.transfer(connection, Line(mine.named, "others", "scan")) is allowed
        owner = connection.execute(select(ledger.lines.c.owner_table, ledger.lines.c.owner_column)).one()
    assert owner == (("others", "scan") if allowed else ("docs", "file"))


@everywhere
def test_a_line_of_another_storage_is_another_line(engine: Engine, ledger: Ledger) -> None:
    key = mint()
    own(engine, ledger, [line(key, "one")])
    own(engine, ledger, [line(key, "two")])
    with engine.begin() as connection:
        ledger.drop(connection, [Drop(Named("one", key, 1))])
        assert not ledger.reclaim(connection, line(key, "two"))
        assert ledger.reclaim(connection, line(key, "one"))


@everywhere
def test_among_several_storages(engine: Engine, ledger: Ledger) -> None:
    keys = [mint() for _ in range(2)]
    own(engine, ledger, [line(key, storage) for key in keys for storage in ("one", "two")])
    wanted = [Named("one", keys[0], 1), Named("two", keys[1], 1)]
    with engine.connect() as connection:
        c = ledger.lines.c
        found = connection.execute(select(c.storage, c.key).where(ledger.among(wanted))).all()
        assert sorted(map(tuple, found)) == sorted((file.storage, file.key) for file in wanted)
        assert connection.execute(select(c.key).where(ledger.among(wanted[:1]))).scalars().all() == [keys[0]]


@everywhere
def test_the_file_that_a_row_dropped_last_is_the_one_that_is_retained(engine: Engine, ledger: Ledger) -> None:
    lines = fresh(4)
    own(engine, ledger, lines)
    for number, each in enumerate(lines):
        with engine.begin() as connection:
            who = '["8"]' if number == 3 else '["7"]'
            ledger.drop(connection, [Drop(each.named, 60_000, {"n": number}, who)])
        time.sleep(0.005)
    with engine.begin() as connection:
        assert ledger.retained(connection, ("docs", "file"), ['["7"]']) == {"n": 2}
        assert ledger.retained(connection, ("docs", "file"), ['["8"]']) == {"n": 3}
        assert ledger.retained(connection, ("docs", "file"), ['["9"]']) is None
        assert ledger.retained(connection, ("docs", "scan"), ['["7"]']) is None
        connection.execute(ledger.lines.update().where(ledger.lines.c.key == lines[2].named.key).values(state=PURGING))
        assert ledger.retained(connection, ("docs", "file"), ['["7"]']) == {"n": 1}


# Inserting what may be there


@everywhere
def test_inserting_leaves_a_line_that_is_there_alone(engine: Engine, ledger: Ledger) -> None:
    (mine,) = fresh()
    own(engine, ledger, [mine])
    with engine.begin() as connection:
        for key in (mine.named.key, "other"):
            connection.execute(
                insert_ignoring(engine.dialect.name, ledger.lines).values(
                    storage="default", key=key, state=CONDEMNED, since=1
                )
            )
        rows = connection.execute(select(ledger.lines.c.key, ledger.lines.c.state)).all()
    assert sorted(map(tuple, rows)) == sorted([(mine.named.key, OWNED), ("other", CONDEMNED)])


# Which ledger


@on("engine", ["postgres"], indirect=True)
def test_on_postgresql_the_search_path_decides_which_ledger_it_is(engine: Engine, ledger: Ledger) -> None:
    """Hole 1: SET search_path does not reach a second connection."""
    with engine.begin() as connection:
        here = ledger.identity(connection)
        assert own(engine, ledger, fresh()) == here
        connection.execute(text("CREATE SCHEMA tenant"))
        connection.execute(text("CREATE TABLE tenant.attachment_ledger (LIKE attachment_ledger INCLUDING ALL)"))
        connection.execute(text("SET LOCAL search_path = tenant"))
        there = ledger.identity(connection)
        assert there != here
        assert ledger.own(connection, fresh(), LONG) == there
    with engine.connect() as connection:
        translated = connection.execution_options(schema_translate_map={None: "tenant"})
        assert ledger.identity(translated) == there


@on("engine", [name for name in DIALECTS if name == "mariadb"], indirect=True)
def test_on_mariadb_the_database_decides(engine: Engine, ledger: Ledger) -> None:
    with engine.connect() as connection:
        here = ledger.identity(connection)
        assert here == engine.url.database
        connection.execute(text("USE information_schema"))
        assert ledger.identity(connection) == "information_schema"
        connection.invalidate()


# A ledger that is not there


@everywhere
def test_a_missing_ledger_says_how_to_make_it(engine: Engine) -> None:
    ledger = Ledger.of(MetaData())
    for ask in (ledger.require, lambda connection: ledger.own(connection, fresh(), LONG)):
        with (
            engine.connect() as connection,
            pytest.raises(LedgerMissing, match="no table 'attachment_ledger': create it"),
        ):
            ask(connection)


@everywhere
def test_a_missing_ledger_does_not_tell_the_password(engine: Engine) -> None:
    with engine.connect() as connection:
        engine.url = make_url("postgresql://me:secret@host/db")
        with pytest.raises(LedgerMissing) as caught:
            Ledger.of(MetaData()).require(connection)
    assert "secret" not in str(caught.value)


@everywhere
def test_a_ledger_that_is_there(engine: Engine, ledger: Ledger) -> None:
    with engine.connect() as connection:
        ledger.require(connection)


@on("engine", ["postgres"], indirect=True)
def test_a_ledger_in_another_schema(engine: Engine, ledger: Ledger) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA tenant"))
    translated = engine.execution_options(schema_translate_map={None: "tenant"})
    with translated.connect() as connection, pytest.raises(LedgerMissing, match="schema 'tenant'"):
        ledger.require(connection)
    ledger.lines.metadata.create_all(translated)
    with translated.connect() as connection:
        ledger.require(connection)


# Locks


@on("engine", ["sqlite", "sqlite-legacy"], indirect=True)
def test_on_sqlite_begin_write_takes_the_lock(
    engine: Engine, ledger: Ledger, open_engine: Callable[..., Engine]
) -> None:
    other = open_engine(engine.url, connect_args={"timeout": 0})
    with engine.connect() as mine, other.connect() as theirs:
        ledger.begin_write(mine)
        with pytest.raises(DBAPIError, match="locked"):
            ledger.begin_write(theirs)


@everywhere
def test_tells_the_states_of_files_that_have_a_line(engine: Engine, ledger: Ledger) -> None:
    kept, dropped, unknown = (each.named for each in fresh(3))
    own(engine, ledger, [line(kept.key), line(dropped.key)])
    elsewhere = kept._replace(storage="other")
    with engine.begin() as connection:
        ledger.drop(connection, [Drop(dropped)])
        states = ledger.states(connection, (kept, dropped, unknown, elsewhere), lock=True)
    assert states == {kept.name: OWNED, dropped.name: CONDEMNED}


@on("engine", ["postgres"], indirect=True)
def test_an_insert_that_ignores_waits_for_an_owner_in_flight(engine: Engine, ledger: Ledger) -> None:
    """The unique index decides: an owner that commits keeps its file, whoever condemns."""
    (mine,) = fresh()

    def condemn() -> None:
        with engine.begin() as connection:
            statement = insert_ignoring(engine.dialect.name, ledger.lines).values(
                storage="default", key=mine.named.key, state=CONDEMNED, since=1
            )
            connection.execute(statement)

    with engine.begin() as owner:
        ledger.own(owner, [mine], LONG)
        thread = threading.Thread(target=condemn)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(5)
    with engine.connect() as connection:
        assert state(connection, ledger, mine.named.key) == OWNED
