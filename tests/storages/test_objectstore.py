from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from datetime import timedelta
from threading import Thread
from time import sleep
from urllib.parse import urlsplit
from urllib.request import urlopen
from uuid import uuid4

import pytest

pytest.importorskip("obstore", reason="object stores are tested where the extra gs or az is installed")

from obstore.store import AzureStore, MemoryStore

from sa_attachments import BadConfiguration
from sa_attachments.key import mint
from sa_attachments.storage import SignsDownloads
from sa_attachments.storages import StorageURL, objectstore
from sa_attachments.storages.objectstore import MIB, ObjectStorage, azure, google
from sa_attachments.testing import StorageContract
from sa_attachments.testing.probes import Stream, listed, put, raises, read
from tests.proxy import Proxy
from tests.servers import free_port

AZURE = os.environ.get("SA_ATTACHMENTS_TEST_AZURE")
"""URL of an emulator, as ``http://127.0.0.1:10000/devstoreaccount1``, whose key is the one that all emulators have."""
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

Make = Callable[..., ObjectStorage]


class TestInMemory(StorageContract):
    """What is ours is right; obstore's store in memory stands for the place."""

    @pytest.fixture
    def storage(self) -> ObjectStorage:
        return ObjectStorage(MemoryStore(), "some/prefix")


@pytest.fixture
def make() -> Make:
    """Storages in a container of this test, on Azure's emulator."""
    if AZURE is None:
        pytest.skip("no Azure: set SA_ATTACHMENTS_TEST_AZURE=http://127.0.0.1:10000/devstoreaccount1 (azurite)")
    container = f"test-{uuid4().hex}"
    _create(container)

    def make(prefix: str = "some/prefix", options: str = "", endpoint: str = AZURE) -> ObjectStorage:
        account, key = AZURE.rpartition("/")[2], KEY.replace("+", "%2B")
        place = f"az://{account}/{container}/{prefix}"
        return azure(StorageURL(f"{place}?endpoint_url={endpoint}&account_key={key}{options}"))

    return make


def _create(container: str) -> None:
    """Make a container, by a request signed with the emulator's key."""
    import base64
    import hmac
    from datetime import UTC, datetime
    from urllib.request import Request

    assert AZURE is not None
    account = AZURE.rpartition("/")[2]
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    signed = "\n".join(f"{name}:{value}" for name, value in sorted(headers.items()))
    text = "PUT" + "\n" * 12 + f"{signed}\n/{account}/{account}/{container}\nrestype:container"
    digest = base64.b64encode(hmac.digest(base64.b64decode(KEY), text.encode(), "sha256")).decode()
    headers |= {"Authorization": f"SharedKey {account}:{digest}", "Content-Length": "0"}
    with urlopen(Request(f"{AZURE}/{container}?restype=container", method="PUT", headers=headers), timeout=30):
        pass


class TestAzure(StorageContract):
    @pytest.fixture
    def storage(self, make: Make) -> ObjectStorage:
        return make()


def test_a_large_file_goes_up_in_parts_and_comes_back(make: Make) -> None:
    storage = make(options="&part_size=5")
    data = os.urandom(MIB) * 17 + b"end"
    for size in (len(data), None):
        key = mint()
        storage.put(key, io.BytesIO(data), size=size, content_type="video/mp4")
        assert hashlib.sha256(read(storage, key)).digest() == hashlib.sha256(data).digest()
        with storage.open(key, 5 * MIB - 2, 5 * MIB + 2) as file:
            assert file.read() == data[5 * MIB - 2 : 5 * MIB + 2]
        with raises(FileExistsError):
            storage.put(key, io.BytesIO(data), size=size, content_type="video/mp4")


def test_a_stream_that_breaks_in_a_later_part_leaves_nothing(make: Make) -> None:
    storage, error = make(options="&part_size=5"), RuntimeError("the stream broke")
    with raises(RuntimeError) as raised:
        storage.put(mint(), Stream([bytes(MIB)] * 12 + [error]), size=None, content_type="text/plain")
    assert raised == [error]
    assert listed(storage) == []


