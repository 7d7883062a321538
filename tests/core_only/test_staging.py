"""``Storages.stage`` and ``drop`` on a connection: what they own, copy, take back and refuse."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Table, create_engine, event, select, text
from sqlalchemy.orm import Session

from sa_attachments import (
    Attachment,
    AttachmentType,
    BadConfiguration,
    BadSource,
    DescriptorDamaged,
    LedgerMissing,
    NoTransaction,
    NotStored,
    OwnershipLost,
    Refused,
    StorageFailed,
    Storages,
)
from sa_attachments.descriptor import Named
from sa_attachments.ledger import Drop
from sa_attachments.queries import CONDEMNED, OWNED
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty
from tests.scenarios.models import Doc, files

from .models import Bench, docs, upload

on = pytest.mark.parametrize
some = on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
one = on("world", ["sqlite"], indirect=True)


# A file's life


def test_inserted_replaced_and_deleted(bench: Bench) -> None:
    bench.insert(1, b"first")
    bench.check(b"first")
    with bench.begin() as connection:
        old = bench.read(connection, 1)
        new = files.stage(upload(b"second"), connection, docs.c.file)
        connection.execute(docs.update().where(docs.c.id == 1).values(file=new))
        files.drop(old, connection)
    bench.check(b"second")
    with bench.engine.connect() as connection:
        assert bench.read(connection, 1).read() == b"second"
    with bench.begin() as connection:
        files.drop(bench.read(connection, 1), connection)
        connection.execute(docs.delete().where(docs.c.id == 1))
    bench.check()


@on("end", ["rollback", "close", "raise"])
def test_rolled_back(bench: Bench, end: str) -> None:
    bench.insert(1, b"first")
    connection = bench.engine.connect()
    files.drop(bench.read(connection, 1), connection)
    new = files.stage(upload(b"second"), connection, docs.c.file)
    connection.execute(docs.update().where(docs.c.id == 1).values(file=new))
    connection.execute(docs.insert(), {"id": 2, "file": files.stage(upload(b"third"), connection, docs.c.file)})
    if end == "raise":
        with pytest.raises(ZeroDivisionError), connection:
            raise ZeroDivisionError
    elif end == "rollback":
        connection.rollback()
    connection.close()
    bench.check(b"first")


def test_a_list_of_files(bench: Bench) -> None:
    with bench.begin() as connection:
        pages = [files.stage(upload(data), connection, docs.c.pages) for data in (b"1", b"2", b"3")]
        connection.execute(docs.insert(), {"id": 1, "pages": pages})
    bench.check(b"1", b"2", b"3")
    with bench.begin() as connection:
        first, second, third = bench.read(connection, 1, "pages")
        files.drop(second, connection)
        kept = []
        for page in (third, first):
            files.drop(page, connection)
            kept.append(files.stage(page, connection, docs.c.pages))
        connection.execute(docs.update().where(docs.c.id == 1).values(pages=kept))
        assert kept == [third, first]
    bench.check(b"1", b"3")


def test_a_mapped_column_by_its_attribute(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = files.stage(upload(b"data"), connection, Doc.file)
        connection.execute(Doc.__table__.insert(), {"id": 1, "file": staged, "pages": []})  # type: ignore[attr-defined]
    with bench.world.session() as session:
        doc = session.get_one(Doc, 1)
        assert doc.file == staged
        doc.file = None
        session.commit()
    bench.check()


def test_on_the_connection_of_a_session(bench: Bench) -> None:
    with bench.world.session() as session:
        session.add(Doc(file=b"mapped"))
        staged = files.stage(upload(b"plain"), session.connection(), docs.c.file)
        session.execute(docs.insert(), {"id": 1, "file": staged})
        session.commit()
        void = files.stage(upload(b"void"), session.connection(), docs.c.file)
        session.execute(docs.insert(), {"id": 2, "file": void})
        session.rollback()
    bench.check(b"mapped", b"plain")


@some
def test_by_a_hook_in_the_middle_of_a_flush(bench: Bench) -> None:
    """The flush goes on to name its own files."""

    def log(mapper: Any, connection: Connection, doc: Doc) -> None:
        staged = files.stage(upload(b"log"), connection, docs.c.file)
        connection.execute(docs.insert(), {"id": 1, "file": staged})

    event.listen(Doc, "before_insert", log)
    try:
        with bench.world.session() as session:
            session.add(Doc(file=b"data"))
            session.commit()
    finally:
        event.remove(Doc, "before_insert", log)
    bench.check(b"data", b"log")


def test_into_a_storage_that_is_named() -> None:
    store, tables = Storages({"default": "memory:", "other": "memory:"}), MetaData()
    table = Table("named", tables, Column("id", Integer, primary_key=True), Column("file", AttachmentType(store)))
    engine = create_engine("sqlite://")
    tables.create_all(engine)
    with engine.begin() as connection:
        first = store.stage(upload(b"data"), connection, table.c.file, storage="other")
        connection.execute(table.insert(), {"id": 1, "file": first})
        copy = store.stage(first, connection, table.c.file, storage="default")
        connection.execute(table.insert(), {"id": 2, "file": copy})
    with engine.connect() as connection:
        found = connection.scalars(select(table.c.file).order_by(table.c.id)).all()
    assert [(each.storage, each.read()) for each in found] == [("other", b"data"), ("default", b"data")]


@some
def test_the_owner_is_noted(bench: Bench) -> None:
    """So that ``verify`` knows where to look for a row."""
    bench.insert(1, b"named")
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 2, "file": files.stage(upload(b"late"), connection)})
        beside = files.stage(upload(b"in a document elsewhere"), connection)
    assert beside.to_json()
    owners = text(
        "SELECT owner_table, owner_column, COUNT(*) FROM attachment_ledger GROUP BY owner_table, owner_column"
    )
    with bench.world.observer.connect() as connection:
        found = {tuple(row) for row in connection.execute(owners)}
    assert found == {("plain_docs", "file", 2), ("attachment_ledger", "key", 1)}
    report = files.verify(bench.engine, repair=True)
    assert report.ok
    assert report.findings == []
    with bench.begin() as connection:
        files.drop(beside, connection)
    bench.check(b"named", b"late")


@some
def test_verify_finds_what_was_staged_and_never_named(bench: Bench) -> None:
    bench.insert(1, b"named")
    with (
        pytest.warns(match=r"was staged for plain_docs\.file, and no statement gave it to a row"),
        bench.begin() as connection,
    ):
        files.stage(upload(b"forgotten"), connection, docs.c.file)
    report = files.verify(bench.engine, repair=True)
    assert report.counts == {"unnamed": 1}
    files.sweep(bench.engine)
    bench.check(b"named", swept=True)


def test_a_plain_table_is_verified_and_swept(bench: Bench) -> None:
    bench.insert(1, b"one")
    files.stage(upload(b"stranger"))
    bench.world.sweep()
    bench.world.sweep()
    bench.check(b"one", swept=True)
    assert files.verify(bench.engine, checksums=True).findings == []


# Steps, storages, sources


@one
def test_the_steps_of_the_column_run(bench: Bench) -> None:
    refused = pytest.raises(Refused, match=r"plain_docs\.small: ")
    with bench.begin() as connection, bench.world.nothing_stored(), refused:
        files.stage(upload(b"eleven byte"), connection, docs.c.small)
    with bench.begin() as connection:
        small = files.stage(upload(b"ten bytes."), connection, docs.c.small)
        unchecked = files.stage(upload(b"eleven byte"), connection)
        with pytest.raises(OwnershipLost, match=r"nobody proved that plain_docs\.small may name"):
            connection.execute(docs.insert(), {"id": 1, "small": unchecked})
        files.drop(unchecked, connection)
        connection.execute(docs.insert(), {"id": 1, "small": small})
    bench.check(b"ten bytes.")


@one
def test_a_file_that_is_given_away_is_removed_after_the_commit(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.write_bytes(b"data")
    for end in ("rollback", "commit"):
        with bench.engine.connect() as connection:
            staged = files.stage(Attachment.upload(path, move=True), connection, docs.c.file)
            connection.execute(docs.insert(), {"id": 1, "file": staged})
            getattr(connection, end)()
        bench.world.settle()
        assert path.exists() == (end == "rollback")
    bench.check(b"data")


@some
def test_a_storage_that_fails_leaves_the_transaction_usable(bench: Bench) -> None:
    new = Attachment.upload(io.BytesIO(b"data"))
    with bench.begin() as connection:
        bench.world.storage.fail("put", on=1)
        with pytest.raises(StorageFailed):
            files.stage(new, connection, docs.c.file)
        connection.execute(docs.insert(), {"id": 1, "file": files.stage(new, connection, docs.c.file)})
    bench.check(b"data")


def test_a_new_description_before_it_is_named(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = files.stage(upload(b"data"), connection, docs.c.file).replace(filename="b.txt")
        connection.execute(docs.insert(), {"id": 1, "file": staged})
    with bench.begin() as connection:
        assert bench.read(connection, 1).filename == "b.txt"
    bench.check(b"data")


def test_a_new_description_of_a_row_s_file_keeps_its_bytes(bench: Bench) -> None:
    first = bench.insert(1, b"data")
    with bench.world.nothing_stored(), bench.begin() as connection:
        old = bench.read(connection, 1)
        files.drop(old, connection)
        new = files.stage(old.replace(filename="b.txt"), connection, docs.c.file)
        connection.execute(docs.update().where(docs.c.id == 1).values(file=new))
        assert new == first
    bench.check(b"data")


# Whose file it is


def test_a_file_of_another_row_is_copied(bench: Bench) -> None:
    bench.insert(1, b"data")
    with bench.begin() as connection:
        first = bench.read(connection, 1)
        second = files.stage(first, connection, docs.c.file)
        connection.execute(docs.insert(), {"id": 2, "file": second})
        assert first != second
    bench.check(b"data", b"data")


def test_a_file_that_its_row_gives_up_moves(bench: Bench) -> None:
    bench.insert(1, b"data")
    with bench.world.nothing_stored(), bench.begin() as connection:
        first = bench.read(connection, 1)
        files.drop(first, connection)
        second = files.stage(first, connection, docs.c.scan)
        connection.execute(docs.update().values(file=None))
        connection.execute(docs.insert(), {"id": 2, "scan": second})
        assert first == second
    bench.check(b"data")


def test_a_file_that_another_session_s_row_owns_is_copied(bench: Bench) -> None:
    with bench.world.session() as session:
        doc = Doc(file=b"data")
        session.add(doc)
        session.commit()
        loaded = doc.file
        session.close()
    assert loaded is not None
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 1, "file": files.stage(loaded, connection, docs.c.file)})
    bench.check(b"data", b"data")


@one
def test_the_orm_copies_what_is_staged_on_a_connection(bench: Bench) -> None:
    with bench.world.session() as session:
        staged = files.stage(upload(b"data"), session.connection(), docs.c.file)
        doc = Doc(file=staged)
        session.add(doc)
        session.execute(docs.insert(), {"id": 1, "file": staged})
        session.commit()
        assert doc.file != staged
    bench.check(b"data", b"data")


def test_what_is_retained_can_be_staged_again(bench: Bench) -> None:
    bench.insert(1, b"data", "scan")
    with bench.begin() as connection:
        old = bench.read(connection, 1, "scan")
        files.drop(old, connection)
        connection.execute(docs.update().values(scan=None))
    bench.world.settle()
    assert bench.world.ledger() == {(old.storage, old.key): CONDEMNED}
    with bench.begin() as connection:
        again = files.stage(old, connection, docs.c.scan)
        connection.execute(docs.update().values(scan=again))
        assert again == old
    bench.check(b"data")


@on("early", [True, False])
def test_what_is_retained_is_kept_if_it_is_staged_again_and_dropped_in_one_transaction(
    bench: Bench, early: bool
) -> None:
    """A row named it before: there is something to go back to."""
    bench.insert(1, b"data", "scan")
    with bench.engine.connect() as connection:
        old = bench.read(connection, 1, "scan")
        files.drop(old, connection)
        connection.execute(docs.update().values(scan=None))
        if early:
            connection.commit()
        files.drop(files.stage(old, connection, docs.c.scan), connection)
        connection.commit()
    bench.world.settle()
    assert bench.world.ledger() == {(old.storage, old.key): CONDEMNED}
    assert list(bench.world.stored().values()) == [b"data"]


def test_what_is_retained_goes_through_the_steps_of_another_column(bench: Bench) -> None:
    bench.insert(1, b"eleven byte", "scan")
    with bench.begin() as connection:
        old = bench.read(connection, 1, "scan")
        files.drop(old, connection)
        connection.execute(docs.update().values(scan=None))
    with bench.begin() as connection, pytest.raises(Refused, match=r"plain_docs\.small: "):
        files.stage(old, connection, docs.c.small)


def test_what_is_gone_can_t_be_staged_again(bench: Bench) -> None:
    bench.insert(1, b"data")
    with bench.begin() as connection:
        old = bench.read(connection, 1)
        files.drop(old, connection)
        connection.execute(docs.delete())
    bench.check()
    with bench.begin() as connection, pytest.raises(OwnershipLost, match="may not name a file that is gone"):
        files.stage(old, connection, docs.c.file)
    bench.check()


@some
def test_staged_twice_it_is_the_same_until_a_row_has_it(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = files.stage(upload(b"data"), connection, docs.c.file)
        with bench.world.nothing_stored():
            assert files.stage(staged, connection, docs.c.file) == staged
        staged = files.stage(staged, connection, docs.c.file)
        connection.execute(docs.insert(), {"id": 1, "file": staged})
        copy = files.stage(staged, connection, docs.c.file)
        connection.execute(docs.insert(), {"id": 2, "file": copy})
        assert copy != staged
    bench.check(b"data", b"data")


def test_staged_again_for_a_column_with_other_steps_it_goes_through_them(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = files.stage(upload(b"eleven byte"), connection, docs.c.file)
        with pytest.raises(Refused, match=r"plain_docs\.small: "):
            files.stage(staged, connection, docs.c.small)
        connection.execute(docs.insert(), {"id": 1, "file": staged})
    bench.check(b"eleven byte")


def test_staged_again_after_it_was_dropped_it_is_owned_again(bench: Bench) -> None:
    with bench.begin() as connection:
        staged = files.stage(upload(b"data"), connection, docs.c.file)
        files.drop(staged, connection)
        connection.begin_nested().rollback()  # which was begun after it
        again = files.stage(staged, connection, docs.c.file)
        connection.execute(docs.insert(), {"id": 1, "file": again})
        assert again == staged
    bench.check(b"data")


@some
def test_staged_again_in_the_next_transaction_it_is_copied(bench: Bench) -> None:
    """A column of their own may name it, which nobody knows of."""
    with bench.begin() as connection:
        staged = files.stage(upload(b"data"), connection)
    with bench.begin() as connection:
        copy = files.stage(staged, connection, docs.c.file)
        connection.execute(docs.insert(), {"id": 1, "file": copy})
        assert copy != staged
        files.drop(staged, connection)
    bench.check(b"data")


def test_a_new_attachment_staged_twice_is_two_files(bench: Bench) -> None:
    new = upload(b"data")
    with bench.begin() as connection:
        for pk in (1, 2):
            connection.execute(docs.insert(), {"id": pk, "file": files.stage(new, connection, docs.c.file)})
    bench.check(b"data", b"data")


# Staged before the transaction


def test_staged_before_the_transaction_and_claimed_in_it(bench: Bench) -> None:
    early = files.stage(upload(b"data"), docs.c.file)
    with bench.world.nothing_stored(), bench.begin() as connection:
        staged = files.stage(early, connection, docs.c.file)
        connection.execute(docs.insert(), {"id": 1, "file": staged})
        assert staged == early
    with bench.begin() as connection:
        again = files.stage(early, connection, docs.c.file)
        connection.execute(docs.insert(), {"id": 2, "file": again})
        assert again != early
    bench.check(b"data", b"data")


@on("end", ["rollback", "close"])
def test_claimed_and_rolled_back_it_can_be_claimed_again(bench: Bench, end: str) -> None:
    early = files.stage(upload(b"data"), docs.c.file)
    connection = bench.engine.connect()
    files.stage(early, connection, docs.c.file)
    getattr(connection, end)()
    connection.close()
    with bench.world.nothing_stored(), bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 1, "file": files.stage(early, connection, docs.c.file)})
    bench.check(b"data")


@some
def test_claimed_in_a_savepoint_and_rolled_back_it_can_be_claimed_again(bench: Bench) -> None:
    early = files.stage(upload(b"data"), docs.c.file)
    with bench.world.nothing_stored(), bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 9})
        savepoint = connection.begin_nested()
        files.stage(early, connection, docs.c.file)
        savepoint.rollback()
        connection.execute(docs.insert(), {"id": 1, "file": files.stage(early, connection, docs.c.file)})
    bench.check(b"data")


@some
def test_claimed_and_refused_it_can_be_claimed_again(bench: Bench) -> None:
    early = files.stage(upload(b"data"), docs.c.file)
    with bench.begin() as connection:
        connection.execute(docs.insert(), [{"id": 1}, {"id": 2}])
    with bench.world.nothing_stored(), bench.engine.connect() as connection:
        with pytest.raises(OwnershipLost):
            connection.execute(docs.update().values(file=files.stage(early, connection, docs.c.file)))
        with pytest.raises(OwnershipLost):
            connection.commit()
        connection.rollback()
        connection.execute(docs.insert(), {"id": 3, "file": files.stage(early, connection, docs.c.file)})
        connection.commit()
    bench.check(b"data")


@some
def test_claimed_before_a_savepoint_that_is_rolled_back_it_is_copied(bench: Bench) -> None:
    early = files.stage(upload(b"data"), docs.c.file)
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 1, "file": files.stage(early, connection, docs.c.file)})
        connection.begin_nested().rollback()
        connection.execute(docs.insert(), {"id": 2, "file": files.stage(early, connection, docs.c.file)})
    bench.check(b"data", b"data")


@one
def test_steps_run_when_it_is_stored_early(bench: Bench) -> None:
    with pytest.raises(Refused, match=r"plain_docs\.small: "):
        files.stage(upload(b"eleven byte"), docs.c.small)
    early = files.stage(upload(b"ten bytes."), docs.c.small)
    unchecked = files.stage(upload(b"eleven byte"))
    with bench.begin() as connection:
        connection.execute(docs.insert(), {"id": 1, "small": files.stage(early, connection, docs.c.small)})
        with pytest.raises(Refused, match=r"plain_docs\.small: "):
            files.stage(unchecked, connection, docs.c.small)
    bench.world.sweep()
    bench.check(b"ten bytes.", swept=True)


# Dropping


def test_dropped_in_the_transaction_that_staged_it(bench: Bench) -> None:
    with bench.begin() as connection:
        files.drop(None, connection)  # a row without a file
        for column in (docs.c.file, docs.c.scan, None):
            files.drop(files.stage(upload(b"data"), connection, column), connection)
    bench.check()


def test_drop_keeps_what_its_column_retains(bench: Bench) -> None:
    bench.insert(1, b"kept", "scan")
    bench.insert(2, b"gone")
    with bench.begin() as connection:
        for pk, column in ((1, "scan"), (2, "file")):
            files.drop(bench.read(connection, pk, column), connection)
        connection.execute(docs.delete())
    bench.world.settle()
    assert list(bench.world.stored().values()) == [b"kept"]


@some
def test_dropping_what_nobody_owns(bench: Bench) -> None:
    bench.insert(1, b"data")
    early = files.stage(upload(b"early"))
    with bench.begin() as connection:
        old = bench.read(connection, 1)
        files.drop(old, connection)
        with pytest.raises(OwnershipLost, match=r"the ledger calls it condemned, not owned.*with_for_update\(\)"):
            files.drop(old, connection)
        with pytest.raises(OwnershipLost, match="the ledger calls it unknown, not owned"):
            files.drop(early, connection)
        with pytest.raises(NotStored):
            files.drop(upload(b"new"), connection)
        connection.execute(docs.delete())
    bench.world.sweep()
    bench.check(swept=True)


@some
def test_a_file_from_a_text_is_dropped(bench: Bench) -> None:
    """A program that keeps descriptors itself."""
    bench.insert(1, b"data")
    with bench.begin() as connection:
        written = bench.read(connection, 1).to_json()
        files.drop(files.bind(written), connection)
        connection.execute(docs.delete())
    bench.check()


# Refused


@one
def test_what_is_no_place_is_refused(bench: Bench) -> None:
    new = upload(b"data")
    with bench.begin() as connection, bench.world.nothing_stored():
        for said, why in [
            ((connection, docs.c.title), "holds no attachments"),
            ((connection, docs), "holds no attachments"),
            ((connection, connection), "one too many"),
            ((connection, docs.c.file, docs.c.scan), "one too many"),
            ((connection, Doc.title), "holds no attachments"),
        ]:
            with pytest.raises(BadConfiguration, match=why):
                files.stage(new, *said)
        with Session(bench.engine) as session, pytest.raises(BadConfiguration, match=r"session\.connection\(\)"):
            files.stage(new, session)
        with pytest.raises(BadConfiguration, match="is no connection"):
            files.drop(new, docs.c.file)


@one
def test_a_column_of_other_storages_is_refused(bench: Bench) -> None:
    """The row would have been read from there, where the file is not."""
    other = Storages("memory:")
    owned = bench.insert(1, b"data")
    refused = pytest.raises(BadConfiguration, match="keeps its files in another Storages than this one")
    with refused:
        other.stage(upload(b"void"), Doc.file)
    with bench.begin() as connection:
        with refused:
            other.stage(upload(b"void"), connection, docs.c.file)
        for column in (docs.c.file, None):
            with refused:
                other.drop(owned, connection, column)
    assert list(other.resolve().keys()) == []
    bench.check(b"data")


@one
@on("said", [b"data", "text", 7, [upload(b"1"), upload(b"2")]], ids=["bytes", "text", "number", "list"])
def test_what_is_no_attachment_is_refused(bench: Bench, said: Any) -> None:
    refused = pytest.raises(BadSource, match=f"expected an attachment, not {type(said).__name__}")
    with bench.begin() as connection:
        with refused:
            files.stage(said)
        with refused:
            files.stage(said, connection, docs.c.file)
        with refused:
            files.drop(said, connection)
        with pytest.raises(DescriptorDamaged) if isinstance(said, str) else refused:
            files.bind(said)
    bench.check()


@one
def test_without_a_column_there_must_be_one_ledger(bench: Bench) -> None:
    none = Storages("memory:")
    refused = pytest.raises(BadConfiguration, match=r"there are 0 ledgers.*Storages\(ledger=metadata\)")
    with bench.begin() as connection, refused:
        none.stage(upload(b"data"), connection)


def test_two_ledgers_and_one_that_is_given() -> None:
    metadata = MetaData(schema="one")
    both = Storages("memory:")
    for each in (metadata, MetaData(schema="two")):
        Table("docs", each, Column("id", Integer, primary_key=True), Column("file", AttachmentType(both)))
    engine = create_engine("sqlite://")
    with engine.begin() as connection, pytest.raises(BadConfiguration, match="there are 2 ledgers"):
        both.stage(upload(b"data"), connection)
    plain = MetaData()
    given = Storages("memory:", ledger=plain)
    plain.create_all(engine)
    with engine.begin() as connection:
        staged = given.stage(upload(b"data"), connection)
    assert given.settled(5)
    assert staged.read() == b"data"
    with engine.begin() as connection:
        given.drop(staged, connection)
    assert given.settled(5)
    assert [key for key, _ in given.resolve().keys() if not key.startswith(".")] == []  # noqa: SIM118


@on("world", ["sqlite", "postgres", "mariadb", "asyncpg"], indirect=True)
def test_autocommit_is_refused(bench: Bench) -> None:
    old = bench.insert(1, b"data")
    engine = bench.engine.execution_options(isolation_level="AUTOCOMMIT")
    with bench.world.nothing_stored(), engine.connect() as connection:
        with pytest.raises(NoTransaction, match=r"plain_docs\.file: the connection is set to AUTOCOMMIT"):
            files.stage(upload(b"void"), connection, docs.c.file)
        with pytest.raises(NoTransaction):
            files.drop(old, connection)
        assert not connection.in_transaction()
    bench.check(b"data")


def test_a_driver_that_commits_by_itself_is_refused() -> None:
    engine = create_engine("sqlite://", connect_args={"isolation_level": None})
    docs.metadata.create_all(engine)
    with engine.connect() as connection, pytest.raises(NoTransaction, match="the driver commits each statement"):
        files.stage(upload(b"void"), connection, docs.c.file)


def test_a_missing_ledger(bench: Bench) -> None:
    other = MetaData()
    storage = Faulty(MemoryStorage())
    apart = Storages({"default": storage})
    table = Table(
        "apart", other, Column("id", Integer, primary_key=True), Column("file", AttachmentType(apart)), schema=None
    )
    with bench.engine.begin() as connection:
        connection.execute(text("DROP TABLE attachment_ledger"))
    with bench.engine.begin() as connection, pytest.raises(LedgerMissing):
        apart.stage(upload(b"void"), connection, table.c.file)
    assert "put" not in [call.verb for call in storage.calls]


@one
def test_core_statements_without_staging_stay_refused(bench: Bench) -> None:
    early = files.stage(upload(b"early"))
    loaded = bench.insert(1, b"data")
    with bench.begin() as connection:
        for value, error in [(upload(b"new"), NotStored), (early, OwnershipLost), (loaded, OwnershipLost)]:
            with pytest.raises(error, match=r"Storages\.stage\(attachment, connection, table\.c\.column\)"):
                connection.execute(docs.insert(), {"id": 2, "file": value})
    bench.world.sweep()
    bench.check(b"data", swept=True)


def test_reading_needs_no_mapping(bench: Bench) -> None:
    bench.insert(1, b"data")
    with bench.engine.connect() as connection:
        row: Any = connection.execute(select(docs).where(docs.c.file.filename == "a.txt")).one()
        assert row.file.read() == b"data"
        assert row.pages == ()
        assert connection.scalar(select(docs.c.id).where(docs.c.file == row.file)) == 1


@one
def test_states_are_those_of_the_orm(bench: Bench) -> None:
    staged = bench.insert(1, b"data")
    assert bench.world.ledger() == {(staged.storage, staged.key): OWNED}


@one
def test_dropping_a_file_whose_variant_was_made_anew(bench: Bench) -> None:
    """Who did not lock the row does not know of it."""
    column: Column[Any] = Column("file", AttachmentType(files, variants={"copy": same_again}))
    table = Table("with_variants", MetaData(), Column("id", Integer, primary_key=True), column)
    table.create(bench.engine)
    with bench.begin() as connection:
        connection.execute(table.insert(), {"id": 1, "file": files.stage(upload(b"data"), connection, column)})
    with bench.begin() as connection:
        old = connection.execute(select(column)).scalar_one()
        variant = old.variant("copy")
        files.ledger_of(table).drop(connection, [Drop(Named(variant.storage, variant.key, 4), 1000)])
        with pytest.raises(OwnershipLost, match="the ledger calls a variant of it condemned, not owned"):
            files.drop(old, connection)
        connection.rollback()
    table.drop(bench.engine)


def same_again(attachment: Attachment) -> Attachment:
    return Attachment.upload(attachment.read())
