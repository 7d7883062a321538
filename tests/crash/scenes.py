"""Scenes: what the children of ``forks`` do until they are killed.

A workload is a list of transactions. Each that commits adds a ``Mark`` with its own number, so that the marks tell
which state the rows must be in.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg  # noqa: F401 - so that children need not import it
from sqlalchemy import delete, event, insert, update
from sqlalchemy.orm import Session

from sa_attachments.key import mint
from sa_attachments.storages.local import LocalStorage
from sa_attachments.storages.s3 import S3Storage
from sa_attachments.testing import Faulty
from tests.engines import open_engine

from .application import LATER, RECIPES, Application, upload
from .mortal import Mortal, kill_at

Transaction = Callable[[Application, Session], None]

PATIENT = timedelta(seconds=30)
"""The budget: cleaning belongs to the workload, so nothing of it may be left when the next transaction begins."""


def insert_rows(app: Application, session: Session) -> None:
    for i in range(1, 5):
        pages = [upload(f"page {i}.{j}") for j in range(2)]
        session.add(app.Doc(id=i, file=upload(f"file {i}"), cover=upload(f"cover {i}"), pages=pages))


def replace_twice(app: Application, session: Session) -> None:
    doc = session.get_one(app.Doc, 1)
    doc.file = upload("passing")
    session.flush()
    doc.file = upload("replaced")


def change_back(app: Application, session: Session) -> None:
    doc = session.get_one(app.Doc, 1)
    before, doc.cover = doc.cover, upload("passing")
    session.flush()
    doc.cover = before


def roll_back(app: Application, session: Session) -> None:
    session.add(app.Doc(id=9, file=upload("void")))
    session.get_one(app.Doc, 1).file = upload("void too")
    session.flush()
    session.rollback()


def roll_savepoints_back(app: Application, session: Session) -> None:
    doc = session.get_one(app.Doc, 2)
    with session.begin_nested():
        doc.cover = upload("released")
    savepoint = session.begin_nested()
    doc.file = upload("void")
    session.add(app.Doc(id=9, file=upload("void too")))
    session.flush()
    savepoint.rollback()


def change_list(app: Application, session: Session) -> None:
    doc = session.get_one(app.Doc, 1)
    doc.pages = [upload("page 1.2"), doc.pages[1]]


def bulk(app: Application, session: Session) -> None:
    session.execute(update(app.Doc).where(app.Doc.id == 2).values(file=upload("bulk update")))
    session.execute(
        insert(app.Doc), [{"id": i, "file": upload(f"bulk {i}"), "cover": None, "pages": []} for i in (5, 6)]
    )
    session.execute(delete(app.Doc).where(app.Doc.id == 3))


def stage(app: Application, session: Session) -> None:
    app.files.stage(upload("never owned"))
    session.get_one(app.Doc, 4).file = app.files.stage(upload("staged"))


def move(app: Application, session: Session) -> None:
    one, two = session.get_one(app.Doc, 1), session.get_one(app.Doc, 2)
    one.cover, two.cover = two.cover, one.cover
    one.file, two.file = None, one.file


def copy(app: Application, session: Session) -> None:
    session.get_one(app.Doc, 6).cover = session.get_one(app.Doc, 1).cover


def give_away(app: Application, session: Session) -> None:
    session.get_one(app.Doc, 5).cover = app.give("given")


def delete_row(app: Application, session: Session) -> None:
    session.delete(session.get_one(app.Doc, 4))


def roll_large_back(app: Application, session: Session) -> None:
    session.get_one(app.Doc, 1).file = upload("large void")
    session.flush()
    session.rollback()


def add_photos(app: Application, session: Session) -> None:
    app.deploy(RECIPES)
    session.add_all(app.Doc(id=i, photo=upload(name)) for i, name in ((1, "photo"), (2, "bad photo")))


def replace_photo(app: Application, session: Session) -> None:
    session.get_one(app.Doc, 1).photo = upload("passing photo")
    session.flush()
    session.get_one(app.Doc, 1).photo = upload("replaced photo")


def roll_photos_back(app: Application, session: Session) -> None:
    session.add(app.Doc(id=9, photo=upload("void")))
    session.get_one(app.Doc, 1).photo = upload("void too")
    session.flush()
    session.rollback()


def ask_for_variant(app: Application, session: Session) -> None:
    photo: Any = session.get_one(app.Doc, 1).photo
    session.close()
    app.files.make(app.engine, photo, "soft", primary_key=1)
    session.begin()


def copy_photo(app: Application, session: Session) -> None:
    session.add(app.Doc(id=3, photo=session.get_one(app.Doc, 1).photo))


def move_photo(app: Application, session: Session) -> None:
    three = session.get_one(app.Doc, 3)
    session.add(app.Doc(id=4, photo=three.photo))
    three.photo = None


def rebuild(app: Application, session: Session) -> None:
    app.deploy(LATER)
    report = app.files.rebuild(app.engine)
    assert (len(report.failed), report.busy, report.overtaken) == (1, 0, 0), report
    session.begin()


def delete_photo(app: Application, session: Session) -> None:
    session.delete(session.get_one(app.Doc, 1))


WORKLOADS: dict[str, list[Transaction]] = {
    "small": [
        lambda app, session: session.add(app.Doc(id=1, file=upload("file"), cover=upload("cover"))),
        replace_twice,
        roll_back,
    ],
    "large": [
        lambda app, session: session.add(app.Doc(id=1, file=upload("large"))),
        roll_large_back,
        lambda app, session: session.delete(session.get_one(app.Doc, 1)),
    ],
    "variants": [
        add_photos,
        replace_photo,
        roll_photos_back,
        ask_for_variant,
        copy_photo,
        move_photo,
        rebuild,
        delete_photo,
    ],
    "given": [lambda app, session: session.add(app.Doc(id=5, cover=app.give("given")))],
    "all": [
        insert_rows,
        replace_twice,
        change_back,
        roll_back,
        roll_savepoints_back,
        change_list,
        bulk,
        stage,
        move,
        copy,
        give_away,
        delete_row,
    ],
}


inherited: list[Application] = []
"""By children: an application whose statements are compiled, and whose engine has no connection open."""


def prepare(
    url: str, folder: str, storage: str | None = None, kind: str = "tests.crash.application:Application"
) -> None:
    """Make the application, of the class that ``kind`` names, and let it do everything once: later children are faster
    by that.
    """
    engine = open_engine(url)
    if url.startswith("sqlite"):
        event.listen(engine, "connect", _forget_quickly)
    module, _, name = kind.partition(":")
    app: Application = getattr(import_module(module), name)(engine, Path(folder), storage, budget=PATIENT)
    run("all", app)
    app.sweep()
    engine.dispose()
    inherited[:] = [app]


def work(name: str, limit: int | None = None, system_calls: bool = False) -> list[str]:
    """Run a workload. Returns its steps."""
    with _mortal(limit, system_calls) as (mortal, app):
        run(name, app)
    return mortal.steps


def states(name: str) -> dict[str, Any]:
    """Run a workload. Returns the states of the rows that were ever committed, by the number of marks."""
    app = inherited[0]
    seen: dict[str, Any] = {"0": {}}
    run(name, app, lambda: seen.update({str(app.marks()): app.state()}))
    return seen


def sweep(limit: int | None = None, system_calls: bool = False) -> list[str]:
    """Sweep, however young files are. Returns the steps."""
    with _mortal(limit, system_calls) as (mortal, app):
        report = app.sweep()
        assert report.ok, report
    return mortal.steps


def forbid_nameless_files() -> None:
    """From now on this is a machine whose file systems know no O_TMPFILE."""
    opened = os.open

    def refuse(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no O_TMPFILE here", path)
        return opened(path, flags, *arguments, **options)

    os.open = refuse


def keys(how_many: int) -> list[str]:
    """Mint keys, all at one moment."""
    return [mint(now=1_700_000_000_000) for _ in range(how_many)]


def hang(url: str, folder: str) -> None:
    """Make the application, whose worker thread then waits for a storage that hangs."""
    storage = Faulty(LocalStorage(Path(folder) / "files"))
    app = Application(open_engine(url), Path(folder), storage, budget=timedelta(seconds=2))
    storage.hang("delete")
    with app.session() as session:
        for i in range(3):
            session.add(app.Doc(id=i, file=upload("old")))
        session.commit()
        session.get_one(app.Doc, 0).file = upload("new")
        session.commit()
    assert storage.wait_for_hang()
    inherited[:] = [app]


def replace_in_child(row_id: int) -> int:
    """Replace a file of the inherited application. Returns how many files were purged before this returns."""
    app = inherited[0]
    app.engine.dispose(close=False)  # the connections are the parent's
    app.storage.heal()
    before = len(app.storage.calls)
    with app.session() as session:
        session.get_one(app.Doc, row_id).file = upload("new")
        session.commit()
    assert app.files.settled(10)
    assert app.problems() == []
    return sum(call.verb == "delete" for call in app.storage.calls[before:])


def run(name: str, app: Application, after_each: Callable[[], None] = lambda: None) -> None:
    """One transaction after the other, each cleaned up after."""
    for number, transaction in enumerate(WORKLOADS[name]):
        with app.session() as session:
            transaction(app, session)
            if session.in_transaction():
                session.add(app.Mark(id=number))
                session.commit()
        app.files.settled()
        after_each()


@contextmanager
def _mortal(limit: int | None, system_calls: bool) -> Iterator[tuple[Mortal, Application]]:
    mortal = Mortal(kill_at(limit))
    app = inherited[0]
    mortal.engine(app.engine)
    # A folder is emptied between children: none may remember what was there.
    is_local = isinstance(app.storage, LocalStorage)
    storage = mortal.storage(LocalStorage(app.folder / "files") if is_local else app.storage)
    if isinstance(app.storage, S3Storage):
        mortal.requests(app.storage._bucket.client)
    with app.files.override(storage), mortal.system_calls() if system_calls else nullcontext():
        yield mortal, app


def _forget_quickly(connection: Any, record: Any) -> None:
    connection.execute("PRAGMA synchronous = NORMAL")
