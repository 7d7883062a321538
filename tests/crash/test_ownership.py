"""Who comes too late: an owner after the purge, a put after the purge, a sweep before the owner.

Each test closes a way in which a row could come to name bytes that are gone, or bytes could stay that nobody names.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from sa_attachments import Attachment, FileMissing, OwnershipLost
from sa_attachments.key import mint, moment
from sa_attachments.places import MARKER
from sa_attachments.queries import CONDEMNED, GONE, OWNED, PURGING
from sa_attachments.storages.local import LocalStorage
from sa_attachments.testing import Faulty
from tests import engines

from .application import Application, content, upload

on = pytest.mark.parametrize
everywhere = on("engine", [name for name in engines.ENGINES if name != "sqlite-memory"], indirect=True)
where_two_can_write = on("engine", engines.CONCURRENT_ENGINES, indirect=True)

Make = Callable[..., Application]


@pytest.fixture
def make(engine: Engine, tmp_path: Path) -> Make:
    """``make(**options)`` an application that has a committed row, ``first``, which was there before the options."""

    def make(**options: Any) -> Application:
        app = Application(engine, tmp_path, Faulty(LocalStorage(tmp_path / "files")))
        app.create()
        add(app, app.Doc(id=0, file=upload("first")))
        return Application(engine, tmp_path, app.storage, **options) if options else app

    return make


def impatient(app: Application) -> Application:
    """The same one, deployed with other options: sweeps look back no longer than 50 ms."""
    times = {"own_within": timedelta(milliseconds=50), "tombstone_ttl": timedelta(seconds=30)}
    return Application(app.engine, app.folder, app.storage, **times)


def add(app: Application, *rows: Any) -> None:
    with app.session() as session:
        session.add_all(rows)
        session.commit()
    assert app.files.settled(10)


def dropped(app: Application) -> Attachment:
    """The first row's file, after the row dropped it."""
    with app.session() as session:
        doc = session.get_one(app.Doc, 0)
        file = doc.file
        doc.file = None
        session.commit()
    assert app.files.settled(10)
    return file  # type: ignore[no-any-return]


def state_of(app: Application, key: str) -> str | None:
    with app.session() as session:
        found: str | None = session.scalar(select(app.ledger.c.state).where(app.ledger.c.key == key))
    return found


def watermark_of(app: Application) -> int:
    places = app.files.ledger_of(app.Doc.__table__).places  # type: ignore[arg-type]
    with app.session() as session:
        return session.scalar(select(places.c.watermark)) or 0


def keys_of(app: Application) -> set[str]:
    return {key for key, modified in app.storage.inner.keys()} - {MARKER}  # noqa: SIM118 - no dict


# A purge that began


@everywhere
def test_a_file_whose_bytes_are_gone_is_not_owned_again(make: Make) -> None:
    """Settling ends between the deletion of the bytes and that of the line."""
    app = make()
    app.storage.fail("delete", after=True)
    file = dropped(app)
    assert state_of(app, file.key) == PURGING
    assert keys_of(app) == set()
    with pytest.raises(OwnershipLost):
        add(app, app.Doc(id=1, file=file))
    app.storage.heal()
    assert app.state() == {}
    assert app.sweep()["default"].purged == 1
    assert app.problems(swept=True) == []


@everywhere
def test_a_file_whose_purge_began_is_copied_while_its_bytes_are_there(make: Make) -> None:
    app = make()
    app.storage.fail("delete")
    file = dropped(app)
    assert state_of(app, file.key) == PURGING
    add(app, app.Doc(id=1, file=file))
    app.storage.heal()
    assert state_of(app, file.key) == PURGING
    assert app.sweep()["default"].purged == 1
    assert app.state() == {"1.file": ["first"]}
    assert app.problems(swept=True) == []


@everywhere
def test_a_file_that_is_only_condemned_is_owned_again(make: Make) -> None:
    """The other side: as long as no purge began, nothing is copied."""
    app = make(retain=timedelta(hours=1))
    file = dropped(app)
    assert state_of(app, file.key) == CONDEMNED
    add(app, app.Doc(id=1, file=file))
    assert state_of(app, file.key) == OWNED
    assert keys_of(app) == {file.key}
    assert app.problems(swept=True) == []


@everywhere
def test_a_file_whose_purge_began_is_not_restored(make: Make) -> None:
    app = make(retain=timedelta(milliseconds=1))
    file = dropped(app)
    app.storage.fail("delete", after=True)
    time.sleep(0.01)
    app.sweep()
    assert state_of(app, file.key) == PURGING
    with app.session() as session, pytest.raises(FileMissing):
        app.files.restore(session, app.Doc.file, 0)
    app.storage.heal()
    assert app.sweep().ok
    assert app.problems(swept=True) == []


# A late owner


@everywhere
def test_an_owner_that_comes_after_the_purge_fails(make: Make) -> None:
    app = make()
    staged = app.files.stage(upload("staged"))
    time.sleep(0.01)
    assert app.sweep()["default"].purged == 1
    assert state_of(app, staged.key) == GONE
    with pytest.raises(OwnershipLost):
        add(app, app.Doc(id=1, file=staged))
    assert app.state() == {"0.file": ["first"]}
    assert app.problems(swept=True) == []