@pytest.mark.parametrize("size", [0, 1000, 6 * MIB])
def test_a_lost_answer_to_a_put_is_no_failure(make: Make, size: int) -> None:
    storage = make(options="&part_size=5")
    assert AZURE is not None
    address = urlsplit(AZURE)
    with Proxy(str(address.hostname), address.port or 80) as proxy:
        cut_off = make(options="&part_size=5", endpoint=f"http://127.0.0.1:{proxy.port}{address.path}")
        proxy.cut(down=MIB)
        put(cut_off, mint(), bytes(size))
        answered = MIB - (proxy.left_down or 0)
        proxy.cut(down=answered - 5)

        def heal() -> None:
            while proxy.left_down != 0:
                sleep(0.001)
            proxy.heal()

        healer = Thread(target=heal, daemon=True)
        healer.start()
        key = put(cut_off, mint(), bytes(size))
        healer.join(30)
        assert not healer.is_alive()
        assert len(read(storage, key)) == size
        with raises(FileExistsError):
            put(cut_off, key, bytes(size))


def test_where_nobody_answers_a_delete_does_not_ask_for_each_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would wait for minutes, and a sweep of hundreds for a day."""
    monkeypatch.setattr(objectstore, "_PATIENCE", 0)
    with Proxy("127.0.0.1", free_port()) as proxy:  # it hangs up, as nobody is behind it
        endpoint = f"http://127.0.0.1:{proxy.port}/account"
        store = AzureStore(
            "container",
            account_name="account",
            account_key=KEY,
            endpoint=endpoint,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        keys = [mint() for _ in range(5)]
        assert set(ObjectStorage(store).delete(keys)) == set(keys)
        assert proxy.accepted < len(keys)


def test_signed_addresses_end(make: Make) -> None:
    storage = make()
    assert isinstance(storage, SignsDownloads)
    key = put(storage, mint(), b"abc")
    address = storage.sign_download(key, expires=timedelta(minutes=1), filename="a", content_type="text/plain")
    with urlopen(address, timeout=30) as answer:
        assert answer.read() == b"abc"
    with pytest.raises(ValueError, match="7 days at most"):
        storage.sign_download(key, expires=timedelta(days=8), filename="a", content_type="text/plain")


def test_mistakes_are_explained_and_secrets_are_not_shown() -> None:
    with pytest.raises(BadConfiguration, match="expected a bucket, as gs://bucket/prefix"):
        google(StorageURL("gs:bucket"))
    for wrong in ("az:x", "az://account", "az://account/"):
        with pytest.raises(BadConfiguration, match="expected account and container"):
            azure(StorageURL(wrong))
    with pytest.raises(BadConfiguration, match=r"no option 'colour'; there are .*'account_key'") as raised:
        azure(StorageURL("az://account/container?colour=red&account_key=hidden"))
    assert "hidden" not in str(raised.value)
    assert "aGlkZGVu" not in repr(azure(StorageURL("az://account/container?account_key=aGlkZGVu")))


def test_a_child_of_who_used_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for threads that did not survive the fork."""
    storage = ObjectStorage(MemoryStore())
    monkeypatch.setitem(objectstore._used_in, "process", os.getppid())
    with pytest.raises(RuntimeError, match="do not survive a fork"):
        put(storage, "a", b"x")
    with pytest.raises(RuntimeError, match="do not survive a fork"):
        storage.delete(["a"])


def test_google_is_made_of_its_url() -> None:
    storage = google(StorageURL("gs://bucket/a/b?parallel=3&endpoint_url=http://127.0.0.1:1"))
    assert (storage.parallel, storage.prefix) == (3, "a/b/")
    assert isinstance(storage, SignsDownloads)
