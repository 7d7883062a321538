"""Attachment columns in queries compare with plain values, and with attachments, on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import Engine, func, null, select, type_coerce
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column

from sa_attachments import Attachment, AttachmentListType, AttachmentType, NotStored, Storages
from tests.archive import DIALECTS

on = pytest.mark.parametrize
files = Storages()
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1"


class Base(DeclarativeBase):
    pass


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))
    pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(files))


@pytest.fixture
def docs(engine: Engine) -> Iterator[tuple[Session, list[Doc]]]:
    """A small image, a larger text with metadata, nothing."""
    with files.override({"default": "memory:", "other": "memory:"}), Session(engine) as session:
        Base.metadata.create_all(engine)
        text = Attachment.upload(
            b"hello world",
            'quo"te.txt',
            metadata={
                "caption": "Mé",
                "n": 7,
                "f": 1.5,
                "yes": True,
                "no": False,
                "deep": {"list": ["a", {"x": 1}]},
                "nothing": None,
            }
            | {"größe": "größer", "日本": {"😀": "😀"}},
            storage="other",
        )
        made = [Doc(file=Attachment.upload(PNG, "a.png"), pages=[b"one", b"two"]), Doc(file=text), Doc()]
        session.add_all(made)
        session.commit()
        yield session, made


def found(docs: tuple[Session, list[Doc]], condition: Any) -> list[int]:
    session, made = docs
    return [made.index(doc) for doc in session.scalars(select(Doc).where(condition).order_by(Doc.id))]


def found_or_error(docs: tuple[Session, list[Doc]], make: Callable[[], Any]) -> list[int] | Exception:
    try:
        return found(docs, make())
    except Exception as error:  # noqa: BLE001 - the others are to be asked as well
        docs[0].rollback()
        return error


CONDITIONS: list[tuple[str, Any, list[int]]] = [
    ("content type", lambda: Doc.file.content_type == "image/png", [0]),
    ("another content type", lambda: Doc.file.content_type != "image/png", [1]),
    ("like", lambda: Doc.file.content_type.like("image/%"), [0]),
    ("in", lambda: Doc.file.content_type.in_(["image/png", "text/plain"]), [0, 1]),
    ("filename", lambda: Doc.file.filename == 'quo"te.txt', [1]),
    ("filename in lower case", lambda: func.lower(Doc.file.filename).endswith(".png"), [0]),
    ("larger", lambda: Doc.file.size > 16, [0]),
    ("between", lambda: Doc.file.size.between(1, 11), [1]),
    ("storage", lambda: Doc.file.storage == "other", [1]),
    ("none", lambda: Doc.file.is_(None), [2]),
    ("not none", lambda: Doc.file.is_not(None), [0, 1]),
    ("equal to none", lambda: Doc.file == None, [2]),  # noqa: E711 - SQL
    ("text in metadata", lambda: Doc.file.metadata["caption"] == "Mé", [1]),
    ("other text in metadata", lambda: Doc.file.metadata["caption"] != "x", [1]),
    ("one of these texts", lambda: Doc.file.metadata["caption"].in_(["Mé", "x"]), [1]),
    ("number in metadata", lambda: Doc.file.metadata["n"] == 7, [1]),
    ("larger number in metadata", lambda: Doc.file.metadata["n"] > 6, [1]),
    ("float in metadata", lambda: Doc.file.metadata["f"] == 1.5, [1]),
    ("true", lambda: Doc.file.metadata["yes"] == True, [1]),  # noqa: E712 - SQL
    ("false", lambda: Doc.file.metadata["no"] == False, [1]),  # noqa: E712 - SQL
    ("false, by is", lambda: Doc.file.metadata["no"].is_(False), [1]),
    ("not true", lambda: Doc.file.metadata["no"] != True, [1]),  # noqa: E712 - SQL
    ("false, by a path", lambda: Doc.file[("metadata", "no")].as_boolean().is_(False), [1]),
    ("one of these booleans, false", lambda: Doc.file.metadata["no"].in_([False]), [1]),
    ("number that is not text", lambda: Doc.file.metadata["n"] == "8", []),
    ("missing", lambda: Doc.file.metadata["nowhere"] == "x", []),
    ("one of these numbers", lambda: Doc.file.metadata["n"].in_([6, 7]), [1]),
    ("one of these numbers, as a set", lambda: Doc.file.metadata["n"].in_({7}), [1]),
    ("one of these floats", lambda: Doc.file.metadata["f"].in_((1.5, 2.5)), [1]),
    ("one of these texts, as a set", lambda: Doc.file.metadata["caption"].in_(frozenset({"Mé", "x"})), [1]),
    ("one of these booleans", lambda: Doc.file.metadata["yes"].in_([True]), [1]),
    ("one of these of several types", lambda: Doc.file.metadata["n"].in_(["x", 7, None]), [0, 1, 2]),
    ("one of none", lambda: Doc.file.metadata["n"].in_([]), []),
    ("none of these numbers", lambda: Doc.file.metadata["n"].not_in([6, 8]), [1]),
    ("none of these texts", lambda: Doc.file.metadata["caption"].not_in({"Mé"}), []),
    ("none of these and there", lambda: Doc.file.metadata["n"].not_in([6, None]), [1]),
    ("between numbers", lambda: Doc.file.metadata["n"].between(6, 7), [1]),
    ("there", lambda: Doc.file.metadata["n"] != None, [1]),  # noqa: E711 - SQL
    ("there, by is", lambda: Doc.file.metadata["deep"].is_not(None), [1]),
    ("there, by null()", lambda: Doc.file.metadata["caption"] != null(), [1]),
    ("not there", lambda: Doc.file.metadata["nowhere"] == None, [0, 1, 2]),  # noqa: E711 - SQL
    ("not there, by is", lambda: Doc.file.metadata["n"].is_(None), [0, 2]),
    ("null", lambda: Doc.file.metadata["nothing"].is_(None), [0, 1, 2]),
    ("no null", lambda: Doc.file.metadata["nothing"].is_not(None), []),
    ("by a name that is not ASCII", lambda: Doc.file.metadata["größe"] == "größer", [1]),
    ("by names beyond", lambda: Doc.file.metadata["日本"]["😀"] == "😀", [1]),
    ("by a path that is not ASCII", lambda: Doc.file[("metadata", "日本", "😀")] == "😀", [1]),
    ("key", lambda: Doc.file["key"].like("2%-%"), [0, 1]),
    ("deep", lambda: Doc.file.metadata["deep"]["list"][0] == "a", [1]),
    ("by path", lambda: Doc.file["metadata", "deep", "list", 1, "x"] == 1, [1]),
    ("plain JSON path", lambda: Doc.file["content_type"].as_string() == "image/png", [0]),
    ("plain JSON path, compared", lambda: Doc.file["content_type"] == "image/png", [0]),
    ("in a list", lambda: Doc.pages[1]["size"].as_integer() == 3, [0]),
    ("in a list, compared", lambda: Doc.pages[1]["size"] == 3, [0]),
    ("in a list, as text", lambda: Doc.pages[0]["content_type"].in_(["text/plain"]), [0]),
    ("in a list, by path", lambda: Doc.pages[1, "size"] > 2, [0]),
    ("beyond a list", lambda: Doc.pages[2]["size"] == 3, []),
    ("an empty list", lambda: Doc.pages == [], [1, 2]),
    ("no empty list", lambda: Doc.pages != [], [0]),
]


@on("engine", DIALECTS, indirect=True)
def test_conditions(docs: tuple[Session, list[Doc]]) -> None:
    """All in one database, of which they change nothing."""
    assert len({name for name, _, _ in CONDITIONS}) == len(CONDITIONS)
    assert {name: found_or_error(docs, make) for name, make, _ in CONDITIONS} == {
        name: expected for name, _, expected in CONDITIONS
    }


@on("engine", DIALECTS, indirect=True)
def test_attachments(docs: tuple[Session, list[Doc]]) -> None:
    session, made = docs
    image, text = made[0].file, made[1].file
    assert image is not None
    assert text is not None
    assert found(docs, Doc.file == image) == [0]
    assert found(docs, Doc.file != image) == [1]
    assert found(docs, image == Doc.file) == [0]
    assert found(docs, Doc.file.in_([image, text])) == [0, 1]
    assert found(docs, Doc.file.in_([text])) == [1]
    assert found(docs, Doc.file.in_([])) == []
    assert found(docs, Doc.file.not_in([image])) == [1]
    assert found(docs, Doc.file == image.replace(filename="other")) == [0]
    other = aliased(Doc)
    assert session.scalars(select(other.id).where(other.file == image)).all() == [made[0].id]


@on(
    "compare",
    [
        lambda page: Doc.pages == [page],
        lambda page: Doc.pages.contains(page),
        lambda page: Doc.pages.in_([[page], page]),
        lambda page: Doc.file.is_distinct_from(page),
        lambda page: Doc.file.contains(page),
        lambda page: Doc.file == [page],
        lambda page: aliased(Doc).file > page,
    ],
)
def test_what_does_not_compare_with_attachments_says_what_does(compare: Callable[[Attachment], Any]) -> None:
    """SQLAlchemy would say when it is carried out that an attachment is no JSON."""
    with pytest.raises(ArgumentError, match=r"can't compare .+ with attachments: .* know ==, != and in_; else"):
        compare(Attachment.upload(b""))


@on("engine", ["sqlite"], indirect=True)
def test_a_new_attachment_cannot_be_asked_for(docs: tuple[Session, list[Doc]]) -> None:
    with pytest.raises(NotStored):
        _ = Doc.file == Attachment.upload(b"x")


@on("engine", DIALECTS, indirect=True)
def test_values_and_order(docs: tuple[Session, list[Doc]]) -> None:
    session, _ = docs
    statement = select(Doc.file.filename, Doc.file.size, Doc.file.content_type, Doc.file.storage)
    assert session.execute(statement.where(Doc.file.is_not(None)).order_by(Doc.file.size)).all() == [
        ('quo"te.txt', 11, "text/plain", "other"),
        ("a.png", 20, "image/png", "default"),
    ]
    assert session.scalar(select(func.sum(Doc.file.size))) == 31
    assert session.scalar(select(Doc.file.metadata).where(Doc.file.storage == "other"))["n"] == 7


@on("engine", DIALECTS, indirect=True)
def test_a_part_is_plain_json(docs: tuple[Session, list[Doc]]) -> None:
    session, _ = docs
    other = Doc.file.storage == "other"
    assert session.scalar(select(Doc.file.metadata["deep"]).where(other)) == {"list": ["a", {"x": 1}]}
    assert session.scalar(select(Doc.file["metadata"]["caption"]).where(other)) == "Mé"


@on("engine", ["postgres"], indirect=True)
def test_postgresqls_own_operators(docs: tuple[Session, list[Doc]]) -> None:
    condition = type_coerce(Doc.file, postgresql.JSONB).contains({"metadata": {"n": 7}})
    assert found(docs, condition) == [1]
