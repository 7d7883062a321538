"""The statements that each transaction runs are made once: to make them took longer than to carry them out."""

from __future__ import annotations

import os
import signal
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, event

from sa_attachments.ledger import Ledger
from sa_attachments.queries import Queries
from tests.archive import DIALECTS, Archive


@pytest.mark.parametrize("engine", DIALECTS, indirect=True)
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


def test_a_child_that_is_forked_while_a_thread_makes_a_statement_makes_its_own() -> None:
    lines = Ledger(MetaData()).lines
    begun, release = threading.Event(), threading.Event()

    class Slow(Queries):
        def waiting(self, condition: Any, order: Any) -> Any:
            begun.set()
            release.wait()
            return super().waiting(condition, order)

    thread = threading.Thread(target=lambda: Slow(lines).due)
    thread.start()
    begun.wait()
    if (pid := os.fork()) == 0:
        signal.alarm(5)
        os._exit(7 if Queries(lines).due is not None else 1)
    _, status = os.waitpid(pid, 0)
    release.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 7
