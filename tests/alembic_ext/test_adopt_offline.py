"""Without a database a migration writes SQL, that says what has to be run, and fails if it was not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from alembic_ext.adoption.offline import guard
from sa_attachments.adoption import Blobs, Depot, Paths, Plan
from tests.engines import ENGINES

from .museum import Museum

SERVERS = [name for name in ENGINES if name in ("sqlite", "postgres", "mariadb")]


def script(dialect: str, work: Any) -> str:
    written = io.StringIO()
    context = MigrationContext.configure(dialect_name=dialect, opts={"as_sql": True, "output_buffer": written})
    with context.begin_transaction():
        work(Operations(context))
    return written.getvalue()


def test_says_what_has_to_be_run() -> None:
    said = script(
        "postgresql",
        lambda op: op.adopt_path_column("docs", "path", "file", root="/srv/media", mode="link", create=True),
    )
    assert "ALTER TABLE docs ADD COLUMN file JSONB" in said
    command = "sa-attachments adopt path docs path file --root /srv/media --mode link"
    assert f"--   {command}" in said
    before, _, after = said.partition("COMMIT;")
    assert "ADD COLUMN" in before, "the command works on what was committed"
    assert f"RAISE EXCEPTION 'run first: {command}'" in after
    assert after.rstrip().endswith("COMMIT;")


def test_says_it_of_the_way_back_and_of_the_end() -> None:
    said = script("sqlite", lambda op: op.restore_blob_column("docs", "data", "file"))
    assert "sa-attachments adopt blob docs data file --reverse" in said
    assert "sa-attachments adopt finish docs file" in script("sqlite", lambda op: op.finish_adoption("docs", "file"))
    assert "sa-attachments adopt hold docs file" in script("sqlite", lambda op: op.hold_adoption("docs", "file"))


def test_commands_are_quoted() -> None:
    plan = Plan("docs", "u", "file", Depot({"old": "default"}, "copy"), "app", "s 3", "skip", "left.jsonl")
    assert plan.command() == (
        "sa-attachments adopt depot docs u file --map old=default --mode copy --storage 's 3' --schema app "
        "--policy skip --report left.jsonl"
    )


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_the_script_fails_as_long_as_it_was_not_run(engine: Engine, tmp_path: Path, policy: str) -> None:
    museum = Museum(engine, tmp_path).open()
    museum.lay("it's", b"a")
    museum.insert({"id": 1, "path": "it's"}, {"id": 2, "path": "gone" if policy == "skip" else None})
    plan = Plan("docs", "path", "file", Paths("it's", prefix="100%"), policy=policy)

    def run(back: bool) -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql(
                guard(engine.dialect, plan, back=back).replace("%", "%%" if _formats(engine) else "%")
            )

    run(back=True)
    with pytest.raises(DBAPIError):
        run(back=False)
    museum.migrate(lambda op: op.adopt_path_column("docs", "path", "file", root=museum.root, policy=policy))
    run(back=False)
    with pytest.raises(DBAPIError):
        run(back=True)


def _formats(engine: Engine) -> bool:
    return engine.dialect.paramstyle in ("pyformat", "format")


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_the_end_fails_as_long_as_rows_are_not_adopted(engine: Engine, tmp_path: Path) -> None:
    """As it does online: the next migration drops the old column."""
    museum = Museum(engine, tmp_path).open()
    museum.insert({"id": 1, "data": b"a"}, {"id": 2, "data": None})
    museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"))
    said = script(engine.dialect.name, lambda op: op.finish_adoption("docs", "file", source="data"))
    assert "sa-attachments adopt finish docs file" in said
    start = said.index("DO $sa$" if engine.dialect.name == "postgresql" else "SELECT CASE")
    statement = said[start : said.index(";\n\n", start)]

    def run() -> None:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement.replace("%", "%%") if _formats(engine) else statement)

    run()
    museum.insert({"id": 3, "data": b"left"})
    with pytest.raises(DBAPIError):
        run()


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
@pytest.mark.parametrize("value", ["null", "[]"])
def test_what_libraries_write_where_there_is_no_file_is_not_waited_for(
    engine: Engine, tmp_path: Path, value: str
) -> None:
    museum = Museum(engine, tmp_path).open()
    museum.insert({"id": 1, "path": value})
    with engine.connect() as connection:
        connection.exec_driver_sql(guard(engine.dialect, Plan("docs", "path", "file", Depot()), back=False))


def test_the_end_says_the_schema() -> None:
    said = script("postgresql", lambda op: op.finish_adoption("docs", "file", schema="my app"))
    assert "sa-attachments adopt finish docs file --schema 'my app'" in said


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_an_empty_table_needs_nothing(engine: Engine, tmp_path: Path) -> None:
    Museum(engine, tmp_path).open()
    with engine.connect() as connection:
        connection.execute(text(guard(engine.dialect, Plan("docs", "data", "file", Blobs()), back=False)))
