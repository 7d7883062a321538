"""Sweeps race writers, with a grace near zero: nothing is lost, and who was too late fails with OwnershipLost.

Keys can be owned for so short a time that real owners miss it, storages take their time, and tombstones expire while
the race is on. Each writer has documents of its own, and knows what they must hold.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from sa_attachments import Attachment, FileMissing, OwnershipLost
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty

from .crowd import meanwhile, together
from .site import Site

on = pytest.mark.parametrize

OWN_WITHIN = timedelta(milliseconds=400)
TOMBSTONES = timedelta(milliseconds=800)


@pytest.fixture
def storage() -> Faulty:
    """Sometimes it takes its time, before or after its work."""
    storage = Faulty(MemoryStorage(parallel=2))
    dice = random.Random(1)

    def dawdle() -> None:
        if dice.random() < 0.2:
            time.sleep(dice.random() * 0.1)

    for verb in ("put", "delete", "copy"):
        storage.at(verb, None, dawdle).at(verb, None, dawdle, after=True)
    return storage


@pytest.fixture
def site(engine: Any, storage: Faulty) -> Site:
    return Site(
        engine, {"default": storage}, own_within=OWN_WITHIN, tombstone_ttl=TOMBSTONES, budget=timedelta(milliseconds=50)
    )


class Writer:
    """Changes its documents at random until the time is up; after each commit its files must all be there."""

    def __init__(self, site: Site, seed: int) -> None:
        self._site = site
        self._dice = random.Random(seed)
        self._seed = seed
        self._next = 0
        self.must: dict[int, dict[str, list[bytes]]] = {}
        self.outcomes: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.turn()

    def turn(self) -> None:
        act: Callable[[Session, dict[int, dict[str, list[bytes]]]], None] = self._dice.choice(
            [self.add, self.add_staged, self.replace, self.replace_twice, self.move, self.copy, self.undo, self.remove]
        )
        with self._site.session() as session:
            after = {key: dict(fields) for key, fields in self.must.items()}
            try:
                act(session, after)
                session.flush()
                self.pause()
                if self._dice.random() < 0.2:
                    session.rollback()
                    self.outcomes["rolled back"] += 1
                    return
                session.commit()
            except OwnershipLost:
                session.rollback()
                self.outcomes["late"] += 1
                return
        self.must = after
        self.outcomes["committed"] += 1
        self.look()

    def look(self) -> None:
        """What the rows name is there: nobody else changes them."""
        with self._site.session() as session:
            for key, fields in self.must.items():
                doc = session.get_one(self._site.Doc, key)
                try:
                    assert {"file": [doc.file.read()] if doc.file else [], "pages": [p.read() for p in doc.pages]} == {
                        "file": fields["file"],
                        "pages": fields["pages"],
                    }
                except FileMissing as error:
                    raise AssertionError(f"lost: {error}") from error

    def pause(self) -> None:
        """Long enough for a sweep, now and then too long to own anything."""
        if self._dice.random() < 0.3:
            time.sleep(self._dice.random() * 0.15)

    def data(self) -> bytes:
        self._next += 1
        return b"%d-%d" % (self._seed, self._next)

    # What it does

    def add(self, session: Session, after: Any) -> None:
        data, page = self.data(), self.data()
        doc = self._site.Doc(file=data, pages=[page])
        session.add(doc)
        session.flush()
        after[doc.id] = {"file": [data], "pages": [page]}

    def add_staged(self, session: Session, after: Any) -> None:
        data = self.data()
        staged = self._site.files.stage(Attachment.upload(data))
        if self._dice.random() < 0.5:
            time.sleep(self._dice.random() * 0.9)
        doc = self._site.Doc(file=staged)
        session.add(doc)
        session.flush()
        after[doc.id] = {"file": [data], "pages": []}

    def replace(self, session: Session, after: Any) -> None:
        if key := self._any():
            data = self.data()
            session.get_one(self._site.Doc, key).file = data
            after[key]["file"] = [data]

    def replace_twice(self, session: Session, after: Any) -> None:
        self.replace(session, after)
        session.flush()
        self.pause()
        self.replace(session, after)

    def move(self, session: Session, after: Any) -> None:
        if (one := self._any()) and (other := self._any()) and one != other:
            giver, taker = session.get_one(self._site.Doc, one), session.get_one(self._site.Doc, other)
            giver.file, taker.file = None, giver.file
            after[one]["file"], after[other]["file"] = [], after[one]["file"]

    def copy(self, session: Session, after: Any) -> None:
        if key := self._any():
            doc = session.get_one(self._site.Doc, key)
            doc.pages = [*doc.pages, *([doc.file] if doc.file else [])][-3:]
            after[key]["pages"] = [*after[key]["pages"], *after[key]["file"]][-3:]

    def undo(self, session: Session, after: Any) -> None:
        """Drops a file, and takes it back in the same transaction."""
        if key := self._any():
            doc = session.get_one(self._site.Doc, key)
            old = doc.file
            doc.file = self.data()
            session.flush()
            self.pause()
            doc.file = old

    def remove(self, session: Session, after: Any) -> None:
        if len(self.must) > 3 and (key := self._any()):
            session.delete(session.get_one(self._site.Doc, key))
            del after[key]

    def _any(self) -> int | None:
        return self._dice.choice(list(self.must)) if self.must else None


def race(site: Site, storage: Faulty, seconds: float, writers: int = 2) -> Counter[str]:
    crowd = [Writer(site, seed) for seed in range(writers)]
    dice = random.Random(7)
    swept: Counter[str] = Counter()
    lock = threading.Lock()

    def sweep() -> None:
        options = {"grace": timedelta(milliseconds=dice.choice([0, 0, 20, 100])), "full": dice.random() < 0.3}
        for report in site.files.sweep(site.engine, stranger_retain=timedelta(0), **options).storages:
            with lock:
                swept.update(strangers=report.strangers, purged=report.purged, sweeps=1)
                assert report.problem is None

    with meanwhile(sweep), meanwhile(sweep):
        jobs = [lambda writer=writer: writer.run(seconds) for writer in crowd]  # type: ignore[misc]
        together(*jobs, patience=seconds + 60)
    assert site.files.settled(20)
    storage.heal()
    time.sleep(TOMBSTONES.total_seconds())
    for _ in range(2):
        assert site.sweep().ok
    site.check()
    for writer in crowd:
        writer.look()
        swept.update(writer.outcomes)
    return swept


@on("engine", ["sqlite-immediate", "postgres"], indirect=True)
def test_sweeps_race_writers_for_a_moment(site: Site, storage: Faulty) -> None:
    outcomes = race(site, storage, seconds=3)
    assert outcomes["committed"] > 5, outcomes
    assert outcomes["sweeps"] > 2, outcomes


@pytest.mark.torture
@pytest.mark.timeout(600)
@on("engine", ["sqlite-immediate", "postgres", "mariadb"], indirect=True)
def test_sweeps_race_writers_for_minutes(site: Site, storage: Faulty) -> None:
    outcomes = race(site, storage, seconds=180, writers=4)
    assert min(outcomes["committed"], outcomes["late"], outcomes["strangers"], outcomes["rolled back"]) > 20, outcomes
