"""That a row is not seen with a file is no proof that none names it: the database may have rounded its key, a trigger
changed it, a statement given it another one. What is not proved stays, for ``verify`` to find.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Numeric, String, insert, literal_column, text, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_attachments import Attachment, AttachmentType

from .models import files
from .world import World

on = pytest.mark.parametrize
databases = on("world", ["sqlite", "postgres", "mariadb"], indirect=True)


class Base(DeclarativeBase):
    pass


class Price(Base):
    __tablename__ = "prices"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2), unique=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


class Snapshot(Base):
    __tablename__ = "snapshots"
    camera: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    taken: Mapped[datetime] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


class Person(Base):
    """With a unique name, as only the database knows."""

    __tablename__ = "persons"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    title: Mapped[str | None] = mapped_column(String(40), unique=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


def or_update(world: World, entity: Any, *keys: str, **more: Any) -> Any:
    """An upsert that takes the new file."""
    if world.name == "mariadb":
        statement = mysql.insert(entity)
        return statement.on_duplicate_key_update(file=statement.inserted.file, **more)
    upsert = (sqlite if world.name == "sqlite" else postgresql).insert(entity)
    return upsert.on_conflict_do_update(index_elements=keys, set_={"file": upsert.excluded.file, **more})


def execute(world: World, *statements: str) -> None:
    with world.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


UNIQUE = "CREATE UNIQUE INDEX made_by_a_migration ON persons (name)"


@databases
def test_a_key_that_the_database_rounds(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.execute(or_update(world, Price, "price"), {"price": Decimal("1.239"), "file": b"price"})
        taken = datetime(2024, 1, 1, 0, 0, 0, 123456)  # noqa: DTZ001 - as the column has it
        session.execute(
            or_update(world, Snapshot, "camera", "taken"), {"camera": 1, "taken": taken, "file": b"snapshot"}
        )
        session.commit()
    world.check(b"price", b"snapshot")


@on("world", ["mariadb"], indirect=True)
def test_a_key_that_the_database_cuts(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        row = {"id": "a", "name": "a", "title": "long" * 20, "file": b"data"}
        session.execute(insert(Person).prefix_with("IGNORE"), row)
        session.commit()
    world.check(b"data")


@databases
def test_a_key_that_only_the_database_has(world: World) -> None:
    world.create(Base.metadata)
    execute(world, UNIQUE)
    with world.session() as session:
        session.add(Person(id="a", name="bob", file=b"old"))
        session.commit()
        session.execute(or_update(world, Person, "name"), {"id": "b", "name": "bob", "file": b"new"})
        session.commit()
    if world.name != "mariadb":  # there a statement does not say in which key it may meet a row
        world.check(b"new")
    world.settle()
    assert [world.stored()[facts["storage"], facts["key"]] for facts in world.named()] == [b"new"]
    found = world.files.verify(world.engine).findings
    assert [finding.kind for finding in found] == ["unnamed"] * (world.name == "mariadb")


@databases
def test_a_row_is_in_the_way_and_another_one_takes_the_file(world: World) -> None:
    """By a key that only the database has, and the statement, which says in which key it may meet a row."""
    world.create(Base.metadata)
    execute(world, UNIQUE)
    with world.session() as session:
        session.add_all([Person(id="a", name="bob", file=b"old"), Person(id="b", name="joe", title="joe", file=b"joe")])
        session.commit()
        row = {"id": "c", "name": "bob", "title": "joe", "file": b"new"}
        session.execute(or_update(world, Person, "name"), row)
        session.commit()
        taken = "b" if world.name == "mariadb" else "a"
        assert session.get_one(Person, taken).file.read() == b"new"
    world.check(b"new", b"old" if taken == "b" else b"joe")


@on("world", ["mariadb"], indirect=True)
def test_a_row_is_in_the_way_and_one_that_nobody_looked_for_takes_the_file(world: World) -> None:
    """MariaDB looks at the key first that was made first."""
    world.create(Base.metadata)
    execute(world, "ALTER TABLE persons DROP KEY title", UNIQUE, "CREATE UNIQUE INDEX title ON persons (title)")
    with world.session() as session:
        session.add_all([Person(id="a", name="bob", file=b"old"), Person(id="b", name="joe", title="joe", file=b"joe")])
        session.commit()
        row = {"id": "c", "name": "bob", "title": "joe", "file": b"new"}
        session.execute(or_update(world, Person), row)
        session.commit()
        assert session.get_one(Person, "a").file.read() == b"new"
        assert session.get_one(Person, "b").file.read() == b"joe"
    assert [finding.kind for finding in world.files.verify(world.engine).findings] == ["unnamed"]


@databases
def test_a_conflict_that_changes_all_keys(world: World) -> None:
    """And leaves the file as it is."""
    world.create(Base.metadata)
    with world.session() as session:
        session.add(Person(id="a", name="a", title="a", file=b"old"))
        session.commit()
        new: dict[str, Any] = {"id": "z", "title": "z"}
        if world.name == "mariadb":
            statement: Any = mysql.insert(Person).on_duplicate_key_update(new)
        else:
            upsert = (sqlite if world.name == "sqlite" else postgresql).insert(Person)
            statement = upsert.on_conflict_do_update(index_elements=["title"], set_=new)
        session.execute(statement, {"id": "b", "name": "b", "title": "a", "file": b"new"})
        session.commit()
        assert session.get_one(Person, "z").file.read() == b"old"
    assert [finding.kind for finding in world.files.verify(world.engine).findings] == ["unnamed"]


@databases
@on("form", ["one", "several", "values"])
def test_a_conflict_that_changes_the_key(world: World, form: str) -> None:
    world.create(Base.metadata)
    rows = [
        {"id": "b", "name": "b", "title": "a", "file": b"new"},
        {"id": "c", "name": "c", "title": "c", "file": b"c"},
    ]
    with world.session() as session:
        session.add(Person(id="a", name="a", title="a", file=b"old"))
        session.commit()
        statement = or_update(world, Person, "title", title=literal_column("'z'"))
        if form == "values":
            session.execute(statement.values(rows))
        else:
            session.execute(statement, rows[0] if form == "one" else rows)
        session.commit()
    world.check(b"new", *([] if form == "one" else [b"c"]))


LOWER = {
    "sqlite": [
        "CREATE TRIGGER lower_it AFTER INSERT ON persons BEGIN"
        " UPDATE persons SET title = lower(title) WHERE id = new.id; END"
    ],
    "postgres": [
        "CREATE FUNCTION lower_it() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN new.title = lower(new.title); RETURN new; END'",
        "CREATE TRIGGER lower_it BEFORE INSERT ON persons FOR EACH ROW EXECUTE FUNCTION lower_it()",
    ],
    "mariadb": ["CREATE TRIGGER lower_it BEFORE INSERT ON persons FOR EACH ROW SET new.title = concat('!', new.title)"],
}


@databases
def test_a_key_that_a_trigger_changes(world: World) -> None:
    world.create(Base.metadata)
    execute(world, *LOWER[world.name])
    with world.session() as session:
        row = {"id": "a", "name": "a", "title": "UPPER", "file": b"data"}
        session.execute(or_update(world, Person, "title"), row)
        session.commit()
    world.check(b"data")


@databases
@on("form", ["one", "several"])
def test_what_met_a_row_that_is_seen_goes(world: World, form: str) -> None:
    """More rows than one SELECT looks for."""
    world.create(Base.metadata)
    many = 1 if form == "one" else 120
    with world.session() as session:
        session.add_all([Person(id=str(n), name="old", file=b"%d" % n) for n in range(many)])
        session.commit()
        rows = [{"id": str(n), "name": "new", "file": b"new"} for n in range(many)]
        if world.name == "mariadb":
            statement: Any = insert(Person).prefix_with("IGNORE")
        else:
            statement = (sqlite if world.name == "sqlite" else postgresql).insert(Person).on_conflict_do_nothing()
        session.execute(statement, rows if many > 1 else rows[0])
        session.commit()
    world.check(*[b"%d" % n for n in range(many)])


@databases
def test_an_update_of_the_primary_key(world: World) -> None:
    world.create(Base.metadata)
    with world.session() as session:
        session.add_all([Person(id=id_, name=id_, file=b"old") for id_ in "ab"])
        session.commit()
        session.execute(update(Person).where(Person.id == "a").values(id="z", file=b"new"))
        session.commit()
    world.check(b"old", b"new")


@on("world", ["postgres"], indirect=True)
@on("how", ["flush", "statement", "by key"])
def test_an_update_that_takes_the_row_out_of_a_view(world: World, how: str) -> None:
    world.create(Base.metadata)

    class Views(DeclarativeBase):
        pass

    class Active(Views):
        __tablename__ = "active_persons"
        id: Mapped[str] = mapped_column(String(40), primary_key=True)
        name: Mapped[str] = mapped_column(String(40))
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))

    execute(world, "CREATE VIEW active_persons AS SELECT id, name, file FROM persons WHERE name <> 'gone'")
    with world.session() as session:
        person = Active(id="a", name="a", file=b"old")
        session.add(person)
        session.commit()
        if how == "flush":
            person.name, person.file = "gone", b"new"
        elif how == "by key":
            session.execute(update(Active), [{"id": "a", "name": "gone", "file": b"new"}])
        else:
            statement = update(Active).values(name="gone", file=b"new")
            session.execute(statement, execution_options={"synchronize_session": False})
        session.commit()
    world.check(b"new")


@on("world", ["postgres"], indirect=True)
@on("of", ["view", "partitions"])
def test_an_upsert_of_rows_that_have_no_system_columns_or_several_tables(world: World, of: str) -> None:
    world.create(Base.metadata)

    class Others(DeclarativeBase):
        pass

    class Other(Others):
        __tablename__ = "others"
        __table_args__ = {"postgresql_partition_by": "HASH (id)"}  # noqa: RUF012 - as SQLAlchemy's documentation has it
        id: Mapped[str] = mapped_column(String(40), primary_key=True)
        name: Mapped[str] = mapped_column(String(40))
        file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))

    if of == "view":
        execute(world, "CREATE VIEW others AS SELECT id, name, file FROM persons")
    else:
        world.create(Others.metadata)
        part = "CREATE TABLE others_{} PARTITION OF others FOR VALUES WITH (MODULUS 2, REMAINDER {})"
        execute(world, part.format(0, 0), part.format(1, 1))
    with world.session() as session:
        for data in (b"old", b"new"):
            rows = [{"id": id_, "name": id_, "file": data} for id_ in "abcd"]
            session.execute(or_update(world, Other, "id"), rows)
            session.commit()
    world.check(*[b"new"] * 4)


SIGNED = {
    "sqlite": [
        "CREATE TRIGGER signed AFTER UPDATE OF file ON persons WHEN old.title = 'signed' BEGIN"
        " UPDATE persons SET file = old.file WHERE id = old.id; END"
    ],
    "postgres": [
        "CREATE FUNCTION signed() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN IF old.title = ''signed'' THEN new.file := old.file; END IF; RETURN new; END'",
        "CREATE TRIGGER signed BEFORE UPDATE ON persons FOR EACH ROW EXECUTE FUNCTION signed()",
    ],
    "mariadb": [
        "CREATE TRIGGER signed BEFORE UPDATE ON persons FOR EACH ROW"
        " BEGIN IF old.title = 'signed' THEN SET new.file = old.file; END IF; END"
    ],
}


@databases
@on("value", [b"forged", None])
@on("how", ["flush", "statement"])
def test_a_trigger_that_keeps_the_old_file(world: World, value: bytes | None, how: str) -> None:
    world.create(Base.metadata)
    execute(world, *SIGNED[world.name])
    with world.session() as session:
        person = Person(id="a", name="a", title="signed", file=b"contract")
        session.add(person)
        session.commit()
        if how == "flush":
            person.file = value  # type: ignore[assignment]
        else:
            session.execute(update(Person).values(file=value))
        session.commit()
    world.check(b"contract")
