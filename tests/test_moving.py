from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Column, DateTime, Engine, Enum, Integer, MetaData, Table, func, insert, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentListType, AttachmentType, BadConfiguration, Storages, UnknownStorage
from sa_attachments.moving import MoveReport
from sa_attachments.rows import Rows
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty
from tests.scenarios.test_primary_keys import Tagged

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgres", "mariadb"], indirect=True)

files = Storages({"old": "memory:", "new": "memory:", "default": "old"})


class Base(DeclarativeBase):
    pass


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    edited: Mapped[datetime | None] = mapped_column(DateTime(), onupdate=func.now())
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files))


class World:
    """Two storages, and rows that name files of the first."""

    def __init__(self, engine: Engine, old: Faulty, new: Faulty) -> None:
        self.engine = engine
        self.old = old
        self.new = new

    def move(self, **options: Any) -> MoveReport:
        return files.move(self.engine, "old", "new", **{"retain": timedelta(0), **options})

    def contents(self) -> dict[int, list[tuple[str, bytes]]]:
        with Session(self.engine) as session:
            docs = session.scalars(select(Doc).order_by(Doc.id)).all()
            return {d.id: [(a.storage, a.read()) for a in (*([d.file] if d.file else ()), *d.pages)] for d in docs}

    def clean(self) -> tuple[int, int]:
        """How many files the storages hold after all was swept, where nothing may be found."""
        assert files.settled(20)
        now = timedelta(0)
        for _ in range(2):
            files.sweep(self.engine, grace=now, stranger_retain=now)
        report = files.verify(self.engine)
        assert report.ok, report.findings
        return len(list(self.old.inner.keys())), len(list(self.new.inner.keys()))


@pytest.fixture
def world(engine: Engine) -> Iterator[World]:
    Base.metadata.create_all(engine)
    old, new = Faulty(MemoryStorage(parallel=4)), Faulty(MemoryStorage(parallel=4))
    with files.override({"old": old, "new": new, "default": "old"}):
        with Session(engine) as session:
            session.add_all(Doc(file=b"file %d" % n, pages=[b"page %d.1" % n, b"page %d.2" % n]) for n in range(1, 8))
            session.add(Doc())
            session.commit()
        assert files.settled(20)  # which reads a marker, and would be what a test waits for
        yield World(engine, old, new)


def moved(n: int) -> list[tuple[str, bytes]]:
    return [("new", b"file %d" % n), ("new", b"page %d.1" % n), ("new", b"page %d.2" % n)]


ALL = {**{n: moved(n) for n in range(1, 8)}, 8: []}


def test_every_file_reads_from_the_target_and_the_source_is_empty(world: World) -> None:
    progress: list[tuple[int, int]] = []
    report = world.move(progress=lambda rows, total: progress.append((rows, total)))
    assert report.ok
    assert (report.rows, report.files) == (14, 21)  # a row counts once for each of its columns
    assert report.size == 7 * 6 + 14 * 8
    assert (sum(rows for rows, _ in progress), {total for _, total in progress}) == (14, {14})
    assert world.contents() == ALL
    assert world.clean() == (0, 21)


def test_again_there_is_nothing_to_move(world: World) -> None:
    world.move()
    report = world.move()
    assert (report.rows, report.files) == (0, 0)
    assert world.contents() == ALL


def test_a_dry_run_only_counts(world: World) -> None:
    report = world.move(dry_run=True)
    assert (report.ok, report.files, report.size) == (True, 21, 7 * 6 + 14 * 8)
    assert list(world.new.inner.keys()) == []
    assert {storage for row in world.contents().values() for storage, _ in row} == {"old"}


def test_the_source_is_kept_for_a_while(world: World) -> None:
    before = world.contents
    world.move(retain=timedelta(days=1))
    assert world.clean() == (21, 21)
    assert before() == ALL


def test_descriptions_and_other_columns_are_as_they_were(world: World) -> None:
    with Session(world.engine) as session:
        doc = session.get_one(Doc, 1)
        assert doc.file is not None
        doc.file = doc.file.replace(filename="ä.txt", metadata={"a": [1, {"b": None}]})
        session.commit()
        facts, edited = doc.file.to_json(), doc.edited
        old = doc.file
    world.move()
    with Session(world.engine) as session:
        doc = session.get_one(Doc, 1)
        assert doc.file is not None
        assert doc.edited == edited
        assert doc.file.to_json() == facts.replace(old.key, doc.file.key).replace('"old"', '"new"')


