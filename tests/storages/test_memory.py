from __future__ import annotations

import pytest

from sa_attachments.errors import BadConfiguration
from sa_attachments.storage import Copies, HasPath, SignsDownloads, Storage, TakesFile, Unfinished
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.storages.url import StorageURL
from sa_attachments.testing import StorageContract
from sa_attachments.testing.probes import listed, put


class TestContract(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


def test_is_configured_by_its_url() -> None:
    storage = MemoryStorage.from_url(StorageURL("memory:?readonly=true&parallel=3"))
    assert (storage.readonly, storage.parallel) == (True, 3)
    storage = MemoryStorage.from_url(StorageURL("memory:"))
    assert (storage.readonly, storage.parallel) == (False, 1)


@pytest.mark.parametrize("url", ["memory:x", "memory:?durable=false", "memory:?parallel=0"])
def test_refuses_a_url_that_makes_no_sense(url: str) -> None:
    with pytest.raises(BadConfiguration):
        MemoryStorage.from_url(StorageURL(url))


def test_has_one_ability() -> None:
    abilities = [Copies, HasPath, TakesFile, Unfinished, SignsDownloads]
    assert [ability for ability in abilities if isinstance(MemoryStorage(), ability)] == [Copies]


def test_each_is_a_place_of_its_own() -> None:
    one, other = MemoryStorage(), MemoryStorage()
    put(one, "a", b"x")
    assert (listed(one), listed(other)) == (["a"], [])


def test_keeps_the_content_type() -> None:
    storage = MemoryStorage()
    put(storage, "a", b"x")
    storage.copy("a", "b")
    assert storage.stat("a").content_type == storage.stat("b").content_type == "text/plain"
