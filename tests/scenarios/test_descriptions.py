"""Changed descriptions: same bytes, other filename or metadata, and nothing else of the descriptor is undone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import event, text

from sa_attachments import Attachment, BadSource, OwnershipLost

from .models import Doc, Note
from .world import World

on = pytest.mark.parametrize
two_at_a_time = on("world", ["sqlite", "postgres", "mariadb"], indirect=True)


def seed(world: World) -> int:
    """A committed document."""
    with world.session() as session:
        doc = Doc(file=Attachment.upload(b"old", "old.txt", metadata={"a": 1}), pages=[b"page"])
        session.add(doc)
        session.commit()
        return doc.id


def described(world: World, key: int) -> tuple[str, dict[str, Any]]:
    with world.session() as session:
        file = session.get_one(Doc, key).file
        assert file is not None
        return file.filename, dict(file.metadata)


CHANGES: dict[str, tuple[dict[str, Any], tuple[str, dict[str, Any]]]] = {
    "filename": ({"filename": "new.txt"}, ("new.txt", {"a": 1})),
    "metadata": ({"metadata": {"b": [1, {"c": None}]}}, ("old.txt", {"b": (1, {"c": None})})),
    "both": ({"filename": "new.txt", "metadata": {}}, ("new.txt", {})),
    "hostile": ({"filename": "../../etc/passwd\0"}, ("passwd", {"a": 1})),
}


@on("what", CHANGES)
@on("end", ["commit", "rollback"])
def test_a_description_changes_without_the_bytes(world: World, what: str, end: str) -> None:
    changes, expected = CHANGES[what]
    key = seed(world)
    with world.session() as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        before = doc.file
        doc.file = before.replace(**changes)
        session.flush()
        assert doc.file == before
        getattr(session, end)()
    assert described(world, key) == (expected if end == "commit" else ("old.txt", {"a": 1}))
    world.check(b"old", b"page")


def test_a_new_file_is_described_before_it_is_stored(world: World) -> None:
    with world.session() as session:
        doc = Doc(file=b"old")
        doc.file = doc.file.replace(filename="a.txt", metadata={"a": 1})
        session.add(doc)
        session.flush()
        doc.file = doc.file.replace(filename="b.txt")
        session.commit()
        key = doc.id
    assert world.puts == 1
    assert described(world, key) == ("b.txt", {"a": 1})
    world.check(b"old")


def test_a_description_that_is_the_same_writes_nothing(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.file = doc.file.replace(filename="old.txt", metadata={"a": 1})
        statements: list[str] = []
        event.listen(world.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        session.flush()
        assert [statement for statement in statements if statement.startswith("UPDATE docs")] == []
    world.check(b"old", b"page")


def test_described_again_before_and_after_a_flush(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        for i in range(4):
            doc.file = doc.file.replace(metadata={**doc.file.metadata, f"k{i}": i})
            if i % 2:
                session.flush()
        session.commit()
    assert described(world, key) == ("old.txt", {"a": 1, "k0": 0, "k1": 1, "k2": 2, "k3": 3})
    world.check(b"old", b"page")


def test_described_and_moved_at_once(world: World) -> None:
    key = seed(world)
    with world.session() as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        note = Note(file=doc.file.replace(filename="moved.txt"))
        doc.file = None
        session.add(note)
        session.commit()
        assert (note.file.filename, note.file.read()) == ("moved.txt", b"old")
    world.check(b"old", b"page")


def test_described_and_copied_at_once(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.scan = doc.file.replace(filename="copy.txt")
        session.commit()
        assert (doc.file.filename, doc.scan.filename) == ("old.txt", "copy.txt")
    world.check(b"old", b"old", b"page")


def test_described_on_an_object_that_was_expired(world: World) -> None:
    key = seed(world)
    with world.session() as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        new = doc.file.replace(filename="new.txt")
        session.expire(doc)
        doc.file = new
        session.commit()
    assert described(world, key)[0] == "new.txt"
    world.check(b"old", b"page")


@two_at_a_time
def test_a_description_does_not_undo_what_others_wrote_into_the_descriptor(world: World) -> None:
    """A variant that was made meanwhile, or a field of a newer version."""
    key = seed(world)
    with world.session(expire_on_commit=False) as session:
        doc = session.get_one(Doc, key)
        session.commit()
        with world.observer.begin() as connection:
            kind = "CHAR" if world.name == "mariadb" else "TEXT"
            facts = json.loads(connection.scalar(text(f"SELECT CAST(file AS {kind}) FROM docs")) or "")
            facts |= {"novel": [1], "content_type": "text/x-meanwhile"}
            connection.execute(text("UPDATE docs SET file = :facts"), {"facts": json.dumps(facts)})
        doc.file = doc.file.replace(filename="new.txt")
        session.commit()
        assert doc.file.content_type == "text/x-meanwhile"
    [facts] = [facts for facts in world.named() if facts["filename"] == "new.txt"]
    assert (facts["novel"], facts["content_type"]) == ([1], "text/x-meanwhile")
    world.check(b"old", b"page")


def moved_by_another(world: World, key: int) -> Attachment:
    """The same bytes under another key, as another session gives them to the row."""
    with world.session() as other:
        moved = other.get_one(Doc, key)
        moved.file = moved.file.copy()
        other.commit()
        return moved.file


@two_at_a_time
def test_a_description_does_not_undo_a_move_to_another_place(world: World) -> None:
    """The same bytes under another key, while this session described what it had loaded."""
    key = seed(world)
    with world.session(expire_on_commit=False) as session:
        doc = session.get_one(Doc, key)
        session.commit()
        there = moved_by_another(world, key)
        doc.file = doc.file.replace(filename="new.txt")
        session.commit()
        assert doc.file == there
    assert described(world, key)[0] == "new.txt"
    world.check(b"old", b"page")


@two_at_a_time
@on("hook", [False, True])
def test_a_description_keeps_a_moved_file_from_other_rows(world: World, hook: bool) -> None:
    """The row seems to give its file up, as what is assigned has another name; another row gets a copy."""
    key = seed(world)
    with world.session(expire_on_commit=False) as session:
        doc = session.get_one(Doc, key)
        session.commit()
        there = moved_by_another(world, key)

        def give(mapper: object, connection: object, note: Note) -> None:
            note.file = there

        doc.file = doc.file.replace(filename="new.txt")
        session.add(Note(file=None if hook else there))
        if hook:
            event.listen(Note, "before_insert", give, insert=True)
        try:
            session.commit()
        finally:
            if hook:
                event.remove(Note, "before_insert", give)
        assert doc.file == there
    assert described(world, key)[0] == "new.txt"
    world.check(b"old", b"old", b"page")


@two_at_a_time
def test_an_object_does_not_know_that_its_damaged_descriptor_was_repaired(world: World) -> None:
    key = seed(world)
    with world.engine.begin() as connection:
        whole = connection.scalar(text("SELECT file FROM docs"))
        connection.execute(text("UPDATE docs SET file = '{}'"))
    with world.session(expire_on_commit=False) as session:
        doc = session.get_one(Doc, key)
        session.commit()
        with world.engine.begin() as connection:
            whole = whole if isinstance(whole, str) else json.dumps(whole)
            connection.execute(text("UPDATE docs SET file = :whole"), {"whole": whole})
        doc.file = doc.pages[0]
        session.commit()
    world.check(b"page", b"page")


@two_at_a_time
def test_a_description_of_a_file_that_was_replaced_meanwhile_is_refused(world: World) -> None:
    """The bytes that were described are gone; the others are not renamed."""
    key = seed(world)
    with world.session(expire_on_commit=False) as session:
        doc = session.get_one(Doc, key)
        session.commit()
        with world.session() as other:
            other.get_one(Doc, key).file = Attachment.upload(b"other", "other.txt")
            other.commit()
        world.settle()
        doc.file = doc.file.replace(filename="new.txt")
        with pytest.raises(OwnershipLost, match=r"Doc\.file may not name a file that is gone"):
            session.commit()
        session.rollback()
    assert described(world, key) == ("other.txt", {})
    world.check(b"other", b"page")


@on("world", ["sqlite"], indirect=True)
@on("metadata", [{"a": object()}, {"a": float("nan")}, {"a": b"bytes"}], ids=["object", "nan", "bytes"])
def test_metadata_that_is_not_json_is_refused_at_once(world: World, metadata: Any) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        with pytest.raises(BadSource, match="JSON"):
            doc.file.replace(metadata=metadata)
        assert not session.dirty
    world.check(b"old", b"page")


def test_metadata_that_looks_like_a_descriptor_is_only_metadata(world: World) -> None:
    """Hole 2: a user's ``key`` names nothing."""
    key, victim = seed(world), seed(world)
    with world.session() as session:
        doc, other = session.get_one(Doc, key), session.get_one(Doc, victim)
        facts = {"storage": other.file.storage, "key": other.file.key}
        doc.file = doc.file.replace(metadata={**facts, "variants": {"thumb": facts}, "more": [facts]})
        session.commit()
        doc.file = None
        session.commit()
        assert other.file.read() == b"old"
    world.check(b"old", b"page", b"page")
