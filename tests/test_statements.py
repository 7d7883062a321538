"""Statements: heard once each, by the registry or by the event, and only those that concern somebody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, delete, event, func, insert, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, ORMExecuteState, Session, mapped_column
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.base import CompileState

from sa_attachments import Attachment, AttachmentType, Storages
from sa_attachments.statements import KINDS, Listener, hear


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class Other(Base):
    __tablename__ = "others"
    id: Mapped[int] = mapped_column(primary_key=True)


STATEMENTS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "insert": lambda: (insert(Note).values(text="new"), None),
    "insert of many": lambda: (insert(Note), [{"text": "one"}, {"text": "two"}]),
    "insert returning": lambda: (insert(Note).returning(Note), [{"text": "one"}]),
    "update": lambda: (update(Note).where(Note.text == "old").values(text="new"), None),
    "update by key": lambda: (update(Note), [{"id": 1, "text": "new"}]),
    "delete": lambda: (delete(Note).where(Note.text == "old"), None),
}


@pytest.fixture
def engine() -> Engine:
    made = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(made)
    with Session(made) as session:
        session.add(Note(id=1, text="old"))
        session.commit()
    return made


@pytest.fixture(params=["registry", "event"])
def heard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Listener], None]]:
    """Lets a listener hear of Note until the test ends."""
    before = dict(CompileState.plugins)
    listening: list[Any] = []
    really_listen = event.listen

    def listen(target: Any, name: str, listener: Any) -> None:
        really_listen(target, name, listener)
        listening.append((target, name, listener))

    def start(listener: Listener) -> None:
        def concerns(mapper: Mapper[Any]) -> bool:
            return mapper.class_ is Note

        with monkeypatch.context() as patch:
            patch.setattr("sa_attachments.statements.event.listen", listen)
            if request.param == "event":
                patch.setattr(CompileState, "plugins", {})
            hear(concerns, listener)
        assert bool(listening) == (request.param == "event")

    yield start
    CompileState.plugins.clear()
    CompileState.plugins.update(before)
    for each in listening:
        event.remove(*each)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_each_statement_is_heard_once_and_can_be_invoked(
    engine: Engine, heard: Callable[[Listener], None], statement: str
) -> None:
    states: list[ORMExecuteState] = []

    def listener(state: ORMExecuteState) -> Any:
        states.append(state)
        return state.invoke_statement()

    heard(listener)
    with Session(engine) as session:
        result = session.execute(*STATEMENTS[statement]())
        if statement == "insert returning":
            assert [note.text for note in result.scalars()] == ["one"]
        session.commit()
        texts = session.scalars(select(Note.text).order_by(Note.id)).all()
    assert len(states) == 1
    assert states[0].bind_mapper is Note.__mapper__
    assert texts == {
        "insert": ["old", "new"],
        "insert of many": ["old", "one", "two"],
        "insert returning": ["old", "one"],
        "delete": [],
    }.get(statement, ["new"])


@pytest.mark.parametrize("statement", STATEMENTS)
def test_none_leaves_the_statement_to_sqlalchemy(
    engine: Engine, heard: Callable[[Listener], None], statement: str
) -> None:
    count = 0

    def listener(state: ORMExecuteState) -> None:
        nonlocal count
        count += 1

    heard(listener)
    with Session(engine) as session:
        session.execute(*STATEMENTS[statement]())
        assert count == 1
        assert session.scalar(select(func.count()).where(Note.text == "old")) == (statement.startswith("insert"))


def test_a_result_takes_the_place_of_the_statement(engine: Engine, heard: Callable[[Listener], None]) -> None:
    heard(lambda state: "instead")
    with Session(engine) as session:
        assert session.execute(delete(Note)) == "instead"
        assert session.scalar(select(func.count(Note.id))) == 1


def test_what_concerns_nobody_is_not_heard(engine: Engine, heard: Callable[[Listener], None]) -> None:
    def listener(state: ORMExecuteState) -> None:
        raise AssertionError(state.statement)

    heard(listener)
    with Session(engine) as session:
        session.execute(insert(Other), [{"id": 1}, {"id": 2}])
        session.execute(update(Other).where(Other.id == 1).values(id=3))
        session.execute(delete(Other).where(Other.id == 2))
        session.execute(insert(Note.__table__), [{"text": "Core"}])
        assert session.scalars(select(Other.id)).all() == [3]
        assert session.scalars(select(Note).order_by(Note.id)).all()[1].text == "Core"


@pytest.mark.parametrize("heard", ["registry"], indirect=True)
def test_listeners_of_the_application_come_first(engine: Engine, heard: Callable[[Listener], None]) -> None:
    order = []
    heard(lambda state: order.append("ours"))
    with Session(engine) as session:
        event.listen(session, "do_orm_execute", lambda state: order.append("theirs"))
        session.execute(delete(Note))
    assert order == ["theirs", "ours"]


def test_mapping_an_attachment_puts_nobody_on_the_event() -> None:
    """If this fails with a new SQLAlchemy, all is well but the speed of sessions without attachments."""
    files = Storages("memory:")

    class Own(DeclarativeBase):
        pass

    class Doc(Own):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        file: Mapped[Attachment] = mapped_column(AttachmentType(files))

    assert not Session().dispatch.do_orm_execute
    assert all(CompileState.plugins["orm", kind].__module__ == "sa_attachments.statements" for kind in KINDS)
