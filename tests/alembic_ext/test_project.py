"""Migrations of a project, run as a user runs them."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, inspect, text

from alembic_ext.counting import Counted, Counting, Installed, counted, counter_of
from tests.alembic_ext.projects import Project
from tests.engines import MARIADB

on = pytest.mark.parametrize
DATABASES = ["sqlite", "postgres", *(["mariadb"] if MARIADB else [])]
USERS = Counting("users", (Counted("avatar"), Counted("photos", 86_400_000)))
POSTS = Counting("posts", (Counted("file"),))
AVATAR = "    avatar: Mapped[Attachment | None] = mapped_column(AttachmentType(files))\n"
WHOLE_MATRIX = os.environ.get("SA_ATTACHMENTS_TORTURE") == "1"
NOTHING = "No new upgrade operations detected."


def sampled(*names: str) -> pytest.MarkDecorator:
    """The torture session runs it on all databases."""
    chosen = [name for name in names if name in DATABASES] or ["sqlite"]
    rest = [pytest.param(name, marks=pytest.mark.torture) for name in DATABASES if name not in chosen]
    return on("project", [*chosen, *rest], indirect=True)


@pytest.fixture(params=DATABASES)
def project(request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]) -> Project:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/test.db"
    else:
        url = request.getfixturevalue(f"{request.param}_url")
    return Project(tmp_path / "project", open_engine(url))


@pytest.fixture
def migrated(project: Project) -> Project:
    """All tables are there, with their triggers."""
    project.autogenerate()
    project.alembic("upgrade", "head")
    return project


def installed(engine: Engine) -> set[Installed]:
    with engine.connect() as connection:
        return set(counter_of(engine.dialect).installed(connection))


WHOLE = {Installed(USERS, True), Installed(POSTS, True)}


def test_a_life_as_a_user_leads_it(project: Project) -> None:
    is_shell = WHOLE_MATRIX or project.engine.dialect.name == "sqlite"
    alembic = project.shell if is_shell else project.alembic
    alembic("revision", "--autogenerate", "-m", "first")
    (migration,) = project.versions()
    lines = migration.read_text()
    assert """sa.Column('avatar', sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True)""" in lines
    assert "op.create_table('attachment_ledger'" in lines
    assert "op.create_table('attachment_storage'" in lines
    assert (
        "op.create_attachment_triggers('users', ['avatar', 'photos'], retain={'avatar': 0, 'photos': 86400})" in lines
    )
    assert "import models" not in lines
    assert "sa_attachments" not in lines
    assert lines.index("op.drop_attachment_triggers('posts'") < lines.index("op.drop_table('posts')")
    alembic("upgrade", "head")
    assert installed(project.engine) == WHOLE
    assert alembic("check").strip() == NOTHING
    assert NOTHING not in alembic("upgrade", "head", "--sql")
    alembic("downgrade", "base")
    assert inspect(project.engine).get_table_names() == ["alembic_version"]
    assert installed(project.engine) == set()
    assert left_over_functions(project.engine) == []
    alembic("upgrade", "head")
    assert alembic("check").strip() == NOTHING


def left_over_functions(engine: Engine) -> list[str]:
    if engine.dialect.name != "postgresql":
        return []
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT proname FROM pg_proc WHERE proname LIKE '%attachments%'")))


def test_a_script_does_the_same(project: Project) -> None:
    """``--sql`` makes, and unmakes, what a migration makes."""
    project.autogenerate()
    with project.engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
    run_script(project, project.alembic("upgrade", "head", "--sql"))
    assert installed(project.engine) == WHOLE
    assert NOTHING in project.alembic("check")
    (revision,) = project.revisions()
    run_script(project, project.alembic("downgrade", f"{revision}:base", "--sql"))
    assert set(inspect(project.engine).get_table_names()) <= {"alembic_version"}
    assert left_over_functions(project.engine) == []


@sampled("postgres", "mariadb")
def test_a_script_counts_what_is_there(project: Project) -> None:
    project.edit('"sa_attachments"]', "]", "migrations/env.py")
    project.autogenerate()
    project.alembic("upgrade", "head")
    with project.engine.begin() as connection:
        seed(connection)
    columns = "['avatar', 'photos']"
    project.write(
        f"op.create_attachment_triggers('users', {columns})", f"op.drop_attachment_triggers('users', {columns})"
    )
    before, after = project.revisions()
    run_script(project, project.alembic("upgrade", f"{before}:{after}", "--sql"))
    assert counts(project.engine) == {"a": 1, "b": 1, "t": 1, "c": 2, "unnamed": 0}
    run_script(project, project.alembic("downgrade", f"{after}:{before}", "--sql"))
    assert set(counts(project.engine).values()) == {0}
    with project.engine.begin() as connection:
        connection.execute(text("DELETE FROM users"))
        assert set(connection.scalars(text("SELECT state FROM attachment_ledger"))) == {"owned"}


def seed(connection: Connection) -> None:
    """Rows of before, and their lines."""
    q = "`key`" if connection.dialect.name == "mysql" else "key"
    for key in ("a", "b", "t", "c", "unnamed"):
        insert = (
            f"INSERT INTO attachment_ledger (storage, {q}, state, since, names) VALUES ('s', '{key}', 'owned', 0, 0)"
        )
        connection.execute(text(insert))
    rows = [
        ('{"storage": "s", "key": "a", "metadata": {"key": "unnamed", "storage": "s"}}', "[]"),
        ('{"storage": "s", "key": "b", "variants": {"thumb": {"key": "t"}}}', '[{"storage": "s", "key": "c"}]'),
        ("null", '[{"storage": "s", "key": "c"}, 7, {"key": "unnamed"}]'),
    ]
    for number, (avatar, photos) in enumerate(rows, start=1):
        cast = "CAST(:{} AS JSONB)" if connection.dialect.name == "postgresql" else ":{}"
        insert = f"INSERT INTO users (id, avatar, photos) VALUES (:id, {cast.format('a')}, {cast.format('p')})"
        connection.execute(text(insert), {"id": number, "a": avatar, "p": photos})


def counts(engine: Engine) -> dict[str, int | None]:
    q = "`key`" if engine.dialect.name == "mysql" else "key"
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT {q}, names FROM attachment_ledger"))
        return {row[0]: row[1] for row in rows}


def run_script(project: Project, script: str) -> None:
    """As the database's own client does."""
    if project.engine.dialect.name == "sqlite":
        connection = sqlite3.connect(str(project.engine.url.database))
        connection.executescript(script)
        connection.close()
        return
    raw = project.engine.raw_connection()
    cursor = raw.cursor()
    for statement in split(script) if project.engine.dialect.name == "mysql" else [script]:
        cursor.execute(statement)
    raw.commit()
    raw.close()


