"""The statements that each transaction runs are made once: to make them took longer than to carry them out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event

from tests.archive import DIALECTS, Archive

pytestmark = pytest.mark.parametrize("engine", DIALECTS, indirect=True)


@pytest.mark.parametrize("retain", [None, timedelta(hours=1)])
def test_no_transaction_makes_a_statement_anew(engine: Engine, retain: timedelta | None) -> None:
    archive = Archive(engine, retain=retain)
    made: list[Any] = []

    @event.listens_for(engine, "before_execute")
    def executed(connection: Any, statement: Any, *_: Any) -> None:
        if not getattr(statement, "_propagate_attrs", None):  # those are the ORM's
            made.append(statement)

    def work() -> list[Any]:
        made.clear()
        (id_,) = archive.keep(b"one")
        with archive.session() as session:
            session.get_one(archive.Doc, id_).file = b"two"
            session.commit()
        archive.settle()
        with archive.session() as session:
            session.add(archive.Doc(file=b"three"))
            session.flush()
            session.rollback()
        archive.settle()
        archive.remove(id_)
        return [*made]

    work()  # what is asked once
    known = work()
    anew = [each for each in work() if all(each is not one for one in known)]
    assert not anew
