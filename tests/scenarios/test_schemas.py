"""The tables, and the ledger with them, in a schema that only the options of engine, connection or statement name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, delete, event, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, LedgerMissing, Storages
from tests.engines import ASYNC_ENGINES, open_async_engine, with_driver

from .models import Base, Doc, files
from .world import World

on = pytest.mark.parametrize
TENANT: dict[str, Any] = {"schema_translate_map": {None: "tenant"}}


@pytest.fixture(params=["sqlite", "postgres", *ASYNC_ENGINES])
def tenants(request: pytest.FixtureRequest, tmp_path: Path, open_engine: Callable[..., Engine]) -> Iterator[World]:
    """A world with the same tables in the default schema and in ``tenant``."""
    in_files = "sqlite" in request.param
    url = f"sqlite:///{tmp_path}/test.db" if in_files else request.getfixturevalue("postgres_url")
    engines = [open_engine(url) for _ in range(2)]
    if request.param in ASYNC_ENGINES:
        engines[0] = open_async_engine(with_driver(url, request.param)).sync_engine
    if in_files:
        for engine in engines:
            event.listen(
                engine, "connect", lambda driver, _: driver.execute(f"ATTACH '{tmp_path}/tenant.db' AS tenant")
            )
    else:
        with engines[1].begin() as connection:
            connection.execute(text("CREATE SCHEMA tenant"))
    world = World(request.param, *engines)
    world.create(Base.metadata, schema="tenant")
    with files.override(world.storages):
        yield world


def rows(world: World, schema: str) -> int:
    with world.observer.connect() as connection:
        return int(connection.scalar(text(f"SELECT count(*) FROM {schema}docs")) or 0)


def by_engine(world: World) -> Session:
    return Session(world.engine.execution_options(**TENANT))


def by_connection(world: World) -> Session:
    session = Session(world.engine)

    @event.listens_for(session, "after_transaction_create")
    def choose(session: Session, transaction: Any) -> None:
        if transaction.parent is None:
            session.connection(execution_options=TENANT)

    return session


def by_session(world: World) -> Session:
    options: dict[str, Any] = {"execution_options": TENANT}
    return Session(world.engine, **options)


WAYS = {"engine": by_engine, "connection": by_connection}
if hasattr(Session, "execution_options"):  # since SQLAlchemy 2.1
    WAYS["session"] = by_session


@on("end", ["commit", "rollback"])
@on("way", WAYS)
def test_flushes(tenants: World, way: str, end: str) -> None:
    """Hole 1: settling sees the ledger that the transaction saw."""
    with WAYS[way](tenants) as session:
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        doc.file = b"new"
        session.add(Doc(file=b"more", pages=[b"page"]))
        session.flush()
        getattr(session, end)()
    assert rows(tenants, "") == 0
    tenants.check(*([b"new", b"more", b"page"] if end == "commit" else [b"old"]))


@on("way", WAYS)
def test_statements_of_a_session_with_options(tenants: World, way: str) -> None:
    with WAYS[way](tenants) as session:
        session.execute(insert(Doc), [{"title": title, "file": title.encode()} for title in "abc"])
        session.execute(update(Doc).where(Doc.title == "a").values(file=b"A"))
        session.execute(delete(Doc).where(Doc.title == "b"))
        session.commit()
    tenants.check(b"A", b"c")


@on("end", ["commit", "rollback"])
def test_options_of_statements(tenants: World, end: str) -> None:
    with Session(tenants.engine) as session:
        session.execute(insert(Doc), [{"title": title, "file": title.encode()} for title in "abc"], **options())
        session.commit()
        session.execute(update(Doc).where(Doc.title == "a").values(file=b"A"), **options())
        session.execute(delete(Doc).where(Doc.title == "b"), **options())
        getattr(session, end)()
    assert rows(tenants, "") == 0
    tenants.check(*([b"A", b"c"] if end == "commit" else [b"a", b"b", b"c"]))


def options() -> dict[str, Any]:
    return {"execution_options": TENANT}


@on("schemas", [{}, None])
def test_a_connection_that_takes_the_schemas_of_its_engine_back(tenants: World, schemas: Any) -> None:
    """Cleaning asked the ledger of the engine's schema, which knew nothing of the file of a committed row."""
    tenant = tenants.engine.execution_options(**TENANT)
    with Session(tenant) as session:
        session.add(Doc(file=b"theirs"))  # the place is that of the tenant's ledger
        session.commit()
    with Session(tenant) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one place for two ledgers
        session.connection(execution_options={"schema_translate_map": schemas})
        session.add(Doc(file=b"mine"))
        session.commit()
    tenants.settle()
    assert sorted(tenants.stored().values()) == [b"mine", b"theirs"]