def split(script: str) -> list[str]:
    """Statements of a script for MySQL's client."""
    found, delimiter, collected = [], ";", ""
    for line in script.splitlines():
        if new := re.fullmatch(r"DELIMITER (\S+)", line):
            delimiter = new[1]
            continue
        collected += line + "\n"
        if collected.rstrip().endswith(delimiter):
            found.append(collected.rstrip().removesuffix(delimiter))
            collected = ""
    return [statement for statement in found if not statement.lstrip().startswith("--") or "\n" in statement.strip()]


# What the comparator notices


@sampled("postgres")
def test_without_the_line_in_env_py_triggers_are_left_alone(project: Project) -> None:
    project.edit('"sa_attachments"]', "]", "migrations/env.py")
    assert "triggers" not in project.autogenerate()
    project.alembic("upgrade", "head")
    assert NOTHING in project.alembic("check")


@sampled("mariadb")
def test_a_new_column_is_counted_too(migrated: Project) -> None:
    migrated.edit(AVATAR, AVATAR + AVATAR.replace("avatar", "banner"))
    code, printed = migrated.try_alembic("check")
    assert code != 0
    assert "add_attachment_triggers" in printed
    lines = migrated.autogenerate()
    assert "op.drop_attachment_triggers('users', ['avatar', 'photos']" in lines
    migrated.alembic("upgrade", "head")
    wanted = Counting("users", (Counted("avatar"), Counted("banner"), Counted("photos", 86_400_000)))
    assert installed(migrated.engine) == {Installed(wanted, True), Installed(POSTS, True)}
    assert NOTHING in migrated.alembic("check")
    migrated.alembic("downgrade", "-1")
    assert installed(migrated.engine) == WHOLE


@sampled("postgres")
def test_a_column_that_goes_is_no_longer_counted(migrated: Project) -> None:
    with migrated.engine.begin() as connection:
        seed(connection)
    assert counts(migrated.engine)["a"] == 1
    migrated.edit(AVATAR, "")
    migrated.autogenerate()
    migrated.alembic("upgrade", "head")
    wanted = Counting("users", (Counted("photos", 86_400_000),))
    assert installed(migrated.engine) == {Installed(wanted, True), Installed(POSTS, True)}
    assert NOTHING in migrated.alembic("check")
    migrated.alembic("downgrade", "-1")
    assert installed(migrated.engine) == WHOLE


