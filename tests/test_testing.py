"""The contract finds what is wrong, each rule at least one thing; the faulty storage does what it is told."""

from __future__ import annotations

import inspect
import io
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, BinaryIO
from unittest import SkipTest
from urllib.parse import quote

import pytest

from sa_attachments.errors import FileMissing
from sa_attachments.key import mint
from sa_attachments.source import CHUNK
from sa_attachments.storage import (
    Copies,
    DirectUpload,
    HasPath,
    Readable,
    SignsDownloads,
    Stat,
    Storage,
    TakesFile,
    Unfinished,
)
from sa_attachments.storages.local import UNFINISHED, LocalStorage
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Call, Faulty, StorageContract
from sa_attachments.testing.probes import Stream, listed, put, raises, read

RULES = sorted(name for name in dir(StorageContract) if name.startswith("test_"))


def breaks(rule: str, storage: Storage, tmp_path: Path) -> bool:
    """Whether the storage breaks a rule of the contract."""
    test = getattr(StorageContract(), rule)
    arguments = {"storage": storage, "tmp_path": tmp_path}
    try:
        test(**{name: arguments[name] for name in inspect.signature(test).parameters})
    except SkipTest:
        return False
    except Exception:  # noqa: BLE001 - whatever comes out, the rule did not hold
        return True
    return False


# Storages that are wrong, and the rule that has to notice

BROKEN: list[tuple[str, type[MemoryStorage] | type[LocalStorage]]] = []


def noticed_by(rule: str) -> Callable[[type], type]:
    def register(broken: type) -> type:
        BROKEN.append((rule, broken))
        return broken

    return register


@noticed_by("test_gives_back_what_was_put")
class CutsLongFiles(MemoryStorage):
    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        super().put(key, io.BytesIO(stream.read(CHUNK)), size=size, content_type=content_type)


@noticed_by("test_reads_any_stream")
class ReadsOnce(MemoryStorage):
    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        super().put(key, io.BytesIO(stream.read(-1)), size=size, content_type=content_type)


@noticed_by("test_reads_a_stream_from_where_it_stands")
class Rewinds(MemoryStorage):
    def put(self, key: str, stream: Any, *, size: int | None, content_type: str) -> None:
        if hasattr(stream, "seek"):
            stream.seek(0)
        super().put(key, stream, size=size, content_type=content_type)


@noticed_by("test_never_overwrites")
class Overwrites(MemoryStorage):
    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        self._files.pop(key, None)
        super().put(key, stream, size=size, content_type=content_type)


@noticed_by("test_one_of_many_racing_puts_wins")
class LooksBeforeItLeaps(MemoryStorage):
    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        if key in self._files:
            raise FileExistsError(key)
        time.sleep(0.01)
        self._files.pop(key, None)
        super().put(key, stream, size=size, content_type=content_type)


@noticed_by("test_passes_on_the_error_of_a_stream_and_leaves_nothing")
class KeepsHalfFiles(MemoryStorage):
    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        data = io.BytesIO()
        try:
            while chunk := stream.read(CHUNK):
                data.write(chunk)
        finally:
            super().put(key, io.BytesIO(data.getvalue()), size=None, content_type=content_type)


@noticed_by("test_passes_on_the_error_of_a_stream_and_leaves_nothing")
class WrapsErrors(MemoryStorage):
    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        try:
            super().put(key, stream, size=size, content_type=content_type)
        except RuntimeError as error:
            raise RuntimeError("wrapped") from error


@noticed_by("test_shows_no_file_before_it_is_whole")
class ReservesNames(MemoryStorage):
    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        super().put(key, io.BytesIO(), size=0, content_type=content_type)
        try:
            data = b"".join(iter(lambda: stream.read(CHUNK), b""))
        finally:
            self._files.pop(key)
        super().put(key, io.BytesIO(data), size=None, content_type=content_type)


@noticed_by("test_misses_what_is_not_there")
class OpensNothing(MemoryStorage):
    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        try:
            return super().open(key, start, end)
        except FileMissing:
            return io.BytesIO()


@noticed_by("test_opens_a_real_file")
class GivesAPipe(MemoryStorage):
    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        file = super().open(key, start, end)
        file.seekable = lambda: False  # type: ignore[method-assign]
        return file


@noticed_by("test_opens_a_part")
class IgnoresTheEnd(MemoryStorage):
    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        return super().open(key, start)


@noticed_by("test_opens_a_part")
class IncludesTheEnd(MemoryStorage):
    def open(self, key: str, start: int = 0, end: int | None = None) -> BinaryIO:
        return super().open(key, start, None if end is None else end + 1)


