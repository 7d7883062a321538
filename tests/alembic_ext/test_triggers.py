"""Making and removing triggers: what is refused, what is counted, and what others may do meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations, ops
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, String, Table, create_engine, inspect, text
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import ProgrammingError

from alembic_ext.counting import Counted, Counting, counter_of
from alembic_ext.counting.counted import VERSION
from alembic_ext.counting.mysql import MySQLCounter
from alembic_ext.indexed import indexes_of
from alembic_ext.triggers import CreateAttachmentTriggersOp, DropAttachmentTriggersOp
from sa_attachments import AttachmentListType, AttachmentType, Storages
from sa_attachments.errors import BadConfiguration, LedgerMissing, NoTransaction
from sa_attachments.ledger import Ledger
from tests.alembic_ext.installing import operations
from tests.alembic_ext.proposing import carry_out, proposed
from tests.engines import MARIADB

on = pytest.mark.parametrize
DATABASES = ["sqlite", "postgres", *(["mariadb"] if MARIADB else [])]
everywhere = on("engine", DATABASES, indirect=True)
with_schemas = on("engine", [name for name in DATABASES if name != "sqlite"], indirect=True)


def tables(metadata: MetaData, *names: str) -> None:
    files = Storages("memory:")
    for name in names:
        Table(
            name,
            metadata,
            Column("id", Integer, primary_key=True),
            Column("title", String(20)),
            Column("file", AttachmentType(files)),
            Column("pages", AttachmentListType(files)),
        )


@pytest.fixture
def metadata(engine: Engine) -> MetaData:
    made = MetaData()
    tables(made, "docs", "notes")
    made.create_all(engine)
    return made


def key_of(engine: Engine) -> str:
    return "`key`" if engine.dialect.name == "mysql" else "key"


def line(engine: Engine, *keys: str, names: int | None = 0) -> None:
    with engine.begin() as connection:
        for key in keys:
            insert = f"INSERT INTO attachment_ledger (storage, {key_of(engine)}, state, since, names)"
            connection.execute(text(f"{insert} VALUES ('s', :key, 'owned', 0, :names)"), {"key": key, "names": names})


def row(connection: Connection, table: str, pk: int, key: str) -> None:
    file = "CAST(:file AS JSONB)" if connection.dialect.name == "postgresql" else ":file"
    insert = f"INSERT INTO {table} (id, file, pages) VALUES (:pk, {file}, '[]')"
    connection.execute(text(insert), {"pk": pk, "file": f'{{"storage": "s", "key": "{key}"}}'})


def counts(engine: Engine) -> dict[str, int | None]:
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT {key_of(engine)}, names FROM attachment_ledger"))
        return {found[0]: found[1] for found in rows}


def install(engine: Engine, *names: str) -> None:
    with engine.begin() as connection:
        for name in names:
            operations(connection).create_attachment_triggers(name, ["file", "pages"])


def installed(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return {found.counting.table for found in counter_of(engine.dialect).installed(connection) if found.whole}


@everywhere
def test_a_row_that_names_a_file_twice_counts_once(engine: Engine, metadata: MetaData) -> None:
    """As triggers count it."""
    line(engine, "a", "b", "c")
    file = {key: f'{{"storage": "s", "key": "{key}"}}' for key in "abc"}
    twice = file["a"].replace("}", ', "variants": {"x": {"key": "b"}, "y": {"key": "b"}, "z": {"key": "a"}}}')
    value = "CAST(:it AS JSONB)" if engine.dialect.name == "postgresql" else ":it"
    with engine.begin() as connection:
        for pk, pages in ((1, f"[{file['a']}, {twice}, {file['a']}]"), (2, f"[{file['c']}, {file['c']}]")):
            insert = f"INSERT INTO docs (id, file, pages) VALUES (:pk, NULL, {value})"
            connection.execute(text(insert), {"pk": pk, "it": pages})
        connection.execute(text(insert), {"pk": 3, "it": f"[{file['c']}]"})
    install(engine, "docs", "notes")
    assert counts(engine) == {"a": 1, "b": 1, "c": 2}
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM docs"))
    assert counts(engine) == {"a": 0, "b": 0, "c": 0}
    with engine.connect() as connection:
        assert set(connection.scalars(text("SELECT state FROM attachment_ledger"))) == {"condemned"}


# What is refused


@everywhere
@on(
    ("table", "columns", "options", "message"),
    [
        ("papers", ["file"], {}, "there is no table 'papers'"),
        ("docs", ["file", "photo"], {}, "has no column 'photo': it has 'file', 'id', 'pages', 'title'"),
        ("docs", [], {}, "are a list of names, not"),
        ("docs", "file", {}, "are a list of names, not 'file'"),
        ("docs", ["file", "file"], {}, "are a list of names, not"),
        ("docs", ["file"], {"retain": {"photo": 3}}, "retain names 'photo'"),
        ("docs", ["file"], {"retain": -1}, "not -1"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_changed(
    engine: Engine, metadata: MetaData, table: str, columns: Any, options: dict[str, Any], message: str
) -> None:
    line(engine, "a")
    with engine.begin() as connection:
        row(connection, "docs", 1, "a")
    with engine.begin() as connection, pytest.raises(BadConfiguration, match=message):
        operations(connection).create_attachment_triggers(table, columns, **options)
    assert (installed(engine), counts(engine)) == (set(), {"a": 0})


@everywhere
def test_without_a_ledger_there_is_nothing_to_count_in(engine: Engine) -> None:
    metadata = MetaData()
    tables(metadata, "docs")
    metadata.tables["docs"].create(engine)
    with engine.begin() as connection, pytest.raises(LedgerMissing, match=r"op\.create_attachment_ledger\(\)"):
        operations(connection).create_attachment_triggers("docs", ["file"])


@on("engine", ["postgres"], indirect=True)
def test_on_postgresql_attachments_are_jsonb(engine: Engine, metadata: MetaData) -> None:
    with engine.begin() as connection, pytest.raises(BadConfiguration, match=r"docs\.title is VARCHAR.*JSONB"):
        operations(connection).create_attachment_triggers("docs", ["title"])


def test_a_database_of_another_kind_has_no_triggers_of_ours() -> None:
    context = MigrationContext.configure(dialect_name="oracle", opts={"as_sql": True})
    with pytest.raises(BadConfiguration, match="no triggers on 'oracle'"):
        Operations(context).create_attachment_triggers("docs", ["file"])


# What is counted


@everywhere
def test_names_that_are_there_are_counted(engine: Engine, metadata: MetaData) -> None:
    line(engine, "a", "b", "none")
    line(engine, "unknown", names=None)
    with engine.begin() as connection:
        for pk, key in enumerate(("a", "b", "b", "unknown", "without a line"), start=1):
            row(connection, "docs", pk, key)
        row(connection, "notes", 1, "b")
    install(engine, "docs")
    assert counts(engine) == {"a": 1, "b": 2, "none": 0, "unknown": 1}
    install(engine, "notes")
    assert counts(engine) == {"a": 1, "b": 3, "none": 0, "unknown": 1}
    install(engine, "docs")  # again
    assert counts(engine) == {"a": 1, "b": 3, "none": 0, "unknown": 1}
    with engine.begin() as connection:
        operations(connection).drop_attachment_triggers("docs", ["file", "pages"])
    assert counts(engine) == {"a": 0, "b": 1, "none": 0, "unknown": 0}
    assert installed(engine) == {"notes"}
    with engine.begin() as connection:
        operations(connection).drop_attachment_triggers("notes", ["file", "pages"])
        operations(connection).drop_attachment_triggers("notes", ["file", "pages"])  # they are gone already
    assert set(counts(engine).values()) == {0}


@on("engine", ["sqlite", "postgres"], indirect=True)
def test_a_migration_that_fails_leaves_nothing(engine: Engine, metadata: MetaData) -> None:
    line(engine, "a")
    with engine.begin() as connection:
        row(connection, "docs", 1, "a")
    with engine.connect() as connection, connection.begin() as transaction:
        operations(connection).create_attachment_triggers("docs", ["file", "pages"])
        transaction.rollback()
    assert (installed(engine), counts(engine)) == (set(), {"a": 0})


@on("engine", [name for name in DATABASES if name == "mariadb"], indirect=True)
@on("made", [0, 1, 2])
def test_a_migration_that_is_cut_short_where_ddl_commits_condemns_nothing_that_is_named(
    engine: Engine, metadata: MetaData, monkeypatch: pytest.MonkeyPatch, made: int
) -> None:
    line(engine, "a", "b", "c")
    with engine.begin() as connection:
        for pk, key in enumerate(("a", "b", "c"), start=1):
            row(connection, "docs", pk, key)
    create = MySQLCounter.create

    def cut_short(self: MySQLCounter, counting: Counting) -> list[str]:
        return [*create(self, counting)[:made], "a server that dies"]

    with monkeypatch.context() as patched:
        patched.setattr(MySQLCounter, "create", cut_short)
        with pytest.raises(ProgrammingError):
            install(engine, "docs")
    with engine.begin() as connection:
        connection.execute(text("UPDATE docs SET pages = CONCAT('[', file, ']'), file = NULL WHERE id = 1"))
        row(connection, "docs", 9, "b")
        connection.execute(text("DELETE FROM docs WHERE id = 2"))
        connection.execute(text("UPDATE docs SET title = 'x', file = NULL WHERE id = 9"))
        row(connection, "docs", 2, "b")
        states = connection.execute(text("SELECT `key`, state FROM attachment_ledger")).all()
    assert {state for _, state in states} == {"owned"}
    install(engine, "docs")
    assert counts(engine) == {"a": 1, "b": 1, "c": 1}


@on("engine", [name for name in DATABASES if name == "mariadb"], indirect=True)
@on("verb", ["create", "drop"])
def test_counting_that_is_cut_short_leaves_the_names_of_other_tables(
    engine: Engine, metadata: MetaData, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """To let go of the locks commits what was counted: none, until all is counted anew."""
    line(engine, "a")
    with engine.begin() as connection:
        row(connection, "notes", 1, "a")
    install(engine, "docs", "notes")
    with monkeypatch.context() as patched:
        patched.setattr(MySQLCounter, "add", lambda self, counting: ["a statement that is killed"])
        with pytest.raises(ProgrammingError, match="that is killed"), engine.begin() as connection:
            getattr(operations(connection), f"{verb}_attachment_triggers")("docs", ["file", "pages"])
    assert counts(engine) == {"a": 1}
    move_to_another_row(engine, "notes")
    assert states(engine) == {"owned"}


@everywhere
def test_awkward_names(engine: Engine) -> None:
    """Quotes, percent signs, colons, other letters, and more of them than a database takes in a trigger's name."""
    awkward = 'a "quoted" 100% :name ü' if engine.dialect.name != "mysql" else "a `quoted` 100% 'name' ü"
    long = "t" * 60
    metadata = MetaData()
    files = Storages("memory:")
    columns = ["do % it", "it's"]
    for name in (awkward, long):
        Table(
            name,
            metadata,
            Column("id", Integer, primary_key=True),
            *(Column(column, AttachmentType(files)) for column in columns),
        )
    metadata.create_all(engine)
    with engine.begin() as connection:
        for name in (awkward, long):
            operations(connection).create_attachment_triggers(name, columns)
    assert installed(engine) == {awkward, long}
    line(engine, "a")
    quote = engine.dialect.identifier_preparer.quote
    with engine.begin() as connection:
        table = metadata.tables[awkward]
        marker = {"sqlite": "?", "postgresql": "CAST(%s AS JSONB)"}.get(engine.dialect.name, "%s")
        into, names = quote(awkward), ", ".join(quote(column.name) for column in table.columns)
        descriptor = '{"storage": "s", "key": "a"}'
        connection.exec_driver_sql(
            f"INSERT INTO {into} ({names}) VALUES (1, {marker}, {marker})", (descriptor, descriptor)
        )
    assert counts(engine) == {"a": 2}
    with engine.begin() as connection:
        for name in (awkward, long):
            operations(connection).drop_attachment_triggers(name, columns)
    assert installed(engine) == set()


