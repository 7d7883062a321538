"""Verify finds each kind of disagreement, and mends only what can be mended without losing anything."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import Column, Engine, Integer, Table, delete, event, text, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, configure_mappers, mapped_column
from sqlalchemy.util import greenlet_spawn

from sa_attachments import Attachment, AttachmentType, Storages
from sa_attachments.descriptor import Named
from sa_attachments.ledger import Line
from sa_attachments.queries import CONDEMNED, GONE, OWNED, PURGING
from sa_attachments.storages.memory import _File
from sa_attachments.verify import Finding, VerifyReport
from tests.archive import DAY, DIALECTS, NO_TIME, Archive

on = pytest.mark.parametrize
everywhere = on("engine", DIALECTS, indirect=True)
sqlite = on("engine", ["sqlite"], indirect=True)
concurrent = on("engine", [name for name in DIALECTS if name != "sqlite"], indirect=True)


@pytest.fixture
def archive(engine: Engine) -> Archive:
    return Archive(engine, {"other": "memory:"})


def look(archive: Archive, **options: Any) -> list[tuple[str, str, bool]]:
    """``(kind, key, repaired)`` of what is found."""
    report = archive.files.verify(archive.engine, **options)
    return [(finding.kind, finding.key, finding.repaired) for finding in report.findings]


def damage(archive: Archive, key: str, data: bytes) -> None:
    archive.memory._files[key] = _File(data, archive.memory.stat(key)._replace(size=len(data)))


# Nothing wrong


@everywhere
def test_where_all_is_well_nothing_is_found(archive: Archive) -> None:
    archive.keep(b"one", b"two", pages=[b"three", b"four"])
    archive.keep(b"gone")
    with archive.session() as session:
        session.add(archive.Doc(file=Attachment.upload(b"far", storage="other")))
        session.add(archive.Doc())
        session.commit()
    report = archive.files.verify(archive.engine, checksums=True)
    assert (report.findings, report.ok) == ([], True)
    # The two lists that were shared are of two documents each.
    assert (report.files, report.lines) == (8, 8)
    assert report.counts == {}


@sqlite
def test_without_columns_there_is_nothing_to_compare(engine: Engine) -> None:
    assert Storages("memory:").verify(engine) == VerifyReport()


@sqlite
def test_what_is_condemned_and_waits_is_no_finding(archive: Archive) -> None:
    ids = archive.keep(b"one", b"two", b"three")
    keys = [archive.key(id_) for id_ in ids]
    with archive.engine.begin() as connection:
        connection.execute(text("UPDATE docs SET file = NULL"))
    for key, state in zip(keys, (CONDEMNED, PURGING, GONE), strict=True):
        archive.change(key, state=state, purge_after=2**50)
    assert look(archive) == []


# Each kind


@everywhere
@on("repair", [False, True])
def test_missing_bytes(archive: Archive, repair: bool) -> None:
    (id_,) = archive.keep(b"one")
    key = archive.key(id_)
    archive.memory.delete([key])
    report = archive.files.verify(archive.engine, repair=repair)
    (finding,) = report.findings
    assert (finding.kind, finding.storage, finding.key, finding.repaired) == ("missing", "default", key, False)
    assert f"docs.file ({id_},)" in finding.where
    assert not report.ok
    assert archive.states() == {key: OWNED}


@sqlite
def test_a_storage_that_is_not_configured_any_more_is_missing(archive: Archive) -> None:
    with archive.session() as session:
        session.add(archive.Doc(file=Attachment.upload(b"far", storage="other")))
        session.commit()
    with archive.files.override({"default": archive.storage}):
        (finding,) = archive.files.verify(archive.engine, repair=True).findings
    assert (finding.kind, finding.storage) == ("missing", "other")
    assert "no storage 'other'" in finding.where


@sqlite
def test_a_storage_that_does_not_answer_is_one_problem_and_no_file_is_missing(archive: Archive) -> None:
    archive.keep(b"one", b"two", b"three")
    with archive.session() as session:
        session.add(archive.Doc(file=Attachment.upload(b"far", storage="other")))
        session.commit()
    archive.storage.calls.clear()
    archive.storage.fail("stat", error=ConnectionError("no route"))
    other = archive.files.resolve("other")
    stored = dict(other.keys())
    other.delete(list(stored))
    report = archive.files.verify(archive.engine)
    assert [(finding.kind, finding.storage) for finding in report.findings] == [("missing", "other")]
    assert list(report.problems) == ["default"]
    assert "no route" in report.problems["default"]
    assert not report.ok
    assert [call.verb for call in archive.storage.calls].count("stat") == 1, "it may take long to fail"


@everywhere
@on(
    ("data", "checksums", "found"),
    [(b"on", False, True), (b"two", False, False), (b"two", True, True), (b"one", True, False)],
)
def test_damaged_bytes(archive: Archive, data: bytes, checksums: bool, found: bool) -> None:
    (id_,) = archive.keep(b"one")
    key = archive.key(id_)
    damage(archive, key, data)
    assert look(archive, checksums=checksums) == ([("damaged", key, False)] if found else [])
    assert look(archive, checksums=checksums, repair=True) == ([("damaged", key, False)] if found else [])


@everywhere
@on("state", [CONDEMNED, None])
def test_a_named_file_that_nobody_owns_gets_its_line_back(archive: Archive, state: str | None) -> None:
    (id_,) = archive.keep(b"one")
    key = archive.key(id_)
    if state is None:
        with archive.engine.begin() as connection:
            connection.execute(delete(archive.ledger.lines))
    else:
        archive.change(key, state=state, purge_after=1)
    assert look(archive)[0] == ("unowned", key, False)
    assert archive.states() == ({key: state} if state else {})
    report = archive.files.verify(archive.engine, repair=True)
    assert ("unowned", key, True) in [(each.kind, each.key, each.repaired) for each in report.findings]
    line = archive.line(key)
    assert (line.state, line.purge_after, line.owner_table, line.owner_column) == (OWNED, None, "docs", "file")
    assert look(archive) == []
    archive.sweep(full=True)
    assert archive.stored() == {key: b"one"}


@everywhere
@on("state", [PURGING, GONE])
def test_what_is_being_purged_is_never_owned_again(archive: Archive, state: str) -> None:
    """Hole 4."""
    key = archive.key(*archive.keep(b"one"))
    archive.change(key, state=state, purge_after=2**50)
    assert look(archive, repair=True) == [("unowned", key, False)]
    assert archive.states() == {key: state}


@sqlite
def test_an_unowned_file_whose_storage_fails_gets_no_line(archive: Archive) -> None:
    key = archive.key(*archive.keep(b"one"))
    with archive.engine.begin() as connection:
        connection.execute(delete(archive.ledger.lines))
    archive.storage.fail("stat", error=OSError("no answer"))
    assert look(archive, repair=True) == [("unowned", key, False)]


@sqlite
def test_an_unowned_file_without_bytes_gets_no_line(archive: Archive) -> None:
    key = archive.key(*archive.keep(b"one"))
    with archive.engine.begin() as connection:
        connection.execute(delete(archive.ledger.lines))
    archive.memory.delete([key])
    assert look(archive, repair=True) == [("unowned", key, False), ("missing", key, False)]
    assert archive.states() == {}


@everywhere
@on("how", ["row deleted", "value removed", "value replaced"])
def test_a_line_without_a_row_is_condemned(archive: Archive, how: str) -> None:
    ids = archive.keep(b"one", b"two")
    one, two = (archive.key(id_) for id_ in ids)
    statement = {
        "row deleted": f"DELETE FROM docs WHERE id = {ids[0]}",
        "value removed": f"UPDATE docs SET file = NULL WHERE id = {ids[0]}",
        "value replaced": f"UPDATE docs SET file = 'null' WHERE id = {ids[0]}",
    }[how]
    with archive.engine.begin() as connection:
        connection.execute(text(statement))
    assert look(archive) == [("unnamed", one, False)]
    assert archive.states() == {one: OWNED, two: OWNED}
    report = archive.files.verify(archive.engine, repair=True)
    assert [(each.kind, each.key, each.repaired) for each in report.findings] == [("unnamed", one, True)]
    assert report.ok
    assert archive.states() == {one: CONDEMNED, two: OWNED}
    archive.sweep()
    assert archive.stored() == {two: b"two"}
    assert look(archive) == []


@everywhere
def test_an_item_that_left_its_list_is_unnamed(archive: Archive) -> None:
    (id_,) = archive.keep(b"file", pages=[b"one", b"two"])
    with archive.session() as session:
        first, second = session.get_one(archive.Doc, id_).pages
        facts = first.to_json()
        gone = second.key
    with archive.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE docs SET pages = :v"
                if archive.engine.dialect.name != "postgresql"
                else "UPDATE docs SET pages = CAST(:v AS JSONB)"
            ),
            {"v": f"[{facts}]"},
        )
    assert look(archive, repair=True) == [("unnamed", gone, True)]


@everywhere
def test_a_file_that_moved_to_another_column_is_named_there(archive: Archive) -> None:
    """The ledger may still say the column that it came from."""
    (id_,) = archive.keep(b"one")
    key = archive.key(id_)
    archive.change(key, owner_column="pages")
    assert look(archive, repair=True) == []
    assert archive.states() == {key: OWNED}


@everywhere
def test_lines_of_columns_that_are_not_mapped_in_this_process_are_left_alone(archive: Archive) -> None:
    """Hole 8: another process maps them."""
    archive.keep(b"mine")
    with archive.engine.begin() as connection:
        connection.execute(text("CREATE TABLE others (scan TEXT)"))
        connection.execute(text("ALTER TABLE docs ADD COLUMN scan TEXT"))
    foreign = archive.stranger(DAY, data=b"theirs")
    nobodys = archive.stranger(DAY, data=b"whose")
    with archive.engine.begin() as connection:
        archive.ledger.adopt(connection, Line(Named("default", foreign, 6), "others", "scan"))
        archive.ledger.adopt(connection, Line(Named("default", nobodys, 5), "docs", "scan"))
    assert look(archive) == []
    assert look(archive, repair=True) == []
    assert archive.files.verify(archive.engine).unmapped == {"others.scan": 1, "docs.scan": 1}
    assert {archive.states()[foreign], archive.states()[nobodys]} == {OWNED}
    archive.sweep(full=True)
    assert {foreign, nobodys} <= set(archive.stored())


@everywhere
def test_strangers_are_left_to_the_sweep(archive: Archive) -> None:
    old, young = archive.stranger(2 * DAY), archive.stranger(timedelta(hours=1))
    assert look(archive) == [("stranger", old, False)]
    assert look(archive, repair=True) == [("stranger", old, False)]
    assert {old, young} <= set(archive.stored())
    (finding,) = archive.files.verify(archive.engine).findings
    assert "storage 'default'" in finding.where


@sqlite
def test_files_that_are_not_ours_are_no_strangers(archive: Archive) -> None:
    archive.memory._files["readme.txt"] = _File(b"x", archive.memory.stat(archive.stranger(NO_TIME)))
    assert look(archive) == []


@everywhere
def test_a_damaged_descriptor_is_unreadable_and_nothing_is_condemned_because_of_it(archive: Archive) -> None:
    """It may name anything."""
    (id_,) = archive.keep(b"one")
    key = archive.key(id_)
    facts = json.dumps({"key": key, "odd": True})
    with archive.engine.begin() as connection:
        connection.execute(text(f"UPDATE docs SET file = '{facts}'"))
    report = archive.files.verify(archive.engine, repair=True)
    assert [(each.kind, each.where) for each in report.findings] == [("unreadable", f"docs.file ({id_},)")]
    assert archive.states() == {key: OWNED}
    assert archive.stored() == {key: b"one"}


# Repairing is careful


@sqlite
def test_a_row_that_names_the_file_by_the_time_of_the_repair_keeps_it(archive: Archive) -> None:
    ids = archive.keep(b"one", b"two")
    key = archive.key(ids[0])
    with archive.engine.connect() as connection:
        value = connection.scalar(text(f"SELECT file FROM docs WHERE id = {ids[0]}"))
    with archive.engine.begin() as connection:
        connection.execute(text(f"UPDATE docs SET file = NULL WHERE id = {ids[0]}"))

    def back(what: str, count: int) -> None:
        if what == "docs.file":  # the rows were read
            with archive.engine.begin() as connection:
                connection.execute(text(f"UPDATE docs SET file = :v WHERE id = {ids[0]}"), {"v": value})

    assert look(archive, repair=True, progress=back) == []
    assert archive.states()[key] == OWNED


@everywhere
@pytest.mark.parametrize("ascii_only", [True, False])
def test_so_does_one_that_names_an_adopted_file_whose_name_json_may_escape(engine: Engine, ascii_only: bool) -> None:
    archive = Archive(engine)
    (id_,) = archive.keep(b"one")
    key, name = archive.key(id_), 'Größe "b" 50%.txt'
    with archive.session() as session:
        file = session.get_one(archive.Doc, id_).file
        facts = {**json.loads(file.to_json() if file else ""), "key": name}
        said = json.dumps(facts, ensure_ascii=ascii_only)
    archive.memory._files[name] = archive.memory._files.pop(key)
    with engine.begin() as connection:
        connection.execute(update(archive.ledger.lines).values({archive.ledger.lines.c.key: name}))
        connection.execute(text("UPDATE docs SET file = NULL"))

    def back(what: str, count: int) -> None:
        if what == "docs.pages":  # the rows were read
            cast = "CAST(:said AS JSONB)" if engine.dialect.name == "postgresql" else ":said"
            with engine.begin() as connection:
                connection.execute(text(f"UPDATE docs SET file = {cast}"), {"said": said})

    assert (look(archive, repair=True, progress=back), archive.states()) == ([], {name: OWNED})


@sqlite
def test_a_line_that_was_dropped_by_the_time_of_the_repair_is_no_finding(archive: Archive) -> None:
    ids = archive.keep(b"one", b"two")
    dropped: list[int] = []

    def drop(what: str, count: int) -> None:
        if what == "docs.file" and not dropped:
            dropped.append(1)
            archive.remove(ids[0])

    assert [kind for kind, _, _ in look(archive, repair=True, progress=drop)] in (
        [],
        ["missing"],
        ["unowned"],  # its bytes are just being deleted
        ["unowned", "missing"],
    )
    assert archive.files.settled(20)
    archive.sweep()  # what a busy machine did not come to
    assert list(archive.stored().values()) == [b"two"]


@sqlite
def test_a_repair_can_be_repeated(archive: Archive) -> None:
    archive.keep(b"one", b"two")
    with archive.engine.begin() as connection:
        connection.execute(text("DELETE FROM docs WHERE id = 1"))
    assert len(look(archive, repair=True)) == 1
    assert look(archive, repair=True) == []


def before(archive: Archive, act: Callable[[], object], *words: str) -> None:
    """Let others ``act`` when verify is about to send a statement with these words, once."""
    pending = [act]

    @event.listens_for(archive.engine, "before_cursor_execute")
    def sent(_connection: Any, _cursor: Any, text: str, *_: Any) -> None:
        if pending and all(word in text for word in words):
            pending.pop()()


LOCK = "UPDATE"
"""What the repair of an unnamed file begins with: on SQLite one of the ledger, elsewhere a SELECT ... FOR UPDATE."""


@everywhere
def test_a_line_that_is_dropped_between_the_look_and_the_lock_is_no_finding(archive: Archive) -> None:
    """Hole 8."""
    key = archive.key(*archive.keep(b"one"))
    with archive.engine.begin() as connection:
        connection.execute(text("UPDATE docs SET file = NULL"))
    before(archive, lambda: archive.change(key, state=CONDEMNED, purge_after=2**50), LOCK)
    assert look(archive, repair=True) == []
    assert (archive.line(key).state, archive.line(key).purge_after) == (CONDEMNED, 2**50)


@pytest.mark.parametrize("engine", ["sqlite", "postgres", "mariadb"], indirect=True)
def test_it_waits_for_no_transaction_that_stores_the_first_file_of_a_place(archive: Archive) -> None:
    """It only looks: on SQLite, which has one writer, it would fail."""
    with archive.session() as session:
        session.add(archive.Doc(file=b"one"))
        session.flush()
        began = monotonic()
        assert look(archive) == []
        assert monotonic() - began < 4
        session.commit()
    assert look(archive) == []


@concurrent
def test_a_line_whose_owner_is_in_flight_is_left_alone(archive: Archive) -> None:
    """Hole 8: a transaction that gives the file another name holds its line."""
    (id_,) = archive.keep(b"one")
    named = archive.named(id_)
    with archive.engine.connect() as connection:
        value = connection.scalar(text("SELECT CAST(file AS CHAR(1000)) FROM docs"))
    with archive.engine.begin() as connection:
        connection.execute(text("UPDATE docs SET file = NULL"))
    owner = archive.engine.connect()

    def name_it() -> None:
        assert archive.ledger.transfer(owner, Line(named, "docs", "file"))
        owner.execute(text("UPDATE docs SET file = :value"), {"value": value})

    before(archive, name_it, LOCK)
    assert look(archive, repair=True) == []
    owner.commit()
    owner.close()
    assert archive.states() == {named.key: OWNED}
    assert look(archive) == []


@concurrent
def test_a_file_that_moves_while_a_repair_looks_for_its_name_stays_owned(archive: Archive) -> None:
    """Hole 8: always named, and by no column at the moment when it was looked at. Its line is locked, so that the last
    move waits until that is found out.
    """
    with archive.session() as session:
        session.add_all([archive.Doc(id=1, pages=[b"one"]), archive.Doc(id=2, file=b"two")])
        session.commit()
    moved = threading.Event()

    def move(to: str) -> None:
        with archive.session() as session:
            doc = session.get_one(archive.Doc, 1)
            doc.file, doc.pages = (doc.pages[0], []) if to == "file" else (None, [doc.file])
            session.commit()
        moved.set()

    def move_back(what: str, _: int) -> None:
        if what.startswith("docs."):  # where it no longer was when that column's rows were read
            move({"docs.file": "file", "docs.pages": "pages"}[what])
            moved.clear()

    def move_meanwhile() -> None:
        thread.start()
        moved.wait(0.5)

    thread = threading.Thread(target=move, args=["file"])
    before(archive, move_meanwhile, "FROM docs", "docs.pages AS", "LIKE")
    findings = look(archive, repair=True, progress=move_back)
    thread.join(20)
    archive.settle()
    assert (findings, moved.is_set()) == ([], True)
    assert set(archive.states().values()) == {OWNED}
    assert sorted(archive.stored().values()) == [b"one", b"two"]
    assert look(archive) == []


# Many


@sqlite
def test_rows_and_lines_are_read_in_pages(archive: Archive) -> None:
    archive.keep(*[b"x"] * 1010)
    report = archive.files.verify(archive.engine)
    assert (report.findings, report.files, report.lines) == ([], 1010, 1010)
    told: list[tuple[str, int]] = []
    archive.files.verify(archive.engine, progress=lambda what, count: told.append((what, count)))
    assert sum(count for what, count in told if what == "docs.file") == 1010
    assert sum(count for what, count in told if what == "ledger") == 1010


@on("engine", ["sqlite", "postgres"], indirect=True)
def test_composite_primary_keys_are_paged_too(engine: Engine) -> None:
    files = Storages("memory:")

    class Base(DeclarativeBase):
        pass

    class Page(Base):
        __tablename__ = "pages"
        book: Mapped[int] = mapped_column(primary_key=True)
        number: Mapped[int] = mapped_column(primary_key=True)
        scan: Mapped[Attachment] = mapped_column(AttachmentType(files))

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Page(book=book, number=number, scan=b"x") for book in range(3) for number in range(200))
        session.commit()
    report = files.verify(engine)
    assert (report.findings, report.rows, report.files) == ([], 600, 600)


@sqlite
@on("mapped", [True, False])
def test_a_table_without_a_primary_key(engine: Engine, mapped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapping may say what is one. Who does not say it can't have files moved."""
    monkeypatch.setattr("sa_attachments.verify.CHUNK", 2)
    monkeypatch.setattr("sa_attachments.rows.PAGE", 2)
    files = Storages({"default": "memory:", "other": "memory:"})

    class Base(DeclarativeBase):
        pass

    pages = Table("pages", Base.metadata, Column("number", Integer), Column("scan", AttachmentType(files)))
    if mapped:

        class Page(Base):
            __table__ = pages
            __mapper_args__ = {"primary_key": [pages.c.number]}  # noqa: RUF012 - SQLAlchemy's form

        configure_mappers()
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        for number in range(5):
            scan = files.stage(Attachment.upload(b"x"), connection, pages.c.scan)
            connection.execute(pages.insert(), {"number": number, "scan": scan})
    report = files.verify(engine)
    assert (report.findings, report.rows, report.files) == ([], 5, 5)
    assert files.move(engine, "default", "other").files == (5 if mapped else 0)
    assert files.verify(engine).findings == []


# Reports


def test_a_report() -> None:
    one = Finding("missing", "default", "k", "docs.file (1,)")
    two = Finding("unnamed", "default", "l", "ledger", repaired=True)
    assert VerifyReport(findings=[two]).ok
    report = VerifyReport(findings=[one, two, one])
    assert not report.ok
    assert report.counts == {"missing": 2, "unnamed": 1}


async def test_averify(async_engine: AsyncEngine) -> None:
    archive = await greenlet_spawn(Archive, async_engine.sync_engine)
    archive.stranger(2 * DAY)
    report = await archive.files.averify(async_engine)
    assert report.counts == {"stranger": 1}


@pytest.mark.parametrize("engine", DIALECTS, indirect=True)
def test_a_column_that_is_not_migrated_yet_is_not_compared(engine: Engine) -> None:
    archive = Archive(engine)
    archive.keep(b"x")

    class Later(DeclarativeBase):
        pass

    class Doc(Later):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        still_to_come: Mapped[Attachment] = mapped_column(AttachmentType(archive.files))

    assert "still_to_come" in Doc.__table__.columns
    report = archive.files.verify(engine)
    assert (report.ok, report.files) == (True, 1)
