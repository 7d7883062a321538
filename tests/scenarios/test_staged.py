"""``Storages.stage``: a file is stored before the transaction begins, and assigned later, or never."""

from __future__ import annotations

import io
import pickle
import time
from datetime import timedelta

import pytest
from sqlalchemy import event, insert, update
from sqlalchemy.exc import IntegrityError

from sa_attachments import Attachment, OwnershipLost, StorageFailed, UnknownStorage
from sa_attachments.attachment import origin_of
from sa_attachments.staging import Token

from .models import Doc, files
from .world import AsyncWorld, World

on = pytest.mark.parametrize


def stage(data: bytes) -> Attachment:
    return files.stage(Attachment.upload(data, "a.txt"))


def test_a_staged_file_is_named_as_it_is(world: World) -> None:
    staged = stage(b"data")
    assert staged.is_stored
    assert staged.read() == b"data"
    with world.session() as session, world.nothing_stored():
        doc = Doc(file=staged)
        session.add(doc)
        session.commit()
        assert doc.file == staged
    world.check(b"data")


def test_no_connection_is_held_while_it_is_staged(world: World) -> None:
    begun: list[object] = []
    event.listen(world.engine, "begin", begun.append)
    with world.session():
        stage(b"data")
    assert begun == []


@on("end", ["rollback", "close"])
def test_assigned_rolled_back_and_assigned_again(world: World, end: str) -> None:
    """Who staged it has it in hand: a rollback leaves it there for the next attempt."""
    staged = stage(b"data")
    with world.session() as session:
        for _ in range(2):
            session.add(Doc(file=staged))
            session.flush()
            getattr(session, end)()
            world.settle()
            assert staged.read() == b"data"
            assert world.ledger() == {}
        session.add(Doc(file=staged))
        session.commit()
    world.check(b"data")


@on("end", ["rollback", "close"])
def test_assigned_rolled_back_and_forgotten(world: World, end: str) -> None:
    with world.session() as session:
        session.add(Doc(file=b"one"))
        session.commit()
        session.add(Doc(file=stage(b"data")))
        session.flush()
        getattr(session, end)()
    world.sweep()
    world.check(b"one", swept=True)


def test_assigned_inside_of_a_savepoint_that_is_rolled_back_and_assigned_again(world: World) -> None:
    staged = stage(b"data")
    with world.session() as session:
        session.add(Doc())
        session.flush()
        savepoint = session.begin_nested()
        session.add(Doc(file=staged))
        session.flush()
        savepoint.rollback()
        session.add(Doc(file=staged))
        session.commit()
    world.check(b"data")


def test_assigned_in_a_flush_that_failed_and_assigned_again(world: World) -> None:
    with world.session() as session:
        session.add(Doc(title="taken"))
        session.commit()
        staged = stage(b"data")
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(Doc(title="taken", file=staged))
        session.add(Doc(title="free", file=staged))
        session.commit()
    world.check(b"data")


def test_used_twice_the_second_gets_a_copy(world: World) -> None:
    staged = stage(b"data")
    with world.session() as session:
        first, second = Doc(file=staged), Doc(file=staged, pages=[staged, staged])
        session.add_all([first, second])
        session.commit()
        keys = {first.file, second.file, *second.pages}
        assert len(keys) == 4
        assert staged in keys
    world.check(*[b"data"] * 4)


def test_used_in_one_transaction_and_again_in_the_next(world: World) -> None:
    staged = stage(b"data")
    for _ in range(2):
        with world.session() as session:
            session.add(Doc(file=staged))
            session.commit()
    world.check(b"data", b"data")


