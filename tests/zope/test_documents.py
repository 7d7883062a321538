"""DocumentFiles: files whose owners are documents, in the transaction that both share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import transaction
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from transaction.interfaces import (
    IDataManagerSavepoint,
    ISavepointDataManager,
    ISynchronizer,
    TransactionFailedError,
    TransientError,
)
from zope.interface.verify import verifyObject

from sa_attachments import Attachment, FileMissing, OwnershipLost, Refused, StorageFailed
from sa_attachments.errors import BadConfiguration, BadSource
from sa_attachments.integrations.zope import DocumentFiles, Recovered
from sa_attachments.integrations.zope.manager import FilesManager
from sa_attachments.processing.validators import MaxSize
from tests.engines import MARIADB

from .archive import Archive

LEDGERS = ["sqlite", "sqlite-memory", "postgres", *(["mariadb"] if MARIADB else [])]


class Fails(Exception):
    """What a data manager raises."""


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """``make(ledger, **options)``"""
    made: list[Archive] = []

    def make(ledger: str = "sqlite", **options: Any) -> Archive:
        match ledger:
            case "sqlite":
                url: Any = f"sqlite:///{tmp_path}/ledger.db"
            case "sqlite-memory":
                url = "sqlite://"
            case other:
                url = request.getfixturevalue(f"{other}_url")
        made.append(Archive(tmp_path, url, **options))
        return made[-1]

    yield make
    for archive in made:
        archive.manager.abort()
        archive.files.engine.dispose()


@pytest.fixture(params=LEDGERS)
def archive(request: pytest.FixtureRequest, make: Callable[..., Archive]) -> Archive:
    return make(request.param)


@pytest.fixture
def lite(make: Callable[..., Archive]) -> Archive:
    """On SQLite alone."""
    return make()


def fail(archive: Archive, at: str) -> None:
    """Let the shelf's data manager fail in a phase, once."""

    def at_(phase: str) -> None:
        if phase == at:
            archive.shelf.at = lambda phase: None
            raise Fails(at)

    archive.shelf.at = at_


# Ends of transactions


def test_a_commit_keeps_what_was_staged(archive: Archive) -> None:
    staged = archive.write("a", b"one")
    assert staged.is_stored
    assert staged.read() == b"one"  # at once
    archive.manager.commit()
    archive.check(a=b"one")
    assert archive.named()["a"].read() == b"one"


def test_an_abort_removes_it(archive: Archive) -> None:
    staged = archive.write("a", b"one")
    archive.manager.abort()
    archive.check()
    with pytest.raises(FileMissing):
        staged.read()


def test_a_replacement_and_its_abort(archive: Archive) -> None:
    archive.write("a", b"one")
    archive.manager.commit()
    archive.write("a", b"two")
    archive.manager.abort()
    archive.check(a=b"one")
    archive.write("a", b"three")
    archive.manager.commit()
    archive.check(a=b"three")
    archive.remove("a")
    archive.manager.commit()
    archive.check()


def test_a_dropped_file_is_kept_for_a_while(make: Callable[..., Archive]) -> None:
    archive = make(retain=timedelta(days=30))
    staged = archive.write("a", b"one")
    archive.manager.commit()
    archive.remove("a")
    archive.manager.commit()
    assert archive.states() == {staged.key: "condemned"}
    assert archive.sweep().ok
    assert staged.read() == b"one"


def test_a_file_that_comes_and_goes_in_one_transaction(archive: Archive) -> None:
    archive.write("a", b"one")
    archive.write("a", b"two")
    archive.manager.commit()
    archive.check(a=b"two")