@sampled("postgres")
def test_a_table_that_goes_takes_its_triggers_with_it(migrated: Project) -> None:
    models = (migrated.folder / "models.py").read_text()
    migrated.edit(models[models.index("class Post") :], "")
    lines = migrated.autogenerate()
    assert lines.index("op.drop_attachment_triggers('posts'") < lines.index("op.drop_table('posts')")
    migrated.alembic("upgrade", "head")
    assert installed(migrated.engine) == {Installed(USERS, True)}
    assert left_over_functions(migrated.engine) in ([], ["users_attachments"])
    migrated.alembic("downgrade", "-1")
    assert installed(migrated.engine) == WHOLE


@sampled("sqlite")
def test_another_retention_is_noticed(migrated: Project) -> None:
    migrated.edit("days=1", "days=2")
    migrated.autogenerate()
    migrated.alembic("upgrade", "head")
    wanted = Counting("users", (Counted("avatar"), Counted("photos", 2 * 86_400_000)))
    assert installed(migrated.engine) == {Installed(wanted, True), Installed(POSTS, True)}


@sampled("mariadb")
def test_a_trigger_that_somebody_dropped_is_made_again(migrated: Project) -> None:
    name = {"postgresql": "attachments_delete"}.get(migrated.engine.dialect.name, "users_attachments_delete")
    on_table = " ON users" if migrated.engine.dialect.name == "postgresql" else ""
    with migrated.engine.begin() as connection:
        connection.execute(text(f"DROP TRIGGER {name}{on_table}"))
    assert migrated.try_alembic("check")[0] != 0
    migrated.autogenerate()
    migrated.alembic("upgrade", "head")
    assert installed(migrated.engine) == WHOLE


def test_a_table_that_gets_another_name_keeps_its_triggers(migrated: Project) -> None:
    with migrated.engine.begin() as connection:
        seed(connection)
    migrated.write("op.rename_table('users', 'people')", "op.rename_table('people', 'users')")
    migrated.edit('"users', '"people')
    migrated.alembic("upgrade", "head")
    with migrated.engine.begin() as connection:
        connection.execute(text("DELETE FROM people WHERE id = 3"))
    assert counts(migrated.engine)["c"] == 1
    if migrated.engine.dialect.name == "postgresql":
        with migrated.engine.begin() as connection:
            connection.execute(text("TRUNCATE people CASCADE"))
        assert set(counts(migrated.engine).values()) == {0}
    migrated.autogenerate()
    migrated.alembic("upgrade", "head")
    people = Counting("people", USERS.columns)
    assert installed(migrated.engine) == {Installed(people, True), Installed(POSTS, True)}
    assert left_over_functions(migrated.engine) in ([], ["posts_attachments", "people_attachments"])
    assert NOTHING in migrated.alembic("check")


@on("project", ["postgres"], indirect=True)
def test_a_disabled_trigger_is_noticed(migrated: Project) -> None:
    with migrated.engine.begin() as connection:
        connection.execute(text("ALTER TABLE users DISABLE TRIGGER attachments_update"))
    assert "add_attachment_triggers" in migrated.try_alembic("check")[1]


@sampled("postgres")
def test_triggers_of_an_earlier_version_are_made_anew(migrated: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "VERSION", counted.VERSION + 1)
    assert "add_attachment_triggers" in migrated.try_alembic("check")[1]


# Tables that SQLite makes anew


@on("project", ["sqlite"], indirect=True)
def test_what_a_batch_lost_is_noticed_and_made_again(migrated: Project) -> None:
    with migrated.engine.begin() as connection:
        seed(connection)
    alter = "with op.batch_alter_table('users') as batch_op:\n    batch_op.alter_column('name', type_=sa.String(99))"
    migrated.write(alter)
    migrated.edit("String(50)", "String(99)")
    migrated.alembic("upgrade", "head")
    assert installed(migrated.engine) == {Installed(POSTS, True)}
    with migrated.engine.begin() as connection:
        connection.execute(text("DELETE FROM users WHERE id = 3"))
        connection.execute(text("INSERT INTO users (id, photos) SELECT 9, photos FROM users WHERE id = 2"))
    assert "add_attachment_triggers" in migrated.try_alembic("check")[1]
    migrated.autogenerate()
    migrated.alembic("upgrade", "head")
    assert installed(migrated.engine) == WHOLE
    assert counts(migrated.engine) == {"a": 1, "b": 1, "t": 1, "c": 2, "unnamed": 0}