@on("world", ["sqlite", "aiosqlite", "postgres", "asyncpg", "mariadb"], indirect=True)
def test_a_retry_after_a_commit_whose_answer_was_lost_is_told_that_a_row_has_it(world: World) -> None:
    def do_commit(connection: object) -> None:
        world.engine.dialect.do_commit = plain  # type: ignore[method-assign] # only once: cleaning commits too
        plain(connection)
        raise ConnectionResetError("the answer got lost")

    staged = stage(b"data")
    with world.session() as session:
        session.add(Doc(file=staged))
        session.flush()
        plain, world.engine.dialect.do_commit = world.engine.dialect.do_commit, do_commit  # type: ignore[method-assign]
        with pytest.raises(ConnectionResetError):
            session.commit()
        session.rollback()
        session.add(Doc(file=staged))
        with pytest.raises(OwnershipLost, match="or a row has it already, as after a commit whose answer was lost"):
            session.commit()
        session.rollback()
    world.check(b"data")


def test_the_first_user_rolls_back_the_second_keeps_its_copy(world: World) -> None:
    staged = stage(b"data")
    with world.session() as session:
        session.add(Doc())
        session.flush()
        savepoint = session.begin_nested()
        session.add(Doc(file=staged))
        session.flush()
        session.begin_nested().commit()
        savepoint.rollback()
        session.add(Doc(file=staged))
        session.flush()
        session.add(Doc(file=staged))
        session.commit()
    world.check(b"data", b"data")


def test_dropped_in_the_transaction_that_assigned_it(world: World) -> None:
    with world.session() as session:
        doc = Doc(file=stage(b"one"))
        session.add(doc)
        session.flush()
        doc.file = stage(b"two")
        session.commit()
    world.check(b"two")


def test_replaces_the_file_of_a_row(world: World) -> None:
    with world.session() as session:
        doc = Doc(file=b"old")
        session.add(doc)
        session.commit()
        doc.file = stage(b"new")
        session.commit()
    world.check(b"new")


def test_what_nobody_uses_is_swept(world: World) -> None:
    staged = stage(b"nobody's")
    with world.session() as session:
        session.add(Doc(file=b"one"))
        session.commit()
    report = world.sweep()
    assert report["default"].strangers == 1
    world.sweep()
    world.check(b"one", swept=True)
    with world.session() as session:
        session.add(Doc(file=staged))
        with pytest.raises(OwnershipLost):
            session.flush()
    world.check(b"one", swept=True)


def test_what_is_young_is_not_swept(world: World) -> None:
    with world.session() as session:
        session.add(Doc(file=b"one"))
        session.commit()
    staged = stage(b"data")
    world.files.sweep(world.engine, grace=timedelta(hours=1), stranger_retain=timedelta(0))
    with world.session() as session:
        session.add(Doc(file=staged))
        session.commit()
    world.check(b"one", b"data")


def test_statements_take_staged_files(world: World) -> None:
    with world.session() as session, world.nothing_stored():
        one, two = stage_outside(b"one"), stage_outside(b"two")
        session.execute(insert(Doc), [{"title": "a", "file": one}, {"title": "b"}])
        session.execute(update(Doc).where(Doc.title == "b").values(file=two))
        session.commit()
    world.check(b"one", b"two")


def stage_outside(data: bytes) -> Attachment:
    """Staged in a way that ``nothing_stored`` does not count."""
    storage = files.resolve("default")
    with files.override({"default": storage.inner}):  # type: ignore[attr-defined]
        return stage(data)


@on("world", ["sqlite", "mariadb"], indirect=True)
@on("whose", ["swept", "another row's"])
def test_a_statement_that_is_too_late_leaves_the_line_of_others(world: World, whose: str) -> None:
    """These databases go on after the refusal, and what is committed then must not forget whose the file is."""
    with world.session() as session:
        session.add(Doc(id=1, file=b"first"))  # The place is marked by who stores in a session.
        session.commit()
        staged = stage(b"data")
        if whose == "swept":
            world.sweep()
        else:
            session.add(Doc(id=2, file=staged))
            session.commit()
            token = origin_of(staged)
            assert isinstance(token, Token)
            token.revert()  # as if the acknowledgement of the commit were lost
        lines = world.ledger()
        with pytest.raises(OwnershipLost):
            session.execute(insert(Doc).values(id=3, file=staged))
        session.add(Doc(id=4))
        session.commit()
        assert world.ledger() == lines
        with pytest.raises(OwnershipLost):
            session.execute(insert(Doc).values(id=3, file=staged))
    world.sweep()
    world.check(b"first", *([] if whose == "swept" else [b"data"]), swept=True)


