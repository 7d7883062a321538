"""Mapper hooks that assign files while the flush is under way."""

from __future__ import annotations

import pytest

from sa_attachments import NotStored

from .hooks import hook
from .models import Doc
from .world import World

on = pytest.mark.parametrize


def seed(world: World) -> int:
    with world.session() as session:
        doc = Doc(file=b"old", pages=[b"page"])
        session.add(doc)
        session.commit()
        return doc.id


def test_a_file_that_a_hook_assigns_is_stored(world: World) -> None:
    with world.session() as session, hook("before_insert", lambda doc: setattr(doc, "file", b"hook")):
        session.add(Doc())
        session.commit()
    world.check(b"hook")


def test_a_file_that_a_hook_replaces_in_a_new_row_is_deleted(world: World) -> None:
    with world.session() as session, hook("before_insert", lambda doc: setattr(doc, "file", b"hook")):
        session.add(Doc(file=b"new"))
        session.commit()
    world.check(b"hook")


def test_a_file_that_a_hook_takes_from_a_new_row_is_deleted(world: World) -> None:
    def take(doc: Doc) -> None:
        doc.file, doc.pages = None, ()

    with world.session() as session, hook("before_insert", take):
        session.add(Doc(file=b"new", pages=[b"one", b"two"]))
        session.commit()
    world.check()


@on("value", [b"hook", None])
def test_a_file_that_a_hook_replaces_in_a_row_is_deleted(world: World, value: bytes | None) -> None:
    key = seed(world)
    with world.session() as session, hook("before_update", lambda doc: setattr(doc, "file", value)):
        session.get_one(Doc, key).file = b"new"
        session.commit()
    world.check(b"page", *([] if value is None else [value]))


def test_a_hook_may_put_the_old_file_back(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        old = doc.file
        with hook("before_update", lambda doc: setattr(doc, "file", old)):
            doc.file = b"new"
            session.commit()
    world.check(b"old", b"page")


def test_what_a_hook_did_is_rolled_back(world: World) -> None:
    key = seed(world)
    with world.session() as session, hook("before_update", lambda doc: setattr(doc, "file", b"hook")):
        session.get_one(Doc, key).title = "new"
        session.flush()
        session.rollback()
    world.check(b"old", b"page")


def test_a_hook_that_runs_too_late_is_told_so(world: World) -> None:
    with (
        world.session() as session,
        hook("before_insert", lambda doc: setattr(doc, "file", b"hook"), early=False),
    ):
        session.add(Doc(file=b"new"))
        with pytest.raises(NotStored, match=r"docs\.file"):
            session.flush()
        session.rollback()
    world.check()