@on("engine", ["postgres"], indirect=True)
def test_tables_and_ledger_in_schemas_of_their_own(engine: Engine) -> None:
    metadata = MetaData(schema="files")
    tables(metadata, "docs")
    elsewhere = metadata.tables["files.docs"].to_metadata(MetaData(), schema="shop")
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA files"))
        connection.execute(text("CREATE SCHEMA shop"))
        metadata.create_all(connection)
        elsewhere.create(connection)
        op = operations(connection)
        op.create_attachment_triggers("docs", ["file", "pages"], schema="files", ledger_schema="files")
        op.create_attachment_triggers("docs", ["file"], schema="shop", ledger_schema="files")
        insert = (
            "INSERT INTO files.attachment_ledger (storage, key, state, since, names) VALUES ('s', 'a', 'owned', 0, 0)"
        )
        connection.execute(text(insert))
        connection.execute(text("SET LOCAL search_path = shop"))
        row(connection, "docs", 1, "a")
        row(connection, "files.docs", 1, "a")
        assert connection.scalar(text("SELECT names FROM files.attachment_ledger")) == 2
        connection.execute(text("DELETE FROM docs"))
        connection.execute(text("DELETE FROM files.docs"))
        assert connection.scalar(text("SELECT state FROM files.attachment_ledger")) == "condemned"
        connection.execute(text("SET LOCAL search_path = public"))
        op.drop_attachment_triggers("docs", ["file"], schema="shop", ledger_schema="files")
        found = counter_of(engine.dialect).installed(connection)
        assert [each.counting.fullname for each in found] == ["files.docs"]


