"""The application of the crash tests, and a workload of it that does without the ORM."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from tests.crash.application import Application, upload
from tests.crash.scenes import WORKLOADS


class PlainApplication(Application):
    """Its table is the same; only the mark of each transaction is added by the session."""


def insert_rows(app: Application, session: Session) -> None:
    connection, docs = _of(app, session)
    for i in range(1, 4):
        values = {name: app.files.stage(upload(f"{name} {i}"), connection, docs.c[name]) for name in ("file", "cover")}
        pages = [app.files.stage(upload(f"page {i}.{j}"), connection, docs.c.pages) for j in range(2)]
        connection.execute(docs.insert(), {"id": i, **values, "pages": pages})


def replace(app: Application, session: Session) -> None:
    connection, docs = _of(app, session)
    _replace(app, connection, docs, "passing")
    _replace(app, connection, docs, "replaced")


def roll_back(app: Application, session: Session) -> None:
    connection, docs = _of(app, session)
    _replace(app, connection, docs, "void")
    session.rollback()


def roll_savepoints_back(app: Application, session: Session) -> None:
    connection, docs = _of(app, session)
    with connection.begin_nested():
        _replace(app, connection, docs, "released")
    savepoint = connection.begin_nested()
    _replace(app, connection, docs, "void")
    savepoint.rollback()


def move_and_copy(app: Application, session: Session) -> None:
    connection, docs = _of(app, session)
    cover = connection.scalar(select(docs.c.cover).where(docs.c.id == 1).with_for_update())
    app.files.drop(cover, connection)
    moved = app.files.stage(cover, connection, docs.c.cover)
    connection.execute(docs.update().where(docs.c.id == 1).values(cover=None))
    file = connection.scalar(select(docs.c.file).where(docs.c.id == 3).with_for_update())
    copy = app.files.stage(file, connection, docs.c.file)
    connection.execute(docs.insert(), {"id": 4, "cover": moved, "file": copy, "pages": []})


def stage_early(app: Application, session: Session) -> None:
    early = app.files.stage(upload("early"))
    app.files.stage(upload("never owned"))
    connection, docs = _of(app, session)
    staged = app.files.stage(early, connection, docs.c.file)
    connection.execute(docs.insert(), {"id": 5, "file": staged, "pages": []})


def give_away(app: Application, session: Session) -> None:
    connection, docs = _of(app, session)
    given = app.files.stage(app.give("given"), connection, docs.c.cover)
    connection.execute(docs.update().where(docs.c.id == 5).values(cover=given))


def delete_row(app: Application, session: Session) -> None:
    connection, docs = _of(app, session)
    row = connection.execute(select(docs).where(docs.c.id == 2).with_for_update()).one()
    connection.execute(docs.delete().where(docs.c.id == 2))
    for item in (row.file, row.cover, *row.pages):
        app.files.drop(item, connection)


def _of(app: Application, session: Session) -> tuple[Connection, Any]:
    return session.connection(), app.Doc.__table__


def _replace(app: Application, connection: Connection, docs: Any, filename: str) -> None:
    app.files.drop(connection.scalar(select(docs.c.file).where(docs.c.id == 1).with_for_update()), connection)
    new = app.files.stage(upload(filename), connection, docs.c.file)
    connection.execute(docs.update().where(docs.c.id == 1).values(file=new))


WORKLOADS["plain"] = [
    insert_rows,
    replace,
    roll_back,
    roll_savepoints_back,
    move_and_copy,
    stage_early,
    give_away,
    delete_row,
]
