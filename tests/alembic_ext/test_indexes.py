"""Indexes of what descriptors hold: queries find them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Computed,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    column,
    func,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import mysql

from alembic_ext.counting import counter_of
from alembic_ext.indexes import CreateAttachmentIndexOp, DropAttachmentIndexOp, generated
from sa_attachments import AttachmentType, Storages
from sa_attachments.errors import BadConfiguration
from sa_attachments.ledger import Ledger
from tests.alembic_ext.installing import operations
from tests.alembic_ext.proposing import carry_out, proposed
from tests.engines import MARIADB

on = pytest.mark.parametrize
DATABASES = ["sqlite", "postgres", *(["mariadb"] if MARIADB else [])]
everywhere = on("engine", DATABASES, indirect=True)
metadata = MetaData()
users = Table(
    "users",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("avatar", AttachmentType(Storages("memory:"))),
)
AWKWARD = 'it\'s 100% "quoted" \\ :name'


@pytest.fixture
def filled(engine: Engine) -> Engine:
    metadata.create_all(engine)
    value = "CAST(:avatar AS JSONB)" if engine.dialect.name == "postgresql" else ":avatar"
    rows = [
        {
            "id": n,
            "avatar": f'{{"content_type": "image/{n}", "size": {n << 30}, '
            f'"metadata": {{"caption": "c{n}", "n": {n}}}}}',
        }
        for n in range(1, 2001)
    ]
    with engine.begin() as connection:
        connection.execute(text(f"INSERT INTO users (id, avatar) VALUES (:id, {value})"), rows)
        connection.execute(text("ANALYZE TABLE users" if engine.dialect.name == "mysql" else "ANALYZE users"))
    return engine


def plan(engine: Engine, statement: Any) -> str:
    with engine.connect() as connection:
        compiled = statement.compile(engine, compile_kwargs={"render_postcompile": True})
        explain = "EXPLAIN QUERY PLAN" if engine.dialect.name == "sqlite" else "EXPLAIN"
        parameters: Any = compiled.params
        if compiled.positional:
            parameters = tuple(compiled.params[name] for name in compiled.positiontup)
        return str(connection.exec_driver_sql(f"{explain} {compiled}", parameters).all())


PATHS: dict[str, tuple[Any, str | None, Any]] = {
    "content type": ("content_type", None, users.c.avatar.content_type == "image/7"),
    "size": ("size", None, users.c.avatar.size == 7 << 30),
    "metadata": (["metadata", "caption"], None, users.c.avatar.metadata["caption"] == "c7"),
    "number": (["metadata", "n"], "integer", users.c.avatar.metadata["n"] == 7),
}


@on("engine", ["sqlite", "postgres"], indirect=True)
@on("which", PATHS)
def test_queries_of_attributes_use_it(filled: Engine, which: str) -> None:
    path, kind, condition = PATHS[which]
    statement = select(users.c.id).where(condition)
    name = CreateAttachmentIndexOp("users", "avatar", path, kind, None).name
    assert name not in plan(filled, statement)
    with filled.begin() as connection:
        operations(connection).create_attachment_index("users", "avatar", path, kind=kind)
        connection.execute(text("ANALYZE users"))
    assert name in plan(filled, statement)
    with filled.connect() as connection:
        assert connection.scalars(statement).all() == [7]
    with filled.begin() as connection:
        operations(connection).drop_attachment_index("users", "avatar", path, kind=kind)
    filled.dispose()  # sqlite3 keeps what it explained before
    assert name not in plan(filled, statement)


@on("engine", [name for name in DATABASES if name == "mariadb"], indirect=True)
@on("which", PATHS)
def test_on_mariadb_queries_of_the_column_use_it(filled: Engine, which: str) -> None:
    path, kind, condition = PATHS[which]
    op = CreateAttachmentIndexOp("users", "avatar", path, kind, None)
    column = literal_column(f"users.{op.name.removeprefix('ix_users_')}")
    value = {"content type": "image/7", "size": 7 << 30, "metadata": "c7", "number": 7}[which]
    with filled.begin() as connection:
        operations(connection).create_attachment_index("users", "avatar", path, kind=kind)
        assert list(connection.execute(text("SELECT * FROM users LIMIT 1")).keys()) == ["id", "avatar"]
    statement = select(users.c.id).where(column == value)
    assert op.name in plan(filled, statement)
    with filled.connect() as connection:
        assert connection.scalars(statement).all() == [7]
        assert connection.scalars(select(users.c.id).where(condition)).all() == [7]
    with filled.begin() as connection:
        operations(connection).drop_attachment_index("users", "avatar", path, kind=kind)
        operations(connection).create_attachment_index("users", "avatar", path, kind=kind)


@everywhere
def test_awkward_names_in_metadata(engine: Engine) -> None:
    metadata.create_all(engine)
    with engine.begin() as connection:
        op = operations(connection)
        op.create_attachment_index("users", "avatar", ["metadata", AWKWARD])
        op.create_attachment_index("users", "avatar", ["metadata", "x" * 70])
        avatar = json.dumps({"metadata": {AWKWARD: "yes"}})
        value = "CAST(:avatar AS JSONB)" if engine.dialect.name == "postgresql" else ":avatar"
        connection.execute(text(f"INSERT INTO users (id, avatar) VALUES (1, {value})"), {"avatar": avatar})
        if engine.dialect.name == "mysql":
            name = generated("avatar", ["metadata", AWKWARD])
            assert connection.scalar(select(column(name)).select_from(users)) == "yes"
        op.drop_attachment_index("users", "avatar", ["metadata", AWKWARD])


@everywhere
@on(
    ("table", "column", "path", "options", "message"),
    [
        ("papers", "avatar", "size", {}, "no table 'papers'"),
        ("users", "photo", "size", {}, "no column 'photo': it has 'avatar', 'id'"),
        ("users", "avatar", [], {}, "a name, or a list of names"),
        ("users", "avatar", ["metadata", 3], {}, "a name, or a list of names"),
        ("users", "avatar", "size", {"kind": "date"}, "'float', 'integer', 'string', not as 'date'"),
    ],
)
def test_what_makes_no_sense_is_refused(
    engine: Engine, table: str, column: str, path: Any, options: dict[str, Any], message: str
) -> None:
    metadata.create_all(engine)
    with engine.begin() as connection:
        op = operations(connection)
        with pytest.raises(BadConfiguration, match=message):
            op.create_attachment_index(table, column, path, **options)


def test_each_is_the_reverse_of_the_other() -> None:
    create = CreateAttachmentIndexOp("users", "avatar", ["metadata", "n"], "integer", "shop")
    drop = create.reverse()
    assert isinstance(drop, DropAttachmentIndexOp)
    assert vars(drop) == vars(create)
    assert vars(drop.reverse()) == vars(create)
    assert create.to_diff_tuple() == ("add_attachment_index", "users", "avatar", ("metadata", "n"))


def test_it_renders_as_it_was_written() -> None:
    from alembic.autogenerate import render_python_code
    from alembic.operations import ops

    op = CreateAttachmentIndexOp("users", "avatar", ["metadata", "n"], "integer", "shop")
    code = render_python_code(ops.UpgradeOps([op, op.reverse()]))
    call = "_attachment_index('users', 'avatar', ['metadata', 'n'], kind='integer', schema='shop')"
    assert f"op.create{call}" in code
    assert f"op.drop{call}" in code


# What autogenerate makes of indexes

files = Storages("memory:")


def docs(*columns: Column[Any] | Index, file: str | None = "file", name: str = "docs", **options: Any) -> MetaData:
    made = MetaData()
    Ledger.of(made)
    attachments = [] if file is None else [Column(file, AttachmentType(files))]
    Table(name, made, Column("id", Integer, primary_key=True), *attachments, *columns, **options)
    return made


def there(engine: Engine) -> set[str]:
    """The names of all indexes of ``docs``."""
    statement = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'docs'",
        "postgresql": "SELECT indexname FROM pg_indexes WHERE tablename = 'docs'",
        "mysql": "SELECT DISTINCT index_name FROM information_schema.statistics WHERE table_schema = DATABASE()"
        " AND table_name = 'docs'",
    }[engine.dialect.name]
    with engine.connect() as connection:
        return set(connection.scalars(text(statement))) - {"PRIMARY", "docs_pkey"}


def left_to_do(engine: Engine, model: MetaData, **options: Any) -> list[str]:
    operations = proposed(engine, model, **options).upgrade_ops
    assert operations is not None
    return [str(diff[0]) for diff in operations.as_diffs()]


PLAIN = "ix_docs_file_name"
ORDINARY = {
    "index removed": (lambda: docs(Column("file_name", String(100))), set()),
    "becomes unique": (lambda: docs(Column("file_name", String(100)), Index(PLAIN, "file_name", unique=True)), {PLAIN}),
    "column removed": (docs, set()),
}


@everywhere
@on("which", ORDINARY)
def test_an_ordinary_index_beside_an_attachment_is_no_index_of_ours(engine: Engine, which: str) -> None:
    """The attachment is ``file``, and the plain column ``file_name``."""
    make, left = ORDINARY[which]
    docs(Column("file_name", String(100)), Index(PLAIN, "file_name")).create_all(engine)
    model = make()
    script = proposed(engine, model)
    carry_out(engine, script.upgrade_ops)
    assert there(engine) == left
    assert left_to_do(engine, model) == []
    carry_out(engine, script.downgrade_ops)
    assert there(engine) == {PLAIN}


PATHS_OF_OURS: list[Any] = ["content_type", "size", ["metadata", AWKWARD], ["metadata", "x" * 70], ["metadata", "a.b"]]


def with_ours(engine: Engine, model: MetaData, *paths: Any, schema: str | None = None) -> set[str]:
    """Make tables and triggers, and indexes of these paths; returns the names of the indexes."""
    model.create_all(engine)
    before = there(engine)
    with engine.begin() as connection:
        for path in paths:
            operations(connection).create_attachment_index("docs", "file", path, schema=schema)
        operations(connection).create_attachment_triggers("docs", ["file"], schema=schema)
    return there(engine) - before


def visible(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM docs")).keys())


@everywhere
def test_indexes_of_ours_are_kept_whatever_their_path_is(engine: Engine) -> None:
    assert len(with_ours(engine, docs(), *PATHS_OF_OURS)) == len(PATHS_OF_OURS)
    assert left_to_do(engine, docs()) == []


@everywhere
@on("batch", [False, True])
def test_they_go_with_their_column_and_come_back_with_it(engine: Engine, batch: bool) -> None:
    names = with_ours(engine, docs(Column("other", AttachmentType(files))), *PATHS_OF_OURS)
    model = docs(Column("other", AttachmentType(files)), file=None)
    script = proposed(engine, model)
    carry_out(engine, script.upgrade_ops, batch)
    assert there(engine) == set()
    assert left_to_do(engine, model) == []
    carry_out(engine, script.downgrade_ops, batch)
    assert there(engine) == names
    assert sorted(visible(engine)) == ["file", "id", "other"]


@on("engine", ["sqlite"], indirect=True)
@on("batch", [False, True])
def test_a_table_that_is_made_anew_gets_them_back(engine: Engine, batch: bool) -> None:
    names = with_ours(engine, docs(), *PATHS_OF_OURS)
    model = docs(Column("pages", Integer))
    script = proposed(engine, model)
    carry_out(engine, script.upgrade_ops, batch)
    assert there(engine) == names
    assert left_to_do(engine, model) == []
    carry_out(engine, script.downgrade_ops, batch)
    assert there(engine) == names
    assert left_to_do(engine, docs()) == []


@everywhere
def test_an_index_of_a_model_takes_the_name_of_one_of_ours(engine: Engine) -> None:
    (name,) = with_ours(engine, docs(Column("title", String(50))), "size")
    model = docs(Column("title", String(50)), Index(name, "title"))
    script = proposed(engine, model)
    carry_out(engine, script.upgrade_ops)
    assert there(engine) == {name}
    assert left_to_do(engine, model) == []
    assert sorted(visible(engine)) == ["file", "id", "title"]
    carry_out(engine, script.downgrade_ops)
    assert there(engine) == {name}
    assert left_to_do(engine, docs(Column("title", String(50)))) == []


@everywhere
@on("renaming", ["ALTER TABLE docs RENAME TO docs_of_old", "ALTER TABLE docs RENAME COLUMN file TO scan"])
def test_they_are_kept_when_what_they_are_of_gets_another_name(engine: Engine, renaming: str) -> None:
    with_ours(engine, docs(), *PATHS_OF_OURS)
    with engine.begin() as connection:
        operations(connection).drop_attachment_triggers("docs", ["file"])
        connection.execute(text(renaming))
    model = docs(file="scan") if "COLUMN" in renaming else docs(name="docs_of_old")
    assert left_to_do(engine, model) == ["add_attachment_triggers"]


@everywhere
def test_they_go_with_a_column_that_got_another_name(engine: Engine) -> None:
    with_ours(engine, docs(), *PATHS_OF_OURS)
    with engine.begin() as connection:
        operations(connection).drop_attachment_triggers("docs", ["file"])
        connection.execute(text("ALTER TABLE docs RENAME COLUMN file TO scan"))
    carry_out(engine, proposed(engine, docs(file=None)).upgrade_ops, batch=engine.dialect.name == "sqlite")
    assert (there(engine), visible(engine)) == (set(), ["id"])
    assert left_to_do(engine, docs(file=None)) == []


@on("engine", [name for name in DATABASES if name == "mariadb"], indirect=True)
def test_the_column_that_mariadb_generates_may_be_mapped(engine: Engine) -> None:
    (name,) = with_ours(engine, docs(), "content_type")
    value = Computed("json_value(`file`, '$.\"content_type\"')", persisted=False)
    generated = Column("file_content_type", mysql.VARCHAR(255, charset="utf8mb4", collation="utf8mb4_bin"), value)
    assert left_to_do(engine, docs(generated._copy())) == []
    model = docs(generated, Index(name, "file_content_type", unique=True))
    carry_out(engine, proposed(engine, model).upgrade_ops)
    assert there(engine) == {name}
    assert left_to_do(engine, model) == []


@everywhere
def test_the_default_schema_by_its_name(engine: Engine) -> None:
    """It is the one that the database means by none."""
    default = {"sqlite": "main", "postgresql": "public"}.get(engine.dialect.name, engine.url.database)
    with_ours(engine, docs(), *PATHS_OF_OURS)
    assert left_to_do(engine, docs(schema=default)) == []
    carry_out(engine, proposed(engine, docs(file=None, schema=default)).upgrade_ops)
    assert there(engine) == set()
    with engine.connect() as connection:
        assert counter_of(engine.dialect).installed(connection) == []


@on("engine", ["postgres"], indirect=True)
def test_other_expressions_are_no_indexes_of_ours(engine: Engine) -> None:
    name = Column("file_name", String(100))
    docs(name, Index("ix_docs_file_lower", func.lower(name))).create_all(engine)
    carry_out(engine, proposed(engine, docs(Column("file_name", String(100)))).upgrade_ops)
    assert there(engine) == set()


@on("engine", ["postgres"], indirect=True)
def test_a_schema_of_its_own(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA shop"))
    model = docs(schema="shop")
    with_ours(engine, model, *PATHS_OF_OURS, schema="shop")
    assert left_to_do(engine, model, include_schemas=True) == []
