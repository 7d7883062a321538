"""Tables: what a connection calls them; those of MariaDB that follow no transaction are refused, before anything is
stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, Table, create_engine, delete, event, insert, text, update
from sqlalchemy.orm import Session

from sa_attachments import Attachment, NoTransaction
from sa_attachments.tables import quoted, require_transactions, translated
from tests.archive import DIALECTS, Archive

on = pytest.mark.parametrize
everywhere = on("engine", DIALECTS, indirect=True)
mariadb = on("engine", [name for name in DIALECTS if name == "mariadb"], indirect=True)


@pytest.fixture
def archive(engine: Engine) -> Archive:
    """With a row in the table ``docs``."""
    archive = Archive(engine)
    archive.keep(b"old")
    return archive


def reopened(archive: Archive) -> Archive:
    """What another process sees."""
    other = Archive(archive.engine, {"default": archive.storage})
    other.memory = archive.memory
    return other


def alter(archive: Archive, table: str, to: str) -> None:
    with archive.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} ENGINE={to}"))


@contextmanager
def refused(archive: Archive, table: str = "docs", to: str = "MyISAM") -> Iterator[None]:
    cure = f"'{table}' has the engine {to}.*ALTER TABLE {table} ENGINE=InnoDB"
    with pytest.raises(NoTransaction, match=cure):
        yield
    assert list(archive.stored().values()) == [b"old"]


def table(archive: Archive) -> Any:
    return archive.Doc.__table__


WAYS: dict[str, Callable[[Session, Archive], Any]] = {
    "insert": lambda session, archive: session.add(archive.Doc(file=b"new")),
    "replace": lambda session, archive: setattr(session.get_one(archive.Doc, 1), "file", b"new"),
    "set to None": lambda session, archive: setattr(session.get_one(archive.Doc, 1), "file", None),
    "delete": lambda session, archive: session.delete(session.get_one(archive.Doc, 1)),
    "bulk insert": lambda session, archive: session.execute(insert(archive.Doc), [{"file": b"new"}]),
    "bulk update": lambda session, archive: session.execute(update(archive.Doc).values(file=None)),
    "bulk delete": lambda session, archive: session.execute(delete(archive.Doc)),
    "staged": lambda session, archive: archive.files.stage(
        Attachment.upload(b"new"), session.connection(), table(archive).c.file
    ),
}


@on("way", WAYS)
@mariadb
def test_rows_that_follow_no_transaction_are_refused(archive: Archive, way: str) -> None:
    alter(archive, "docs", "MyISAM")
    other = reopened(archive)
    with other.session() as session, refused(other):
        WAYS[way](session, other)
        session.flush()


@mariadb
def test_a_ledger_that_follows_no_transaction_is_refused(archive: Archive) -> None:
    """MyISAM does not take its long key."""
    alter(archive, "attachment_ledger", "Aria")
    other = reopened(archive)
    with other.session() as session, refused(other, "attachment_ledger", "Aria"):
        session.add(other.Doc(file=b"new"))
        session.flush()


@mariadb
def test_the_cure(archive: Archive) -> None:
    alter(archive, "docs", "MyISAM")
    other = reopened(archive)
    with other.session() as session, refused(other):
        session.add(other.Doc(file=b"new"))
        session.flush()
    alter(archive, "docs", "InnoDB")
    other.keep(b"new")
    with other.session() as session:
        session.add(other.Doc(file=b"undone"))
        session.flush()
        session.rollback()
        assert session.query(other.Doc).count() == 2
    other.settle()
    assert list(other.stored().values()) == [b"old", b"new"]


@mariadb
def test_the_schema_that_a_connection_translates_to_is_the_one_that_is_asked(engine: Engine) -> None:
    archive = Archive(engine)
    alter(archive, "docs", "MyISAM")
    with engine.connect() as connection:
        translated = connection.execution_options(schema_translate_map={None: engine.url.database})
        with pytest.raises(NoTransaction, match=f"ALTER TABLE {engine.url.database}.docs ENGINE=InnoDB"):
            require_transactions(translated, [table(archive)])
        elsewhere = connection.execution_options(schema_translate_map={None: "nowhere"})
        require_transactions(elsewhere, [table(archive)])


@mariadb
def test_a_view_has_no_engine(engine: Engine) -> None:
    archive = Archive(engine)
    with engine.begin() as connection:
        connection.execute(text("CREATE VIEW seen AS SELECT * FROM docs"))
        require_transactions(connection, [table(archive).to_metadata(archive.Base.metadata, name="seen")])
        connection.execute(text("DROP VIEW seen"))


@everywhere
def test_it_is_asked_once_for_each_table(archive: Archive) -> None:
    asked: list[str] = []

    @event.listens_for(archive.engine, "before_cursor_execute")
    def before(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if any(said in statement for said in ("information_schema", "pg_catalog", "PRAGMA main.", "DESCRIBE")):
            asked.append(statement)

    with archive.session() as session:
        session.add(archive.Doc(file=b"new"))
        session.commit()
        archive.settle()
        assert asked == []
        archive.files._ready.clear()  # another process
        session.add(archive.Doc(file=b"newer"))
        session.commit()
        assert asked != []


@on(
    ("options", "schema", "name"),
    [
        ({}, "one", 'one."order"'),
        ({"schema_translate_map": {"one": "a b"}}, "a b", '"a b"."order"'),
        ({"schema_translate_map": {"one": None}}, None, '"order"'),
        ({"schema_translate_map": {None: "two"}}, "one", 'one."order"'),
    ],
    ids=["as-mapped", "translated", "to-none", "another"],
)
def test_is_called_as_statements_of_the_connection_call_it(
    options: dict[str, Any], schema: str | None, name: str
) -> None:
    orders = Table("order", MetaData(), schema="one")
    with create_engine("sqlite://").connect().execution_options(**options) as connection:
        assert (translated(connection, orders.schema), quoted(connection, orders)) == (schema, name)