def test_a_time_that_the_database_sets_by_itself_is_as_it_was(world: World) -> None:
    if world.engine.dialect.name not in ("mysql", "mariadb"):
        pytest.skip("other databases have no ON UPDATE")
    with world.engine.begin() as connection:
        for name in ("changed", "`by Key`"):
            connection.execute(text(f"ALTER TABLE docs ADD {name} DATETIME NULL ON UPDATE CURRENT_TIMESTAMP"))
        connection.execute(text("UPDATE docs SET changed = '2001-02-03 04:05:06', `by Key` = '2001-02-03 04:05:06'"))
    assert world.move().files == 21
    with world.engine.connect() as connection:
        times = connection.execute(text("SELECT DISTINCT changed, `by Key` FROM docs")).all()
        assert [list(map(str, row)) for row in times] == [["2001-02-03 04:05:06"] * 2]


def test_rows_that_change_while_their_files_are_copied_keep_their_change(world: World) -> None:
    def change() -> None:
        with Session(world.engine) as session:
            session.get_one(Doc, 1).file = Attachment.upload(b"replaced", storage="new")
            third = session.get_one(Doc, 3)
            third.pages = [*reversed(third.pages), Attachment.upload(b"more", storage="new")]
            described = session.get_one(Doc, 4)
            assert described.file is not None
            described.file = described.file.replace(filename="described.txt")
            session.delete(session.get_one(Doc, 2))
            session.commit()

    world.new.at("put", 2, change)  # the first is the marker of the place
    report = world.move()
    assert report.ok
    assert report.overtaken >= 1
    while files.move(world.engine, "old", "new", retain=timedelta(0)).files:
        pass
    pages = [("new", b"page 3.2"), ("new", b"page 3.1"), ("new", b"more")]
    expected = {**ALL, 1: [("new", b"replaced"), *moved(1)[1:]], 3: [("new", b"file 3"), *pages]}
    del expected[2]
    assert world.contents() == expected
    with Session(world.engine) as session:
        file = session.get_one(Doc, 4).file
        assert file is not None
        assert file.filename == "described.txt"
    assert world.clean() == (0, sum(map(len, expected.values())))


def test_a_session_that_read_before_does_not_undo_the_move(world: World) -> None:
    with Session(world.engine, expire_on_commit=False) as session:
        doc, other = session.get_one(Doc, 1), session.get_one(Doc, 2)
        session.commit()
        world.move(retain=timedelta(days=1))
        assert doc.file is not None
        doc.file = doc.file.replace(filename="described.txt")
        other.file = None
        session.commit()
    assert world.contents() == {**ALL, 2: moved(2)[1:]}


def test_rows_that_somebody_holds_are_tried_again_and_left_at_the_end(world: World) -> None:
    if world.engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no locks of rows")
    with Session(world.engine) as session:
        session.execute(select(Doc.id).where(Doc.id == 5).with_for_update())
        report = world.move()
        assert (report.busy, report.ok) == (2, False)
    assert [row[0][0] for row in world.contents().values() if row].count("old") == 1
    assert world.move().ok
    assert world.contents() == ALL
    assert world.clean() == (0, 21)


