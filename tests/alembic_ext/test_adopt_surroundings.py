"""Where adoption runs: under asyncio, beside triggers, in migrations that a server's settings surround."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session

from alembic_ext.adoption import migration
from sa_attachments import NoTransaction
from sa_attachments.adoption import Paths, Plan, adopt, finish, restore
from sa_attachments.adoption.rows import Rows
from tests.engines import ENGINES, MARIADB, with_driver

from .museum import Museum

SERVERS = [name for name in ENGINES if name in ("sqlite", "postgres", "mariadb")]


def roundtrip(op: Any) -> tuple[int, int]:
    adopted = op.adopt_blob_column("docs", "data", "file")
    return adopted.rows, op.restore_blob_column("docs", "data", "file").rows


@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)
async def test_under_asyncio(engine: Engine, tmp_path: Path) -> None:
    museum = Museum(engine, tmp_path).open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(230)))
    driver = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}[engine.dialect.name]
    asynchronous: AsyncEngine = create_async_engine(with_driver(engine.url, driver))

    def migrate(connection: Any) -> tuple[int, int]:
        context = MigrationContext.configure(connection, opts={"attachment_storages": museum.files})
        with context.begin_transaction(), context.begin_transaction(_per_migration=True):
            return roundtrip(Operations(context))

    async with asynchronous.connect() as connection:
        assert await connection.run_sync(migrate) == (230, 230)
    await asynchronous.dispose()
    assert museum.stored() == set()
    assert museum.lines() == {}


@pytest.mark.skipif(MARIADB is None, reason="no MariaDB")
@pytest.mark.parametrize("engine", ["mariadb"], indirect=True)
def test_a_table_that_takes_part_in_no_transaction(engine: Engine, tmp_path: Path) -> None:
    """A batch that is killed would leave its names in the rows, and nobody would own the files."""
    museum = Museum(engine, tmp_path).open()
    museum.insert({"id": 1, "data": b"hello"})
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE docs ENGINE=MyISAM"))
    with pytest.raises(NoTransaction, match="the table 'docs' has the engine MyISAM"):
        museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file"))
    assert (museum.stored(), museum.facts(), museum.lines()) == (set(), {}, {})


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
@pytest.mark.parametrize("kind", ["blob", "in_place"])
def test_beside_triggers_that_count_names(engine: Engine, tmp_path: Path, kind: str) -> None:
    museum = Museum(engine, tmp_path).open()
    for number in range(20):
        museum.lay(f"file-{number:02}", b"%d" % number)
    museum.insert(*({"id": n, "data": b"%d" % n, "path": f"file-{n:02}"} for n in range(20)))
    museum.migrate(lambda op: op.create_attachment_triggers("docs", ["file", "pages"]))

    def call(op: Any, verb: str) -> Any:
        if kind == "blob":
            return getattr(op, f"{verb}_blob_column")("docs", "data", "file")
        return getattr(op, f"{verb}_path_column")("docs", "path", "file", mode="in_place", storage="old")

    museum.migrate(lambda op: call(op, "adopt"))
    assert museum.problems() == []
    names = museum.ledger.lines.select().with_only_columns(museum.ledger.lines.c.names)
    with engine.begin() as connection:
        assert connection.execute(names).scalars().all() == [1] * 20
        connection.execute(text("DELETE FROM docs WHERE id = 3"))
    assert museum.sweep().ok
    assert sorted(museum.lines().values())[:2] == [("condemned", True), ("owned", True)] if kind == "in_place" else True
    assert len(museum.stored("default")) == (19 if kind == "blob" else 0)
    assert len(museum.stored("old")) == 20, "held"
    museum.migrate(lambda op: call(op, "restore"))
    assert museum.lines() == {}
    assert museum.stored("default") == set()
    assert museum.stored("old") == {f"file-{n:02}" for n in range(20) if n != 3 or kind == "blob"}


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
@pytest.mark.parametrize("level", ["AUTOCOMMIT", "SERIALIZABLE"])
def test_whatever_the_isolation_of_the_migration_is(
    engine: Engine, tmp_path: Path, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    museum = Museum(engine.execution_options(isolation_level=level), tmp_path)
    museum.open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(150)))
    assert museum.migrate(roundtrip) == (150, 150)

    def fail(*_: Any) -> None:
        raise ArithmeticError

    with monkeypatch.context() as patched:
        patched.setattr(Rows, "name", fail)
        with pytest.raises(ArithmeticError):
            museum.migrate(roundtrip)
    with museum.engine.connect() as connection:
        assert museum.lines() == {}
        assert connection.get_execution_options()["isolation_level"] == level


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_tells_the_log_how_far_it_is(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(migration, "_PAUSE", 0)
    museum = Museum(engine, tmp_path).open()
    museum.insert(*({"id": n, "data": b"%d" % n} for n in range(250)))
    with engine.begin() as connection:
        connection.execute(text("UPDATE docs SET data = 'a text' WHERE id = 7"))
    with caplog.at_level("INFO", "alembic.sa_attachments"):
        museum.migrate(lambda op: op.adopt_blob_column("docs", "data", "file", policy="skip"))
    assert [record.getMessage() for record in caplog.records if record.name == "alembic.sa_attachments"] == [
        "docs.data adopted into file: 100 of 250 rows",
        "docs.data adopted into file: 200 of 250 rows",
        "docs.data adopted into file: 250 of 250 rows",
        "docs.data adopted into file: 249 rows, 249 files, 639 bytes; 1 row not adopted: 1 unreadable",
        "docs.data: left alone: row (7,): docs.data holds text where bytes are due",
    ]


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_a_tenant_by_its_search_path(engine: Engine, tmp_path: Path) -> None:
    """Alembic's recipe for many tenants: the connection's search path says whose tables are meant."""
    museum = Museum(engine, tmp_path).open()
    with engine.connect() as connection:
        connection.execute(text("CREATE SCHEMA tenant"))
        connection.execute(text("SET search_path TO tenant"))
        connection.commit()
        connection.dialect.default_schema_name = "tenant"
        museum.metadata.create_all(connection)
        connection.execute(museum.docs.insert(), [{"id": 1, "data": b"hello"}])
        connection.commit()
        context = MigrationContext.configure(connection, opts={"attachment_storages": museum.files})
        with context.begin_transaction(), context.begin_transaction(_per_migration=True):
            assert Operations(context).adopt_blob_column("docs", "data", "file").rows == 1  # type: ignore[attr-defined]
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM tenant.attachment_ledger")) == 1
        assert connection.scalar(text("SELECT count(*) FROM public.attachment_ledger")) == 0


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
@pytest.mark.parametrize("verb", ["finish", "restore"])
@pytest.mark.parametrize("told", [False, True])
def test_tenants_that_share_a_ledger_leave_alone_what_the_others_dropped(
    engine: Engine, tmp_path: Path, verb: str, told: bool
) -> None:
    """Whose schema is told lets go of what it dropped itself."""
    museum = Museum(engine, tmp_path)
    museum.ledger.lines.create(engine)
    museum.ledger.places.create(engine)
    tenants = []
    for name in ("one", "two"):
        museum.lay(f"{name}.txt", b"file")
        with engine.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {name}"))
        tenants.append(create_engine(engine.url, connect_args={"options": f"-csearch_path={name},public"}))
    for tenant, name in zip(tenants, ("one", "two"), strict=True):
        with tenant.begin() as connection:
            museum.docs.create(connection, checkfirst=False)
            connection.execute(museum.docs.insert(), [{"id": 1, "path": f"{name}.txt"}])
    origin = Paths(root=museum.root, mode="in_place")
    plans = [Plan("docs", "path", "file", origin, name if told else None, "old") for name in ("one", "two")]
    for tenant, plan in zip(tenants, plans, strict=True):
        with tenant.connect() as connection:
            assert adopt(connection, museum.files, plan).rows == 1
        with Session(tenant) as session:
            session.get_one(museum.Doc, 1).file = None
            session.commit()
        with tenant.begin() as connection:
            connection.execute(museum.docs.update().values(path=None))
    with tenants[0].connect() as connection:
        if verb == "finish":
            finish(connection, museum.files, "docs", "file", schema=plans[0].schema)
        else:
            restore(connection, museum.files, plans[0])
    museum.sweep()
    assert museum.stored("old") == {"two.txt"} | (set() if told else {"one.txt"})
    assert museum.lines()["old", "two.txt"] == ("condemned", True)
    for tenant in tenants:
        tenant.dispose()


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_what_a_migration_did_before_is_committed_with_the_first_batch(engine: Engine, tmp_path: Path) -> None:
    museum = Museum(engine, tmp_path).open()
    museum.insert({"id": 1, "data": b"hello"})

    def upgrade(op: Any) -> None:
        op.execute("UPDATE docs SET name = 'before'")
        op.adopt_blob_column("docs", "data", "file")
        op.execute("UPDATE docs SET name = 'after'")
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        museum.migrate(upgrade)
    assert museum.column("name") == {1: "before"}
    assert museum.problems() == []
    with Session(engine) as session:
        assert session.get_one(museum.Doc, 1).file.read() == b"hello"  # type: ignore[union-attr]


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_what_others_began_is_not_committed(engine: Engine, tmp_path: Path) -> None:
    museum = Museum(engine, tmp_path).open()
    museum.insert({"id": 1, "data": b"hello"})

    def in_autocommit(op: Any) -> None:
        with (
            op.get_context().autocommit_block(),
            pytest.raises(NoTransaction, match=r"outside of autocommit_block\(\)"),
        ):
            op.adopt_blob_column("docs", "data", "file")

    museum.migrate(in_autocommit)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"attachment_storages": museum.files})
        with connection.begin() as transaction:
            connection.execute(museum.docs.delete())
            with context.begin_transaction(), context.begin_transaction(_per_migration=True):
                with pytest.raises(NoTransaction, match="or a test, has begun"):
                    Operations(context).adopt_blob_column("docs", "data", "file")  # type: ignore[attr-defined]
                transaction.rollback()
                context._transaction = None
    assert museum.column("data") == {1: b"hello"}
    assert museum.facts() == {}