@on("how", ["attribute", "connection"])
def test_what_a_sweep_condemned_is_not_owned_again_by_a_pickled_one(world: World, how: str) -> None:
    """That would be dropped without a tombstone, and the one in memory be named after its bytes were gone."""
    with world.session() as session:
        session.add(Doc(id=1, file=b"first"))
        session.commit()
        staged = stage(b"data")
        pickled = files.bind(pickle.loads(pickle.dumps(staged)))
        time.sleep(0.01)
        files.sweep(world.engine, grace=timedelta(0))
        if how == "attribute":
            session.add(Doc(id=2, file=pickled))
        else:
            connection = session.connection()
            copied = files.stage(pickled, connection, Doc.file)
            connection.execute(insert(Doc.__table__).values(id=2, file=copied))  # type: ignore[arg-type]
        session.commit()
        session.get_one(Doc, 2).file = None
        session.commit()
        world.settle()
        session.add(Doc(id=3, file=staged))
        with pytest.raises(OwnershipLost):
            session.commit()
        session.rollback()
    assert [world.stored()[facts["storage"], facts["key"]] for facts in world.named()] == [b"first"]


def test_a_new_description_is_the_same_file(world: World) -> None:
    staged = stage(b"data").replace(filename="b.txt", metadata={"n": 1})
    with world.session() as session, world.nothing_stored():
        doc = Doc(file=staged)
        session.add(doc)
        session.commit()
        assert doc.file is not None
        assert (doc.file.filename, dict(doc.file.metadata)) == ("b.txt", {"n": 1})
    world.check(b"data")


def test_staging_what_is_stored_changes_nothing(world: World) -> None:
    staged = stage(b"data")
    assert files.stage(staged) is staged


def test_errors_of_staging(world: World) -> None:
    with pytest.raises(UnknownStorage, match="'default'"):
        files.stage(Attachment.upload(b"data"), storage="nowhere")
    new = Attachment.upload(io.BytesIO(b"data"))
    world.storage.fail("put", on=1).fail("put", on=2, after=True)
    for _ in range(2):
        with pytest.raises(StorageFailed):
            files.stage(new)
    assert files.stage(new).read() == b"data"


async def test_astage(aworld: AsyncWorld) -> None:
    staged = await files.astage(Attachment.upload(b"data"), Doc.file)
    unused = await files.astage(Attachment.upload(b"nobody's"), Doc.file)
    async with aworld.sessions() as session:
        session.add(Doc(file=staged))
        await session.flush()
        await session.rollback()
        session.add(Doc(file=await files.astage(Attachment.upload(b"again"))))
        await session.commit()
    assert unused.is_stored
    for _ in range(2):
        await files.asweep(aworld.asynchronous, grace=timedelta(0), stranger_retain=timedelta(0))
    await aworld.acheck(b"again", swept=True)


@on("world", ["sqlite", "postgres", "mariadb"], indirect=True)
@on("form", ["flush", "statement"])
def test_one_that_another_files_refusal_keeps_from_its_row_can_be_assigned_again(world: World, form: str) -> None:
    staged = stage(b"data")
    broken = Attachment.upload(iter([b"no", None]))  # type: ignore[list-item]
    with world.session() as session:
        session.add(Doc(title="kept", file=b"kept"))
        session.flush()
        if form == "flush":
            session.add_all([Doc(file=staged), Doc(file=broken)])
        with pytest.raises(TypeError):
            session.flush() if form == "flush" else session.execute(insert(Doc), [{"file": staged}, {"file": broken}])
        session.expunge_all()
        session.commit()
        world.settle()
        assert staged.read() == b"data"
        session.add(Doc(file=staged))
        session.commit()
    world.check(b"kept", b"data")
