"""How a transaction can end, and what then is left in the storage."""

from __future__ import annotations

from .models import Doc
from .world import World


def test_commit_keeps_the_file(world: World) -> None:
    with world.session() as session:
        doc = Doc(file=b"one", pages=[b"two", b"three"])
        session.add(doc)
        session.commit()
        assert doc.file is not None
        assert doc.file.read() == b"one"
        assert [page.read() for page in doc.pages] == [b"two", b"three"]
    world.check(b"one", b"two", b"three")


def test_rollback_deletes_the_file(world: World) -> None:
    with world.session() as session:
        session.add(Doc(file=b"one", pages=[b"two"]))
        session.flush()
        assert len(world.stored()) == 2
        session.rollback()
    world.check()
