"""Drops: what rows named before, less what they name afterwards."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import configure_mappers

from sa_attachments import Attachment
from sa_attachments.attachment import make
from sa_attachments.drops import Drops, encode_identity
from sa_attachments.frames import Frame
from sa_attachments.queries import CONDEMNED, OWNED
from sa_attachments.references import Reference, of_class
from sa_attachments.staging import SessionStage
from tests.archive import Archive

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
HOUR = timedelta(hours=1)


class Desk:
    """Drops in a transaction of their own, of files that are owned."""

    def __init__(self, archive: Archive, *contents: bytes) -> None:
        self.archive = archive
        self.keys = {data: archive.key(id_) for data, id_ in zip(contents, archive.keep(*contents), strict=True)}
        with archive.session() as session:
            docs = session.query(archive.Doc).order_by(archive.Doc.id)
            self.items: dict[bytes, Attachment] = dict(zip(contents, [doc.file for doc in docs], strict=True))
        configure_mappers()
        self.reference: Reference = next(each for each in of_class(archive.Doc) if each.key == "file")
        self.frame = Frame()
        self.session = archive.session()
        self.drops = Drops(SessionStage(self.session, self.frame), self.frame)

    def named(self, *contents: bytes, identity: Any = (7,)) -> None:
        self.drops.named(self.reference, [self.items[data] for data in contents], identity)

    def carry_out(self) -> set[bytes]:
        """Returns the contents whose files were condemned."""
        self.drops.carry_out()
        self.session.commit()
        self.session.close()
        states = self.archive.states()
        assert set(states.values()) <= {CONDEMNED, OWNED}
        return {data for data, key in self.keys.items() if states[key] == CONDEMNED}

    def dropped(self) -> set[str]:
        return {file.key for work in self.frame.works.values() for file in work.dropped}


def test_what_is_named_no_longer_is_condemned(engine: Engine) -> None:
    desk = Desk(Archive(engine), b"one", b"two", b"three")
    desk.named(b"one", b"two")
    desk.drops.keep([desk.items[b"two"]])
    assert desk.carry_out() == {b"one"}
    assert desk.dropped() == {desk.keys[b"one"]}


def test_it_does_not_matter_in_which_order_names_are_lost_and_kept(engine: Engine) -> None:
    """A move, in either order; a swap."""
    desk = Desk(Archive(engine), b"one", b"two")
    desk.drops.keep([desk.items[b"two"], desk.items[b"one"]])
    desk.named(b"one", identity=(1,))
    desk.named(b"two", identity=(2,))
    assert desk.carry_out() == set()


def test_nothing_was_named(engine: Engine) -> None:
    assert Desk(Archive(engine), b"one").carry_out() == set()


def test_new_and_damaged_attachments_name_nothing(engine: Engine) -> None:
    desk = Desk(Archive(engine), b"one")
    damaged: Attachment = make(Attachment, "nonsense", None)
    desk.drops.named(desk.reference, [damaged], (1,))
    desk.drops.keep([damaged, Attachment.upload(b"new")])
    assert desk.carry_out() == set()


def test_a_retained_file_keeps_what_a_restore_needs(engine: Engine) -> None:
    archive = Archive(engine, retain=HOUR)
    desk = Desk(archive, b"one", b"two")
    desk.named(b"one", identity=(7, "a"))
    desk.named(b"two", identity=None)  # in no row: there is nothing to go back to
    assert desk.carry_out() == {b"one", b"two"}
    one, two = (archive.line(desk.keys[data]) for data in (b"one", b"two"))
    assert (one.owner_pk, one.descriptor["key"]) == ('["7","a"]', desk.keys[b"one"])
    assert abs(one.purge_after - one.since - 3_600_000) < 1000
    assert (two.owner_pk, two.descriptor) == (None, None)
    assert two.purge_after - two.since < 1000
    assert desk.dropped() == {desk.keys[b"two"]}  # what is retained is not due


def test_what_was_staged_in_the_same_transaction_is_not_retained(engine: Engine) -> None:
    """Nobody has seen it."""
    archive = Archive(engine, retain=HOUR)
    with archive.session() as session:
        doc = archive.Doc(file=b"one")
        session.add(doc)
        session.flush()
        doc.file = b"two"
        session.commit()
    archive.settle()
    archive.sweep()
    assert list(archive.stored().values()) == [b"two"]


@pytest.mark.parametrize(
    ("identity", "expected"),
    [((1,), '["1"]'), (("a", 2), '["a","2"]'), (('quo"te',), '["quo\\"te"]'), ((None,), '["None"]'), ((), "[]")],
)
def test_a_primary_key_as_text(engine: Engine, identity: tuple[Any, ...], expected: str) -> None:
    assert encode_identity(identity) == expected
