"""What the machine found, as short stories that stay told."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from sa_attachments import StorageFailed

from .models import Doc, files
from .world import World

NOW = timedelta(0)
on_sqlite = pytest.mark.parametrize("world", ["sqlite"], indirect=True)


@on_sqlite
def test_a_sweep_that_finds_the_database_locked_says_so_and_leaves_its_connection_as_it_was(world: World) -> None:
    with world.engine.connect() as connection:
        settings = [connection.exec_driver_sql(f"PRAGMA {each}").scalar() for each in ("busy_timeout", "synchronous")]
    with Session(world.engine) as reader:
        reader.get(Doc, 1)
        with pytest.raises(OperationalError, match="database is locked"):
            files.sweep(world.engine, grace=NOW)
    with world.engine.connect() as one, world.engine.connect() as two:
        for connection in (one, two):
            now = [connection.exec_driver_sql(f"PRAGMA {each}").scalar() for each in ("busy_timeout", "synchronous")]
            assert now == settings


@on_sqlite
@pytest.mark.parametrize("many", [True, False])
def test_a_statement_that_failed_leaves_no_file_if_the_transaction_is_committed_nevertheless(
    world: World, many: bool
) -> None:
    """SQLite goes on after an error; of an executemany, the rows before the failing one would stay."""
    with Session(world.engine) as session:
        session.add(Doc(id=2, file=world.upload()))
        session.commit()
        rows = [{"id": pk, "file": world.upload()} for pk in (1, 2, 3)]
        with pytest.raises(IntegrityError):
            session.execute(insert(Doc), rows) if many else session.execute(insert(Doc).values(rows))
        session.commit()
    assert len(world.stored()) == len(world.committed_rows()) == 1
    assert files.verify(world.engine).ok


@pytest.mark.parametrize("after", [None, "rollback", "commit"])
def test_a_staged_file_can_be_assigned_again_after_a_flush_that_failed(world: World, after: str | None) -> None:
    staged = files.stage(world.upload())
    with Session(world.engine) as session:
        world.storages["vault"].fail("put", on=2)  # The first is the marker.
        doc = Doc(id=1, file=staged, scan=world.upload())
        session.add(doc)
        with pytest.raises(StorageFailed):
            session.flush()
        world.heal()
        if after is not None:
            session.expunge(doc)
            getattr(session, after)()
            doc = Doc(id=1, file=staged)
            session.add(doc)
        session.commit()
        assert doc.file.read() == b"bytes of 0"
    world.sweep(busy=False)
    assert len(world.stored()) == (2 if after is None else 1)
    assert files.verify(world.engine).ok


@on_sqlite
def test_a_statement_that_failed_gives_up_a_staged_file(world: World) -> None:
    staged = files.stage(world.upload())
    with Session(world.engine) as session:
        session.add(Doc(id=1, title="a"))
        session.flush()
        with pytest.raises(IntegrityError):
            session.execute(insert(Doc).values(id=1, file=staged))
        session.execute(insert(Doc).values(id=2, file=staged))
        session.commit()
    assert list(world.stored().values()) == [b"bytes of 0"]
    assert files.verify(world.engine).ok