@pytest.fixture
def schemas(engine: Engine) -> Iterator[list[str]]:
    """Two beside the default one; a database each on MariaDB."""
    names = [f"{engine.url.database}_{name}" for name in ("shop", "club")]
    with engine.begin() as connection:
        for name in names:
            connection.execute(text(f"CREATE SCHEMA {name}"))
    yield names
    with engine.begin() as connection:
        for name in names:
            cascade = "CASCADE" if engine.dialect.name == "postgresql" else ""
            connection.execute(text(f"DROP SCHEMA {name} {cascade}"))


def move_to_another_row(engine: Engine, table: str) -> None:
    """First the file is named there, then no longer here."""
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO {table} (id, file, pages) SELECT 9, file, pages FROM {table}"))
        connection.execute(text(f"DELETE FROM {table} WHERE id <> 9"))


def states(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.scalars(text("SELECT state FROM attachment_ledger")))


@with_schemas
def test_tables_of_other_schemas_are_counted_in_the_same_ledger(engine: Engine, schemas: list[str]) -> None:
    """Also where neither the ledger, nor the table whose triggers are made, is in their schema."""
    metadata = MetaData()
    Ledger.of(metadata)
    tables(metadata, "docs")
    for schema in schemas:
        metadata.tables["docs"].to_metadata(metadata, schema=schema)
    metadata.create_all(engine)
    for key, schema in zip("ab", schemas, strict=True):
        line(engine, key)
        with engine.begin() as connection:
            row(connection, f"{schema}.docs", 1, key)
            operations(connection).create_attachment_triggers("docs", ["file", "pages"], schema=schema)
    assert counts(engine) == {"a": 1, "b": 1}
    install(engine, "docs")
    assert counts(engine) == {"a": 1, "b": 1}
    move_to_another_row(engine, f"{schemas[0]}.docs")
    assert states(engine) == {"owned"}
    with engine.begin() as connection:
        operations(connection).drop_attachment_triggers("docs", ["file", "pages"], schema=schemas[0])
    assert counts(engine) == {"a": 0, "b": 1}