@noticed_by("test_tells_size_and_time")
class TellsNaiveTimes(MemoryStorage):
    def stat(self, key: str) -> Stat:
        return super().stat(key)._replace(modified=datetime.now())  # noqa: DTZ005 - that is what is wrong


@noticed_by("test_takes_any_well_formed_key")
class ListsQuotedKeys(MemoryStorage):
    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        return ((quote(key), modified) for key, modified in super().keys(after, before))


@noticed_by("test_refuses_malformed_keys")
class TakesAnything(MemoryStorage):
    def _check_writable(self, key: str) -> None:
        pass

    def _get(self, key: str) -> Any:
        return self._files[key]


@noticed_by("test_serves_many_threads")
class IsForOneThread(MemoryStorage):
    def __init__(self) -> None:
        super().__init__()
        self._busy = threading.Lock()

    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("one at a time")
        try:
            time.sleep(0.005)
            super().put(key, stream, size=size, content_type=content_type)
        finally:
            self._busy.release()


@noticed_by("test_deletes_many")
class DeletesAThousand(MemoryStorage):
    def delete(self, keys: Sequence[str]) -> dict[str, Exception]:
        return super().delete(keys[:1000])


@noticed_by("test_deleting_again_is_fine")
class MissesWhatItDeletes(MemoryStorage):
    def delete(self, keys: Sequence[str]) -> dict[str, Exception]:
        return super().delete(keys) | {key: FileMissing(key) for key in keys if key not in self._files}


@noticed_by("test_leaves_no_place_behind_that_is_in_the_way")
class KeepsFolders(LocalStorage):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._folders.prune = lambda folder: None  # type: ignore[method-assign]


@noticed_by("test_puts_beside_what_is_being_deleted")
class DeletesByCopying(MemoryStorage):
    def delete(self, keys: Sequence[str]) -> dict[str, Exception]:
        kept = {key: file for key, file in self._files.copy().items() if key not in keys}
        time.sleep(0.001)
        self._files = kept
        return {}


@noticed_by("test_lists_in_the_order_of_code_points")
class ListsByFolders(MemoryStorage):
    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        return iter(sorted(super().keys(after, before), key=lambda entry: entry[0].split("/")))


@noticed_by("test_lists_between_bounds")
class IncludesTheFirst(MemoryStorage):
    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        entries = super().keys(None, before)
        return (entry for entry in entries if after is None or entry[0] >= after)


@noticed_by("test_lists_times")
class ListsOtherTimes(MemoryStorage):
    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        return ((key, modified + timedelta(hours=1)) for key, modified in super().keys(after, before))


@noticed_by("test_lists_lazily")
class ListsInOne(MemoryStorage):
    def keys(self, after: str | None = None, before: str | None = None) -> Any:
        return list(super().keys(after, before))


@noticed_by("test_lists_lazily")
class TripsOverChanges(MemoryStorage):
    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        return ((key, file.stat.modified) for key, file in self._files.items())


@noticed_by("test_does_not_list_hidden_files")
class ListsHiddenFiles(MemoryStorage):
    def keys(self, after: str | None = None, before: str | None = None) -> Iterator[tuple[str, datetime]]:
        return ((key, self._files[key].stat.modified) for key in sorted(self._files))


@noticed_by("test_readonly_neither_writes_nor_deletes")
class WritesAllTheSame(MemoryStorage):
    def put(self, key: str, stream: Readable, *, size: int | None, content_type: str) -> None:
        said, self.readonly = self.readonly, False
        try:
            super().put(key, stream, size=size, content_type=content_type)
        finally:
            self.readonly = said


@noticed_by("test_readonly_neither_writes_nor_deletes")
class DeletesAllTheSame(MemoryStorage):
    def delete(self, keys: Sequence[str]) -> dict[str, Exception]:
        for key in keys:
            self._files.pop(key, None)
        return {}


@noticed_by("test_says_how_much_may_run_at_once")
class RunsNothing(MemoryStorage):
    def __init__(self) -> None:
        super().__init__(parallel=0)


@noticed_by("test_copies_are_independent")
class CopiesByName(MemoryStorage):
    def copy(self, source: str, key: str) -> None:
        super().copy(source, key)
        self._twins = {source: key}

    def delete(self, keys: Sequence[str]) -> dict[str, Exception]:
        return super().delete([*keys, *(self._twins[key] for key in keys)])


@noticed_by("test_copy_refuses_what_put_refuses")
class CopiesOver(MemoryStorage):
    def copy(self, source: str, key: str) -> None:
        data = read(self, source)
        self._files.pop(key, None)
        put(self, key, data)