def test_a_row_that_the_database_does_not_let_change_is_reported(world: World) -> None:
    dialect = world.engine.dialect.name
    raising = {
        "sqlite": "WHEN old.id = 5 BEGIN SELECT RAISE(ABORT, 'it is archived'); END",
        "postgresql": "FOR EACH ROW WHEN (old.id = 5) EXECUTE FUNCTION refuse()",
        "mysql": "FOR EACH ROW IF old.id = 5 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'it is archived'; END IF",
    }
    with world.engine.begin() as connection:
        if dialect == "postgresql":
            body = "BEGIN RAISE EXCEPTION 'it is archived'; END"
            connection.exec_driver_sql(f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
        trigger = raising["mysql" if dialect == "mariadb" else dialect]
        connection.exec_driver_sql(f"CREATE TRIGGER archived BEFORE UPDATE ON docs {trigger}")
    report = world.move()
    assert (report.files, report.busy, report.ok) == (18, 0, False)
    assert [failure[:16] for failure in report.failed] == ["docs.file (5,): ", "docs.pages (5,):"]
    assert "it is archived" in report.failed[0]
    assert len(list(world.new.inner.keys())) == 18


KEEPING = {
    "sqlite": "AFTER UPDATE ON docs WHEN old.id = 5"
    " BEGIN UPDATE docs SET file = old.file, pages = old.pages WHERE id = 5; END",
    "postgresql": "BEFORE UPDATE ON docs FOR EACH ROW WHEN (old.id = 5) EXECUTE FUNCTION keep()",
    "mysql": "BEFORE UPDATE ON docs FOR EACH ROW"
    " IF old.id = 5 THEN SET new.file = old.file; SET new.pages = old.pages; END IF",
}


@pytest.mark.parametrize("counted", [True, False])
def test_a_row_that_a_trigger_keeps_as_it_is_keeps_its_file(world: World, counted: bool) -> None:
    """Though it is counted as written."""
    dialect = world.engine.dialect.name
    if not counted and dialect != "postgresql":
        pytest.skip("other databases have no such triggers")
    with world.engine.begin() as connection:
        if dialect == "postgresql":
            back = "NEW.file := OLD.file; NEW.pages := OLD.pages; RETURN NEW;" if counted else "RETURN NULL;"
            body = f"CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {back} END$$"
            connection.exec_driver_sql(body)
        connection.exec_driver_sql(f"CREATE TRIGGER keep {KEEPING['mysql' if dialect == 'mariadb' else dialect]}")
    report = world.move()
    assert report.failed == [f"docs.{name} (5,): its row does not keep what it is given" for name in ("file", "pages")]
    assert [storage for storage, _ in world.contents()[5]] == ["old"] * 3
    assert world.clean() == (3, 18)


def test_tables_of_one_name_in_two_schemas(engine: Engine) -> None:
    """Each has rows of its own."""
    if engine.dialect.name != "postgresql":
        pytest.skip("the databases of MariaDB and SQLite are no schemas of this test's own")
    stores = Storages({"default": "memory:", "new": "memory:"})
    metadata = MetaData()
    tables = [
        Table(
            "docs",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("file", AttachmentType(stores)),
            schema=name,
        )
        for name in ("one", "two")
    ]
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA one"))
        connection.execute(text("CREATE SCHEMA two"))
        metadata.create_all(connection)
        for number, table in enumerate(tables):
            for key in range(3):
                file = stores.stage(Attachment.upload(b"%d" % number), connection, table.c.file)
                connection.execute(table.insert(), {"id": key, "file": file})
    report = stores.move(engine, "default", "new")
    assert (report.ok, report.rows, report.files) == (True, 6, 6)
    with engine.connect() as connection:
        for table in tables:
            assert [file.storage for file in connection.scalars(select(table.c.file))] == ["new"] * 3


def test_keys_that_rows_of_an_inheriting_table_have_too(world: World) -> None:
    """One row's new name would be written into two."""
    if world.engine.dialect.name != "postgresql":
        pytest.skip("other databases know no INHERITS")
    with world.engine.begin() as connection:
        connection.execute(text("CREATE TABLE child (PRIMARY KEY (id)) INHERITS (docs)"))
        connection.execute(text("INSERT INTO child SELECT 9, edited, file, pages FROM docs WHERE id = 5"))
        connection.execute(text("DELETE FROM ONLY docs WHERE id = 5"))
        connection.execute(text("UPDATE child SET id = 4"))
    before = world.contents
    report = world.move()
    assert (report.ok, report.files) == (False, 15)
    assert "several rows of table 'docs' have the primary key (4,)" in report.failed[0]
    with world.engine.begin() as connection:
        connection.execute(text("UPDATE child SET id = 5"))
    assert [storage for n in (4, 5) for storage, _ in before()[n]] == ["old"] * 6
    assert world.move().ok
    assert world.contents() == ALL
    assert world.clean() == (0, 21)


def test_a_file_that_is_lost_or_damaged_is_reported_and_the_others_are_moved(world: World) -> None:
    with Session(world.engine) as session:
        lost, damaged = session.get_one(Doc, 1).file, session.get_one(Doc, 2).file
    assert lost is not None
    assert damaged is not None
    inner = world.old.inner
    assert isinstance(inner, MemoryStorage)
    inner.delete([lost.key])
    inner._files[damaged.key] = inner._files[damaged.key]._replace(data=b"FILE 2")
    report = world.move()
    assert not report.ok
    assert report.files == 19
    said = sorted(report.failed)
    assert said[0].startswith("docs.file (1,): ")
    assert "is not what was stored" in said[1]
    assert len(list(world.new.inner.keys())) == 19


def test_a_file_that_is_purged_before_it_is_copied_was_given_up(world: World) -> None:
    def drop() -> None:
        with Session(world.engine) as session:
            session.get_one(Doc, 1).file = None
            session.commit()
        assert files.settled(20)

    world.old.parallel = 1
    world.old.at("open", 1, drop)
    report = world.move()
    assert (report.ok, report.files, report.overtaken) == (True, 20, 1)
    assert world.contents() == {**ALL, 1: moved(1)[1:]}


def test_a_damaged_descriptor_is_reported_and_left_alone(world: World) -> None:
    with world.engine.begin() as connection:
        connection.execute(text("""UPDATE docs SET file = '{"storage": "old", "key": 1}' WHERE id = 3"""))
    report = world.move()
    assert [each[:16] for each in report.failed] == ["docs.file (3,): "]
    assert report.files == 20


def test_a_target_that_fails_leaves_rows_as_they_are(world: World) -> None:
    for number in range(2, 23):  # the first is the marker of the place
        world.new.fail("put", number, OSError("disk full"))
    report = world.move()
    assert (report.files, len(report.failed)) == (0, 21)
    assert "disk full" in report.failed[0]
    assert {storage for row in world.contents().values() for storage, _ in row} == {"old"}
    world.new.heal()
    assert world.move().ok
    assert world.contents() == ALL


def test_copies_that_can_t_be_deleted_are_left_to_the_sweep(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def change() -> None:
        with Session(world.engine) as session:
            session.get_one(Doc, 1).file = Attachment.upload(b"replaced", storage="new")
            session.commit()
        world.new.fail("delete", error=OSError("not now"))

    world.new.at("put", 2, change)  # the first is the marker of the place
    report = world.move()
    assert (report.ok, report.files, report.overtaken) == (True, 20, 1)
    assert "a sweep finds it: storage 'new' failed to delete: OSError: not now" in caplog.text
    world.new.heal()
    assert world.clean() == (0, 21)


def test_a_source_that_breaks_is_not_taken_for_the_target(world: World) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionError("cut")

    inner = world.old.inner
    assert isinstance(inner, MemoryStorage)
    inner.open = lambda *range_: Broken()  # type: ignore[method-assign]
    report = world.move()
    assert len(report.failed) == 21
    assert all("storage 'old' failed to read" in failure for failure in report.failed)


def test_several_can_share_the_work(world: World) -> None:
    with Session(world.engine) as session:
        session.execute(insert(Doc), [{"file": b"bulk %d" % n} for n in range(40)])
        session.commit()
    reports = [world.move(part=(number, 3)) for number in (1, 2, 3)]
    assert all(report.files for report in reports)
    assert sum(report.files for report in reports) == 61
    assert world.clean() == (0, 61)


def test_pages_of_many_rows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sa_attachments.rows.PAGE", 3)
    assert world.move().files == 21
    assert world.contents() == ALL


def test_keys_that_the_database_sorts_in_an_order_of_their_own(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """MariaDB sorts an ENUM by the number of its value, and compares it by its text."""
    monkeypatch.setattr("sa_attachments.verify.CHUNK", 20)
    monkeypatch.setattr("sa_attachments.rows.PAGE", 20)
    kept = Storages({"default": "memory:", "new": "memory:"})
    kinds = ("zebra", "monkey", "ape")

    class Zoo(DeclarativeBase):
        pass

    class Beast(Zoo):
        __tablename__ = "beasts"
        kind: Mapped[str] = mapped_column(Enum(*kinds, name="beast"), primary_key=True)
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        file: Mapped[Attachment] = mapped_column(AttachmentType(kept))

    Zoo.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Beast(kind=kind, id=n, file=b"%d" % n) for kind in kinds for n in range(21))
        session.commit()
    assert kept.verify(engine).rows == 63
    report = kept.move(engine, "default", "new")
    assert (report.ok, report.rows, report.files) == (True, 63, 63)
    found = kept.verify(engine)
    assert (found.ok, found.rows) == (True, 63)


def test_keys_that_are_compared_as_what_the_database_has(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound as it is, what the ORM has would come after all rows."""
    monkeypatch.setattr("sa_attachments.rows.PAGE", 2)
    kept = Storages({"default": "memory:", "new": "memory:"})

    class Mine(DeclarativeBase):
        pass

    class Doc(Mine):
        __tablename__ = "docs"
        id: Mapped[str] = mapped_column(Tagged(), primary_key=True)
        file: Mapped[Attachment] = mapped_column(AttachmentType(kept))

    Mine.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Doc(id=f"z{n}", file=b"%d" % n) for n in range(5))
        session.commit()
    assert kept.verify(engine).rows == 5
    report = kept.move(engine, "default", "new")
    assert (report.ok, report.rows, report.files) == (True, 5, 5)


@pytest.mark.parametrize("ever", [True, False])
def test_rows_that_reading_passes_over_are_met_again_or_reported(
    world: World, monkeypatch: pytest.MonkeyPatch, ever: bool
) -> None:
    lock, asked = Rows.lock, 0

    def lock_some(self: Any, connection: Any, identities: Any) -> Any:
        nonlocal asked
        asked += 1
        found, met = lock(self, connection, identities)
        if not ever or asked == 1:
            found.pop((3,), None)
        return found, met

    monkeypatch.setattr(Rows, "lock", lock_some)
    report = world.move()
    assert report.ok == ever
    if ever:
        assert world.contents() == ALL
    else:
        assert report.failed[0] == "docs.file: 1 rows name files of 'old' still: their primary keys don't lead to them"
        assert report.files == 18
    monkeypatch.undo()
    assert world.move().ok
    assert world.clean() == (0, 21)


def test_mistakes(world: World) -> None:
    for source, target in (("old", "old"), ("default", "old")):
        with pytest.raises(BadConfiguration, match="can't be moved to itself"):
            files.move(world.engine, source, target)
    with pytest.raises(UnknownStorage, match="no storage 'elsewhere'"):
        files.move(world.engine, "old", "elsewhere")
    with pytest.raises(BadConfiguration, match="makes no sense"):
        world.move(part=(3, 2))
    world.new.readonly = True
    with pytest.raises(BadConfiguration, match="'new' is read-only"):
        world.move()


def test_a_name_may_have_quotes(engine: Engine) -> None:
    odd = 'the "old" 100%_one'
    Base.metadata.create_all(engine)
    with files.override({odd: "memory:", "new": "memory:", "default": "new"}):
        with Session(engine) as session:
            session.add(Doc(file=Attachment.upload(b"x", storage=odd)))
            session.commit()
        assert files.move(engine, odd, "new").files == 1


def test_a_default_with_one_url_becomes_an_alias(engine: Engine) -> None:
    """As docs/storages.md says under "Began with one URL"."""
    Base.metadata.create_all(engine)
    old, new = MemoryStorage(), MemoryStorage()
    with files.override({"default": old}), Session(engine) as session:
        session.add(Doc(id=1, file=b"first"))
        session.commit()
    with files.override({"default": old, "new": new}), Session(engine) as session:
        session.add(Doc(id=2, file=Attachment.upload(b"second", storage="new")))
        session.commit()
        assert files.move(engine, "default", "new", retain=timedelta(0)).ok
        assert files.move(engine, "default", "new").rows == 0
        files.sweep(engine)
        assert list(old.keys()) == []
    with files.override({"new": new, "default": "new"}), Session(engine) as session:
        session.add(Doc(id=3, file=b"third"))
        session.commit()
        found = [
            (doc.file.storage, doc.file.read()) for doc in session.scalars(select(Doc).order_by(Doc.id)) if doc.file
        ]
        assert found == [("new", b"first"), ("new", b"second"), ("new", b"third")]
        assert files.verify(engine).ok