@everywhere
def test_a_schema_is_the_same_with_and_without_its_name(engine: Engine, metadata: MetaData) -> None:
    """One migration may say it, and another not."""
    here = {"sqlite": "main", "postgresql": "public"}.get(engine.dialect.name, engine.url.database)
    line(engine, "a", "b")
    with engine.begin() as connection:
        row(connection, "docs", 1, "a")
        row(connection, "notes", 1, "b")
    install(engine, "docs")
    with engine.begin() as connection:
        op = operations(connection)
        op.create_attachment_triggers("notes", ["file", "pages"], schema=here, ledger_schema=here)
        assert counter_of(engine.dialect).installed(connection)[0].counting.ledger_schema is None
        op.create_attachment_triggers("docs", ["file", "pages"], schema=here)
    assert counts(engine) == {"a": 1, "b": 1}
    move_to_another_row(engine, "docs")
    assert states(engine) == {"owned"}
    assert left_to_do(engine, metadata) == []


@on("engine", ["postgres"], indirect=True)
def test_tenants_by_search_path_have_ledgers_of_their_own(engine: Engine, schemas: list[str]) -> None:
    """One's migration needs no rights on another's tables; who calls a ledger by its schema means the same one."""
    tables(metadata := MetaData(), "docs")
    role = f"clerk_{engine.url.database}"
    with engine.begin() as connection:
        connection.execute(text(f"CREATE ROLE {role}"))
        connection.execute(text(f"GRANT ALL ON SCHEMA {schemas[1]} TO {role}"))
    try:
        for schema, user in zip(schemas, ("NONE", role), strict=True):
            with engine.begin() as connection:
                connection.execute(text(f"SET LOCAL ROLE {user}"))
                connection.execute(text(f"SET LOCAL search_path = {schema}, public"))
                metadata.create_all(connection)
                operations(connection).create_attachment_triggers("docs", ["file", "pages"])
                columns = "(key, storage, state, since, names)"
                connection.execute(text(f"INSERT INTO attachment_ledger {columns} VALUES ('a', 's', 'owned', 0, 0)"))
                row(connection, "docs", 1, "a")
        with engine.begin() as connection:
            metadata.tables["docs"].create(connection)
            op = operations(connection)
            op.create_attachment_triggers("docs", ["file", "pages"], ledger_schema=schemas[0])
            assert connection.scalar(text(f"SELECT names FROM {schemas[0]}.attachment_ledger")) == 1
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"DROP OWNED BY {role}"))
            connection.execute(text(f"DROP ROLE {role}"))


