"""Without a database a migration writes SQL, that says what has to be run, and fails if it was not."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, MetaData, null, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from alembic_ext.adoption.offline import guard
from sa_attachments import Attachment
from sa_attachments.adoption import Blobs, Depot, Paths, Plan
from sa_attachments.ledger import Ledger
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
    assert "ALTER TABLE docs ADD COLUMN IF NOT EXISTS file JSONB" in said
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


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_the_way_back_does_not_mind_that_the_old_column_is_there(engine: Engine, tmp_path: Path) -> None:
    """As online: a migration that drops it is another one, and perhaps still to come."""
    Museum(engine, tmp_path).open()
    said = script("postgresql", lambda op: op.restore_blob_column("docs", "data", "file", create=True))
    play(engine, said)


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
@pytest.mark.parametrize("value", ["null", "[]", "[ null,\n null ]"])
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


def test_percent_signs_are_written_once() -> None:
    said = script("mariadb", lambda op: op.adopt_path_column("docs", "a%", "file", root="a:b", prefix="100%"))
    assert "`a%` IS NOT NULL" in said
    assert "--root a:b --prefix 100%' UNION" in said


def play(engine: Engine, said: str) -> None:
    """Run the script; it stops at the first error."""
    lines = [line for line in said.splitlines() if line and not line.startswith("--")]
    with engine.connect() as connection:
        for statement in "\n".join(lines).split(";\n"):
            if not statement.startswith(("BEGIN", "COMMIT")):
                connection.exec_driver_sql(statement.replace("%", "%%") if _formats(engine) else statement)


def ending(engine: Engine, kind: str, table: str = "docs", column: str = "file", **schemas: str) -> str:
    return script(engine.dialect.name, lambda op: getattr(op, f"{kind}_adoption")(table, column, **schemas))


def adopted(museum: Museum) -> None:
    """One file from a path, one from bytes, and one that was uploaded since."""
    museum.lay("it's", b"a")
    museum.insert({"id": 1, "path": "it's", "data": None}, {"id": 2, "path": None, "data": b"b"})
    museum.insert({"id": 3})
    museum.migrate(lambda op: op.adopt_path_column("docs", "path", "file", root=museum.root))
    museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"))
    with Session(museum.engine) as session:
        said = {"adopted": {"path": "said by a user"}}
        session.get_one(museum.Doc, 3).file = Attachment.upload(b"c", "c.txt", metadata=said)
        session.commit()
    assert sorted(museum.lines().values()) == [("owned", False), ("owned", False), ("owned", True)]


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
@pytest.mark.parametrize("column", ["file", "pages"])
def test_the_end_fails_as_long_as_files_are_held(engine: Engine, tmp_path: Path, column: str) -> None:
    """Else the migration says that it was finished, and nothing that is dropped later is ever purged."""
    museum = Museum(engine, tmp_path).open()
    finished, held = ending(engine, "finish", column=column), ending(engine, "hold", column=column)
    play(engine, finished)
    play(engine, held)
    adopted(museum)
    if column == "pages":
        with engine.begin() as connection:
            for number, facts in museum.facts().items():
                values = {"pages": [facts], "file": null()}
                connection.execute(museum.docs.update().where(museum.docs.c.id == number).values(values))
            connection.execute(museum.ledger.lines.update().values(owner_column=column))
    play(engine, held)
    with pytest.raises(DBAPIError):
        play(engine, finished)
    museum.migrate(lambda op: op.finish_adoption("docs", column))
    play(engine, finished)
    with pytest.raises(DBAPIError):
        play(engine, held)
    museum.migrate(lambda op: op.hold_adoption("docs", column))
    play(engine, held)
    with pytest.raises(DBAPIError):
        play(engine, finished)


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_the_end_fails_for_what_was_dropped_meanwhile(engine: Engine, tmp_path: Path) -> None:
    museum = Museum(engine, tmp_path).open()
    adopted(museum)
    with Session(engine) as session:
        session.delete(session.get_one(museum.Doc, 1))
        session.commit()
    assert ("condemned", True) in museum.lines().values()
    said = ending(engine, "finish")
    before, _, after = said.partition("--   sa-attachments adopt finish docs file\n")
    assert "run first: sa-attachments adopt finish docs file" in after
    assert "run first" not in before
    reasons = {
        "postgresql": r"RaiseException\) run first: sa-attachments adopt finish docs file\n",
        "sqlite": "malformed JSON",
        "mysql": "more than 1 row",
    }
    with pytest.raises(DBAPIError, match=reasons[engine.dialect.name]):
        play(engine, said)
    play(engine, ending(engine, "finish", column="pages"))
    museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    play(engine, said)


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_the_end_fails_for_what_was_adopted_under_another_name(engine: Engine, tmp_path: Path) -> None:
    museum = Museum(engine, tmp_path).open()
    adopted(museum)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE docs RENAME TO papers")
    with pytest.raises(DBAPIError):
        play(engine, ending(engine, "finish", "papers"))
    museum.migrate(lambda op: op.finish_adoption("papers", "file"))
    play(engine, ending(engine, "finish", "papers"))


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_the_end_does_not_stumble_over_what_is_no_descriptor(engine: Engine, tmp_path: Path) -> None:
    museum = Museum(engine, tmp_path).open()
    values: list[Any] = [None, 1, "x", [], ["x", None, [1]], {"adopted": {"path": "x"}}, {"key": 1, "adopted": "x"}]
    museum.insert(*({"id": number, "file": value} for number, value in enumerate(values)))
    if engine.dialect.name == "sqlite":
        museum.insert({"id": 99})
        with engine.begin() as connection:
            connection.exec_driver_sql("UPDATE docs SET file = '{\"key' WHERE id = 99")
    play(engine, ending(engine, "finish"))
    play(engine, ending(engine, "hold"))


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
@pytest.mark.parametrize("there", [True, False])
def test_the_end_asks_the_ledger_of_its_schema(engine: Engine, there: bool) -> None:
    ledger = Ledger(MetaData(schema="the books" if there else None))
    with engine.begin() as connection:
        connection.exec_driver_sql('CREATE SCHEMA "my app"')
        connection.exec_driver_sql('CREATE SCHEMA "the books"')
        connection.exec_driver_sql('CREATE TABLE "my app".docs (id INTEGER PRIMARY KEY, file JSONB)')
        ledger.lines.create(connection)
        line = {"key": "k", "storage": "s", "state": "owned", "owner_column": "file", "since": 0, "held": True}
        connection.execute(ledger.lines.insert().values(line | {"owner_table": "my app.docs"}))
    schemas = {"schema": "my app", **({"ledger_schema": "the books"} if there else {})}
    said = ending(engine, "finish", **schemas)
    with pytest.raises(DBAPIError, match="run first: sa-attachments adopt finish docs file --schema 'my app'"):
        play(engine, said)
    with engine.begin() as connection:
        connection.execute(ledger.lines.update().values(held=False))
    play(engine, said)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_an_empty_table_needs_nothing(engine: Engine, tmp_path: Path) -> None:
    Museum(engine, tmp_path).open()
    with engine.connect() as connection:
        connection.execute(text(guard(engine.dialect, Plan("docs", "data", "file", Blobs()), back=False)))
