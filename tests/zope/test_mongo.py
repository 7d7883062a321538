"""The recipe of docs/zope.md for documents in MongoDB, against a server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
import transaction
from sqlalchemy import select
from transaction.interfaces import IDataManager
from zope.interface.verify import verifyObject

from sa_attachments.places import MARKER

PAGE = Path(__file__).parents[2] / "docs" / "zope.md"

pytest.importorskip("pymongo", reason="no pymongo: install the extra gridfs", exc_type=ImportError)


def recipe() -> str:
    found = re.search(r"<!-- recipe: mongodb -->\n```python\n(.*?)```\n<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def app(mongo: str, tmp_path: Path) -> Iterator[Any]:
    """What the recipe defines, and what it did when it was run."""
    source = recipe()
    for text, ours in {
        "mongodb://db.example/": mongo,
        "client.library": f"client.library_{uuid4().hex}",
        "local:./files": f"local:{tmp_path}/files",
        "sqlite:///attachments.db": f"sqlite:///{tmp_path}/ledger.db",
        "is_named=is_named": "is_named=is_named, budget=PATIENT",
    }.items():
        assert text in source
        source = source.replace(text, ours)
    found: dict[str, Any] = {"PATIENT": timedelta(seconds=10)}
    exec(compile(source, str(PAGE), "exec"), found)
    app = SimpleNamespace(**found)
    yield app
    transaction.abort()
    app.client.drop_database(app.papers.database)
    app.client.close()
    app.files.engine.dispose()


def check(app: Any, **scans: bytes) -> None:
    """Papers have these scans, and there are no other files."""
    assert app.files.storages.settled(10)
    texts = {paper["_id"]: paper["scan"] for paper in app.papers.find()}
    assert {name: app.files.bind(text).read() for name, text in texts.items()} == scans
    keys = {app.files.bind(text).key for text in texts.values()}
    assert {key for key, _ in app.files.storages.resolve().keys()} - {MARKER} == keys  # noqa: SIM118 - no dictionary
    lines = app.files._keeper.doubts.ledger.lines.c
    with app.files.engine.connect() as connection:
        rows = connection.execute(select(lines.key, lines.state)).all()
    assert {key: state for key, state in rows if state != "purging"} == dict.fromkeys(keys, "owned")


def test_it_works_as_it_stands_there(app: Any) -> None:
    assert app.read("relativity") == b"E = mc2"
    check(app, relativity=b"E = mc2")


def test_a_replacement_takes_the_old_file_with_it(app: Any) -> None:
    with transaction.manager:
        app.scan("relativity", b"new")
    check(app, relativity=b"new")


def test_an_abort_keeps_the_old_file(app: Any) -> None:
    app.scan("relativity", b"void")
    app.scan("quanta", b"void")
    transaction.abort()
    check(app, relativity=b"E = mc2")


def test_a_write_conflict_is_retried_and_leaves_no_file(app: Any) -> None:
    tries = 0
    for attempt in transaction.manager.attempts(3):
        with attempt:
            tries += 1
            app.papers.find_one({"_id": "relativity"}, session=app.joined(app.client))
            if tries == 1:
                app.papers.update_one({"_id": "relativity"}, {"$set": {"touched": True}})
            app.scan("relativity", b"try %d" % tries)
    assert tries == 2
    check(app, relativity=b"try 2")


@pytest.mark.parametrize("committed", [False, True])
def test_a_commit_whose_answer_is_lost(app: Any, committed: bool) -> None:
    app.scan("relativity", b"new")
    manager = transaction.get().data(app.client)
    plain = manager.session.commit_transaction

    def commit_transaction() -> None:
        if committed:
            plain()
        raise ConnectionResetError("the answer got lost")

    manager.session.commit_transaction = commit_transaction
    with pytest.raises(ConnectionResetError):
        transaction.commit()
    transaction.abort()
    app.files.recover(timedelta(0))
    check(app, relativity=b"new" if committed else b"E = mc2")


def test_it_is_a_data_manager(app: Any) -> None:
    app.joined(app.client)
    assert verifyObject(IDataManager, transaction.get().data(app.client))
    app.files.stage(app.Attachment.upload(b"void"))
    with pytest.raises(TypeError, match="Savepoints unsupported"):
        transaction.savepoint()
    transaction.abort()
    check(app, relativity=b"E = mc2")
