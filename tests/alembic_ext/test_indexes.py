"""Indexes of what descriptors hold: queries find them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, column, literal_column, select, text

from alembic_ext.indexes import CreateAttachmentIndexOp, DropAttachmentIndexOp, generated
from sa_attachments import AttachmentType, Storages
from sa_attachments.errors import BadConfiguration
from tests.alembic_ext.installing import operations
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
            "avatar": f'{{"content_type": "image/{n}", "size": {n}, "metadata": {{"caption": "c{n}", "n": {n}}}}}',
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
    "size": ("size", None, users.c.avatar.size == 7),
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
    value = 7 if op.kind == "integer" else {"content_type": "image/7"}.get(str(path), "c7")
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
