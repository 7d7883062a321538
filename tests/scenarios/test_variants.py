"""Variants in transactions: they come and go with their attachment, and one that fails takes nothing with it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Refused, VariantFailed, VariantMissing
from sa_attachments.processing import Variant
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty
from tests import engines

from .models import files
from .world import AsyncWorld, World


def shout(attachment: Attachment) -> Attachment:
    data = attachment.read()
    if b"bad" in data:
        raise ValueError("it is bad")
    return Attachment.upload(data.upper(), metadata={"loud": True})


def double(attachment: Attachment) -> Attachment:
    return Attachment.upload(attachment.read() * 2)


def short(attachment: Attachment) -> None:
    if len(attachment.read()) > 20:
        raise ValueError("it is long")


class Base(DeclarativeBase):
    pass


class Song(Base):
    __tablename__ = "songs"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[Attachment | None] = mapped_column(
        AttachmentType(files, steps=[short], variants={"loud": shout, "twice": Variant(double, lazy=True)})
    )
    other: Mapped[Attachment | None] = mapped_column(AttachmentType(files, steps=[short], variants={"twice": double}))
    kept: Mapped[Attachment | None] = mapped_column(
        AttachmentType(files, variants={"loud": [shout]}, retain=timedelta(days=1))
    )
    verses: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files, variants={"loud": shout}))


@pytest.fixture
def world(world: World) -> World:
    world.create(Base.metadata)
    return world


_MARIADB = ["mariadb"] if engines.MARIADB else []
EVERYWHERE = pytest.mark.parametrize("world", ["sqlite", "postgres", *_MARIADB, "aiosqlite", "asyncpg"], indirect=True)
SOME = pytest.mark.parametrize("world", ["sqlite", "postgres"], indirect=True)


def loud(attachment: Attachment | None) -> bytes:
    assert attachment is not None
    return attachment.variant("loud").read()


def make_twice(world: World, pk: int = 1) -> None:
    """What another process may do at any time."""
    with world.session() as session:
        song = session.get_one(Song, pk)
        attachment = song.text
    assert attachment is not None
    files.make(world.engine, attachment, "twice", primary_key=pk)


def fill(world: World, pk: int = 1, data: bytes = b"la") -> None:
    with world.session() as session:
        session.add(Song(id=pk, text=data))
        session.commit()


@EVERYWHERE
class TestUpload:
    def test_comes_with_its_variant(self, world: World) -> None:
        with world.session() as session:
            song = Song(id=1, text=Attachment.upload(b"la", "la.txt", metadata={"by": "me"}), verses=[b"x", b"y"])
            session.add(song)
            session.flush()
            assert loud(song.text) == b"LA"
            session.commit()
            assert song.text is not None
            variant = song.text.variant("loud")
            assert (variant.read(), variant.filename, variant.size) == (b"LA", "la.txt", 2)
            assert dict(variant.metadata) == {"loud": True}
            assert dict(song.text.metadata) == {"by": "me"}
            assert [loud(verse) for verse in song.verses] == [b"X", b"Y"]
        world.check(b"la", b"LA", b"x", b"X", b"y", b"Y")

    def test_nothing_is_left_by_a_rollback(self, world: World) -> None:
        with world.session() as session:
            song = Song(id=1, text=b"la")
            session.add(song)
            session.flush()
            session.rollback()
            world.check()
            session.add(song)
            session.commit()
        world.check(b"la", b"LA")

    def test_one_that_fails_does_not_lose_the_upload(self, world: World) -> None:
        with world.session() as session:
            song = Song(id=1, text=b"bad la", verses=[b"good", b"bad"])
            session.add(song)
            session.commit()
            assert song.text is not None
            assert song.text.read() == b"bad la"
            assert dict(song.text.variants) == {}
            with pytest.raises(VariantFailed, match=r"songs.text, variant 'loud' of 'unnamed'.*it is bad") as caught:
                song.text.variant("loud")
            assert (caught.value.variant, caught.value.reason) == ("loud", "shout: it is bad")
        world.check(b"bad la", b"good", b"GOOD", b"bad")

    def test_a_refused_upload_stores_nothing(self, world: World) -> None:
        with world.session() as session, world.nothing_stored():
            session.add(Song(id=1, text=b"la" * 20))
            with pytest.raises(Refused, match="it is long"):
                session.commit()
        world.check()

    def test_goes_with_its_attachment(self, world: World) -> None:
        fill(world)
        fill(world, 2)
        with world.session() as session:
            session.get_one(Song, 1).text = Attachment.upload(b"new")
            session.delete(session.get_one(Song, 2))
            session.commit()
        world.check(b"new", b"NEW")
        with world.session() as session:
            session.get_one(Song, 1).text = None
            session.commit()
        world.check()


@SOME
class TestSources:
    def test_one_that_is_read_only_once(self, world: World) -> None:
        with world.session() as session:
            # The step of the one reads it before; nobody that of the other.
            session.add(Song(id=1, text=Attachment.upload(iter([b"l", b"a"])), kept=Attachment.upload(iter([b"lu"]))))
            session.commit()
        world.check(b"la", b"LA", b"lu", b"LU")

    def test_a_file_that_is_given_away(self, world: World, tmp_path: Path) -> None:
        path = tmp_path / "given.txt"
        path.write_bytes(b"la")
        with world.session() as session:
            session.add(Song(id=1, text=Attachment.upload(path, move=True)))
            session.commit()
        world.check(b"la", b"LA")

    def test_one_upload_in_two_rows(self, world: World) -> None:
        with world.session() as session:
            upload = Attachment.upload(b"la")
            session.add_all([Song(id=1, text=upload, kept=upload), Song(id=2, text=upload)])
            session.commit()
        world.check(*[b"la", b"LA"] * 3)

    def test_staged_before_the_transaction(self, world: World) -> None:
        with world.session() as session:
            staged = files.stage(Attachment.upload(b"la"), Song.text)
            assert loud(staged) == b"LA"
            before = world.puts
            song = Song(id=1, text=staged)
            session.add(song)
            session.commit()
            assert world.puts == before
            assert song.text == staged
        world.check(b"la", b"LA")

    def test_staged_for_nobody(self, world: World) -> None:
        with world.session() as session:
            session.add(Song(id=1, text=files.stage(Attachment.upload(b"la"))))
            session.commit()
        world.sweep()
        world.check(b"la", b"LA", swept=True)

    def test_staged_for_another_column(self, world: World) -> None:
        with world.session() as session:
            session.add(Song(id=1, text=files.stage(Attachment.upload(b"la"), Song.other)))
            session.commit()
        world.sweep()
        world.check(b"la", b"LA", b"lala", swept=True)  # by the same recipe, so it was copied


@SOME
class TestFailures:
    def test_a_storage_that_refuses_the_variant(self, world: World) -> None:
        fill(world, 2, b"before")
        world.storage.fail("put", on=2)
        with world.session() as session:
            song = Song(id=1, text=b"la")
            session.add(song)
            session.commit()
            with pytest.raises(VariantFailed, match="StorageFailed"):
                loud(song.text)
        world.check(b"la", b"before", b"BEFORE")

    def test_a_storage_that_refuses_a_later_file(self, world: World) -> None:
        """The variants of those before it are left by nobody."""
        with world.session() as session:
            world.storages["spare"] = Faulty(MemoryStorage())
            world.storages["spare"].fail("put")
            with files.override(world.storages):
                session.add(Song(id=1, text=b"la", other=Attachment.upload(b"lu", storage="spare")))
                with pytest.raises(OSError, match="spare"):
                    session.commit()
                session.rollback()
                world.check()

    def test_a_reason_that_no_database_takes(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(attachment: Attachment) -> None:
            raise OSError("a\0b\ud800c" + "d" * 5000)

        failing = Variant(shout)
        object.__setattr__(failing, "steps", (fail,))
        monkeypatch.setattr(Song.text.type, "variants", {"loud": failing})
        fill(world)
        with world.session() as session, pytest.raises(VariantFailed, match="abcd") as caught:
            loud(session.get_one(Song, 1).text)
        assert len(caught.value.reason) == 500


@EVERYWHERE
class TestOwners:
    def test_a_copy_has_copies_of_them(self, world: World) -> None:
        fill(world)
        make_twice(world)
        with world.session() as session:
            copies = sum(call.verb == "copy" for call in world.storage.calls)
            session.add(Song(id=2, text=session.get_one(Song, 1).text))
            session.commit()
            assert sum(call.verb == "copy" for call in world.storage.calls) == copies + 3
            copy = session.get_one(Song, 2).text
            assert copy is not None
            assert copy.variant("twice").read() == b"lala"
        world.check(*[b"la", b"LA", b"lala"] * 2)
        with world.session() as session:
            session.delete(session.get_one(Song, 1))
            session.commit()
        world.check(b"la", b"LA", b"lala")

    def test_a_column_with_other_recipes_makes_its_own(self, world: World) -> None:
        fill(world)
        with world.session() as session:
            song = session.get_one(Song, 1)
            song.other = song.text
            session.commit()
            assert song.other is not None
            assert song.other.variant("twice").read() == b"lala"
        world.check(b"la", b"LA", b"la", b"lala")

    def test_they_move_with_it(self, world: World) -> None:
        fill(world)
        with world.session() as session:
            one, two = session.get_one(Song, 1), Song(id=2)
            one.text, two.text = None, one.text
            session.add(two)
            session.commit()
            assert loud(two.text) == b"LA"
        world.check(b"la", b"LA")

    def test_one_that_was_made_meanwhile_moves_too(self, world: World) -> None:
        fill(world)
        fill(world, 2, b"other")
        with world.session(expire_on_commit=False) as session:
            one, two = session.get_one(Song, 1), session.get_one(Song, 2)
            assert one.text is not None
            session.commit()
            make_twice(world)
            one.text, two.text = two.text, one.text
            session.commit()
            session.expire_all()
            assert two.text is not None
            assert two.text.variant("twice").read() == b"lala"
        world.check(b"la", b"LA", b"lala", b"other", b"OTHER")

    def test_they_are_dropped_where_it_moves_to_a_column_without_them(self, world: World) -> None:
        fill(world)
        with world.session() as session:
            song = session.get_one(Song, 1)
            song.text, song.other = None, song.text
            session.commit()
        with world.session() as session:
            other = session.get_one(Song, 1).other
            assert other is not None
            assert dict(other.variants) == {}
        world.check(b"la")

    def test_another_description_does_not_undo_what_was_made_meanwhile(self, world: World) -> None:
        fill(world)
        with world.session(expire_on_commit=False) as session:
            song = session.get_one(Song, 1)
            text = song.text
            assert text is not None
            session.commit()
            make_twice(world)
            song.text = text.replace(filename="b.txt")
            session.commit()
        with world.session() as session:
            text = session.get_one(Song, 1).text
            assert text is not None
            assert (text.filename, set(text.variants)) == ("b.txt", {"loud", "twice"})
        world.check(b"la", b"LA", b"lala")

    def test_a_merged_object_does_not_undo_it_either(self, world: World) -> None:
        fill(world)
        with world.session() as session:
            song = session.get_one(Song, 1)
            assert song.text is not None
        make_twice(world)
        with world.session() as session:
            session.merge(song)
            session.commit()
        world.check(b"la", b"LA", b"lala")

    def test_what_was_made_meanwhile_goes_with_the_row(self, world: World) -> None:
        fill(world)
        with world.session(expire_on_commit=False) as session:
            song = session.get_one(Song, 1)
            assert song.text is not None
            session.commit()
            make_twice(world)
            session.delete(song)
            session.commit()
        world.check()


@SOME
class TestRules:
    def test_what_moves_to_a_column_with_other_steps_goes_through_them(self, world: World) -> None:
        with world.session() as session:
            song = Song(id=1, verses=[b"la" * 20, b"lu"])
            session.add(song)
            session.commit()
            song.text, song.verses = song.verses[0], [song.verses[1]]
            with pytest.raises(Refused, match=r"Song\.text: it is long"):
                session.commit()
            session.rollback()
            song.text, song.verses = song.verses[1], [song.verses[0]]
            session.commit()
            assert loud(song.text) == b"LU"
        world.check(b"lu", b"LU", b"la" * 20, b"LA" * 20)

    def test_a_variant_that_cannot_be_copied_does_not_lose_the_copy(self, world: World) -> None:
        fill(world)
        make_twice(world)
        world.storage.fail("copy", on=2)
        world.storage.fail("copy", on=3)
        with world.session() as session:
            session.add(Song(id=2, text=session.get_one(Song, 1).text))
            session.commit()
            copy = session.get_one(Song, 2).text
            assert loud(copy) == b"LA"
            assert copy is not None
            assert set(copy.variants) == {"loud"}  # nobody asked for the other one yet
        world.check(*[b"la", b"LA"] * 2, b"lala")


@SOME
class TestSavepoints:
    def test_one_that_is_rolled_back(self, world: World) -> None:
        fill(world)
        with world.session() as session:
            song = session.get_one(Song, 1)
            with session.begin_nested():
                song.kept = Attachment.upload(b"stays")
            savepoint = session.begin_nested()
            song.text = Attachment.upload(b"goes")
            session.flush()
            savepoint.rollback()
            session.commit()
        world.check(b"la", b"LA", b"stays", b"STAYS")


@SOME
class TestStatements:
    def test_bulk(self, world: World) -> None:
        with world.session() as session:
            session.execute(insert(Song), [{"id": 1, "text": b"a", "verses": [b"v"]}, {"id": 2, "text": b"b"}])
            session.execute(update(Song).where(Song.id < 3).values(other=Attachment.upload(b"o")))
            session.commit()
        world.check(b"a", b"A", b"b", b"B", b"v", b"V", *[b"o", b"oo"] * 2)
        with world.session() as session:
            session.execute(update(Song).values(other=None))
            session.execute(delete(Song).where(Song.id == 1))
            session.commit()
        world.check(b"b", b"B")

    def test_queries(self, world: World) -> None:
        fill(world)
        fill(world, 2, b"bad")
        with world.session() as session:
            variants = Song.text.variants
            assert session.scalars(select(Song.id).where(variants["loud"]["size"] > 1)).all() == [1]
            assert session.scalars(select(Song.id).where(variants["loud"]["error"].as_string().is_not(None))).all() == [
                2
            ]
            assert session.scalars(select(Song.id).where(variants["loud"]["metadata"]["loud"] == True)).all() == [1]  # noqa: E712


@SOME
class TestCore:
    def test_staged_and_dropped_on_a_connection(self, world: World) -> None:
        songs = Song.__table__
        with world.engine.begin() as connection:
            staged = files.stage(Attachment.upload(b"la"), connection, songs.c.text)
            assert loud(staged) == b"LA"
            connection.execute(songs.insert(), {"id": 1, "text": staged, "verses": []})  # type: ignore[attr-defined]
        make_twice(world)
        world.check(b"la", b"LA", b"lala")
        with world.engine.begin() as connection:
            text = connection.scalar(select(songs.c.text).with_for_update())
            assert text is not None
            connection.execute(songs.delete())  # type: ignore[attr-defined]
            files.drop(text, connection)
        world.check()


@SOME
class TestRetention:
    def test_they_are_restored_with_it(self, world: World) -> None:
        with world.session() as session:
            song = Song(id=1, kept=b"la")
            session.add(song)
            session.commit()
            song.kept = None
            session.commit()
            world.sweep()
            assert loud(files.restore(session, Song.kept, 1)) == b"LA"
            session.commit()
            assert loud(song.kept) == b"LA"
        world.check(b"la", b"LA")

    def test_one_whose_variant_is_gone_comes_back_without_it(self, world: World) -> None:
        with world.session() as session:
            song = Song(id=1, kept=b"la")
            session.add(song)
            session.commit()
            assert song.kept is not None
            key = song.kept.variant("loud").key
            song.kept = None
            session.commit()
            lines = files.ledger_of(Song.__table__).lines  # type: ignore[arg-type]
            session.execute(update(lines).where(lines.c.key == key).values(purge_after=0))
            session.commit()
            world.sweep()
            files.restore(session, Song.kept, 1)
            session.commit()
        with world.session() as session:
            kept = session.get_one(Song, 1).kept
            assert kept is not None
            assert kept.read() == b"la"
            with pytest.raises(VariantMissing):
                kept.variant("loud")
        world.check(b"la")


@SOME
class TestVerify:
    def test_looks_at_their_bytes(self, world: World) -> None:
        fill(world)
        with world.session() as session:
            text = session.get_one(Song, 1).text
            assert text is not None
            key = text.variant("loud").key
        inner = world.storage.inner
        inner.delete([key])
        assert files.verify(world.engine).counts == {"missing": 1}
        inner.put(key, io.BytesIO(b"XX"), size=2, content_type="text/plain")
        assert files.verify(world.engine).ok
        assert files.verify(world.engine, checksums=True).counts == {"damaged": 1}


@pytest.mark.parametrize("world", ["sqlite"], indirect=True)
def test_a_text_for_a_cache_has_them(world: World) -> None:
    fill(world)
    with world.session() as session:
        text = session.get_one(Song, 1).text
        assert text is not None
        assert loud(files.bind(text.to_json())) == b"LA"


async def test_under_asyncio(aworld: AsyncWorld) -> None:
    aworld.create(Base.metadata)
    async with aworld.sessions() as session:
        session.add(Song(id=1, text=b"la", verses=[b"bad"]))
        await session.commit()
        text = await session.scalar(select(Song.text))
        assert text is not None
        assert await text.variant("loud").aread() == b"LA"
    await aworld.acheck(b"la", b"LA", b"bad")