@on("project", ["sqlite"], indirect=True)
@on(
    ("old", "new"),
    [
        ("name: Mapped[str | None]", "name: Mapped[str]"),
        # There it is one with an expression for a default, and back each one.
        (AVATAR, AVATAR + "    at: Mapped[str | None] = mapped_column(server_default=text('CURRENT_TIMESTAMP'))\n"),
        (AVATAR, AVATAR + "    nick: Mapped[str | None]\n"),
    ],
)
def test_a_migration_that_makes_a_table_anew_takes_care_of_its_triggers(migrated: Project, old: str, new: str) -> None:
    migrated.edit("import ForeignKey, String", "import ForeignKey, String, text")
    migrated.edit(old, new)
    lines = migrated.autogenerate()
    assert lines.index("op.drop_attachment_triggers('users'") < lines.index("op.batch_alter_table('users'")
    assert "op.create_attachment_triggers('users'" in lines
    migrated.alembic("upgrade", "head")
    assert installed(migrated.engine) == WHOLE
    assert NOTHING in migrated.alembic("check")
    migrated.alembic("downgrade", "-1")
    assert installed(migrated.engine) == WHOLE


@sampled("sqlite", "mariadb")
def test_inside_of_a_batch(migrated: Project) -> None:
    migrated.write(
        """\
with op.batch_alter_table('users') as batch_op:
    batch_op.drop_attachment_triggers(['avatar', 'photos'])
    batch_op.alter_column('name', existing_type=sa.String(50), type_=sa.String(99))
    batch_op.create_attachment_triggers(['avatar', 'photos'], retain={'photos': 86400})
    batch_op.create_attachment_index('avatar', 'content_type')
""",
        """\
with op.batch_alter_table('users') as batch_op:
    batch_op.drop_attachment_index('avatar', 'content_type')
    batch_op.drop_attachment_triggers(['avatar', 'photos'])
    batch_op.alter_column('name', existing_type=sa.String(99), type_=sa.String(50))
    batch_op.create_attachment_triggers(['avatar', 'photos'], retain={'photos': 86400})
""",
    )
    migrated.alembic("upgrade", "head")
    assert installed(migrated.engine) == WHOLE
    assert has_index(migrated.engine, "ix_users_avatar_content_type")
    migrated.alembic("downgrade", "-1")
    assert installed(migrated.engine) == WHOLE
    assert not has_index(migrated.engine, "ix_users_avatar_content_type")


def has_index(engine: Engine, name: str) -> bool:
    statement = {
        "sqlite": "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name = :name",
        "postgresql": "SELECT count(*) FROM pg_indexes WHERE indexname = :name",
        "mysql": "SELECT count(*) FROM information_schema.statistics WHERE table_schema = DATABASE()"
        " AND index_name = :name",
    }[engine.dialect.name]
    with engine.connect() as connection:
        return bool(connection.scalar(text(statement), {"name": name}))


# Indexes, and what env.py says


def test_indexes_of_ours_are_kept(migrated: Project) -> None:
    create = "op.create_attachment_index('users', 'avatar', {})"
    paths = ["'content_type'", "'size'", "['metadata', 'caption']"]
    migrated.write(
        "\n".join(create.format(path) for path in paths),
        "\n".join(create.format(path).replace("create", "drop") for path in paths),
    )
    migrated.alembic("upgrade", "head")
    assert has_index(migrated.engine, "ix_users_avatar_metadata_caption")
    assert NOTHING in migrated.alembic("check")
    migrated.alembic("downgrade", "-1")
    assert not has_index(migrated.engine, "ix_users_avatar_size")
    assert NOTHING not in migrated.alembic("upgrade", "head", "--sql")


@on("project", ["sqlite"], indirect=True)
def test_render_item_of_env_py_is_asked_first(project: Project) -> None:
    project.edit(
        "plugins = ",
        "def render_item(kind, item, context):\n"
        '    return "sa.Text()" if getattr(item, "label", None) == "users.avatar" else False\n\n'
        "plugins = ",
        "migrations/env.py",
    )
    project.edit("render_as_batch=True,", "render_as_batch=True, render_item=render_item,", "migrations/env.py")
    lines = project.autogenerate()
    assert "sa.Column('avatar', sa.Text(), nullable=True)" in lines
    assert """sa.Column('file', sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True)""" in lines


@on("project", ["sqlite"], indirect=True)
def test_include_object_leaves_tables_alone(project: Project) -> None:
    project.edit(
        "plugins = ",
        "def include_object(item, name, kind, reflected, other):\n    return name != 'posts'\n\nplugins = ",
        "migrations/env.py",
    )
    project.edit("render_as_batch=True,", "render_as_batch=True, include_object=include_object,", "migrations/env.py")
    lines = project.autogenerate()
    assert "create_attachment_triggers('users'" in lines
    assert "posts" not in lines


def test_the_ledger_by_its_operation_is_that_of_the_models(project: Project) -> None:
    project.write("op.create_attachment_ledger()", "op.drop_attachment_ledger()")
    project.alembic("upgrade", "head")
    assert "attachment_ledger" not in project.autogenerate()
    project.alembic("downgrade", "base")
    assert inspect(project.engine).get_table_names() == ["alembic_version"]
