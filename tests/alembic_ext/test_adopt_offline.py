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


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_an_empty_table_needs_nothing(engine: Engine, tmp_path: Path) -> None:
    Museum(engine, tmp_path).open()
    with engine.connect() as connection:
        connection.execute(text(guard(engine.dialect, Plan("docs", "data", "file", Blobs()), back=False)))