def test_options_of_a_statement_are_for_that_statement_only(tenants: World) -> None:
    """They must not stay with the session's connection."""
    with Session(tenants.engine) as session, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one place for two ledgers
        session.execute(insert(Doc).values(title="a", file=b"a"), **options())
        session.add(Doc(title="b", file=b"b"))
        session.commit()
        assert session.scalars(select(Doc.title)).all() == ["b"]
        session.commit()
    assert (rows(tenants, "tenant."), rows(tenants, "")) == (1, 1)


@on("way", WAYS)
def test_savepoints(tenants: World, way: str) -> None:
    with WAYS[way](tenants) as session:
        session.add(Doc(file=b"outer"))
        session.flush()
        for number, end in enumerate(["commit", "rollback"]):
            savepoint = session.begin_nested()
            session.add(Doc(file=b"%d" % number))
            session.flush()
            getattr(savepoint, end)()
        session.commit()
    tenants.check(b"outer", b"0")


def test_a_sweep_takes_the_engine_with_the_options(tenants: World) -> None:
    """Hole 1: a sweep of the default schema must not take the tenant's files for strangers."""
    engine = tenants.engine.execution_options(**TENANT)
    with Session(engine) as session:
        session.add(Doc(file=b"one"))
        session.commit()
    files.stage(Attachment.upload(b"nobody's"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert tenants.sweep()["default"].problem is not None
    assert len(tenants.stored()) == 2
    tenants.engine = engine
    for _ in range(2):
        tenants.sweep()
    tenants.check(b"one", swept=True)


def test_a_schema_without_a_ledger(tenants: World) -> None:
    with tenants.observer.begin() as connection:
        connection.execute(text("DROP TABLE tenant.attachment_ledger"))
    with by_engine(tenants) as session, tenants.nothing_stored():
        session.add(Doc(file=b"one"))
        with pytest.raises(LedgerMissing, match="tenant"):
            session.flush()


# Not in the other tests' files: a sweep would look for this schema in each database.
letters = Storages(budget=timedelta(seconds=10))


def test_a_listener_writes_in_the_schema_of_another_tenant(tenants: World) -> None:
    """Whose rows are not those that the flush writes, though they share a ledger and have the same primary keys."""
    home = "main" if "sqlite" in tenants.name else "public"
    shared = Storages("memory:", ledger=MetaData(schema=home))

    class Shared(DeclarativeBase):
        pass

    class Paper(Shared):
        __tablename__ = "papers"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(shared))

    shared.ledger_of(Paper.__table__).lines.metadata.create_all(tenants.observer)
    for schema in (home, "tenant"):
        Shared.metadata.create_all(tenants.observer.execution_options(schema_translate_map={None: schema}))

    with tenants.session() as session:
        session.execute(insert(Paper).values(id=1, file=b"theirs"), execution_options=TENANT)
        session.add(Paper(id=1, file=b"mine"))
        session.commit()
        paper = session.get_one(Paper, 1)

        def execute(*_: object) -> None:
            options = {**TENANT, "synchronize_session": False}
            session.execute(update(Paper).values(file=b"their new one"), execution_options=options)

        event.listen(Paper, "before_update", execute)
        paper.file = b"my new one"
        session.commit()
        assert shared.settled(20)
    for options in ({}, TENANT):
        with Session(tenants.observer.execution_options(**options)) as session:
            file = session.scalars(select(Paper.file)).one()
            assert file is not None
            assert file.read() == (b"their new one" if options else b"my new one")


class Schematic(DeclarativeBase):
    metadata = MetaData(schema="tenant")


class Letter(Schematic):
    """Says itself where it is."""

    __tablename__ = "letters"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(letters))


@on("end", ["commit", "rollback"])
def test_a_schema_that_the_models_name(tenants: World, end: str) -> None:
    with tenants.observer.begin() as connection:
        for table in ("attachment_ledger", "attachment_storage"):
            connection.execute(text(f"DROP TABLE tenant.{table}"))
    tenants.create(Schematic.metadata)
    tenants.files = letters
    with letters.override(tenants.storages), tenants.session() as session:
        letter = Letter(file=b"old")
        session.add(letter)
        session.commit()
        letter.file = b"new"
        session.flush()
        getattr(session, end)()
    tenants.check(b"new" if end == "commit" else b"old")
