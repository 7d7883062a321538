"""That the engines of the tests are what the tests take them for."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, String, inspect, select, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tests import engines


class Base(DeclarativeBase):
    pass


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(20))


@pytest.mark.parametrize("turn", ["first", "second"])
def test_every_test_gets_an_empty_database(engine: Engine, turn: str) -> None:
    assert inspect(engine).get_table_names() == []
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Doc(title=turn))
        session.commit()
        assert session.scalars(select(Doc.title)).all() == [turn]


def test_a_rollback_takes_back_a_released_savepoint_except_under_the_drivers_defaults(
    engine: Engine, request: pytest.FixtureRequest
) -> None:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        with session.begin_nested():
            session.add(Doc(title="inner"))
        session.rollback()
        left = session.scalars(select(Doc.title)).all()
    assert left == (["inner"] if request.node.callspec.id == "sqlite-legacy" else [])


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_every_async_test_gets_an_empty_database(async_engine: AsyncEngine, turn: str) -> None:
    async with async_engine.begin() as connection:
        assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == []
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(async_engine) as session:
        session.add(Doc(title=turn))
        await session.commit()
        assert (await session.scalars(select(Doc.title))).all() == [turn]


LEFT_OPEN: list[Connection] = []


@pytest.mark.parametrize("turn", ["leaves", "finds nothing"])
def test_what_a_test_leaves_open_does_not_block_the_next(postgres_url: URL, turn: str) -> None:
    engine = engines.open_engine(postgres_url)
    assert inspect(engine).get_table_names() == []
    assert inspect(engine).get_schema_names() == ["information_schema", "public"]
    Base.metadata.create_all(engine)
    with engine.connect() as connection:
        connection.execute(text("CREATE SCHEMA other"))
        connection.commit()
        connection.execute(text("INSERT INTO docs (title) VALUES ('prepared')"))
        connection.execute(text(f"PREPARE TRANSACTION '{uuid4()}'"))
    LEFT_OPEN.append(connection := engine.connect())
    connection.execute(text("INSERT INTO docs (title) VALUES ('open')"))