@noticed_by("test_path_leads_to_the_bytes")
class GivesAnyPath(LocalStorage):
    def path(self, key: str) -> Path:
        return self.root / key


@noticed_by("test_takes_a_file_or_says_that_it_cannot")
class Steals(LocalStorage):
    def take(self, key: str, path: Path) -> bool:
        taken = super().take(key, path)
        path.unlink()
        return taken


@noticed_by("test_takes_a_file_or_says_that_it_cannot")
class TakesAndDeniesIt(LocalStorage):
    def take(self, key: str, path: Path) -> bool:
        super().take(key, path)
        return False


@noticed_by("test_takes_no_file_whose_bytes_have_another_name")
class TakesWhatALinkLeadsTo(LocalStorage):
    def take(self, key: str, path: Path) -> bool:
        return super().take(key, path.resolve())


@noticed_by("test_discards_what_is_unfinished_and_nothing_else")
class DiscardsWhatIsBeingWritten(LocalStorage):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._nameless = False

    def discard_unfinished(self, before: datetime) -> int:
        found = list((self.root / UNFINISHED).iterdir())
        for path in found:
            path.unlink()
        return len(found)


class SigningStorage(MemoryStorage):
    def sign_download(self, key: str, *, expires: timedelta, filename: str, content_type: str) -> str:
        return f"data:{content_type};base64,{b64encode(read(self, key)).decode()}"


@noticed_by("test_signed_address_leads_to_the_bytes")
class SignsAnything(MemoryStorage):
    def sign_download(self, key: str, *, expires: timedelta, filename: str, content_type: str) -> str:
        return f"data:{content_type},{quote(key)}"