def test_a_transaction_without_files_asks_the_ledger_nothing(lite: Archive) -> None:
    statements: list[Any] = []
    event.listen(lite.files.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    lite.shelf.set("b", "no file")
    lite.manager.commit()
    assert statements == []


def test_thousands_of_files_in_one_transaction(lite: Archive) -> None:
    for i in range(1200):
        lite.write(f"d{i}", b"%d" % i)
    lite.manager.commit()
    assert len(lite.stored()) == 1200
    for i in range(1200):
        lite.remove(f"d{i}")
    lite.manager.commit()
    lite.check()


# Savepoints


def test_a_savepoint_takes_back_what_was_staged_and_dropped_after_it(archive: Archive) -> None:
    archive.write("a", b"one")
    archive.write("b", b"two")
    archive.manager.commit()
    archive.write("a", b"three")
    savepoint = archive.manager.savepoint()
    archive.write("c", b"void")
    archive.remove("b")
    inner = archive.manager.savepoint()
    archive.write("d", b"void too")
    inner.rollback()
    assert sorted(archive.stored().values()) == [b"one", b"three", b"two", b"void"]
    savepoint.rollback()
    assert sorted(archive.stored().values()) == [b"one", b"three", b"two"]
    savepoint.rollback()  # may be used again
    archive.manager.commit()
    archive.check(a=b"three", b=b"two")


def test_a_savepoint_that_is_older_than_the_first_file(archive: Archive) -> None:
    savepoint = archive.manager.savepoint()
    archive.write("a", b"void")
    savepoint.rollback()
    archive.check()
    archive.write("a", b"one")
    archive.manager.commit()
    archive.check(a=b"one")


# Whose files


def test_one_that_was_staged_before_the_transaction_is_taken_as_it_is(archive: Archive) -> None:
    early = archive.files.storages.stage(Attachment.upload(b"slow"))
    assert archive.files.stage(early) == early
    archive.manager.abort()
    assert archive.stored() == {early.key: b"slow"}  # the next attempt does not upload it again
    assert archive.files.stage(early) == early
    archive.shelf.set("a", early.to_json())
    archive.manager.commit()
    archive.check(a=b"slow")
    second = archive.files.stage(early)
    assert second != early
    archive.shelf.set("b", second.to_json())
    archive.manager.commit()
    archive.check(a=b"slow", b=b"slow")


def test_one_that_was_staged_before_and_that_nobody_wants_is_swept(lite: Archive) -> None:
    lite.write("a", b"one")
    lite.manager.commit()
    early = lite.files.storages.stage(Attachment.upload(b"slow"))
    lite.files.stage(early)
    lite.manager.abort()
    assert lite.sweep().ok
    lite.check(a=b"one")


def test_the_file_of_another_document_is_copied(archive: Archive) -> None:
    first = archive.write("a", b"one")
    archive.manager.commit()
    copied = archive.files.stage(archive.named()["a"])
    assert copied != first
    archive.shelf.set("b", copied.to_json())
    archive.manager.commit()
    archive.remove("a")
    archive.manager.commit()
    archive.check(b=b"one")


def test_a_path_that_is_given_away_goes_with_the_commit(archive: Archive, tmp_path: Path) -> None:
    path = tmp_path / "given"
    path.write_bytes(b"given")
    archive.files.stage(Attachment.upload(path, move=True))
    archive.manager.abort()
    assert path.exists()
    archive.shelf.set("a", archive.files.stage(Attachment.upload(path, move=True)).to_json())
    archive.manager.commit()
    archive.check(a=b"given")
    assert not path.exists()


def test_storages_by_name(tmp_path: Path) -> None:
    manager = transaction.TransactionManager()
    files = DocumentFiles(
        {"default": "memory:", "scans": "memory:"}, "sqlite://", is_named=bool, transaction_manager=manager
    )
    assert files.stage(Attachment.upload(b"one"), storage="scans").storage == "scans"
    assert files.stage(Attachment.upload(b"two", storage="scans")).storage == "scans"
    assert files.stage(Attachment.upload(b"three")).storage == "default"
    manager.commit()
    assert {(each.storage, each.files) for each in files.storages.stats(files.engine)} == {("scans", 2), ("default", 1)}


# What is refused


def test_steps_refuse_before_anything_is_stored(lite: Archive) -> None:
    with pytest.raises(Refused, match="a document's file"):
        lite.files.stage(Attachment.upload(b"too long"), steps=[MaxSize(3)])
    assert lite.stored() == {}
    lite.write("a", b"one")
    lite.manager.commit()
    lite.check(a=b"one")


def test_a_storage_that_fails_leaves_the_transaction_usable(lite: Archive) -> None:
    lite.write("a", b"one")
    lite.storage.fail("put", on=1)
    with pytest.raises(StorageFailed):
        lite.write("b", b"two")
    lite.manager.commit()
    lite.check(a=b"one")


def test_it_is_too_late_when_the_transaction_is_being_committed(lite: Archive) -> None:
    lite.write("a", b"one")
    refused = []

    def stage_late(phase: str) -> None:
        if phase == "tpc_vote":
            with pytest.raises(BadConfiguration, match="has voted"):
                lite.files.stage(Attachment.upload(b"late"))
            with pytest.raises(BadConfiguration, match="has voted"):
                lite.files.drop(lite.files.bind(lite.shelf.get("a") or ""))
            refused.append(phase)

    lite.shelf.at = stage_late
    lite.manager.commit()
    assert refused
    lite.check(a=b"one")


def test_a_transaction_that_failed_takes_no_files(lite: Archive) -> None:
    lite.write("a", b"one")
    fail(lite, "commit")
    with pytest.raises(Fails):
        lite.manager.commit()
    with pytest.raises(TransactionFailedError):
        lite.files.stage(Attachment.upload(b"late"))
    lite.manager.abort()
    lite.recover()
    lite.check()


def test_what_a_sweep_condemned_meanwhile_can_be_owned_no_more(archive: Archive) -> None:
    archive.write("a", b"one")
    archive.sweep()
    archive.write("b", b"two")
    with pytest.raises(OwnershipLost):
        archive.manager.commit()
    archive.manager.abort()
    archive.check()  # neither is left, and nobody waits for a sweep


def test_the_vote_comes_before_that_of_all_others(make: Callable[..., Archive]) -> None:
    """One that commits in its own would name a file that can't be owned."""
    archive = make(one_phase=True, sort=" first")
    archive.write("a", b"one")
    archive.sweep()
    with pytest.raises(OwnershipLost):
        archive.manager.commit()
    archive.manager.abort()
    archive.check()


@pytest.mark.parametrize("said", [b"data", None, []], ids=["bytes", "nothing", "list"])
def test_what_is_no_attachment_is_refused(lite: Archive, said: Any) -> None:
    for verb in (lite.files.stage, lite.files.drop, lite.files.bind):
        with pytest.raises(BadSource, match="expected an attachment"):
            verb(said)


def test_a_file_of_others_is_dropped_there(lite: Archive) -> None:
    """Here nobody would have heard of it, and it would have stayed."""
    staged = lite.write("a", b"one")
    lite.manager.commit()
    other = DocumentFiles("memory:", "sqlite://", is_named=bool, transaction_manager=lite.manager)
    with pytest.raises(BadConfiguration, match="drop it there"):
        other.drop(staged)
    lite.check(a=b"one")


def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    program = (
        "import sys; sys.modules['transaction'] = None\n"
        "from sa_attachments.errors import MissingExtra\n"
        "try: import sa_attachments.integrations.zope\n"
        "except MissingExtra as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "needs the module 'transaction': pip install 'sa-attachments[zope]'" in said


# Failing data managers


@pytest.mark.parametrize("at", ["tpc_begin", "commit"])
def test_a_failure_before_the_vote_removes_the_files_at_once(archive: Archive, at: str) -> None:
    archive.write("a", b"one")
    archive.manager.commit()
    archive.write("a", b"two")
    fail(archive, at)
    with pytest.raises(Fails):
        archive.manager.commit()
    archive.check(a=b"one")


@pytest.mark.parametrize("at", ["tpc_vote", "after tpc_vote", "tpc_finish"])
@pytest.mark.parametrize("one_phase", [False, True], ids=["two phases", "one phase"])
def test_after_the_vote_the_documents_are_asked(make: Callable[..., Archive], at: str, one_phase: bool) -> None:
    archive = make("sqlite", one_phase=one_phase)
    archive.write("a", b"one")
    archive.write("b", b"gone")
    archive.manager.commit()
    archive.write("a", b"two")
    archive.remove("b")
    fail(archive, at)
    with pytest.raises(Fails):
        archive.manager.commit()
    archive.manager.abort()
    if one_phase and at != "tpc_vote":
        archive.check(a=b"two")  # it was committed, whatever it raised
        return
    assert archive.doubts() == 3
    assert archive.files.recover() == Recovered(kept=0, removed=0)  # the documents may still come
    assert archive.doubts() == 3
    assert archive.recover() == Recovered(kept=2, removed=1)
    archive.check(a=b"one", b=b"gone")


@pytest.mark.parametrize("at", ["tpc_vote", "tpc_finish"])
def test_whoever_knows_better_need_not_wait(make: Callable[..., Archive], at: str) -> None:
    archive = make(in_doubt_for=timedelta(0))
    archive.write("a", b"one")
    fail(archive, at)
    with pytest.raises(Fails):
        archive.manager.commit()
    archive.check()


def test_a_document_that_comes_late_keeps_its_file(archive: Archive) -> None:
    """The answer to a commit got lost, and the commit takes its time."""
    staged = archive.write("a", b"one")
    texts = {"a": staged.to_json()}
    fail(archive, "tpc_finish")
    with pytest.raises(Fails):
        archive.manager.commit()
    archive.manager.abort()
    archive.files.recover()
    archive.shelf.set("a", texts["a"])
    archive.manager.commit()
    archive.recover()
    archive.check(a=b"one")


def test_documents_that_cannot_be_asked_leave_it_in_doubt(make: Callable[..., Archive]) -> None:
    answers: list[Any] = [ConnectionError("no database"), ConnectionError("no database"), True]

    def is_named(key: str) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bool(answer)

    archive = make(one_phase=True, is_named=is_named)
    archive.write("a", b"one")
    fail(archive, "after tpc_vote")
    with pytest.raises(Fails):
        archive.manager.commit()
    with pytest.raises(ConnectionError):
        archive.recover()
    assert archive.doubts() == 1
    archive.recover()
    archive.check(a=b"one")


def test_a_recovery_that_is_too_early_is_made_good_by_the_commit(archive: Archive) -> None:
    """Another process asks while this one is between the vote and the end."""
    archive.write("a", b"one")

    def at(phase: str) -> None:
        if phase == "tpc_finish":
            doubts = archive.files._keeper.doubts
            doubts.settle([(doubt, False) for doubt in doubts.older(timedelta(0))], timedelta(0))

    archive.shelf.at = at
    archive.manager.commit()
    archive.check(a=b"one")


def test_a_recovery_that_is_too_late_undoes_nothing(archive: Archive) -> None:
    """It asked before the document was committed, and settles after that was."""
    archive.write("a", b"one")
    verdicts: list[Any] = []

    def at(phase: str) -> None:
        if phase == "tpc_finish":
            verdicts.extend((doubt, False) for doubt in archive.files._keeper.doubts.older(timedelta(0)))

    archive.shelf.at = at
    archive.manager.commit()
    assert archive.files._keeper.doubts.settle(verdicts, timedelta(0)) == []
    archive.check(a=b"one")


def test_a_recovery_between_the_vote_and_the_end_keeps_no_dropped_file(archive: Archive) -> None:
    archive.write("a", b"one")
    archive.manager.commit()
    archive.remove("a")

    def at(phase: str) -> None:
        if phase == "tpc_finish":
            assert archive.recover() == Recovered(kept=1, removed=0)

    archive.shelf.at = at
    archive.manager.commit()
    archive.check()


@pytest.mark.parametrize("archive", [each for each in LEDGERS if each != "sqlite-memory"], indirect=True)
def test_forked_children_have_connections_of_their_own(archive: Archive) -> None:
    """A server may store something, or recover, before it forks: on one connection two read each other's answers."""
    archive.write("a", b"one")
    archive.manager.commit()
    children = []
    for _ in range(2):
        if (child := os.fork()) == 0:
            signal.alarm(30)
            good = False
            try:
                for number in range(20):
                    archive.files.stage(Attachment.upload(b"%d" % number))
                    archive.manager.abort()
                good = archive.named()["a"].read() == b"one"
            finally:
                os._exit(0 if good else 1)
        children.append(child)
    archive.write("b", b"two")
    archive.manager.commit()
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    archive.check(a=b"one", b=b"two")


def test_what_is_promised_on_sqlite_survives_a_power_cut(lite: Archive) -> None:
    with lite.files.engine.connect() as connection:
        assert connection.scalar(text("PRAGMA synchronous")) == 3


@pytest.mark.parametrize("archive", ["postgres"], indirect=True)
def test_what_is_promised_on_postgresql_survives_it_too(archive: Archive) -> None:
    name = archive.files.engine.url.database
    with archive.files.engine.begin() as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" SET synchronous_commit = off'))
    archive.files.engine.dispose()
    said: list[str] = []

    @event.listens_for(archive.files.engine, "before_cursor_execute")
    def look(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "INTO attachment_doubt" in statement:
            said.append(connection.exec_driver_sql("SHOW synchronous_commit").scalar())

    archive.write("a", b"one")
    archive.manager.commit()
    assert said == ["on"]
    archive.check(a=b"one")


def test_a_ledger_that_is_away_in_the_vote_fails_the_transaction(make: Callable[..., Archive], tmp_path: Path) -> None:
    archive = make()
    archive.write("a", b"one")
    archive.manager.commit()
    archive.write("a", b"two")
    with archive.files.engine.begin() as connection:
        connection.execute(text("ALTER TABLE attachment_doubt RENAME TO elsewhere"))
    with pytest.raises(OperationalError):
        archive.manager.commit()
    assert archive.shelf.committed().keys() == {"a"}
    with archive.files.engine.begin() as connection:
        connection.execute(text("ALTER TABLE elsewhere RENAME TO attachment_doubt"))
    archive.manager.abort()
    assert archive.sweep().ok
    assert archive.sweep().ok
    archive.check(a=b"one")


def test_a_ledger_that_is_away_after_the_vote_fails_nothing(make: Callable[..., Archive]) -> None:
    archive = make()
    archive.write("a", b"one")
    archive.manager.commit()
    archive.write("a", b"two")

    def rename(old: str, new: str) -> None:
        with archive.files.engine.begin() as connection:
            connection.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))

    archive.shelf.at = lambda phase: rename("attachment_doubt", "elsewhere") if phase == "tpc_finish" else None
    archive.manager.commit()
    rename("elsewhere", "attachment_doubt")
    assert archive.doubts() == 2
    archive.recover()
    archive.check(a=b"two")


# Retries, threads, protocols


def test_attempts_leave_only_the_last_file(archive: Archive) -> None:
    tries = 0
    for attempt in archive.manager.attempts(3):
        with attempt:
            tries += 1
            archive.write("a", b"try %d" % tries)
            if tries < 3:
                raise TransientError
    assert tries == 3
    archive.check(a=b"try 3")


def test_a_ledger_that_is_locked_is_worth_another_attempt(lite: Archive) -> None:
    manager = FilesManager(lite.files._keeper, lite.manager.get(), lite.manager)
    locked = OperationalError("INSERT", {}, Exception("database is locked"))
    assert manager.should_retry(locked)
    assert not manager.should_retry(OperationalError("INSERT", {}, Exception("disk is full")))
    assert not manager.should_retry(ValueError())


def test_threads_share_the_files_and_not_the_transactions(lite: Archive) -> None:
    lite.files._transaction_manager = manager = transaction.ThreadTransactionManager()
    lite.shelf.path.write_text("{}")
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(10):
                staged = lite.files.stage(Attachment.upload(b"%d" % i))
                if (i + number) % 2:
                    manager.commit()
                    committed.append(staged.key)
                else:
                    manager.abort()
        except BaseException as error:  # noqa: BLE001 - the test asserts that there is none
            errors.append(error)

    committed: list[str] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    lite.sweep()  # On SQLite, cleaning gives way to whoever writes.
    assert lite.stored().keys() == set(committed)
    assert lite.states() == dict.fromkeys(committed, "owned")
    assert not manager.registeredSynchs()


def test_explicit_managers(lite: Archive) -> None:
    lite.manager.explicit = True
    with pytest.raises(transaction.interfaces.NoTransaction):
        lite.files.stage(Attachment.upload(b"one"))
    with lite.manager:
        lite.write("a", b"one")
    lite.check(a=b"one")
    lite.manager.begin()


def test_it_keeps_what_the_interfaces_promise(lite: Archive) -> None:
    lite.write("a", b"one")
    manager = next(each for each in lite.manager.get()._resources if isinstance(each, FilesManager))
    assert verifyObject(ISavepointDataManager, manager)
    assert verifyObject(ISynchronizer, manager)
    assert verifyObject(IDataManagerSavepoint, manager.savepoint())
    assert lite.manager.registeredSynchs()
    lite.manager.commit()
    assert not lite.manager.registeredSynchs()


def test_hooks_after_the_commit_abort_nothing(lite: Archive) -> None:
    """The transaction package then calls ``abort`` of all that have finished."""
    lite.write("a", b"one")
    called: list[bool] = []
    lite.manager.get().addAfterCommitHook(called.append)
    lite.manager.commit()
    assert called == [True]
    lite.check(a=b"one")
