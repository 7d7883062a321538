"""Bulk statements that meet more rows than drivers take parameters."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, event, insert, update
from sqlalchemy.orm import Session

from .models import Doc
from .world import World

on = pytest.mark.parametrize


@on("world", ["postgres", "mariadb", "asyncpg"], indirect=True)
@on("statement", ["DELETE", "UPDATE"])
def test_a_row_that_is_committed_while_many_are_met_is_not_met_unseen(world: World, statement: str) -> None:
    with world.session() as session:
        session.execute(insert(Doc), [{"title": str(number)} for number in range(1500)])
        session.commit()
    late = []

    @event.listens_for(world.engine, "before_cursor_execute")
    def commit_another(connection: object, cursor: object, text: str, *_: object) -> None:
        if text.startswith(f"{statement} ") and " docs" in text and not late:
            late.append(text)
            with world.session() as other:
                other.add(Doc(title="late", file=b"late"))
                other.commit()

    with Session(world.engine.execution_options(isolation_level="READ COMMITTED")) as session:
        everything = delete(Doc) if statement == "DELETE" else update(Doc).values(file=None)
        session.execute(everything.where(Doc.title != "kept"), execution_options={"synchronize_session": False})
        session.commit()
    assert late
    world.check(b"late")


@on("world", ["sqlite", "sqlite-memory", "postgres", "mariadb", "aiosqlite", "asyncpg"], indirect=True)
def test_many_rows_are_deleted_with_their_files(world: World) -> None:
    with world.session() as session:
        session.execute(insert(Doc), [{"title": str(n), "file": b"x" if n % 500 == 0 else None} for n in range(2000)])
        session.commit()
        assert session.execute(delete(Doc).where(Doc.title != "0")).rowcount == 1999
        session.commit()
    world.check(b"x")
