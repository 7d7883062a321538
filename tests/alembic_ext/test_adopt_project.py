"""A project adopts what it has, by migrations that are run as a user runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.engines import ENGINES

from .projects import Project

SERVERS = [name for name in ENGINES if name in ("sqlite", "postgres", "mariadb")]

TABLE = """
op.create_table(
    "docs",
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("data", sa.LargeBinary, nullable=True),
    sa.Column("name", sa.String(50), nullable=True),
)
op.create_attachment_ledger()
"""


@pytest.fixture
def project(engine: Engine, tmp_path: Path) -> Project:
    """With a table from before, and storages that ``env.py`` names."""
    made = Project(tmp_path / "project", engine)
    made.edit('Storages("memory:")', f'Storages("local:{tmp_path}/files?durable=false")')
    made.edit("from models import Base", "from models import Base, files", "migrations/env.py")
    made.edit("render_as_batch=True,", "render_as_batch=True,\n        attachment_storages=files,", "migrations/env.py")
    made.write(TABLE.strip())
    made.alembic("upgrade", "head")
    return made


def fill(engine: Engine, rows: int) -> dict[int, bytes]:
    data = {n: b"content %d" % n for n in range(rows)}
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO docs (id, data, name) VALUES (:n, :d, :name)"),
            [{"n": n, "d": each, "name": f"{n}.txt"} for n, each in data.items()],
        )
    return data


def column(engine: Engine, name: str) -> dict[int, Any]:
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(text(f"SELECT id, {name} FROM docs"))}


def stored(folder: Path) -> set[bytes]:
    files = [path for path in (folder / "files").rglob("*") if path.is_file() and path.name[0] != "."]
    return {path.read_bytes() for path in files}


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_upgrade_offline_and_downgrade(project: Project, engine: Engine, tmp_path: Path) -> None:
    data = fill(engine, 130)
    project.write(
        'op.adopt_blob_column("docs", "data", "file", filename="name", create=True)',
        'op.restore_blob_column("docs", "data", "file", create=True)\n'
        'with op.batch_alter_table("docs") as batch_op:\n    batch_op.drop_column("file")',
    )
    project.write(
        'with op.batch_alter_table("docs") as batch_op:\n    batch_op.drop_column("data")',
        'with op.batch_alter_table("docs") as batch_op:\n    batch_op.add_column(sa.Column("data", sa.LargeBinary))',
    )
    first, adoption, _ = project.revisions()
    said = project.alembic("upgrade", f"{first}:{adoption}", "--sql")
    assert "--   sa-attachments adopt blob docs data file --filename name" in said
    assert re.search("ADD COLUMN (IF NOT EXISTS )?file JSON", said)
    assert stored(tmp_path) == set()

    project.alembic("upgrade", "head")
    facts = {n: each if isinstance(each, dict) else json.loads(each) for n, each in column(engine, "file").items()}
    assert {n: each["filename"] for n, each in facts.items()} == {n: f"{n}.txt" for n in data}
    assert stored(tmp_path) == set(data.values())

    project.alembic("downgrade", first)
    assert {n: bytes(each) for n, each in column(engine, "data").items()} == data
    assert stored(tmp_path) == set()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM attachment_ledger")) == 0
    project.alembic("upgrade", adoption)
    assert stored(tmp_path) == set(data.values())


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_a_migration_that_failed_is_run_again(project: Project, engine: Engine, tmp_path: Path) -> None:
    data = fill(engine, 250)
    (tmp_path / "media").mkdir()
    for number in data:
        (tmp_path / "media" / f"{number}.txt").write_bytes(data[number])
    lost = tmp_path / "media" / "249.txt"
    lost.chmod(0)
    lost.unlink()
    lost.mkdir()
    project.write(
        f'op.adopt_path_column("docs", "name", "file", root="{tmp_path}/media", create=True)',
        f'op.restore_path_column("docs", "name", "file", root="{tmp_path}/media")',
    )
    code, said = project.try_alembic("upgrade", "head")
    assert code == 1
    assert "nothing was changed, since rows can't be adopted: row (249,): '249.txt' is no regular file" in said
    assert stored(tmp_path) == set()
    lost.rmdir()
    lost.write_bytes(data[249])
    project.alembic("upgrade", "head")
    assert stored(tmp_path) == set(data.values())
    project.alembic("downgrade", "-1")
    assert column(engine, "name") == {n: f"{n}.txt" for n in data}
    assert stored(tmp_path) == set()
