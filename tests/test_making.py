"""Variants that are made of what rows name already: when somebody asks for them, or by a task."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, String, create_engine, event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.util import greenlet_spawn

from sa_attachments import (
    Attachment,
    AttachmentType,
    BadConfiguration,
    FileMissing,
    NotStored,
    StorageFailed,
    Storages,
    UnknownStorage,
    UnknownVariant,
    VariantFailed,
    VariantMissing,
    making,
)
from sa_attachments.processing import Variant
from sa_attachments.storages.memory import MemoryStorage

from .gallery import NOW, Gallery, double, shout, whisper

EVERYWHERE = pytest.mark.parametrize("engine", ["sqlite", "postgres", "mariadb"], indirect=True)
SOME = pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)
ONCE = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
SERVERS = pytest.mark.parametrize("engine", ["postgres", "mariadb"], indirect=True)


class Recipe:
    """Counts how often it is carried out, and lets something happen meanwhile."""

    digest = "one"

    def __init__(self) -> None:
        self.calls = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, attachment: Attachment, /) -> Attachment:
        self.calls += 1
        data = attachment.read()
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        if b"bad" in data:
            raise ValueError("it is bad")
        return Attachment.upload(data.upper())


@pytest.fixture
def recipe() -> Recipe:
    return Recipe()


@pytest.fixture
def gallery(engine: Engine, recipe: Recipe) -> Iterator[Gallery]:
    gallery = Gallery.new(engine, {"loud": Variant(recipe, lazy=True)})
    gallery.fill(1, b"la", b"x", b"y")
    yield gallery
    gallery.files.connect(None)


@EVERYWHERE
class TestAsking:
    def test_it_is_made_when_it_is_asked_for(self, gallery: Gallery, recipe: Recipe) -> None:
        song = gallery.text(1)
        with pytest.raises(VariantMissing, match=r"Storages.make\(engine, attachment, 'loud'\)"):
            song.variant("loud")
        gallery.files.connect(gallery.engine)
        assert song.variant("loud").read() == b"LA"
        assert song.variant("loud") == gallery.text(1).variants["loud"]  # this one still does not know of it
        assert gallery.verses(1)[1].variant("loud").read() == b"Y"
        assert recipe.calls == 2
        gallery.check(b"la", b"LA", b"x", b"y", b"Y")

    def test_by_a_task(self, gallery: Gallery, recipe: Recipe) -> None:
        made = gallery.files.make(gallery.engine, gallery.text(1), "loud", primary_key=1)
        assert made.read() == b"LA"
        assert gallery.files.make(gallery.engine, gallery.text(1), "loud") == made
        assert gallery.files.make(gallery.engine, gallery.files.bind(gallery.text(1).to_json()), "loud") == made
        verse = gallery.verses(1)[0]
        assert gallery.files.make(gallery.engine, verse, "loud", primary_key=(1,)).read() == b"X"
        assert recipe.calls == 2
        gallery.check(b"la", b"LA", b"x", b"y", b"X")

    def test_of_one_that_came_out_of_a_cache(self, gallery: Gallery) -> None:
        bound: Attachment = gallery.files.bind(gallery.text(1).to_json())
        gallery.files.connect(gallery.engine)
        assert bound.variant("loud").read() == b"LA"

    def test_it_goes_with_its_attachment(self, gallery: Gallery) -> None:
        gallery.files.make(gallery.engine, gallery.text(1), "loud")
        gallery.delete(1)
        gallery.check()


@SOME
class TestOthers:
    def test_threads_make_it_once(self, gallery: Gallery, recipe: Recipe) -> None:
        gallery.files.connect(gallery.engine)
        recipe.meanwhile = lambda: time.sleep(0.3)
        song, found = gallery.text(1), []
        threads = [threading.Thread(target=lambda: found.append(song.variant("loud"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (recipe.calls, len(found), len(set(found))) == (1, 8, 1)
        gallery.check(b"la", b"LA", b"x", b"y")

    def test_who_fails_fails_for_all_who_wait(self, gallery: Gallery, recipe: Recipe) -> None:
        gallery.fill(2, b"bad")
        gallery.files.connect(gallery.engine)
        recipe.meanwhile = lambda: time.sleep(0.3)
        song = gallery.text(2)
        errors: list[BaseException] = []

        def ask() -> None:
            with pytest.raises(VariantFailed) as caught:
                song.variant("loud")
            errors.append(caught.value)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (recipe.calls, len(errors)) == (1, 4)

    def test_another_process_was_faster(self, gallery: Gallery, recipe: Recipe) -> None:
        other = gallery.deployed({"loud": Variant(recipe, lazy=True)})
        theirs = []
        recipe.meanwhile = lambda: theirs.append(other.files.make(gallery.engine, other.text(1), "loud"))
        assert gallery.files.make(gallery.engine, gallery.text(1), "loud") == theirs[0]
        assert recipe.calls == 2
        gallery.check(b"la", b"LA", b"x", b"y")

    def test_its_attachment_was_dropped_meanwhile(self, gallery: Gallery, recipe: Recipe) -> None:
        recipe.meanwhile = lambda: gallery.delete(1)
        with pytest.raises(VariantMissing, match="no committed row names"):
            gallery.files.make(gallery.engine, gallery.text(1), "loud")
        gallery.check()

    def test_its_attachment_was_dropped_before_it_was_read(
        self, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        derive = making.Maker.derive

        def late(self: making.Maker, *arguments: Any) -> Any:
            gallery.delete(1)
            assert gallery.files.settled(20)
            return derive(self, *arguments)

        monkeypatch.setattr(making.Maker, "derive", late)
        with pytest.raises(VariantMissing, match="no committed row names"):
            gallery.files.make(gallery.engine, gallery.text(1), "loud")
        gallery.check()

    def test_its_bytes_are_lost(self, gallery: Gallery) -> None:
        gallery.storage.inner.delete([gallery.text(1).key])
        with pytest.raises(FileMissing):
            gallery.files.make(gallery.engine, gallery.text(1), "loud")

    def test_its_attachment_was_replaced_meanwhile(self, gallery: Gallery, recipe: Recipe) -> None:
        recipe.meanwhile = lambda: gallery.replace(1, b"lu")
        with pytest.raises(VariantMissing, match="no committed row names"):
            gallery.files.make(gallery.engine, gallery.text(1), "loud", primary_key=1)
        gallery.check(b"lu", b"x", b"y")

    def test_its_attachment_got_another_name_meanwhile(self, gallery: Gallery, recipe: Recipe) -> None:
        def rename() -> None:
            with Session(gallery.engine) as session:
                song = session.get_one(gallery.Song, 1)
                assert song.text is not None
                song.text = song.text.replace(filename="new.txt")
                session.commit()

        recipe.meanwhile = rename
        gallery.files.make(gallery.engine, gallery.text(1), "loud")
        assert (gallery.text(1).filename, set(gallery.text(1).variants)) == ("new.txt", {"loud"})
        gallery.check(b"la", b"LA", b"x", b"y")

    def test_its_bytes_were_moved_to_another_storage_meanwhile(self, engine: Engine, recipe: Recipe) -> None:
        gallery = Gallery.new(engine, {"loud": Variant(recipe, lazy=True)})
        gallery.fill(1, b"la")
        gallery.files.configure({"default": gallery.storage, "new": "memory:"})
        recipe.meanwhile = lambda: gallery.files.move(engine, "default", "new", retain=NOW)
        made = gallery.files.make(engine, gallery.text(1), "loud", primary_key=1)
        assert (made.storage, made.read(), recipe.calls) == ("new", b"LA", 2)
        gallery.files.sweep(engine)
        assert gallery.stored() == []
        assert gallery.files.verify(engine).ok

    def test_they_are_moved_to_another_storage_with_it(self, engine: Engine, recipe: Recipe) -> None:
        gallery = Gallery.new(engine, {"loud": shout, "bad": Variant(recipe), "soft": Variant(whisper, lazy=True)})
        gallery.fill(1, b"la", b"bad")
        gallery.files.make(engine, gallery.text(1), "soft")
        gallery.files.configure({"default": gallery.storage, "new": "memory:"})
        report = gallery.files.move(engine, "default", "new", retain=NOW)
        assert (report.ok, report.files) == (True, 5)
        song = gallery.text(1)
        assert {name: (each.storage, each.read()) for name, each in song.variants.items()} == {
            "loud": ("new", b"LA"),
            "bad": ("new", b"LA"),
            "soft": ("new", b"la"),
        }
        assert song.variants["loud"].content_type == "text/plain"
        with pytest.raises(VariantFailed):
            gallery.verses(1)[0].variant("loud")
        gallery.files.sweep(engine)
        assert gallery.stored() == []
        assert gallery.files.verify(engine, checksums=True).ok

    def test_one_that_nobody_committed_yet(self, gallery: Gallery) -> None:
        gallery.files.connect(gallery.engine)
        with Session(gallery.engine) as session:
            song = gallery.Song(id=2, text=b"lu")
            session.add(song)
            session.flush()
            assert song.text is not None
            with pytest.raises(VariantMissing, match="not committed yet"):
                song.text.variant("loud")
            text = song.text
            session.commit()
        assert text.variant("loud").read() == b"LU"

    def test_a_held_row_is_waited_for(self, gallery: Gallery) -> None:
        song, ready, made = gallery.text(1), threading.Event(), []

        def make() -> None:
            ready.wait()
            made.append(gallery.files.make(gallery.engine, song, "loud"))

        thread = threading.Thread(target=make)
        thread.start()
        with Session(gallery.engine) as session:
            found = session.get_one(gallery.Song, 1)
            assert found.text is not None
            found.text = found.text.replace(filename="b.txt")
            session.flush()
            ready.set()
            time.sleep(0.2)
            assert not made
            session.commit()
        thread.join()
        assert made[0].read() == b"LA"
        assert gallery.text(1).filename == "b.txt"
        gallery.check(b"la", b"LA", b"x", b"y")

    def test_a_row_that_is_held_for_ever(self, gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(making, "WAIT", 0.2)
        song = gallery.text(1)
        with Session(gallery.engine) as session:
            found = session.get_one(gallery.Song, 1)
            found.text = Attachment.upload(b"lu")
            session.flush()
            with pytest.raises(VariantMissing, match="somebody else held the row"):
                gallery.files.make(gallery.engine, song, "loud")
            session.rollback()
        gallery.check(b"la", b"x", b"y")


@SOME
class TestFailures:
    def test_it_is_written_down_and_not_tried_at_each_request(self, gallery: Gallery, recipe: Recipe) -> None:
        gallery.fill(2, b"bad")
        gallery.files.connect(gallery.engine)
        song = gallery.text(2)
        for _ in range(3):
            with pytest.raises(VariantFailed, match=r"could not be made: Recipe: it is bad"):
                song.variant("loud")
        assert recipe.calls == 1
        with pytest.raises(VariantFailed):
            gallery.text(2).variant("loud")
        with pytest.raises(VariantFailed):
            gallery.files.make(gallery.engine, song, "loud")
        assert recipe.calls == 2
        gallery.check(b"la", b"x", b"y", b"bad")

    def test_it_can_be_made_again(self, gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
        gallery.fill(2, b"bad")
        with pytest.raises(VariantFailed):
            gallery.files.make(gallery.engine, gallery.text(2), "loud")
        mended = gallery.deployed({"loud": double})
        assert mended.files.make(gallery.engine, mended.text(2), "loud").read() == b"badbad"
        assert "error" not in mended.held(2)["loud"]
        gallery.check(b"la", b"x", b"y", b"bad", b"badbad")

    def test_a_storage_that_fails_is_no_fault_of_the_recipe(self, gallery: Gallery) -> None:
        gallery.storage.fail("put", on=1)
        with pytest.raises(StorageFailed):
            gallery.files.make(gallery.engine, gallery.text(1), "loud")
        assert gallery.held(1) == {}
        assert gallery.files.make(gallery.engine, gallery.text(1), "loud").read() == b"LA"
        gallery.check(b"la", b"LA", b"x", b"y")

    def test_a_storage_that_fails_when_it_was_done(self, gallery: Gallery) -> None:
        def fail() -> None:
            raise OSError("too late")

        gallery.storage.at("put", 1, fail, after=True)
        with pytest.raises(StorageFailed):
            gallery.files.make(gallery.engine, gallery.text(1), "loud")
        gallery.check(b"la", b"x", b"y")

    def test_a_storage_that_gives_the_bytes_no_more(self, gallery: Gallery) -> None:
        gallery.storage.fail("open", on=1)
        with pytest.raises(StorageFailed):
            gallery.files.make(gallery.engine, gallery.text(1), "loud")
        assert gallery.held(1) == {}

    def test_what_lost_and_can_not_be_deleted_is_swept(self, gallery: Gallery, recipe: Recipe) -> None:
        recipe.meanwhile = lambda: gallery.delete(1)
        gallery.storage.fail("delete")
        with pytest.raises(VariantMissing):
            gallery.files.make(gallery.engine, gallery.text(1), "loud")
        gallery.storage.heal()
        time.sleep(0.01)
        gallery.files.sweep(gallery.engine, grace=NOW, stranger_retain=NOW)
        assert gallery.stored() == []

    def test_a_sweep_without_grace_is_faster(self, gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
        """The file is put, condemned as a stranger, and then owned: that fails, and another one is made."""
        publish = making.Maker.publish
        swept: list[object] = []

        def late(self: making.Maker, wishes: Any) -> Any:
            if not swept:
                time.sleep(0.01)
                swept.append(gallery.files.sweep(gallery.engine, grace=NOW, stranger_retain=NOW))
            return publish(self, wishes)

        monkeypatch.setattr(making.Maker, "publish", late)
        assert gallery.files.make(gallery.engine, gallery.text(1), "loud").read() == b"LA"
        assert gallery.stored() == sorted([b"la", b"LA", b"x", b"y"])


@ONCE
class TestMistakes:
    def test_a_name_that_is_not_declared(self, gallery: Gallery) -> None:
        asks: list[Callable[[], object]] = [
            lambda: gallery.text(1).variant("huge"),
            lambda: gallery.files.make(gallery.engine, gallery.text(1), "huge"),
        ]
        for ask in asks:
            with pytest.raises(UnknownVariant, match=r"text declares no variant 'huge'; declared are 'loud'"):
                ask()

    def test_what_is_not_stored(self, gallery: Gallery) -> None:
        new = Attachment.upload(b"la")
        asks: list[Callable[[], object]] = [
            lambda: new.variant("loud"),
            lambda: new.variants,
            lambda: gallery.files.make(gallery.engine, new, "loud"),
        ]
        for ask in asks:
            with pytest.raises(NotStored):
                ask()

    def test_what_belongs_to_nobody(self, gallery: Gallery, engine: Engine) -> None:
        staged = gallery.files.stage(Attachment.upload(b"la"))
        with pytest.raises(VariantMissing, match="no column"):
            gallery.files.make(engine, staged, "loud")
        again: Attachment = pickle.loads(pickle.dumps(staged))
        with pytest.raises(UnknownStorage, match=r"Storages\.bind"):
            again.variant("loud")

    def test_what_is_no_engine(self, gallery: Gallery, engine: Engine) -> None:
        with engine.connect() as connection, pytest.raises(BadConfiguration, match="is no engine"):
            gallery.files.make(connection, gallery.text(1), "loud")

    def test_a_damaged_neighbour(self, gallery: Gallery) -> None:
        key = gallery.text(1).key
        with gallery.engine.begin() as connection:
            connection.execute(text(f"INSERT INTO songs (id, text, verses) VALUES (0, '{{\"key\": \"{key}', '[]')"))
        assert gallery.files.make(gallery.engine, gallery.text(1), "loud").read() == b"LA"


@SOME
class TestRecipes:
    def test_one_by_a_former_recipe_is_served_until_it_is_replaced(self, gallery: Gallery) -> None:
        first = gallery.files.make(gallery.engine, gallery.text(1), "loud")
        later = gallery.deployed({"loud": Variant(double, lazy=True)})
        later.files.connect(gallery.engine)
        assert later.text(1).variant("loud") == first
        assert later.files.make(gallery.engine, later.text(1), "loud").read() == b"lala"
        later.check(b"la", b"lala", b"x", b"y")

    def test_the_former_one_is_retained_as_its_column_says(self, engine: Engine) -> None:
        gallery = Gallery.new(engine, {"loud": shout}, retain=timedelta(days=1))
        gallery.fill(1, b"la")
        later = gallery.deployed({"loud": double}, retain=timedelta(days=1))
        later.files.make(engine, later.text(1), "loud")
        later.check(b"la", b"LA", b"lala")

    def test_rather_the_former_one_than_none(self, engine: Engine) -> None:
        gallery = Gallery.new(engine, {"loud": double})
        gallery.fill(1, b"bad")
        later = gallery.deployed({"loud": shout})
        with pytest.raises(VariantFailed, match="it is bad"):
            later.files.make(engine, later.text(1), "loud")
        assert later.text(1).variant("loud").read() == b"badbad"
        later.check(b"bad", b"badbad")

    def test_a_read_only_storage_keeps_the_files_and_not_the_variants(self, engine: Engine) -> None:
        gallery = Gallery.new(engine, {"loud": Variant(shout, lazy=True)})
        old, closed = MemoryStorage(), MemoryStorage(readonly=True)
        vars(closed).update(vars(old) | {"readonly": True})
        gallery.files.configure({"default": gallery.storage, "old": old})
        with Session(engine) as session:
            session.add(gallery.Song(id=1, text=Attachment.upload(b"la", storage="old")))
            session.commit()
        gallery.files.configure({"default": gallery.storage, "old": closed})
        made = gallery.files.make(engine, gallery.text(1), "loud")
        assert (made.storage, made.read(), gallery.text(1).storage) == ("default", b"LA", "old")
        assert gallery.files.verify(engine).ok


@ONCE
def test_a_database_that_refuses_is_not_waited_for(engine: Engine) -> None:
    """And says why."""
    gallery = Gallery.new(engine, {"loud": Variant(shout, lazy=True)})
    song = gallery.fill(1, b"la")
    assert song is not None
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE UPDATE ON songs BEGIN SELECT RAISE(ABORT, 'no more'); END"
        )
    with pytest.raises(IntegrityError, match="no more"):
        gallery.files.make(engine, song, "loud")
    gallery.check(b"la")


def test_a_pool_without_another_connection(tmp_path: Path, open_engine: Callable[..., Engine]) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/one.db", pool_size=1, max_overflow=0)
    gallery = Gallery.new(engine, {"loud": Variant(shout, lazy=True)})
    gallery.fill(1, b"la")
    with Session(engine) as session:
        song = session.get_one(gallery.Song, 1)
        assert song.text is not None
        with pytest.raises(VariantMissing, match="needs a connection beside those in use"):
            gallery.files.make(engine, song.text, "loud")
    assert gallery.files.make(engine, gallery.text(1), "loud").read() == b"LA"


def test_a_pool_that_is_full_when_it_is_made(
    tmp_path: Path, open_engine: Callable[..., Engine], recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/one.db", pool_size=1, max_overflow=0)
    gallery = Gallery.new(engine, {"loud": Variant(recipe, lazy=True)})
    gallery.fill(1, b"la")
    song, held = gallery.text(1), []
    monkeypatch.setattr(making, "WAIT", 0.1)
    recipe.meanwhile = lambda: held.append(engine.connect())
    with pytest.raises(VariantMissing, match="or all connections"):
        gallery.files.make(engine, song, "loud")
    assert gallery.stored() == [b"la"]
    held[0].close()
    assert gallery.files.make(engine, song, "loud").read() == b"LA"


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
def test_postgresql_finds_the_row_by_an_index(engine: Engine, recipe: Recipe) -> None:
    gallery = Gallery.new(engine, {"loud": Variant(recipe, lazy=True)})
    gallery.fill(1, b"la", b"x")
    song, verse = gallery.text(1), gallery.verses(1)[0]
    with engine.begin() as connection:
        connection.execute(text("CREATE INDEX i ON songs ((text ->> 'key'))"))
        connection.execute(text("CREATE INDEX j ON songs USING gin (verses jsonb_path_ops)"))
        connection.execute(text("SET enable_seqscan = off"))
        event.listen(connection, "before_cursor_execute", _explain, retval=True)
        for attachment, index in ((song, "i"), (verse, "j")):
            [column_type] = [each for each in gallery.files.columns if each.plural == (attachment is verse)]
            maker = making.Maker(next(gallery.files._purgers(engine)), column_type)
            rows = connection.execute(select(gallery.Song.id).where(maker._naming(attachment)))
            plan = "\n".join(str(row[0]) for row in rows)
            assert f"on {index} " in plan or f"using {index} " in plan, plan


def _explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> Any:
    return f"EXPLAIN {statement}", parameters


@EVERYWHERE
def test_rows_with_a_primary_key_of_two_columns(engine: Engine) -> None:
    files = Storages("memory:")

    class Base(DeclarativeBase):
        pass

    class Page(Base):
        __tablename__ = "pages"
        book: Mapped[str] = mapped_column(String(20), primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True)
        scan: Mapped[Attachment] = mapped_column(AttachmentType(files, variants={"loud": Variant(shout, lazy=True)}))

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Page(book="a", number=n, scan=b"p%d" % n) for n in range(3)])
        session.commit()
        scans = session.scalars(select(Page.scan).order_by(Page.number)).all()
    assert files.make(engine, scans[1], "loud", primary_key=("a", 1)).read() == b"P1"
    assert files.make(engine, scans[2], "loud").read() == b"P2"
    with pytest.raises(VariantMissing):
        files.make(engine, scans[0], "loud", primary_key=("a", 1))


async def test_under_asyncio(async_engine: AsyncEngine, recipe: Recipe) -> None:
    engine = async_engine.sync_engine
    gallery = await _arun(lambda: Gallery.new(engine, {"loud": Variant(recipe, lazy=True)}))
    song = await _arun(lambda: gallery.fill(1, b"la"))
    assert song is not None
    with pytest.raises(BadConfiguration, match="wants to be awaited"):
        gallery.files.make(async_engine, song, "loud")
    with pytest.raises(VariantMissing):
        await song.avariant("loud")
    gallery.files.connect(async_engine)
    recipe.meanwhile = lambda: time.sleep(0.2)
    found = await asyncio.gather(*(song.avariant("loud") for _ in range(5)))
    assert (recipe.calls, len(set(found)), await found[0].aread()) == (1, 1, b"LA")
    assert await gallery.files.amake(async_engine, song, "loud", primary_key=1) == found[0]
    assert await (await _arun(lambda: gallery.text(1))).avariant("loud") == found[0]


async def _arun(job: Callable[[], Any]) -> Any:
    return await greenlet_spawn(job)


# Processes

_FILES = Storages()


class _Base(DeclarativeBase):
    pass


class _Song(_Base):
    __tablename__ = "songs"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[Attachment] = mapped_column(AttachmentType(_FILES, variants={"soft": Variant(whisper, lazy=True)}))


def _ask(url: str, folder: str, start: Any, results: Any) -> None:
    _FILES.configure(f"local:{folder}?durable=false")
    engine = create_engine(url)
    _FILES.connect(engine)
    with Session(engine) as session:
        songs = session.scalars(select(_Song.text).order_by(_Song.id)).all()
    start.wait()
    results.put([song.variant("soft").key for song in songs])


@SOME
def test_processes_publish_one(engine: Engine, tmp_path: Path) -> None:
    _FILES.configure(f"local:{tmp_path}/files?durable=false")
    _Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(_Song(id=n, text=b"LA") for n in range(1, 9))
        session.commit()
    context = multiprocessing.get_context("spawn")
    start, results = context.Barrier(3), context.Queue()
    url = engine.url.render_as_string(hide_password=False)
    processes = [context.Process(target=_ask, args=(url, f"{tmp_path}/files", start, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1] == found[2]
    assert len(list(_FILES.resolve().keys())) == 16
    assert _FILES.verify(engine).ok