@with_schemas
def test_a_schema_that_stands_for_another(engine: Engine, schemas: list[str]) -> None:
    """As ``schema_translate_map`` says, by which Alembic creates tables, too."""
    tables(metadata := MetaData(), "docs")
    metadata.create_all(engine)
    tenant = engine.execution_options(schema_translate_map={None: schemas[0], "club": schemas[1]})
    metadata.create_all(tenant)
    metadata.tables["docs"].to_metadata(MetaData(), schema="club").create(tenant)
    with tenant.begin() as connection:
        op = operations(connection)
        op.create_attachment_triggers("docs", ["file", "pages"])
        op.create_attachment_triggers("docs", ["file"], schema="club")
        op.create_attachment_index("docs", "file", "content_type")
        found = counter_of(engine.dialect).installed(connection, schemas)
        assert {each.counting.schema for each in found} == set(schemas)
        assert {each.counting.ledger_schema for each in found} <= {None, schemas[0]}
        assert len(indexes_of(connection, "docs", schemas[0])) == 1
        op.drop_attachment_index("docs", "file", "content_type")
        op.drop_attachment_triggers("docs", ["file"], schema="club")
        op.drop_attachment_triggers("docs", ["file", "pages"])
        assert counter_of(engine.dialect).installed(connection, schemas) == []


@on("engine", ["postgres"], indirect=True)
@on("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_isolation_that_hides_what_was_written_meanwhile_is_refused(
    engine: Engine, metadata: MetaData, level: Any
) -> None:
    """Names that were committed after Alembic has read its version would not be counted."""
    with engine.connect().execution_options(isolation_level=level) as connection, connection.begin():
        assert connection.scalar(text("SELECT count(*) FROM docs")) == 0
        line(engine, "a")
        with engine.begin() as other:
            row(other, "docs", 1, "a")
        with pytest.raises(BadConfiguration, match=f"{level} hides what was committed .* env.py"):
            operations(connection).create_attachment_triggers("docs", ["file", "pages"])