@everywhere
def test_an_owner_that_comes_after_the_tombstone_fails_too(make: Make) -> None:
    """Nothing remembers the purge any more, but the key is too old to be owned."""
    app = make(own_within=timedelta(milliseconds=300), tombstone_ttl=timedelta(milliseconds=301))
    staged = app.files.stage(upload("staged"))
    time.sleep(0.01)
    app.sweep()
    assert state_of(app, staged.key) == GONE
    time.sleep(0.4)
    app.sweep()
    assert state_of(app, staged.key) is None
    with pytest.raises(OwnershipLost):
        add(app, app.Doc(id=1, file=staged))
    assert app.state() == {"0.file": ["first"]}
    assert app.problems(swept=True) == []


@everywhere
def test_an_owner_that_took_too_long_fails_though_its_file_is_there(make: Make) -> None:
    """Else a sweep whose list is older than the owner's line would delete it."""
    app = make()
    staged = app.files.stage(upload("staged"))
    add(app, app.Doc(id=1, file=app.files.stage(upload("in time"))))
    app.files.own_within = timedelta(milliseconds=50)
    time.sleep(0.1)
    with pytest.raises(OwnershipLost):
        add(app, app.Doc(id=2, file=staged))
    assert app.state() == {"0.file": ["first"], "1.file": ["in time"]}
    assert app.sweep()["default"].purged == 1
    assert app.problems(swept=True) == []


@everywhere
def test_a_sweep_between_the_put_and_the_line_makes_the_owner_fail(make: Make) -> None:
    app = make()
    swept = []

    def sweep() -> None:
        time.sleep(0.01)
        swept.append(app.sweep()["default"].purged)

    app.storage.at("put", 1, sweep, after=True)
    with app.session() as session:
        session.add(app.Doc(id=1, file=upload("late")))
        with pytest.raises(OwnershipLost):
            session.commit()
        session.rollback()
    assert swept == [1]
    assert app.files.settled(10)
    assert app.state() == {"0.file": ["first"]}
    assert app.problems(swept=True) == []


# A late put


@everywhere
def test_a_put_that_arrives_after_the_purge_is_deleted_once_more(make: Make) -> None:
    app = make(own_within=timedelta(milliseconds=200), tombstone_ttl=timedelta(milliseconds=300))
    key = mint()
    app.storage.put(key, io.BytesIO(b"early"), size=None, content_type="text/plain")
    time.sleep(0.01)
    assert app.sweep()["default"].purged == 1
    assert state_of(app, key) == GONE
    app.storage.put(key, io.BytesIO(b"late"), size=None, content_type="text/plain")
    time.sleep(0.4)
    app.sweep()
    assert key not in keys_of(app)
    assert app.problems(swept=True) == []
    assert state_of(app, key) is None


# The watermark


def begin(app: Application, session: Session, row_id: int) -> str:
    """A row that is flushed and not committed; returns the key of its file."""
    doc = app.Doc(id=row_id, file=upload("in flight"))
    session.add(doc)
    session.flush()
    assert doc.file is not None
    key: str = doc.file.key
    return key


def sweep_around(app: Application, key: str) -> None:
    """Sweep while somebody holds a key: it is skipped, and remembered however long that takes."""
    time.sleep(0.1)
    for _ in range(2):
        report = impatient(app).sweep()["default"]
        assert (report.skipped, report.strangers, report.purged) == (1, 0, 0)
        assert watermark_of(app) <= moment(key)


@where_two_can_write
@on("end", ["commit", "rollback", "close"])
def test_the_watermark_does_not_pass_the_key_of_an_open_transaction(make: Make, end: str) -> None:
    app = make()
    with app.session() as session:
        key = begin(app, session, 1)
        app.storage.fail("delete")  # what settling would do is left to the sweep
        sweep_around(app, key)
        getattr(session, end)()
    assert app.files.settled(10)
    app.storage.heal()
    app.sweep()
    assert app.problems(swept=True) == []
    assert app.state() == {"0.file": ["first"]} | ({"1.file": ["in flight"]} if end == "commit" else {})
    time.sleep(0.01)
    impatient(app).sweep()
    assert watermark_of(app) > moment(key)


@on("engine", ["postgres"], indirect=True)
@on("end", ["commit", "rollback"])
def test_the_watermark_does_not_pass_the_key_of_a_prepared_transaction(make: Make, engine: Engine, end: str) -> None:
    """Which belongs to no process: only the database knows that somebody may still commit it."""
    app = make()
    with engine.connect() as connection:
        transaction = connection.begin_twophase()
        with Session(connection) as session:
            key = begin(app, session, 1)
            session.commit()
        transaction.prepare()
        sweep_around(app, key)
        getattr(transaction, end)()
    assert app.files.settled(10)
    assert app.problems() == []
    report = impatient(app).sweep()["default"]
    assert report.skipped == 0
    assert app.problems(swept=True) == []
    assert app.state() == {"0.file": ["first"]} | ({"1.file": ["in flight"]} if end == "commit" else {})
    assert watermark_of(app) > moment(key)


@everywhere
def test_the_watermark_does_not_pass_a_put_that_took_long(make: Make) -> None:
    """Its key is old, its bytes are young."""
    app = impatient(make())
    key = mint(now=time.time_ns() // 1_000_000 - 3_600_000)
    app.storage.put(key, io.BytesIO(content("slow")), size=None, content_type="text/plain")
    report = app.sweep(grace=timedelta(seconds=1))["default"]
    assert (report.skipped, report.strangers) == (1, 0)
    time.sleep(1.1)
    assert app.sweep(grace=timedelta(seconds=1))["default"].purged == 1
    assert keys_of(app) - {app_key(app)} == set()


def app_key(app: Application) -> str:
    """The key of the first row's file."""
    with app.session() as session:
        file = session.get_one(app.Doc, 0).file
        assert file is not None
        return str(file.key)
