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

pytest.importorskip("pymongo", reason="MongoDB is tested where the extras gridfs and test-gridfs are installed")


def recipe(name: str, replaced: dict[str, str]) -> dict[str, Any]:
    """Run a recipe of the page, with other places; returns what it defines."""
    found = re.search(rf"<!-- recipe: {name} -->\n```python\n(.*?)```\n<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert found
    source = found[1]
    for text, ours in replaced.items():
        assert text in source
        source = source.replace(text, ours)
    defined: dict[str, Any] = {"PATIENT": timedelta(seconds=10), "__name__": "recipe"}
    exec(compile(source, str(PAGE), "exec"), defined)
    return defined


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    return {
        "local:./files": f"local:{tmp_path}/files",
        "sqlite:///attachments.db": f"sqlite:///{tmp_path}/ledger.db",
        "is_named=is_named": "is_named=is_named, budget=PATIENT",
    }


@pytest.fixture
def app(mongo: str, places: dict[str, str]) -> Iterator[Any]:
    """What the recipe defines, and what it did when it was run."""
    places |= {"mongodb://db.example/": mongo, "client.library": f"client.library_{uuid4().hex}"}
    app = SimpleNamespace(**recipe("mongodb", places))
    yield app
    transaction.abort()
    app.client.drop_database(app.papers.database)
    app.client.close()
    app.files.engine.dispose()


@pytest.fixture
def ming(mongo: str, places: dict[str, str]) -> Iterator[Any]:
    pytest.importorskip("ming", reason="Ming is tested where the extra test-gridfs is installed")
    places |= {"mongodb://db.example/library": f"{mongo}library_{uuid4().hex}"}
    app = SimpleNamespace(**recipe("ming", places))
    yield app
    transaction.abort()
    app.papers.close_all()
    app.database.conn.drop_database(app.database.db)
    app.database.conn.close()
    app.files.engine.dispose()


def check(app: Any, **scans: bytes) -> None:
    """Papers have these scans, and there are no other files."""
    assert app.files.storages.settled(10)
    collection = app.database.db.papers if hasattr(app, "database") else app.papers
    texts = {paper["_id"]: paper["scan"] for paper in collection.find()}
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


# Ming


def test_the_recipe_for_ming_works_as_it_stands_there(ming: Any) -> None:
    check(ming, relativity=b"E = mc2")
    with transaction.manager:
        ming.scan("relativity", b"new")
        ming.scan("quanta", b"two")
    check(ming, relativity=b"new", quanta=b"two")


def test_an_abort_of_mings_unit_of_work(ming: Any) -> None:
    ming.scan("relativity", b"void")
    ming.scan("quanta", b"void")
    transaction.abort()
    check(ming, relativity=b"E = mc2")
    assert ming.Paper.query.get(_id="quanta") is None


def test_a_unit_of_work_of_which_only_a_part_is_written(ming: Any) -> None:
    ming.scan("relativity", b"new")
    ming.scan("quanta", b"two")
    flush = ming.papers.flush
    ming.papers.flush = lambda: [flush(ming.Paper.query.get(_id="relativity")), 1 / 0]
    with pytest.raises(ZeroDivisionError):
        transaction.commit()
    del ming.papers.flush
    transaction.abort()
    ming.files.recover(timedelta(0))
    check(ming, relativity=b"new")


def test_mings_is_a_data_manager_too(ming: Any) -> None:
    assert verifyObject(IDataManager, ming.MingManager())
