"""Column types: what is assigned becomes attachments, what is loaded is not touched, what is written was proved."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from sqlalchemy import (
    JSON,
    Engine,
    MetaData,
    Table,
    bindparam,
    insert,
    inspect,
    literal,
    select,
    text,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.schema import Column, CreateTable

from sa_attachments import (
    Attachment,
    AttachmentListType,
    AttachmentType,
    BadConfiguration,
    BadSource,
    DescriptorDamaged,
    FileMissing,
    NotStored,
    OwnershipLost,
    Refused,
    Storages,
    UnknownStorage,
)
from sa_attachments.attachment import binding_of, body_of
from sa_attachments.column import kept_for, ledger_owner
from sa_attachments.processing import MaxSize, MinSize

on = pytest.mark.parametrize
few = on("engine", ["sqlite", "postgres"], indirect=True)

files = Storages()


class Scan(Attachment):
    __slots__ = ()


class Base(DeclarativeBase):
    pass


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files, steps=[MaxSize(10)]))
    scan: Mapped[Scan | None] = mapped_column(AttachmentType(files, "scans", attachment_class=Scan))
    pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files, steps=[MinSize(1)]))


@pytest.fixture(autouse=True)
def storages() -> Iterator[None]:
    with files.override("memory:"):
        yield


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session


def type_of(attribute: Any) -> Any:
    return attribute.type


def stored_keys() -> list[str]:
    storage = files.resolve("default")
    return [key for key, _ in storage.keys()]  # noqa: SIM118 - a method of storages


# Assigning


@pytest.mark.parametrize("cls", [AttachmentType, AttachmentListType])
def test_says_what_it_takes(cls: Any) -> None:
    expected = rf"^{cls.__name__} takes the Storages that hold its files, as {cls.__name__}\(files\), not "
    with pytest.raises(BadConfiguration, match=f"{expected}None$"):
        mapped_column(cls)
    with pytest.raises(BadConfiguration, match=f"{expected}'local:./files'$"):
        cls("local:./files")


@on("kind", [AttachmentType, AttachmentListType])
def test_a_number_of_days_is_no_duration(kind: Any) -> None:
    with pytest.raises(BadConfiguration, match="retain is 30, expected a timedelta"):
        kind(files, retain=30)


def test_nothing_is_stored_on_assignment() -> None:
    doc = Doc(file=b"x", pages=[b"y"])
    assert doc.file is not None
    assert not doc.file.is_stored
    assert not stored_keys()


@on("source", [b"x", bytearray(b"x"), io.BytesIO(b"x"), iter([b"x"]), Attachment.upload(b"x")])
def test_whatever_is_a_source_can_be_assigned(source: Any) -> None:
    doc = Doc()
    doc.file = source
    doc.pages = [source] if isinstance(source, Attachment) else []
    assert isinstance(doc.file, Attachment)
    assert doc.file.read() == b"x"
    assert binding_of(doc.file) is type_of(Doc.file)


def test_plain_sources_become_the_columns_class() -> None:
    doc = Doc()
    doc.scan = b"x"  # type: ignore[assignment]
    assert type(doc.scan) is Scan


@on("value", ["text", 1, {"key": "k"}, io.StringIO("text"), Path("/")])
def test_what_is_no_source_is_refused_where_it_is_assigned(value: Any) -> None:
    doc = Doc(file=b"x")
    before = doc.file
    with pytest.raises(BadSource):
        doc.file = value
    assert doc.file is before
    with pytest.raises(BadSource):
        Doc(file=value)
    with pytest.raises(BadSource):
        doc.pages = [b"x", value]  # type: ignore[list-item]


def test_a_path_without_a_file_is_refused_where_it_is_assigned(tmp_path: Path) -> None:
    doc = Doc()
    with pytest.raises(FileMissing):
        doc.file = tmp_path / "nowhere"  # type: ignore[assignment]


def test_a_list_is_a_tuple_and_never_none() -> None:
    assert Doc().pages == ()
    doc = Doc(pages=[b"x", Attachment.upload(b"y")])
    assert isinstance(doc.pages, tuple)
    assert [page.read() for page in doc.pages] == [b"x", b"y"]
    doc.pages = [*doc.pages, Attachment.upload(b"z")]
    assert len(doc.pages) == 3
    doc.pages = None  # type: ignore[assignment]
    assert doc.pages == ()
    doc.pages = (page for page in [b"x"])  # type: ignore[assignment]
    assert len(doc.pages) == 1


@on("value", [b"x", "text", 1, Attachment.upload(b"x"), bytearray(b"x"), memoryview(b"x")])
def test_one_thing_is_no_list(value: Any) -> None:
    doc = Doc()
    with pytest.raises(BadSource, match=r"docs\.pages holds a sequence of attachments, not .*: assign a list"):
        doc.pages = value


# Checking early


@on("make", [lambda: Attachment.upload(b"x" * 11), lambda: Attachment.upload(iter([b"x"] * 11))])
def test_check_runs_the_steps_of_an_attribute_and_names_it(make: Callable[[], Attachment]) -> None:
    with pytest.raises(Refused, match=r"^Doc\.file: the file has 11 bytes") as caught:
        make().check(Doc.file)
    error = caught.value
    assert (error.target, error.rule, error.limit, error.measured) == ("Doc.file", "MaxSize", 10, 11)
    assert not stored_keys()


def test_check_names_the_column_where_there_is_no_attribute() -> None:
    with pytest.raises(Refused, match=r"^docs\.file: "):
        Attachment.upload(b"x" * 11).check(Doc.__table__.c.file)


@on("attribute", [Doc, Doc.id, "file", None], ids=["class", "column", "text", "nothing"])
def test_only_what_holds_attachments_can_check_one(attribute: Any) -> None:
    with pytest.raises(BadConfiguration, match=r" holds no attachments: expected an attribute, as User\.avatar"):
        Attachment.upload(b"x").check(attribute)


def test_an_attribute_that_can_not_check_is_told_by_its_name() -> None:
    with pytest.raises(BadConfiguration, match=r"^Doc\.id holds no attachments"):
        Attachment.upload(b"x").check(Doc.id)


async def test_acheck_runs_the_steps_in_a_thread_that_may_pull_from_the_loop() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            await asyncio.sleep(0)
            yield b"x"

    with pytest.raises(Refused, match=r"^Doc\.file: the file has 11 bytes"):
        await Attachment.upload(chunks()).acheck(Doc.file)


@few
def test_what_was_checked_can_be_stored(session: Session) -> None:
    new = Attachment.upload(iter([b"x"] * 10))
    new.check(Doc.file)
    doc = Doc(file=new)
    session.add(doc)
    session.commit()
    assert doc.file is not None
    assert doc.file.read() == b"x" * 10
    doc.file.check(Doc.file)
    doc.file.check(Doc.pages)


@few
@on(
    ("values", "target", "rule", "measured"),
    [
        ({"file": b"x" * 11}, "Doc.file", "MaxSize", 11),
        ({"file": iter([b"x"] * 11)}, "Doc.file", "MaxSize", 11),
        ({"pages": [b"x", b""]}, "Doc.pages", "MinSize", 0),
    ],
)
def test_a_refusal_in_a_flush_stores_nothing_and_leaves_the_session_usable(
    session: Session, values: dict[str, Any], target: str, rule: str, measured: int
) -> None:
    if "file" in values and not isinstance(values["file"], bytes):
        values = {"file": iter([b"x"] * 11)}
    doc = Doc(**values)
    session.add(doc)
    with pytest.raises(Refused) as caught:
        session.flush()
    error = caught.value
    assert (error.target, error.rule, error.measured) == (target, rule, measured)
    assert str(error).startswith(f"{target}: ")
    doc.file, doc.pages = None, []
    session.commit()
    assert files.settled(10)
    assert not stored_keys()
    assert session.scalars(select(Doc)).one() is doc


# Loading


def stored(session: Session, **values: Any) -> Doc:
    doc = Doc(**values)
    session.add(doc)
    session.commit()
    key = doc.id
    session.expunge(doc)
    return session.get_one(Doc, key)


@few
def test_a_loaded_value_keeps_its_text_until_it_is_touched(session: Session) -> None:
    doc = stored(session, file=b"x", scan=b"y", pages=[b"z"])
    assert doc.file is not None
    assert isinstance(body_of(doc.file), str)
    assert doc.file.size == 1
    assert isinstance(body_of(doc.file), dict)
    assert type(doc.scan) is Scan
    assert isinstance(doc.pages, tuple)
    assert [item.read() for item in (doc.file, doc.scan, *doc.pages)] == [b"x", b"y", b"z"]
    assert (doc.file.storage, doc.scan.storage) == ("default", "scans")


@few
def test_nothing_is_null_and_an_empty_list(session: Session) -> None:
    doc = stored(session)
    assert (doc.file, doc.scan, doc.pages) == (None, None, ())
    assert session.scalar(select(Doc.file.is_(None))) is True
    assert session.execute(text("SELECT file IS NULL, CAST(pages AS VARCHAR(9)) FROM docs")).one() == (True, "[]")


@few
@on("value", ["'null'", "NULL"])
def test_a_json_null_is_nothing_too(session: Session, value: str) -> None:
    doc = stored(session, file=b"x")
    session.execute(text(f"UPDATE docs SET file = {value}"))
    session.expire_all()
    assert (doc.file, doc.pages) == (None, ())
    assert session.scalar(select(Doc.file)) is None


@few
def test_a_list_that_is_a_json_null_is_empty(session: Session) -> None:
    doc = stored(session, pages=[b"x"])
    session.execute(text("UPDATE docs SET pages = 'null'"))
    session.expire_all()
    assert doc.pages == ()


@few
@on("value", ["{}", "[]", '"text"', "17", '{"key": "k"}', '[{"key": "k"}]'])
def test_damage_fails_where_it_is_touched_and_leaves_other_rows_alone(session: Session, value: str) -> None:
    damaged, whole = stored(session, file=b"x"), stored(session, file=b"y")
    session.execute(text(f"UPDATE docs SET file = '{value}', pages = '{value}' WHERE id = {damaged.id}"))
    session.expire_all()
    docs = session.scalars(select(Doc).order_by(Doc.id)).all()
    assert docs[0].file is not None
    with pytest.raises(DescriptorDamaged, match=r"^docs\.file holds .*, which does not describe an attachment"):
        _ = docs[0].file.filename
    if value != "[]":
        with pytest.raises(DescriptorDamaged, match=r"^docs\.pages holds "):
            _ = docs[0].pages[0].filename
    assert docs[1] is whole
    assert whole.file is not None
    assert whole.file.read() == b"y"


@on("engine", ["sqlite"], indirect=True)
@on("value", ["nonsense", "", "{", "\x00", b"\xff", b"{"])
def test_damage_that_is_not_even_json(session: Session, value: str | bytes) -> None:
    doc = stored(session, file=b"x", pages=[b"y"])
    session.execute(text("UPDATE docs SET file = :v, pages = :v"), {"v": value})
    session.expire_all()
    assert doc.file is not None
    with pytest.raises(DescriptorDamaged, match=r"docs\.file holds"):
        doc.file.read()
    with pytest.raises(DescriptorDamaged, match=r"docs\.pages holds"):
        doc.pages[0].read()


@on("engine", ["sqlite"], indirect=True)
def test_a_descriptor_that_somebody_wrote_as_bytes(session: Session) -> None:
    """As some JSON encoders give it; SQLite keeps it so."""
    doc = stored(session, file=b"x", pages=[b"y"])
    session.execute(text("UPDATE docs SET file = CAST(file AS BLOB), pages = CAST(pages AS BLOB)"))
    session.expire_all()
    assert doc.file is not None
    assert (doc.file.read(), doc.pages[0].read()) == (b"x", b"y")


@few
def test_one_damaged_item_leaves_the_others_of_its_list_alone(session: Session) -> None:
    doc = stored(session, pages=[b"x", b"y"])
    facts = [json.loads(page.to_json()) for page in doc.pages]
    session.execute(
        update(Doc.__table__).values(pages=bindparam("v", type_=JSON().with_variant(postgresql.JSONB(), "postgresql"))),
        {"v": [facts[0], {"odd": 1}, facts[1]]},
    )
    session.expire_all()
    assert [doc.pages[0].read(), doc.pages[2].read()] == [b"x", b"y"]
    with pytest.raises(DescriptorDamaged, match="odd"):
        doc.pages[1].read()


@few
def test_columns_unions_labels_and_returning_give_attachments(session: Session) -> None:
    doc = stored(session, file=b"x", pages=[b"y"])
    assert doc.file is not None
    assert session.scalar(select(Doc.file)) == doc.file
    assert session.scalar(select(Doc.file.label("f"))) == doc.file
    assert session.scalar(select(Doc.pages)) == doc.pages
    assert session.scalars(union_all(select(Doc.file), select(Doc.file))).all() == [doc.file, doc.file]
    assert session.scalar(select(select(Doc.file).subquery().c.file)) == doc.file
    assert session.scalar(update(Doc).values(scan=None).returning(Doc.file)) == doc.file
    assert session.scalar(select(Doc.__table__.c.file)) == doc.file


@few
def test_text_that_is_told_to_be_the_type_gives_attachments(session: Session) -> None:
    doc = stored(session, file=b"x")
    statement = text("SELECT file FROM docs").columns(file=type_of(Doc.file))
    assert session.scalar(statement) == doc.file


@few
def test_reading_a_column_of_an_unknown_storage_fails_when_it_is_read(session: Session) -> None:
    doc = stored(session, file=b"x")
    with files.override({"other": "memory:"}):
        assert doc.file is not None
        assert doc.file.size == 1
        with pytest.raises(UnknownStorage):
            doc.file.read()


# Writing


@few
def test_a_value_that_nobody_proved_is_refused(session: Session) -> None:
    item = files.stage(Attachment.upload(b"x"))
    for statement in (insert(Doc.__table__).values(file=item), select(literal(item, type_of(Doc.file)))):
        with pytest.raises((StatementError, OwnershipLost), match=r"nobody proved that docs\.file may name"):
            session.connection().execute(statement)


@few
def test_a_new_attachment_in_a_core_statement_is_refused_with_the_reason(session: Session) -> None:
    with pytest.raises((StatementError, NotStored), match=r"reached docs\.file before it was stored"):
        session.connection().execute(insert(Doc.__table__), {"file": Attachment.upload(b"x")})
    with pytest.raises((StatementError, BadSource), match=r"docs\.file holds attachments, not bytes"):
        session.connection().execute(insert(Doc.__table__), {"file": b"x"})


# Comparing values


@few
def test_a_changed_description_is_a_change_and_an_equal_value_is_none(session: Session) -> None:
    doc = stored(session, file=Attachment.upload(b"x", "a.txt"), pages=[b"y", b"z"])
    assert doc.file is not None
    for value in (doc.file, files.bind(doc.file.to_json()), doc.file.replace()):
        doc.file = value
        assert not session.is_modified(doc)
    doc.pages = list(doc.pages)
    assert not session.is_modified(doc)
    doc.file = doc.file.replace(filename="b.txt")
    assert session.is_modified(doc)
    session.commit()
    assert doc.file is not None
    assert doc.file.filename == "b.txt"
    doc.pages = doc.pages[::-1]
    assert session.is_modified(doc)
    session.commit()
    assert [page.read() for page in doc.pages] == [b"z", b"y"]


# SQLAlchemy's statement cache


def test_every_column_has_a_cache_key_of_its_own() -> None:
    keys = {type_of(attribute)._static_cache_key for attribute in (Doc.file, Doc.scan, Doc.pages)}
    assert len(keys) == 3
    options: list[dict[str, Any]] = [
        {},
        {},
        {"steps": [MaxSize(1)]},
        {"attachment_class": Scan},
        {"retain": timedelta(1)},
    ]
    assert len({AttachmentType(files, **each)._static_cache_key for each in options}) == len(options)


def test_a_statement_can_be_cached_at_all() -> None:
    assert select(Doc)._generate_cache_key() is not None
    assert select(Doc.file)._generate_cache_key() == select(Doc.file)._generate_cache_key()


@few
def test_two_models_with_the_same_columns_do_not_share_results(session: Session, engine: Engine) -> None:
    class Other(DeclarativeBase):
        pass

    here, there = Storages("memory:"), Storages("memory:")

    class Here(Other):
        __tablename__ = "twins"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment] = mapped_column(AttachmentType(here))

    class Later(DeclarativeBase):
        pass

    class There(Later):
        __tablename__ = "twins"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Scan] = mapped_column(AttachmentType(there, attachment_class=Scan))

    Other.metadata.create_all(engine)
    session.add(Here(file=b"x"))
    session.commit()
    session.expunge_all()
    one, two = session.scalars(select(Here.file)).one(), session.scalars(select(There.file)).one()
    assert (type(one), type(two)) == (Attachment, Scan)
    assert binding_of(one).resolve("default") is here.resolve("default")  # type: ignore[union-attr]
    assert binding_of(two).resolve("default") is there.resolve("default")  # type: ignore[union-attr]


# The type's arguments


def test_arguments() -> None:
    kind = AttachmentType(files, "scans", [MaxSize(1)], retain=timedelta(1), attachment_class=Scan)
    assert (kind.files, kind.storage, kind.steps, kind.retain, kind.attachment_class) == (
        files,
        "scans",
        (MaxSize(1),),
        timedelta(1),
        Scan,
    )
    assert AttachmentType(files).storage is None


def test_a_type_that_is_used_twice_belongs_to_each_column() -> None:
    shared = AttachmentType(files)
    table = Table("t", MetaData(), Column("a", shared), Column("b", shared))
    assert table.c.a.type is not table.c.b.type
    assert (table.c.a.type.label, table.c.b.type.label) == ("t.a", "t.b")
    assert shared.label == "an attachment column"


def test_knows_what_the_ledger_calls_its_column_and_how_long_its_files_are_kept() -> None:
    month = Storages("memory:", retain=timedelta(days=30))
    types = AttachmentType(month), AttachmentType(month, retain=timedelta(0)), AttachmentListType(files)
    table = Table("t", MetaData(), *(Column(name, each) for name, each in zip("abc", types, strict=True)), schema="s")
    assert [ledger_owner(column.type) for column in table.columns] == [("s.t", "a"), ("s.t", "b"), ("s.t", "c")]
    assert [kept_for(column.type) for column in table.columns] == [30 * 24 * 3600 * 1000, 0, 0]


def test_a_copied_table_has_types_of_its_own() -> None:
    copied = Doc.__table__.to_metadata(MetaData())  # type: ignore[attr-defined]
    assert copied.c.file.type is not Doc.__table__.c.file.type
    assert copied.c.file.type.label == "docs.file"
    assert copied.c.file.type.column is copied.c.file
    assert "attachment_ledger" in copied.metadata.tables


def test_mapping_a_column_notes_it_and_forgets_it_with_the_model() -> None:
    own = Storages("memory:")
    table = Table("t", MetaData(), Column("a", AttachmentType(own)))
    assert len(own.columns) == 1
    gone = weakref.ref(table.c.a.type)
    del table
    gc.collect()
    assert gone() is None


def test_a_column_with_an_unknown_storage_is_refused_where_it_is_mapped_or_configured() -> None:
    with pytest.raises(UnknownStorage, match=r"'scans'.*t\.a|t\.a.*'scans'"):
        Table("t", MetaData(), Column("a", AttachmentType(Storages("memory:"), "scans")))
    late = Storages()
    table = Table("t", MetaData(), Column("a", AttachmentType(late, "scans")))
    with pytest.raises(UnknownStorage, match=r"t\.a"):
        late.configure("memory:")
    late.configure({"scans": "memory:"})
    assert table.c.a.type.resolve("scans")


def test_the_ledger_joins_the_metadata_once() -> None:
    assert sorted(Base.metadata.tables) == ["attachment_ledger", "attachment_storage", "docs"]


@on(
    ("dialect", "expected"),
    [(sqlite.dialect(), "file JSON"), (postgresql.dialect(), "file JSONB"), (mysql.dialect(), "file JSON")],
)
def test_renders_as_json(dialect: Any, expected: str) -> None:
    assert expected in str(CreateTable(Doc.__table__).compile(dialect=dialect))  # type: ignore[arg-type]


def test_postgresql_sends_text_that_no_driver_parses() -> None:
    assert "CAST(docs.file AS TEXT)" in str(select(Doc.file).compile(dialect=postgresql.dialect()))
    assert "CAST" not in str(select(Doc.file).compile(dialect=sqlite.dialect()))
    assert "CAST" not in str(select(type_coerce(Doc.file, JSON)).compile(dialect=postgresql.dialect())).split("FROM")[1]


Picture = Annotated[Attachment, mapped_column(AttachmentType(files))]


def test_type_annotation_map_and_annotated() -> None:
    class Mapping(DeclarativeBase):
        type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's form
            Attachment: AttachmentType(files),
            Sequence[Attachment]: AttachmentListType(files),
        }

    class Page(Mapping):
        __tablename__ = "pages"
        id: Mapped[int] = mapped_column(primary_key=True)
        one: Mapped[Attachment]
        maybe: Mapped[Attachment | None]
        many: Mapped[Sequence[Attachment]]
        picture: Mapped[Picture]

    columns = inspect(Page).columns
    assert [columns[name].nullable for name in ("one", "maybe", "many", "picture")] == [False, True, False, False]
    assert [columns[name].type.label for name in ("one", "maybe", "many", "picture")] == [
        "pages.one",
        "pages.maybe",
        "pages.many",
        "pages.picture",
    ]
