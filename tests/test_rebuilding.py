"""Variants of all rows, brought in line with what their columns declare."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from sa_attachments import Attachment, BadConfiguration
from sa_attachments.making import Maker, Wish
from sa_attachments.processing import Variant
from sa_attachments.rebuilding import RebuildReport

from .gallery import Gallery, double, shout, whisper

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgres", "mariadb"], indirect=True)

PLAIN = [b"la", b"x", b"y", b"lu"]
LOUD = [b"LA", b"X", b"Y", b"LU"]


@pytest.fixture
def gallery(engine: Engine) -> Gallery:
    gallery = Gallery.new(engine, {"loud": shout})
    gallery.fill(1, b"la", b"x", b"y")
    gallery.fill(2, b"lu")
    gallery.fill(3)
    return gallery


def rebuild(gallery: Gallery, **options: object) -> RebuildReport:
    return gallery.files.rebuild(gallery.engine, **options)  # type: ignore[arg-type]


def test_what_is_in_line_is_passed_over(gallery: Gallery) -> None:
    report = rebuild(gallery)
    assert (report.ok, report.attachments, report.current, report.made) == (True, 4, 4, 0)
    gallery.check(*PLAIN, *LOUD)


def test_missing_ones_are_made(gallery: Gallery) -> None:
    later = gallery.deployed({"loud": shout, "twice": double})
    seen: list[tuple[int, int]] = []
    report = rebuild(later, progress=lambda rows, total: seen.append((rows, total)))
    assert (report.ok, report.missing, report.made, report.current) == (True, 4, 4, 4)
    assert (sum(rows for rows, _ in seen), {total for _, total in seen}) == (5, {5})  # rows, once for each column
    assert later.text(1).variant("twice").read() == b"lala"
    assert [verse.variant("twice").read() for verse in later.verses(1)] == [b"xx", b"yy"]
    later.check(*PLAIN, *LOUD, b"lala", b"xx", b"yy", b"lulu")
    assert rebuild(later).made == 0


def test_stale_ones_are_replaced_and_undeclared_ones_dropped(gallery: Gallery) -> None:
    later = gallery.deployed({"loud": double})
    report = rebuild(later)
    assert (report.ok, report.stale, report.made, report.dropped) == (True, 4, 4, 0)
    later.check(*PLAIN, b"lala", b"xx", b"yy", b"lulu")
    last = later.deployed({})
    report = rebuild(last)
    assert (report.ok, report.undeclared, report.dropped) == (True, 4, 4)
    last.check(*PLAIN)
    assert last.held(1) == {}


def test_a_copy_has_what_the_present_recipe_makes(gallery: Gallery) -> None:
    later = gallery.deployed({"loud": double})
    with Session(gallery.engine) as session:
        session.add(later.Song(id=4, text=session.get_one(later.Song, 1).text))
        session.commit()
    assert (later.text(1).variant("loud").read(), later.text(4).variant("loud").read()) == (b"LA", b"lala")


def test_a_dry_run_only_counts(gallery: Gallery) -> None:
    later = gallery.deployed({"loud": double, "new": shout})
    report = rebuild(later, dry_run=True)
    assert (report.ok, report.stale, report.missing, report.made) == (False, 4, 4, 0)
    later.check(*PLAIN, *LOUD)


def test_failed_ones_are_tried_again(gallery: Gallery) -> None:
    gallery.fill(4, b"bad")
    report = rebuild(gallery)
    assert (report.ok, report.missing, report.made) == (False, 1, 0)
    assert report.failed == ["songs.text (4,), variant 'loud': shout: it is bad"]
    mended = gallery.deployed({"loud": double})
    assert rebuild(mended).ok
    mended.check(*PLAIN, b"bad", b"lala", b"xx", b"yy", b"lulu", b"badbad")


def test_a_new_recipe_that_fails_replaces_nothing(engine: Engine) -> None:
    gallery = Gallery.new(engine, {"loud": double})
    gallery.fill(1, b"bad")
    later = gallery.deployed({"loud": shout})
    report = rebuild(later)
    assert (report.ok, len(report.failed), report.made) == (False, 1, 0)
    assert later.text(1).variant("loud").read() == b"badbad"
    later.check(b"bad", b"badbad")


def test_lazy_ones_only_where_somebody_asked_for_them(gallery: Gallery) -> None:
    lazy = gallery.deployed({"loud": shout, "soft": Variant(whisper, lazy=True)})
    lazy.files.make(lazy.engine, lazy.text(1), "soft")
    assert rebuild(lazy).made == 0
    lazier = gallery.deployed({"loud": shout, "soft": Variant(double, lazy=True)})
    report = rebuild(lazier)
    assert (report.ok, report.stale, report.made) == (True, 1, 1)
    assert rebuild(lazier, lazy=True).made == 3
    lazier.check(*PLAIN, *LOUD, b"lala", b"xx", b"yy", b"lulu")


def test_only_those_that_are_named(gallery: Gallery) -> None:
    later = gallery.deployed({"soft": whisper, "twice": double})
    report = rebuild(later, variants=["twice"])
    assert (report.ok, report.made, report.dropped) == (True, 4, 0)
    assert set(later.held(1)) == {"loud", "twice"}
    assert rebuild(later, variants=["loud"]).dropped == 4


def test_parts(gallery: Gallery) -> None:
    later = gallery.deployed({"loud": double})
    with pytest.raises(BadConfiguration, match="part"):
        rebuild(later, part=(3, 2))
    made = [rebuild(later, part=(n, 3)).made for n in (1, 2, 3)]
    assert sum(made) == 4
    assert rebuild(later).made == 0


def test_what_was_replaced_meanwhile_is_overtaken(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    later = gallery.deployed({"loud": double})
    publish = Maker.publish

    def late(self: Maker, wishes: list[Wish]) -> object:
        if any(wish.identity == (1,) and wish.parent == before for wish in wishes):
            gallery.replace(1, b"li")
        return publish(self, wishes)

    before = gallery.text(1)
    monkeypatch.setattr(Maker, "publish", late)
    report = rebuild(later)
    assert (report.overtaken, report.made) == (1, 3)
    assert rebuild(later).made == 1  # the one of the new file, which an older process stored
    later.check(b"li", b"x", b"y", b"lu", b"lili", b"xx", b"yy", b"lulu")


def test_what_is_gone_meanwhile_is_overtaken(engine: Engine) -> None:
    gallery = Gallery.new(engine, {})
    gallery.fill(1, b"la")

    def vanishing(attachment: Attachment) -> Attachment:
        gallery.delete(1)
        assert gallery.files.settled(20)
        return Attachment.upload(attachment.read())

    report = rebuild(gallery.deployed({"loud": vanishing}))
    assert (report.ok, report.overtaken, report.failed) == (True, 1, [])
    gallery.check()


def test_bytes_that_are_lost(gallery: Gallery) -> None:
    key = gallery.text(1).key
    gallery.storage.inner.delete([key])
    report = rebuild(gallery.deployed({"loud": double}))
    assert (report.made, report.ok) == (3, False)
    assert key in report.failed[0]


def test_a_storage_that_is_configured_no_more(gallery: Gallery) -> None:
    """Its files have no variants then; those of others do."""
    later = gallery.deployed({"loud": double})
    former = "REPLACE(CAST(text AS CHAR(2000)), '\"default\"', '\"former\"')"
    if gallery.engine.dialect.name == "postgresql":
        former = "jsonb_set(text, '{storage}', '\"former\"')"
    with gallery.engine.begin() as connection:
        connection.execute(text(f"UPDATE songs SET text = {former} WHERE id = 2"))
    report = rebuild(later)
    assert (report.made, report.ok) == (3, False)
    assert report.failed == ["songs.text (2,), variant 'loud': there is no storage 'former'; configured are 'default'"]


def test_a_damaged_row(gallery: Gallery) -> None:
    with gallery.engine.begin() as connection:
        connection.execute(text("UPDATE songs SET text = '{\"recipe\": 1}' WHERE id = 2"))
    later = gallery.deployed({"loud": double})
    report = rebuild(later)
    assert (report.made, report.ok) == (3, False)
    assert "songs.text (2,)" in report.failed[0]


def test_a_row_that_is_held(gallery: Gallery) -> None:
    if gallery.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no locks of rows")
    later = gallery.deployed({"loud": double})
    with Session(gallery.engine) as session:
        session.get_one(gallery.Song, 1, with_for_update=True)
        report = rebuild(later)
        assert (report.ok, report.busy, report.made) == (False, 3, 1)
    assert rebuild(later).ok
    later.check(*PLAIN, b"lala", b"xx", b"yy", b"lulu")


def test_two_at_the_same_time(engine: Engine) -> None:
    gallery = Gallery.new(engine, {})
    for n in range(1, 31):
        gallery.fill(n, b"%d" % n)
    later = gallery.deployed({"loud": double})
    reports: list[RebuildReport] = []
    threads = [threading.Thread(target=lambda: reports.append(rebuild(later))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 2
    rebuild(later)
    later.check(*[b"%d" % n for n in range(1, 31)], *[b"%d%d" % (n, n) for n in range(1, 31)])


def test_many_pages(engine: Engine) -> None:
    gallery = Gallery.new(engine, {})
    with Session(engine) as session:
        session.add_all(gallery.Song(id=n, text=b"%d" % n) for n in range(250))
        session.commit()
    later = gallery.deployed({"loud": double})
    assert rebuild(later).made == 250
    assert later.text(249).variant("loud").read() == b"249249"
