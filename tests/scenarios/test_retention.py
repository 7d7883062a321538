"""Dropped files that are kept for a while, and how they come back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import String, delete, event, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.orm.exc import StaleDataError

from sa_attachments import Attachment, AttachmentListType, AttachmentType, FileMissing, OwnershipLost

from .models import files
from .world import World

on = pytest.mark.parametrize
DAYS = timedelta(days=30)
databases = on("world", ["sqlite", "sqlite-memory", "postgres", "mariadb", "aiosqlite", "asyncpg"], indirect=True)


class Base(DeclarativeBase):
    pass


class Kept(Base):
    __tablename__ = "kept"
    id: Mapped[int] = mapped_column(primary_key=True)
    part: Mapped[str] = mapped_column(String(10), primary_key=True, default="a")
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, retain=DAYS))
    pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files, retain=DAYS))
    gone: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


def seed(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        file = Attachment.upload(b"old", "old.txt", metadata={"a": 1})
        session.add(Kept(id=1, file=file, pages=[b"p1", b"p2"], gone=b"x"))
        session.commit()


def condemned(world: World) -> list[bytes]:
    """The files that are kept although no row names them."""
    world.settle()
    stored = world.stored()
    return sorted(stored[name] for name, state in world.ledger().items() if state == "condemned")


def pass_time(world: World, by: timedelta) -> None:
    """As if that time had passed for what waits."""
    ms = int(by.total_seconds() * 1000)
    with world.observer.begin() as connection:
        connection.execute(text(f"UPDATE attachment_ledger SET purge_after = purge_after - {ms}"))


DROPS: dict[str, Callable[[Session, Kept], Any]] = {
    "replace": lambda session, row: setattr(row, "file", b"new"),
    "none": lambda session, row: setattr(row, "file", None),
    "bulk update": lambda session, row: session.execute(update(Kept).values(file=None)),
    "delete": lambda session, row: session.delete(row),
    "bulk delete": lambda session, row: session.execute(delete(Kept)),
}


@databases
@on("how", DROPS)
def test_a_dropped_file_is_kept_and_taken_back(world: World, how: str) -> None:
    seed(world)
    with world.session() as session:
        DROPS[how](session, session.get_one(Kept, (1, "a")))
        session.commit()
    assert condemned(world) == ([b"old", b"p1", b"p2"] if "delete" in how else [b"old"]), "the option is the column's"
    with world.session() as session:
        restored = world.files.restore(session, Kept.file, (1, "a"))
        assert (restored.read(), restored.filename, dict(restored.metadata)) == (b"old", "old.txt", {"a": 1})
        if "delete" in how:
            session.add(Kept(id=1, file=restored))
        session.commit()
        assert session.get_one(Kept, (1, "a")).file == restored
    left = {"replace": [b"new"], "delete": [b"p1", b"p2"], "bulk delete": [b"p1", b"p2"]}
    assert condemned(world) == left.get(how, [])


@databases
def test_what_was_deleted_can_be_named_by_another_row(world: World) -> None:
    seed(world)
    with world.session() as session:
        session.delete(session.get_one(Kept, (1, "a")))
        session.commit()
        with world.nothing_stored():
            session.add(Kept(id=2, file=world.files.restore(session, Kept.file, (1, "a"))))
            session.commit()
        assert session.get_one(Kept, (2, "a")).file.read() == b"old"
        # It has an owner again.
        with pytest.raises(FileMissing, match=r"Kept\.file: nothing is kept of what row \(1, 'a'\) dropped"):
            world.files.restore(session, Kept.file, (1, "a"))
    assert condemned(world) == [b"p1", b"p2"]


@databases
def test_the_items_of_a_list_come_back_one_by_one(world: World) -> None:
    seed(world)
    with world.session() as session:
        row = session.get_one(Kept, (1, "a"))
        row.pages = row.pages[1:]
        session.commit()
        row.pages = [b"p3"]
        session.commit()
        assert condemned(world) == [b"p1", b"p2"]
        assert world.files.restore(session, Kept.pages, (1, "a")).read() == b"p2"
        session.commit()
        assert world.files.restore(session, Kept.pages, (1, "a")).read() == b"p1"
        session.commit()
        assert [page.read() for page in row.pages] == [b"p3", b"p2", b"p1"]
    world.check(b"old", b"p1", b"p2", b"p3", b"x")


@databases
def test_restoring_swaps_the_old_file_and_the_new(world: World) -> None:
    """Undo, and redo."""
    seed(world)
    with world.session() as session:
        row = session.get_one(Kept, (1, "a"))
        row.file = b"new"
        session.commit()
        for expected, other in ((b"old", b"new"), (b"new", b"old"), (b"old", b"new")):
            world.files.restore(session, Kept.file, (1, "a"))
            session.commit()
            assert row.file.read() == expected
            session.commit()
            assert condemned(world) == [other]


@databases
def test_a_stale_row_is_written_though_it_seems_to_have_what_is_restored(world: World) -> None:
    seed(world)
    with world.session(expire_on_commit=False) as session, world.session() as other:
        row = session.get_one(Kept, (1, "a"))
        session.commit()
        theirs = other.get_one(Kept, (1, "a"))
        theirs.file, theirs.pages = None, theirs.pages[:1]
        other.commit()
        world.files.restore(session, Kept.file, (1, "a"))
        world.files.restore(session, Kept.pages, (1, "a"))
        session.commit()
        session.refresh(row)
        assert row.file is not None
        assert [row.file.read(), *(page.read() for page in row.pages)] == [b"old", b"p1", b"p2"]
    world.check(b"old", b"p1", b"p2", b"x")


@databases
def test_a_list_keeps_what_a_stale_object_does_not_know_of(world: World) -> None:
    seed(world)
    with world.session(expire_on_commit=False) as session, world.session() as other:
        row = session.get_one(Kept, (1, "a"))
        session.commit()
        theirs = other.get_one(Kept, (1, "a"))
        theirs.pages = [b"p3", theirs.pages[0]]
        other.commit()
        world.files.restore(session, Kept.pages, (1, "a"))
        session.commit()
        assert [page.read() for page in row.pages] == [b"p3", b"p1", b"p2"]
        session.refresh(row)
        assert [page.read() for page in row.pages] == [b"p3", b"p1", b"p2"]
    assert condemned(world) == []


@databases
@on("stale", [False, True])
def test_what_was_assigned_to_a_list_counts_beside_what_is_restored(world: World, stale: bool) -> None:
    seed(world)
    with world.session(expire_on_commit=False) as session, world.session() as other:
        row = session.get_one(Kept, (1, "a"))
        session.commit()
        theirs = other.get_one(Kept, (1, "a"))
        theirs.pages = [*theirs.pages[:1], *([b"p3"] if stale else [])]
        other.commit()
        row.pages = [b"p4"]
        world.files.restore(session, Kept.pages, (1, "a"))
        if stale:
            with pytest.raises(StaleDataError, match="1 more"):
                session.commit()
        else:
            session.commit()
            assert [page.read() for page in row.pages] == [b"p4", b"p2"]
    assert condemned(world) == ([b"p2"] if stale else [b"p1"])


@databases
@on("attribute", [Kept.file, Kept.pages])
def test_a_row_that_is_gone_is_told_though_it_seems_to_have_what_is_restored(world: World, attribute: Any) -> None:
    seed(world)
    with world.session(expire_on_commit=False) as session, world.session() as other:
        row = session.get_one(Kept, (1, "a"))
        session.commit()
        other.delete(other.get_one(Kept, (1, "a")))
        other.commit()
        world.files.restore(session, attribute, (1, "a"))
        with pytest.raises(StaleDataError):
            session.commit()
        assert row in session
    assert condemned(world) == [b"old", b"p1", b"p2"]


@on("world", ["postgres", "mariadb"], indirect=True)
def test_a_restore_is_in_nobodys_way(world: World) -> None:
    seed(world)
    with world.session() as session:
        session.get_one(Kept, (1, "a")).file = None
        session.commit()
    with world.session() as session, world.session() as other:
        world.files.restore(session, Kept.file, (1, "a"))
        if world.name == "mariadb":
            other.execute(text("SET innodb_lock_wait_timeout = 1"))
        other.add(Kept(id=2, file=b"other"))
        other.commit()
        session.commit()
    world.check(b"old", b"other", b"p1", b"p2", b"x")


@databases
def test_a_restore_that_is_rolled_back_keeps_it_restorable(world: World) -> None:
    seed(world)
    with world.session() as session:
        row = session.get_one(Kept, (1, "a"))
        row.file = None
        session.commit()
        world.files.restore(session, Kept.file, (1, "a"))
        session.flush()
        session.rollback()
        assert row.file is None
        session.commit()
        assert condemned(world) == [b"old"]
        world.files.restore(session, Kept.file, (1, "a"))
        session.commit()
    world.check(b"old", b"p1", b"p2", b"x")


@databases
@on("then", ["retry", "forget"])
def test_a_restore_whose_flush_is_refused_keeps_it_restorable(world: World, then: str) -> None:
    """A refusal comes before the flush begins, so that the transaction can go on."""
    seed(world)
    with world.session() as session:
        row = session.get_one(Kept, (1, "a"))
        row.file = None
        session.commit()
        world.files.restore(session, Kept.file, (1, "a"))

        def refuse(*_: object) -> None:
            raise ValueError

        event.listen(session, "before_flush", refuse)
        with pytest.raises(ValueError):
            session.flush()
        event.remove(session, "before_flush", refuse)
        if then == "forget":
            session.expire(row)
            session.commit()
            assert condemned(world) == [b"old"]
            world.files.restore(session, Kept.file, (1, "a"))
        with world.nothing_stored():
            session.commit()
        assert row.file is not None
        assert row.file.read() == b"old"
    world.check(b"old", b"p1", b"p2", b"x")


@databases
def test_a_drop_that_is_rolled_back_leaves_nothing_to_restore(world: World) -> None:
    seed(world)
    with world.session() as session:
        session.get_one(Kept, (1, "a")).file = None
        session.flush()
        session.rollback()
        with pytest.raises(FileMissing, match="retain"):
            world.files.restore(session, Kept.file, (1, "a"))
    world.check(b"old", b"p1", b"p2", b"x")


@databases
def test_what_is_not_retained_is_not_kept(world: World) -> None:
    seed(world)
    with world.session() as session:
        session.get_one(Kept, (1, "a")).gone = None
        session.commit()
        assert condemned(world) == []
        with pytest.raises(FileMissing, match=r"Kept\.gone"):
            world.files.restore(session, Kept.gone, (1, "a"))
    world.check(b"old", b"p1", b"p2")


@databases
def test_it_is_purged_when_the_time_is_over(world: World) -> None:
    seed(world)
    with world.session(expire_on_commit=False) as session:
        row = session.get_one(Kept, (1, "a"))
        file = row.file
        row.file = None
        session.commit()
        pass_time(world, DAYS - timedelta(minutes=5))
        world.sweep()
        assert condemned(world) == [b"old"]
        pass_time(world, timedelta(minutes=10))
        world.sweep()
        world.check(b"p1", b"p2", b"x", swept=True)
        with pytest.raises(FileMissing):
            world.files.restore(session, Kept.file, (1, "a"))
        row.file = file
        with pytest.raises(OwnershipLost):
            session.commit()
        session.rollback()
    world.check(b"p1", b"p2", b"x", swept=True)


@on("world", ["postgres", "mariadb"], indirect=True)  # SQLite has one writer
def test_a_sweep_passes_over_what_is_being_restored(world: World) -> None:
    """The time is over, but nobody purged it yet: who finds it may keep it."""
    seed(world)
    with world.session() as session:
        session.get_one(Kept, (1, "a")).file = None
        session.commit()
    world.settle()
    pass_time(world, 2 * DAYS)
    with world.session() as session:
        files.restore(session, Kept.file, (1, "a"))
        world.sweep()
        session.commit()
    world.check(b"old", b"p1", b"p2", b"x")


@databases
@on("where", ["the same row", "another row", "another column", "a list"])
def test_a_kept_file_is_named_again_without_a_word(world: World, where: str) -> None:
    """Whoever still has the attachment can assign it: it moves, nothing is copied."""
    seed(world)
    with world.session(expire_on_commit=False) as session:
        row = session.get_one(Kept, (1, "a"))
        file = row.file
        row.file = None
        session.commit()
        with world.nothing_stored():
            match where:
                case "the same row":
                    row.file = file
                case "another row":
                    session.add(Kept(id=2, file=file))
                case "another column":
                    row.file, row.gone = row.gone, file
                case "a list":
                    row.pages = [*row.pages, file]
            session.commit()
        assert file in [*session.scalars(select(Kept.file)), row.gone, *row.pages]
    world.check(b"old", b"p1", b"p2", b"x")


@databases
def test_two_rows_can_not_take_back_one_file(world: World) -> None:
    seed(world)
    with world.session(expire_on_commit=False) as session:
        row = session.get_one(Kept, (1, "a"))
        file = row.file
        row.file = None
        session.commit()
        session.add_all([Kept(id=2, file=file), Kept(id=3, file=file)])
        session.commit()
    world.check(b"old", b"old", b"p1", b"p2", b"x")


@databases
def test_a_file_that_was_new_in_the_transaction_is_not_kept(world: World) -> None:
    """Nobody has ever seen it: it must not come back instead of the one that was there before."""
    seed(world)
    with world.session() as session:
        row = session.get_one(Kept, (1, "a"))
        row.file = b"first"
        session.flush()
        row.file = b"second"
        session.commit()
        assert condemned(world) == [b"old"]
        assert world.files.restore(session, Kept.file, (1, "a")).read() == b"old"
        session.commit()
    assert condemned(world) == [b"second"]


@databases
@on("depth", [1, 2])
def test_a_file_that_was_new_in_the_transaction_around_a_savepoint_is_not_kept(world: World, depth: int) -> None:
    seed(world)
    with world.session() as session:
        kept = session.get_one(Kept, (1, "a"))
        kept.file = b"never seen"
        session.flush()
        for _ in range(depth):
            session.begin_nested()
        kept.file = b"nor this one"
        session.flush()
        kept.file = b"new"
        session.commit()
        assert world.files.restore(session, Kept.file, (1, "a")).read() == b"old"
        session.rollback()
    world.settle()
    assert not {b"never seen", b"nor this one"} & set(world.stored().values())
