"""Nothing is condemned because no row is seen that names it, unless all rows are seen that may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, create_engine, event, inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.util import greenlet_spawn

from sa_attachments import Attachment, AttachmentType, FileMissing, Storages
from sa_attachments.descriptor import Named
from sa_attachments.ledger import Ledger, Line
from sa_attachments.queries import CONDEMNED, OWNED
from sa_attachments.sight import Sight, keys_in
from sa_attachments.verify import VerifyReport
from tests import engines
from tests.archive import DIALECTS, NO_TIME, Archive

on = pytest.mark.parametrize
everywhere = on("engine", DIALECTS, indirect=True)
postgres = on("engine", ["postgres"], indirect=True)
mariadb = pytest.mark.skipif(engines.MARIADB is None, reason="no MariaDB")


class Town:
    """``Storages`` and a model ``Doc``, in several schemas perhaps."""

    def __init__(
        self, *, ledger: MetaData | None = None, schema: str | None = None, retain: timedelta = NO_TIME
    ) -> None:
        self.files = files = Storages("memory:", ledger=ledger, retain=retain)

        class Base(DeclarativeBase):
            metadata = MetaData()

        class Doc(Base):
            __tablename__ = "docs"
            __table_args__ = {"schema": schema}  # noqa: RUF012 - SQLAlchemy's form
            id: Mapped[int] = mapped_column(primary_key=True)
            file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))

        self.Base, self.Doc = Base, Doc

    def keep(self, engine: Engine, data: bytes) -> None:
        with Session(engine) as session:
            session.add(self.Doc(id=1, file=data))
            session.commit()
        assert self.files.settled(20)

    def verify(self, engine: Engine) -> VerifyReport:
        """Mend, then sweep."""
        report = self.files.verify(engine, repair=True)
        self.files.sweep(engine, grace=NO_TIME, stranger_retain=NO_TIME)
        return report

    def read(self, engine: Engine) -> bytes | None:
        with Session(engine) as session:
            file = session.get_one(self.Doc, 1).file
            return file and file.read()

    def stored(self) -> int:
        return sum(not key.startswith(".") for key, _ in self.files.resolve("default").keys())  # noqa: SIM118


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def kinds(report: VerifyReport) -> list[tuple[str, bool]]:
    return [(finding.kind, finding.repaired) for finding in report.findings]


# Schemas


@pytest.fixture
def schemas(engine: Engine, tmp_path: Any) -> Iterator[list[str]]:
    """Three of them."""
    names = [f"{each}_{uuid4().hex[:8]}" for each in ("shared", "one", "two")]
    if engine.dialect.name == "sqlite":

        @event.listens_for(engine, "connect")
        def connect(driver: Any, _: object) -> None:
            for name in names:
                driver.execute(f"ATTACH '{tmp_path}/{name}.db' AS {name}")

        yield names
        return
    run(engine, *(f"CREATE SCHEMA {name}" for name in names))
    yield names
    if engine.dialect.name != "postgresql":
        run(engine, *(f"DROP SCHEMA {name}" for name in names))


@everywhere
def test_a_ledger_that_tenants_share(engine: Engine, schemas: list[str]) -> None:
    shared = MetaData(schema=schemas[0])
    town = Town(ledger=shared)
    shared.create_all(engine)
    tenants = [engine.execution_options(schema_translate_map={None: name}) for name in schemas[1:]]
    for tenant, data in zip(tenants, (b"one", b"two"), strict=True):
        town.Base.metadata.create_all(tenant)
        town.keep(tenant, data)
    for tenant in tenants:
        report = town.verify(tenant)
        assert kinds(report) == []
        assert "nobody can tell whether rows name all of its files" in report.problems["docs.file"]
        assert not report.ok
    assert [town.read(tenant) for tenant in tenants] == [b"one", b"two"]


@everywhere
def test_a_ledger_that_tenants_share_with_their_pattern(engine: Engine, schemas: list[str]) -> None:
    """Who does not translate sees an empty table beside the ledger."""
    home = {"sqlite": "main", "postgresql": "public"}.get(engine.dialect.name, engine.url.database)
    shared = MetaData(schema=home)
    town = Town(ledger=shared)
    tenant = engine.execution_options(schema_translate_map={None: schemas[1]})
    shared.create_all(engine)
    for each in (engine, tenant):
        town.Base.metadata.create_all(each)
    town.keep(tenant, b"file")
    report = town.verify(engine)
    assert (kinds(report), list(report.problems)) == ([], ["docs.file"])
    assert town.read(tenant) == b"file"


@everywhere
def test_tenants_with_ledgers_of_their_own_hide_nothing_from_each_other(engine: Engine, schemas: list[str]) -> None:
    town = Town()
    tenants = [engine.execution_options(schema_translate_map={None: name}) for name in schemas[1:]]
    for tenant in tenants:
        town.Base.metadata.create_all(tenant)
    town.keep(tenants[0], b"file")
    run(engine, f"DELETE FROM {schemas[1]}.docs")
    report = town.verify(tenants[0])
    assert (kinds(report), report.ok, town.stored()) == ([("unnamed", True)], True, 0)
    town.keep(tenants[0], b"file")
    run(engine, f"DROP TABLE {schemas[1]}.docs")
    report = town.verify(tenants[0])
    assert (kinds(report), report.ok, town.stored()) == ([("ownerless", True)], True, 0)


@on("engine", [name for name in DIALECTS if name != "sqlite"], indirect=True)
@on("way", ["copied", "moved"])
def test_rows_that_went_to_a_tenant_with_a_ledger_of_its_own(engine: Engine, schemas: list[str], way: str) -> None:
    """Without their lines: their files were condemned."""
    town, theirs = Town(), schemas[1]
    town.Base.metadata.create_all(engine)
    town.keep(engine, b"file")
    tenant = engine.execution_options(schema_translate_map={None: theirs})
    if way == "copied":
        town.Base.metadata.create_all(tenant)
        run(engine, f"INSERT INTO {theirs}.docs SELECT * FROM docs", "DELETE FROM docs")
    else:
        to = "ALTER TABLE docs SET SCHEMA {}" if engine.dialect.name == "postgresql" else "RENAME TABLE docs TO {}.docs"
        run(engine, to.format(theirs))
        town.Base.metadata.create_all(tenant)
    report = town.verify(engine)
    assert (kinds(report), dict(report.unmapped)) == ([], {f"{theirs}.docs.file": 1})
    assert town.read(tenant) == b"file"


@postgres
@on("home", ["public", "another"])
def test_a_ledger_that_search_paths_share(engine: Engine, home: str) -> None:
    town = Town()
    run(engine, *(f"CREATE SCHEMA {name}" for name in ("one", "two")))
    tables = [table for table in town.Base.metadata.tables.values() if table.name != "docs"]
    town.Base.metadata.create_all(engine, tables=tables)
    paths = ["two,public", "public" if home == "public" else "one,public"]
    opened = [create_engine(engine.url, connect_args={"options": f"-csearch_path={path}"}) for path in paths]
    for each in opened:
        town.Base.metadata.create_all(each, tables=[town.Base.metadata.tables["docs"]], checkfirst=False)
        town.keep(each, b"file")
    try:
        report = town.verify(opened[1])
        assert kinds(report) == []
        assert "two.docs may have rows that name them, too" in report.problems["docs.file"]
        assert town.read(opened[0]) == b"file"
    finally:
        for each in opened:
            each.dispose()


@postgres
def test_a_mapped_schema_that_stands_for_others(engine: Engine) -> None:
    """There is a pattern of that name, which whoever does not translate it sees."""
    town = Town(schema="tenant")
    run(engine, "CREATE SCHEMA tenant", "CREATE SCHEMA one")
    for schema in ("tenant", "one"):
        tenant = engine.execution_options(schema_translate_map={"tenant": schema})
        town.Base.metadata.create_all(tenant)
    town.keep(tenant, b"file")
    assert kinds(town.verify(engine)) == []
    assert town.read(tenant) == b"file"


@postgres
def test_tables_of_several_schemas_with_one_ledger(engine: Engine) -> None:
    """All are compared, so that nothing is hidden, though two have the same name."""
    town = Town(schema="sales")

    class Other(town.Base):  # type: ignore[misc, name-defined]
        __tablename__ = "docs"
        __table_args__ = {"schema": "people"}  # noqa: RUF012 - SQLAlchemy's form
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(town.files))

    run(engine, "CREATE SCHEMA sales", "CREATE SCHEMA people")
    town.Base.metadata.create_all(engine)
    town.keep(engine, b"file")
    with Session(engine) as session:
        session.add(Other(id=1, file=b"other"))
        session.commit()
    run(engine, "DELETE FROM people.docs")
    report = town.verify(engine)
    assert (kinds(report), report.ok) == ([("unnamed", True)], True)
    assert (town.stored(), town.read(engine)) == (1, b"file")


@on(("engine", "way"), [*((name, "translated") for name in DIALECTS), ("postgres", "by path")], indirect=["engine"])
def test_no_tenant_takes_back_what_another_one_dropped(
    engine: Engine, open_engine: Callable[..., Engine], schemas: list[str], way: str
) -> None:
    shared = MetaData(schema=schemas[0])
    town = Town(ledger=shared, retain=timedelta(days=1))
    shared.create_all(engine)
    tenants = [engine.execution_options(schema_translate_map={None: name}) for name in schemas[1:]]
    for tenant in tenants:
        town.Base.metadata.create_all(tenant)
    if way == "by path":
        paths = [{"options": f"-csearch_path={name}"} for name in schemas[1:]]
        tenants = [open_engine(engine.url, connect_args=path) for path in paths]
    for tenant, data in zip(tenants, (b"one", b"two"), strict=True):
        town.keep(tenant, data)
        with Session(tenant) as session:
            session.get_one(town.Doc, 1).file = None
            session.commit()
    for tenant, data in zip(tenants, (b"one", b"two"), strict=True):
        with Session(tenant) as session:
            assert town.files.restore(session, town.Doc.file, 1).read() == data
            session.commit()
            with pytest.raises(FileMissing):
                town.files.restore(session, town.Doc.file, 1)
    assert [town.read(tenant) for tenant in tenants] == [b"one", b"two"]


# Rows that are hidden


@everywhere
def test_a_view_may_hide_rows(engine: Engine) -> None:
    town = Town()
    town.Base.metadata.create_all(engine)
    town.keep(engine, b"file")
    run(engine, "ALTER TABLE docs RENAME TO kept", "ALTER TABLE kept ADD COLUMN gone INT DEFAULT 1")
    run(engine, "CREATE VIEW docs AS SELECT id, file FROM kept WHERE gone = 0")
    report = town.verify(engine)
    assert kinds(report) == []
    assert "docs is no table" in report.problems["docs.file"]
    run(engine, "UPDATE kept SET gone = 0")
    assert town.verify(engine).ok
    assert town.read(engine) == b"file"


@pytest.fixture
def role(engine: Engine, open_engine: Callable[..., Engine]) -> Iterator[Engine]:
    """An engine of somebody who may use all tables that are made from now on, and is no superuser."""
    name = f"sa_attachments_{uuid4().hex[:8]}"
    run(
        engine,
        f"CREATE ROLE {name}",
        f"GRANT EXECUTE ON FUNCTION pg_control_system() TO {name}",
        f"GRANT USAGE ON SCHEMA public TO {name}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {name}",
    )
    opened = open_engine(engine.url, connect_args={"options": f"-crole={name}"})
    yield opened
    opened.dispose()
    run(engine, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@postgres
def test_a_tenant_with_a_ledger_of_its_own_may_hide_its_tables(engine: Engine, role: Engine) -> None:
    town = Town()
    run(engine, "CREATE SCHEMA one")
    for schema in (None, "one"):
        town.Base.metadata.create_all(engine.execution_options(schema_translate_map={None: schema}))
    town.keep(engine, b"file")
    run(engine, "DELETE FROM public.docs")
    report = town.verify(role)
    assert (kinds(report), report.ok, town.stored()) == ([("unnamed", True)], True, 0)


@postgres
def test_row_level_security_may_hide_rows(engine: Engine, role: Engine) -> None:
    town = Town()
    town.Base.metadata.create_all(engine)
    town.keep(engine, b"file")
    run(engine, "ALTER TABLE docs ENABLE ROW LEVEL SECURITY", "CREATE POLICY none ON docs USING (false)")
    report = town.verify(role)
    assert kinds(report) == []
    assert "row level security hides rows of public.docs" in report.problems["docs.file"]
    assert town.read(engine) == b"file"
    run(engine, "DELETE FROM docs")
    assert kinds(town.verify(engine)) == [("unnamed", True)]  # The owner sees all.


# Owners that are gone


@everywhere
@on("what", ["table", "column"])
@on("mapped", [True, False])
def test_what_was_dropped_leaves_files_without_an_owner(engine: Engine, what: str, mapped: bool) -> None:
    archive = Archive(engine)
    (id_,) = archive.keep(b"one", pages=[])
    key = archive.key(id_)
    run(engine, "DROP TABLE docs" if what == "table" else "ALTER TABLE docs DROP COLUMN file")
    if not mapped:
        archive.files.columns.clear()
        archive.files._ledger = archive.ledger
    report = archive.files.verify(engine)
    assert kinds(report) == [("ownerless", False)]
    assert report.findings[0].where == "ledger, for docs.file, which is not in the database"
    assert (report.ok, archive.states()) == (False, {key: OWNED})
    report = archive.files.verify(engine, repair=True)
    assert (kinds(report), report.ok) == ([("ownerless", True)], True)
    assert archive.states() == {key: CONDEMNED}
    archive.sweep()
    assert archive.stored() == {}
    assert archive.files.verify(engine).ok


@everywhere
def test_a_table_that_was_renamed_keeps_its_files(engine: Engine) -> None:
    """Whoever knows it by its new name may not be imported here."""
    archive = Archive(engine)
    archive.keep(b"one", b"two")
    run(engine, "ALTER TABLE docs RENAME TO papers")
    report = archive.files.verify(engine, repair=True)
    schema = {"sqlite": "main", "postgresql": "public"}.get(engine.dialect.name, engine.url.database)
    assert (kinds(report), report.unmapped) == ([], {f"{schema}.papers.file": 2})
    run(engine, "DELETE FROM papers WHERE id = 1")
    assert kinds(archive.files.verify(engine, repair=True)) == [("ownerless", True)]
    archive.sweep()
    assert list(archive.stored().values()) == [b"two"]

    class Paper(archive.Base):  # type: ignore[misc, name-defined]
        __tablename__ = "papers"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(archive.files))

    report = archive.files.verify(engine, repair=True)
    assert (report.findings, report.unmapped, report.ok) == ([], {}, True)


RENAMED = {
    "table": ["ALTER TABLE docs RENAME TO papers", "CREATE TABLE docs AS SELECT * FROM papers WHERE id < 0"],
    "column": ["ALTER TABLE docs RENAME COLUMN file TO papers", "ALTER TABLE docs ADD COLUMN file JSON"],
    "rows": ["CREATE TABLE papers AS SELECT * FROM docs", "DELETE FROM docs"],
}


@everywhere
@on("what", RENAMED)
def test_what_has_another_name_keeps_its_files_though_something_else_has_its_own(engine: Engine, what: str) -> None:
    archive = Archive(engine)
    archive.keep(b"one", b"two")
    run(engine, *RENAMED[what])
    report = archive.files.verify(engine, repair=True)
    assert (kinds(report), list(report.unmapped.values())) == ([], [2])
    table, column = ("docs", "papers") if what == "column" else ("papers", "file")
    run(engine, f"UPDATE {table} SET {column} = NULL WHERE id = 1")
    assert kinds(archive.files.verify(engine, repair=True)) == [("unnamed", True)]
    archive.sweep()
    assert list(archive.stored().values()) == [b"two"]


@mariadb
@on("engine", ["mariadb"], indirect=True)
@on("ledger", [True, False])
def test_a_table_that_went_to_another_database_keeps_its_files(
    engine: Engine, schemas: list[str], ledger: bool
) -> None:
    """One with a ledger of its own, too: the line did not go with it."""
    archive = Archive(engine)
    archive.keep(b"one")
    run(engine, f"ALTER TABLE docs RENAME TO {schemas[1]}.papers")
    if ledger:
        run(engine, f"CREATE TABLE {schemas[1]}.attachment_ledger LIKE attachment_ledger")
    report = archive.files.verify(engine, repair=True)
    assert kinds(report) == []
    assert report.unmapped == {f"{schemas[1]}.papers.file": 1}


@everywhere
def test_a_text_may_name_what_has_no_owner(engine: Engine) -> None:
    archive = Archive(engine)
    (id_,) = archive.keep(b"one")
    run(engine, "CREATE TABLE notes (body TEXT)")
    with archive.session() as session:
        said = session.get_one(archive.Doc, id_).file
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO notes VALUES (:said)"), {"said": said and said.to_json()})
    run(engine, "DROP TABLE docs")
    assert kinds(archive.files.verify(engine, repair=True)) == []
    run(engine, "DROP TABLE notes")
    assert kinds(archive.files.verify(engine, repair=True)) == [("ownerless", True)]


@everywhere
def test_what_documents_own_has_no_column(engine: Engine) -> None:
    archive = Archive(engine)
    key = archive.stranger(data=b"document")
    with engine.begin() as connection:
        archive.ledger.adopt(connection, Line(Named("default", key, 8), "documents", ""))
    report = archive.files.verify(engine, repair=True)
    assert (report.findings, report.unmapped, archive.states()) == ([], {}, {key: OWNED})


@everywhere
def test_a_row_that_takes_what_has_no_owner_keeps_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = Archive(engine)
    key = archive.key(*archive.keep(b"one"))
    archive.change(key, owner_column="scan")
    run(engine, "UPDATE docs SET file = NULL")

    def elsewhere(*_: Any) -> tuple[dict[str, str], None]:
        archive.change(key, owner_column="file")
        return {}, None

    monkeypatch.setattr(Sight, "elsewhere", elsewhere)
    assert kinds(archive.files.verify(engine, repair=True)) == []
    assert archive.states() == {key: OWNED}


@postgres
@on("why", ["row level security hides rows of public.hidden", "permission denied for table hidden"])
def test_where_not_all_can_be_read_nothing_is_condemned(engine: Engine, role: Engine, why: str) -> None:
    archive = Archive(engine)
    key = archive.key(*archive.keep(b"one"))
    run(engine, "DROP TABLE docs", "CREATE TABLE hidden (body JSONB)")
    with role.connect() as connection:
        name = connection.scalar(text("SELECT current_user"))
    secure, revoke = "ALTER TABLE hidden ENABLE ROW LEVEL SECURITY", f"REVOKE ALL ON hidden FROM {name}"
    run(engine, secure if "row" in why else revoke)
    report = archive.files.verify(role, repair=True)
    assert kinds(report) == [("ownerless", False)]
    assert f"nothing is condemned, as {'' if 'row' in why else 'public.hidden.body could not be read: '}{why}" in (
        report.findings[0].where
    )
    assert archive.states() == {key: OWNED}


@mariadb
@on("engine", ["mariadb"], indirect=True)
def test_who_may_not_see_all_tables_condemns_nothing_without_an_owner(
    engine: Engine, open_engine: Callable[..., Engine]
) -> None:
    archive = Archive(engine)
    key = archive.key(*archive.keep(b"one"))
    name = f"user_{uuid4().hex[:8]}"
    grants = [
        f"GRANT ALL ON {engine.url.database}.{table} TO {name}@'%'" for table in inspect(engine).get_table_names()
    ]
    run(engine, f"CREATE USER {name}@'%' IDENTIFIED BY 'x'", *grants, "ALTER TABLE docs RENAME TO papers")
    try:
        run(engine, "RENAME TABLE papers TO others")  # The grant stays with the old name.
        user = open_engine(engine.url.set(username=name, password="x"))
        report = archive.files.verify(user, repair=True)
        assert kinds(report) == [("ownerless", False)]
        assert "this user may not see all tables of the database" in report.findings[0].where
        assert archive.states() == {key: OWNED}
    finally:
        run(engine, f"DROP USER {name}@'%'")


async def test_averify(async_engine: AsyncEngine) -> None:
    archive = await greenlet_spawn(Archive, async_engine.sync_engine)
    await greenlet_spawn(archive.keep, b"one")
    async with async_engine.begin() as connection:
        await connection.execute(text("CREATE TABLE notes (body TEXT)"))
        await connection.execute(text("INSERT INTO notes SELECT file FROM docs"))
        await connection.execute(text("DROP TABLE docs"))
    report = await archive.files.averify(async_engine, repair=True)
    assert (report.findings, sum(report.unmapped.values())) == ([], 1)
    async with async_engine.begin() as connection:
        await connection.execute(text("DELETE FROM notes"))
    report = await archive.files.averify(async_engine, repair=True)
    assert kinds(report) == [("ownerless", True)]


# What the database knows


@everywhere
def test_what_is_not_listed_as_a_table_is_in_doubt(engine: Engine) -> None:
    archive = Archive(engine)
    run(engine, "ALTER TABLE docs RENAME TO papers")
    with engine.connect() as connection:
        sight = Sight(connection, archive.ledger, [archive.Doc.__table__.c.file], [])
    assert not sight.knows(("docs", "file"))
    assert sight.doubt(("docs", "file")) == "the database does not list it among its tables"


@on("engine", [each for each in DIALECTS if each != "postgres"], indirect=True)
def test_capitals_are_no_other_name_where_the_database_does_not_tell_them(engine: Engine) -> None:
    archive = Archive(engine)
    with engine.connect() as connection:
        sight = Sight(connection, archive.ledger, [], [("DOCS", "File")])
    assert sight.knows(("DOCS", "File"))
    assert not sight.knows(("cs", "file"))


@postgres
def test_capitals_are_another_name_on_postgresql(engine: Engine) -> None:
    archive = Archive(engine)
    archive.keep(b"one")
    run(engine, 'CREATE TABLE "Docs" AS SELECT * FROM docs', "DELETE FROM docs")
    report = archive.files.verify(engine, repair=True)
    assert (kinds(report), report.unmapped) == ([], {"public.Docs.file": 1})


@on("engine", ["sqlite"], indirect=True)
def test_a_view_of_what_is_gone_is_no_obstacle(engine: Engine) -> None:
    archive = Archive(engine)
    archive.keep(b"one")
    run(engine, "CREATE VIEW old AS SELECT file FROM docs", "DROP TABLE docs")
    assert kinds(archive.files.verify(engine, repair=True)) == [("ownerless", True)]


@on("engine", ["sqlite"], indirect=True)
def test_a_name_with_a_dot(engine: Engine) -> None:
    metadata = MetaData()
    ledger = Ledger.of(metadata)
    Table("old.docs", metadata, Column("id", Integer))
    metadata.create_all(engine)

    def sight(connection: Connection) -> Sight:
        return Sight(connection, ledger, [], [("old.docs", "id")])

    with engine.connect() as connection:
        assert sight(connection).knows(("old.docs", "id"))
        assert sight(connection).doubt(("old.docs", "id")) is not None


def test_keys_in_texts() -> None:
    assert list(keys_in('{"key": "a/\\u00e9", "metadata": {"key" :"b\\"c"}}')) == ["a/é", 'b"c']
    assert list(keys_in('{"key": 7, "keys": "no", "key": "\\x"}')) == []
