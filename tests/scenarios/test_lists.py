"""Lists of attachments: ordered, each file named once, replaced as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_attachments import Attachment, AttachmentListType, BadSource

from .models import Doc, files
from .world import World

on = pytest.mark.parametrize
Pages = Sequence[Attachment]


def seed(world: World, *pages: bytes) -> int:
    """A committed document with pages."""
    with world.session() as session:
        doc = Doc(pages=pages)
        session.add(doc)
        session.commit()
        return doc.id


def read(pages: Pages) -> list[bytes]:
    return [page.read() for page in pages]


def test_a_list_keeps_its_order(world: World) -> None:
    pages = [bytes([i]) for i in range(30)]
    key = seed(world, *pages)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        assert isinstance(doc.pages, tuple)
        assert read(doc.pages) == pages
    world.check(*pages)


CHANGES: dict[str, tuple[Callable[[Pages], Sequence[object]], list[bytes]]] = {
    "append": (lambda pages: [*pages, b"new"], [b"one", b"two", b"three", b"new"]),
    "prepend": (lambda pages: [b"new", *pages], [b"new", b"one", b"two", b"three"]),
    "remove one": (lambda pages: [pages[0], pages[2]], [b"one", b"three"]),
    "exchange one": (lambda pages: [pages[0], b"new", pages[2]], [b"one", b"new", b"three"]),
    "reverse": (lambda pages: pages[::-1], [b"three", b"two", b"one"]),
    "swap": (lambda pages: [pages[2], pages[1], pages[0]], [b"three", b"two", b"one"]),
    "empty": (lambda pages: [], []),
    "exchange all": (lambda pages: [b"new", b"new"], [b"new", b"new"]),
}


@on("how", CHANGES)
@on("end", ["commit", "rollback"])
def test_a_changed_list_keeps_what_is_still_in_it(world: World, how: str, end: str) -> None:
    change, expected = CHANGES[how]
    key = seed(world, b"one", b"two", b"three")
    with world.session() as session:
        doc = session.get_one(Doc, key)
        kept = set(doc.pages)
        stored = world.puts
        doc.pages = change(doc.pages)  # type: ignore[assignment]
        session.flush()
        assert world.puts - stored == expected.count(b"new")
        getattr(session, end)()
        if end == "rollback":
            expected = [b"one", b"two", b"three"]
            assert set(doc.pages) == kept
        assert read(doc.pages) == expected
    world.check(*expected)


def test_a_list_is_changed_flush_by_flush(world: World) -> None:
    key = seed(world)
    with world.session() as session:
        doc = session.get_one(Doc, key)
        for i in range(5):
            doc.pages = [*doc.pages[-2:], bytes([i])]
            session.flush()
        doc.pages = doc.pages[::-1]
        session.commit()
        assert read(doc.pages) == [b"\x04", b"\x03", b"\x02"]
    world.check(b"\x02", b"\x03", b"\x04")


def test_the_same_stored_file_twice_is_copied(world: World) -> None:
    key = seed(world, b"one", b"two")
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.pages = [doc.pages[0], doc.pages[1], doc.pages[0]]
        session.commit()
        assert len(set(doc.pages)) == 3
        assert read(doc.pages) == [b"one", b"two", b"one"]
    world.check(b"one", b"two", b"one")


def test_an_item_that_stays_is_not_taken_by_another_row(world: World) -> None:
    key = seed(world, b"one", b"two")
    with world.session() as session:
        doc = session.get_one(Doc, key)
        first = doc.pages[0]
        other = Doc(file=first)
        session.add(other)
        doc.pages = [first]
        session.commit()
        assert doc.pages == (first,)
        assert other.file != first
    world.check(b"one", b"one")


def test_the_same_upload_twice_is_copied(world: World) -> None:
    upload = Attachment.upload(b"one")
    key = seed(world, upload, b"two", upload)  # type: ignore[arg-type]
    with world.session() as session:
        assert read(session.get_one(Doc, key).pages) == [b"one", b"two", b"one"]
    world.check(b"one", b"two", b"one")


@on("flushed", [False, True])
def test_a_file_moves_from_a_list_to_an_attribute_and_back(world: World, flushed: bool) -> None:
    key = seed(world, b"one", b"two")
    with world.session() as session:
        doc = session.get_one(Doc, key)
        first, second = doc.pages
        stored = world.puts
        doc.pages = [second]
        if flushed:
            session.flush()
        doc.file = first
        session.flush()
        assert world.puts == stored
        doc.pages = [second, first]
        doc.file = None
        session.commit()
        assert world.puts == stored
        assert doc.pages == (second, first)
    world.check(b"one", b"two")


@on("order", ["give first", "take first", "give, flush, take", "take, flush, give"])
def test_a_file_moves_from_list_to_list(world: World, order: str) -> None:
    key, other = seed(world, b"one", b"two"), seed(world, b"three")
    with world.session() as session:
        doc, target = session.get_one(Doc, key), session.get_one(Doc, other)
        first, second = doc.pages
        stored = world.puts

        def give() -> None:
            doc.pages = [second]

        def take() -> None:
            target.pages = [*target.pages, first]

        steps = [give, take] if order.startswith("give") else [take, give]
        steps[0]()
        if "flush" in order:
            session.flush()
        steps[1]()
        session.commit()
        assert world.puts - stored == (order == "take, flush, give")
        assert read(target.pages) == [b"three", b"one"]
    world.check(b"one", b"two", b"three")


def test_lists_swap(world: World) -> None:
    key, other = seed(world, b"one", b"two"), seed(world, b"three")
    with world.session() as session, world.nothing_stored():
        doc, target = session.get_one(Doc, key), session.get_one(Doc, other)
        doc.pages, target.pages = target.pages, doc.pages
        session.commit()
        assert (read(doc.pages), read(target.pages)) == ([b"three"], [b"one", b"two"])
    world.check(b"one", b"two", b"three")


def test_a_changed_description_of_one_item(world: World) -> None:
    key = seed(world, b"one", b"two")
    with world.session() as session, world.nothing_stored():
        doc = session.get_one(Doc, key)
        first, second = doc.pages
        doc.pages = [first, second.replace(filename="two.txt", metadata={"page": 2})]
        session.commit()
        assert doc.pages == (first, second)
        assert [(page.filename, dict(page.metadata)) for page in doc.pages] == [
            ("unnamed", {}),
            ("two.txt", {"page": 2}),
        ]
    world.check(b"one", b"two")


# The value


def test_a_list_is_never_none(world: World) -> None:
    with world.session() as session:
        doc = Doc()
        assert doc.pages == ()
        session.add(doc)
        session.flush()
        assert doc.pages == ()
        session.commit()
        assert doc.pages == ()
        doc.pages = None  # type: ignore[assignment]
        assert doc.pages == ()
        session.commit()
        assert session.scalar(text("SELECT count(*) FROM docs WHERE pages IS NULL")) == 0
    world.check()


def test_nulls_are_empty_lists(world: World) -> None:
    """Rows of other hands, and rows that were there before the column."""
    with world.session() as session:
        session.add_all([Doc(id=1), Doc(id=2)])
        session.commit()
    with world.observer.begin() as connection:
        connection.execute(text("UPDATE docs SET pages = 'null' WHERE id = 1"))
    with world.session() as session:
        doc = session.get_one(Doc, 1)
        assert doc.pages == ()
        doc.pages = [*doc.pages, Attachment.upload(b"one")]
        session.commit()
        assert read(doc.pages) == [b"one"]
    world.create(OwnBase.metadata)
    with world.observer.begin() as connection:
        connection.execute(text("INSERT INTO albums (id, photos) VALUES (1, '[]')"))
    with world.session() as session:
        album = session.get_one(Album, 1)
        assert (album.photos, album.drafts) == ((), ())
        album.drafts = [*album.drafts, Attachment.upload(b"two")]
        session.commit()
        assert read(album.drafts) == [b"two"]
    world.check(b"one", b"two")


@on("value", [b"bytes", "text", 7, Attachment.upload(b"one")], ids=["bytes", "text", "int", "attachment"])
def test_what_is_no_sequence_of_attachments_is_refused_at_the_assignment(world: World, value: object) -> None:
    doc = Doc()
    with pytest.raises(BadSource, match=r"docs\.pages holds a sequence of attachments, not"):
        doc.pages = value  # type: ignore[assignment]


def test_any_iterable_of_sources_is_a_list(world: World) -> None:
    with world.session() as session:
        doc = Doc(pages=(data for data in (b"one", b"two")))
        session.add(doc)
        session.commit()
        assert read(doc.pages) == [b"one", b"two"]
    world.check(b"one", b"two")


def test_an_equal_list_writes_nothing(world: World) -> None:
    key = seed(world, b"one", b"two")
    with world.session() as session:
        doc = session.get_one(Doc, key)
        doc.pages = list(doc.pages)
        statements: list[str] = []
        event.listen(world.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        session.flush()
        assert [statement for statement in statements if statement.startswith("UPDATE docs")] == []
    world.check(b"one", b"two")


def test_a_list_that_was_never_loaded_is_replaced_by_an_empty_one(world: World) -> None:
    """The value that the attribute starts with must not pass for the one in the row."""
    key = seed(world, b"one", b"two")
    with world.session() as session:
        doc = session.get_one(Doc, key)
        session.expire(doc, ["pages"])
        doc.pages = []
        session.commit()
        assert doc.pages == ()
    world.check()


class OwnBase(DeclarativeBase):
    pass


class Album(OwnBase):
    __tablename__ = "albums"
    id: Mapped[int] = mapped_column(primary_key=True)
    photos: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files))
    drafts: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files), deferred=True, nullable=True)


def test_a_deferred_list(world: World) -> None:
    world.create(OwnBase.metadata)
    with world.session() as session:
        session.add(Album(id=1, photos=[b"photo"], drafts=[b"draft"]))
        session.commit()
    with world.session() as session:
        album = session.scalars(select(Album)).one()
        assert "drafts" not in album.__dict__
        album.drafts = [b"new"]
        session.commit()
        assert read(album.drafts) == [b"new"]
        session.delete(album)
        session.flush()
        session.rollback()
    world.check(b"photo", b"new")


def test_an_item_can_not_be_changed_in_place(world: World) -> None:
    key = seed(world, b"one")
    with world.session() as session:
        doc = session.get_one(Doc, key)
        with pytest.raises(TypeError):
            doc.pages[0] = Attachment.upload(b"new")  # type: ignore[index]
        with pytest.raises(AttributeError, match="frozen"):
            doc.pages[0].filename = "new"  # type: ignore[misc]
        assert not session.dirty
    world.check(b"one")