@everywhere
@on("verb", ["create", "drop"])
def test_what_commits_by_itself_is_refused(engine: Engine, metadata: MetaData, verb: str) -> None:
    """Cut short, it would leave no counts at all."""
    line(engine, "a")
    with engine.begin() as connection:
        row(connection, "notes", 1, "a")
    install(engine, "notes")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        change = getattr(Operations(context), f"{verb}_attachment_triggers")
        with (
            context.begin_transaction(_per_migration=True),
            context.autocommit_block(),
            pytest.raises(NoTransaction, match=r"outside of autocommit_block\(\)"),
        ):
            change("docs", ["file"])
    assert (installed(engine), counts(engine)) == ({"notes"}, {"a": 1})


@on("engine", ["postgres"], indirect=True)
def test_clients_may_have_another_search_path(engine: Engine, metadata: MetaData) -> None:
    install(engine, "docs")
    line(engine, "a")
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL search_path = pg_catalog"))
        row(connection, "public.docs", 1, "a")
    assert counts(engine) == {"a": 1}


@on("engine", ["postgres"], indirect=True)
def test_clients_need_no_rights_on_the_ledger(engine: Engine, metadata: MetaData) -> None:
    with engine.begin() as connection:
        path = connection.scalar(text("SHOW search_path"))
        operations(connection).create_attachment_triggers("docs", ["file", "pages"])
        assert connection.scalar(text("SHOW search_path")) == path
    line(engine, "a")
    role = f"clerk_{engine.url.database}"
    with engine.begin() as connection:
        connection.execute(text(f'CREATE ROLE "{role}"'))
        connection.execute(text(f'GRANT ALL ON docs TO "{role}"'))
        connection.execute(text(f'GRANT SELECT ON attachment_ledger TO "{role}"'))
        connection.execute(text(f'GRANT USAGE ON SCHEMA public TO "{role}"'))
    try:
        with engine.begin() as connection:
            connection.execute(text(f'SET LOCAL ROLE "{role}"'))
            # Nor do those rights fall into the hands of a client, by a table of its own that goes by the ledger's name.
            connection.execute(text("CREATE TEMPORARY TABLE attachment_ledger (LIKE public.attachment_ledger)"))
            row(connection, "docs", 1, "a")
        engine.dispose()
        assert counts(engine) == {"a": 1}
    finally:
        with engine.begin() as connection:
            connection.execute(text(f'DROP OWNED BY "{role}"'))
            connection.execute(text(f'DROP ROLE "{role}"'))


