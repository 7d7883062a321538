"""Mapper hooks that assign files while the flush is under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.orm import make_transient, object_session

from sa_attachments import NotStored, OwnershipLost

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


def expunge(doc: Doc) -> None:
    if (session := object_session(doc)) is not None:
        session.expunge(doc)


def expunge_all(doc: Doc) -> None:
    if (session := object_session(doc)) is not None:
        session.expunge_all()


@on("take_out", [expunge, expunge_all, make_transient])
@on("held", [True, False])
@on("early", [True, False])
def test_a_new_object_that_a_hook_takes_out_of_its_session_loses_no_file(
    world: World, take_out: Callable[[Any], None], held: bool, early: bool
) -> None:
    """Its row is written nevertheless."""
    docs = [Doc(file=b"one"), Doc(file=b"two")]
    with world.session() as session:
        session.add_all(docs)
        if not held:
            docs.clear()
        with hook("before_insert", take_out, early=early):
            if early or take_out is expunge_all:
                with pytest.raises(OwnershipLost, match="out of its session"):
                    session.commit()
                session.rollback()
            else:
                session.commit()
    world.check(*([] if early or take_out is expunge_all else [b"one", b"two"]))


def test_an_object_without_files_may_be_taken_out_of_its_session(world: World) -> None:
    with world.session() as session, hook("before_insert", expunge):
        session.add_all([Doc(), Doc()])
        session.commit()
    world.check()


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