@noticed_by("test_a_client_stores_a_file_by_a_put")
@noticed_by("test_a_client_stores_a_file_by_a_form")
class AcceptsWhateverIsSent(MemoryStorage):
    """Its clients talk to a server that looks at nothing."""

    def sign_upload(
        self, key: str, *, expires: timedelta, content_type: str, max_size: int, size: int | None = None
    ) -> DirectUpload:
        storage = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                put(storage, mint(), self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            do_POST = do_PUT

            def log_message(self, *args: object) -> None: ...

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=lambda: (server.handle_request(), server.server_close()), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        return DirectUpload("POST" if size is None else "PUT", url, fields={"key": key})


@pytest.mark.parametrize(("rule", "broken"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_the_contract_notices(rule: str, broken: type, tmp_path: Path) -> None:
    storage = broken(tmp_path / "root") if issubclass(broken, LocalStorage) else broken()
    assert breaks(rule, storage, tmp_path)


def test_every_rule_notices_something() -> None:
    assert sorted({rule for rule, _ in BROKEN}) == RULES


def test_every_rule_says_in_a_sentence_what_it_is() -> None:
    for rule in RULES:
        text = inspect.getdoc(getattr(StorageContract, rule))
        assert text
        assert text.endswith(".")
        assert "\n" not in text


@pytest.mark.parametrize("rule", RULES)
def test_a_storage_that_signs_keeps_the_contract(rule: str, tmp_path: Path) -> None:
    assert not breaks(rule, SigningStorage(), tmp_path)


# The faulty storage


class TestContractOfFaultyMemory(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return Faulty(MemoryStorage())

    def make_readonly(self, storage: Any) -> Storage:
        storage.inner.readonly = True
        return Faulty(storage.inner)


class TestContractOfFaultyLocal(TestContractOfFaultyMemory):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return Faulty(LocalStorage(tmp_path / "root"))


def test_has_the_abilities_of_the_storage_inside(tmp_path: Path) -> None:
    for inner in (MemoryStorage(), LocalStorage(tmp_path), SigningStorage()):
        for ability in (Copies, HasPath, TakesFile, Unfinished, SignsDownloads):
            assert isinstance(Faulty(inner), ability) == isinstance(inner, ability)
    assert Faulty(LocalStorage(tmp_path)).root == tmp_path
    assert Faulty(MemoryStorage(parallel=3, readonly=True)).parallel == 3
    assert Faulty(MemoryStorage(readonly=True)).readonly


def test_fails_at_the_call_that_it_is_told() -> None:
    error = OSError("disk full")
    storage = Faulty(MemoryStorage())
    put(storage, "before", b"x")
    storage.fail("put", on=3, error=error)
    put(storage, "1", b"x")
    put(storage, "2", b"x")
    with raises(OSError) as raised:
        put(storage, "3", b"x")
    assert raised == [error]
    put(storage, "4", b"x")
    assert listed(storage) == ["1", "2", "4", "before"]


def test_fails_at_every_call_until_it_is_healed() -> None:
    storage = Faulty(MemoryStorage()).fail("stat", error=TimeoutError).fail("keys")
    for _ in range(3):
        with raises(TimeoutError):
            storage.stat("a")
        with raises(OSError):
            storage.keys()
    put(storage, "a", b"x")
    assert storage.heal().stat("a").size == 1


@pytest.mark.parametrize(
    "verb", ["put", "open", "stat", "delete", "keys", "copy", "path", "take", "discard_unfinished"]
)
def test_every_verb_can_fail(verb: str, tmp_path: Path) -> None:
    storage: Any = Faulty(LocalStorage(tmp_path / "root"))
    arguments: dict[str, Any] = {
        "put": ("b", io.BytesIO()),
        "delete": (["a"],),
        "keys": (),
        "copy": ("a", "b"),
        "take": ("b", Path(__file__)),
        "discard_unfinished": (datetime.now(UTC),),
    }
    options = {"size": 0, "content_type": ""} if verb == "put" else {}
    put(storage, "a", b"x")
    storage.fail(verb, error=ZeroDivisionError)
    with raises(ZeroDivisionError):
        getattr(storage, verb)(*arguments.get(verb, ("a",)), **options)
    assert listed(storage.inner) == ["a"]
    assert storage.calls[-1] == Call(verb, storage.calls[-1].args)


def test_fails_after_its_work_was_done() -> None:
    storage = Faulty(MemoryStorage()).fail("put", error=TimeoutError, after=True)
    with raises(TimeoutError):
        put(storage, "a", b"x")
    assert listed(storage) == ["a"]


def test_any_verb_counts_where_it_is_told_so() -> None:
    happened: list[str] = []
    storage = Faulty(MemoryStorage()).at("*", 3, lambda: happened.append(storage.calls[-1].verb))
    put(storage, "a", b"x")
    storage.stat("a")
    storage.delete(["a"])
    listed(storage)
    assert happened == ["delete"]


def test_records_calls_with_their_arguments() -> None:
    storage = Faulty(MemoryStorage())
    put(storage, "a", b"x")
    storage.open("a", 1, end=2)
    storage.delete(["a", "b"])
    assert [call.verb for call in storage.calls] == ["put", "open", "delete"]
    assert storage.calls[0].args[0] == "a"
    assert storage.calls[1:] == [Call("open", ("a", 1, 2)), Call("delete", (["a", "b"],))]


def test_refuses_a_verb_that_is_none() -> None:
    with pytest.raises(ValueError, match="has no verb 'path'"):
        Faulty(MemoryStorage()).fail("path")


@pytest.mark.parametrize("end", ["release", "heal"])
def test_hangs_until_it_is_released(end: str) -> None:
    storage = Faulty(MemoryStorage()).hang("put")
    threads = [threading.Thread(target=put, args=(storage, key, b"x")) for key in "ab"]
    for thread in threads:
        thread.start()
    assert storage.wait_for_hang()
    assert storage.wait_for_hang()
    assert not storage.wait_for_hang(timeout=0.01)
    assert listed(storage) == []
    getattr(storage, end)()
    for thread in threads:
        thread.join(10)
    assert listed(storage) == ["a", "b"]


def test_hangs_for_a_while() -> None:
    storage = Faulty(MemoryStorage()).hang("put", on=1, seconds=0.05)
    started = time.monotonic()
    put(storage, "a", b"x")
    assert time.monotonic() - started >= 0.05
    assert listed(storage) == ["a"]


def test_hangs_again_after_it_was_released() -> None:
    storage = Faulty(MemoryStorage()).hang("put", on=1)
    storage.release()
    put(storage, "a", b"x")
    storage.hang("put", seconds=0.05)
    started = time.monotonic()
    put(storage, "b", b"x")
    assert time.monotonic() - started >= 0.05


def test_counts_calls_of_many_threads() -> None:
    storage = Faulty(MemoryStorage()).fail("put", on=50, error=ZeroDivisionError)
    failed: list[str] = []

    def work(number: int) -> None:
        for turn in range(25):
            try:
                put(storage, f"{number}-{turn}", b"x")
            except ZeroDivisionError:
                failed.append(f"{number}-{turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failed) == 1
    assert len(listed(storage)) == 99


# The contract's own stream


def test_the_stream_of_the_contract_gives_no_more_than_is_asked_for() -> None:
    stream = Stream([b"abc", lambda: b"d"])
    assert [stream.read(2), stream.read(2), stream.read(), stream.read()] == [b"ab", b"c", b"d", b""]