@on("engine", [name for name in DATABASES if name != "sqlite"], indirect=True)
def test_rows_that_are_written_meanwhile_are_counted_once(
    engine: Engine, metadata: MetaData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installing waits for who writes, and who writes then waits for it."""
    counter = type(counter_of(engine.dialect))
    create = counter.create

    def create_slowly(self: Any, counting: Counting) -> list[str]:
        time.sleep(0.5)  # All is counted, and no trigger is there yet.
        return create(self, counting)

    monkeypatch.setattr(counter, "create", create_slowly)
    line(engine, *(f"k{number}" for number in range(40)))
    done = threading.Event()
    failed: list[Exception] = []

    def write() -> None:
        try:
            for number in range(40):
                with engine.begin() as connection:
                    row(connection, "docs", number + 1, f"k{number}")
                    if number % 4 == 3:
                        connection.execute(text("DELETE FROM docs WHERE id = :pk"), {"pk": number - 1})
                if number == 5:
                    done.set()
        except Exception as error:  # noqa: BLE001 - told by the assertion
            failed.append(error)
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    done.wait(20)
    install(engine, "docs")
    writer.join(30)
    assert failed == []
    with engine.connect() as connection:
        there = set(connection.scalars(text("SELECT id FROM docs")))
    # Names that were lost before the triggers came were never counted.
    assert {key for key, names in counts(engine).items() if names} == {f"k{pk - 1}" for pk in there}
    assert set(counts(engine).values()) == {0, 1}


@everywhere
@on("verb", ["create", "drop"])
def test_what_another_migration_counts_meanwhile_stays_counted(
    engine: Engine, metadata: MetaData, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """One that ends while this one waits for the locks is not known yet when it begins to wait."""
    counter = type(counter_of(engine.dialect))
    lock = counter.lock
    line(engine, "a", "b")
    with engine.begin() as connection:
        row(connection, "docs", 1, "a")
        row(connection, "notes", 1, "b")
    if verb == "drop":
        install(engine, "docs")

    def lock_late(self: Any, countings: list[Counting]) -> list[str]:
        monkeypatch.setattr(counter, "lock", lock)
        install(engine, "notes")
        return lock(self, countings)

    monkeypatch.setattr(counter, "lock", lock_late)
    late = create_engine(engine.url)  # on SQLite, the driver begins with the first that is written
    with late.begin() as connection:
        getattr(operations(connection), f"{verb}_attachment_triggers")("docs", ["file", "pages"])
    late.dispose()
    assert counts(engine) == {"a": 1 if verb == "create" else 0, "b": 1}
    with engine.begin() as connection:  # to another row: first named there, then no longer here
        row(connection, "notes", 2, "b")
        connection.execute(text("DELETE FROM notes WHERE id = 1"))
    with engine.connect() as connection:
        states = f"SELECT state FROM attachment_ledger WHERE {key_of(engine)} = 'b'"
        assert connection.scalar(text(states)) == "owned"


# What autogenerate makes of them


def left_to_do(engine: Engine, metadata: MetaData, **options: Any) -> list[tuple[str, list[str]]]:
    operations = proposed(engine, metadata, **options).upgrade_ops
    assert operations is not None
    return [(diff[0], diff[2]) for diff in operations.as_diffs()]


@everywhere
def test_in_what_order_columns_are_counted_does_not_matter(engine: Engine, metadata: MetaData) -> None:
    retain = {"file": 1, "pages": 2}
    with engine.begin() as connection:
        operations(connection).create_attachment_triggers("docs", ["pages", "file"])
        operations(connection).create_attachment_triggers("notes", ["pages", "file"], retain=retain)
    assert left_to_do(engine, metadata) == [
        ("remove_attachment_triggers", ["pages", "file"]),
        ("add_attachment_triggers", ["file", "pages"]),
    ]  # of the notes, for their retention


@everywhere
def test_a_table_that_env_py_leaves_alone_keeps_its_triggers(engine: Engine, metadata: MetaData) -> None:
    install(engine, "docs", "notes")

    def include_object(item: Any, name: str, kind: str, reflected: bool, other: Any) -> bool:
        return name != "docs"

    assert left_to_do(engine, metadata, include_object=include_object) == []


@everywhere
def test_a_column_that_env_py_leaves_alone_is_counted_if_it_is_there(engine: Engine, metadata: MetaData) -> None:
    """Alembic's own documentation has this ``include_object``."""
    metadata.tables["docs"].c.file.info["skip_autogenerate"] = True

    def include_object(item: Any, name: str, kind: str, reflected: bool, other: Any) -> bool:
        return kind != "column" or reflected or not item.info.get("skip_autogenerate", False)

    install(engine, "docs", "notes")
    assert left_to_do(engine, metadata, include_object=include_object) == []
    with engine.begin() as connection:
        operations(connection).drop_attachment_triggers("docs", ["file", "pages"])
        connection.execute(text("ALTER TABLE docs DROP COLUMN file"))
    script = proposed(engine, metadata, include_object=include_object)
    carry_out(engine, script.upgrade_ops)
    assert installed(engine) == {"docs", "notes"}
    assert left_to_do(engine, metadata, include_object=include_object) == []


@everywhere
def test_a_column_that_got_another_name_is_counted_there_and_back(engine: Engine) -> None:
    """By a migration that did not take care of its triggers."""
    tables(metadata := MetaData(), "docs")
    Ledger.of(metadata)
    metadata.create_all(engine)
    install(engine, "docs")
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE docs RENAME COLUMN file TO scan"))
    Ledger.of(renamed := MetaData())
    columns = Column("id", Integer, primary_key=True), Column("title", String(20))
    attached = Column("scan", AttachmentType(files := Storages("memory:"))), Column("pages", AttachmentListType(files))
    Table("docs", renamed, *columns, *attached)
    script = proposed(engine, renamed)
    carry_out(engine, script.upgrade_ops)
    line(engine, "a")
    with engine.begin() as connection:
        descriptor = "CAST(:file AS JSONB)" if engine.dialect.name == "postgresql" else ":file"
        insert = f"INSERT INTO docs (id, scan, pages) VALUES (1, {descriptor}, '[]')"
        connection.execute(text(insert), {"file": '{"storage": "s", "key": "a"}'})
    assert counts(engine) == {"a": 1}
    assert left_to_do(engine, renamed) == []
    carry_out(engine, script.downgrade_ops)
    assert (installed(engine), counts(engine)) == ({"docs"}, {"a": 1})


# The operations themselves


def test_each_is_the_reverse_of_the_other() -> None:
    counting = Counting("docs", (Counted("file", 5),), "shop", "files")
    create = CreateAttachmentTriggersOp(counting)
    drop = create.reverse()
    assert isinstance(drop, DropAttachmentTriggersOp)
    assert drop.counting == counting
    again = drop.reverse()
    assert isinstance(again, CreateAttachmentTriggersOp)
    assert create.to_diff_tuple() == ("add_attachment_triggers", "shop.docs", ["file"])
    assert drop.to_diff_tuple() == ("remove_attachment_triggers", "shop.docs", ["file"])


def test_other_sql_is_another_version() -> None:
    """Triggers that are there already are made anew only if their version says that they are others."""
    counting = Counting("docs", (Counted("file"), Counted("pages", 5)), version=0)
    digests = {
        dialect.name: sha256("".join(map(str, counter_of(dialect).create(counting))).encode()).hexdigest()[:12]
        for dialect in (sqlite.dialect(), postgresql.dialect(), mysql.dialect())
    }
    of_version_2 = {"sqlite": "909c23cbc0b4", "postgresql": "a19b62cd30e9", "mysql": "53ad25933efd"}
    assert (VERSION, digests) == (2, of_version_2), "raise VERSION with the SQL, and write its digests here"


@on("retain", [0, 1.5, timedelta(days=1), {"file": timedelta(hours=1)}, {"pages": 3}])
def test_retention_goes_into_the_migration_and_back(retain: Any) -> None:
    from alembic.autogenerate import render_python_code

    made: list[Any] = []

    class Recorder(Operations):
        def invoke(self, operation: Any) -> Any:
            made.append(operation)

    op = Recorder(MigrationContext.configure(dialect_name="sqlite", opts={"as_sql": True}))
    op.create_attachment_triggers("docs", ["file", "pages"], retain=retain, schema="x", ledger_schema="y")
    code = render_python_code(ops.UpgradeOps([made[0]]))
    exec("\n".join(each.strip() for each in code.splitlines()), {"op": op})
    assert made[0].counting == made[1].counting


@everywhere
def test_reading_the_ledger_of_version_1(engine: Engine) -> None:
    """What ``op.create_attachment_ledger`` made in migrations of old, it has to make for ever: should the ledger get
    another column, the operation must be kept as it was.
    """
    with engine.begin() as connection:
        operations(connection).create_attachment_ledger()
        columns = {each["name"]: str(each["type"]) for each in inspect(connection).get_columns("attachment_ledger")}
    assert list(columns) == [
        *("key", "storage", "state", "held", "owner_table", "owner_column", "size", "since", "purge_after"),
        *("attempts", "last_error", "names", "descriptor", "owner_pk"),
    ]
    assert list(columns) == list(Ledger(MetaData()).lines.columns.keys())
