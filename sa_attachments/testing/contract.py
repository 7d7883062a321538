"""StorageContract: what ``sa_attachments.storage`` promises, one method a rule, to be run on any storage.

A subclass gives the fixture ``storage``, a fresh and empty place for each test. Rules about abilities are skipped for
storages that don't have them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sa_attachments.key import mint
from sa_attachments.storage import Copies, Storage, TakesFile, Unfinished

from .abilities import Abilities
from .delete_and_keys import DeleteAndKeys
from .probes import listed, put, raises, read
from .put_and_open import PutAndOpen


class StorageContract(PutAndOpen, DeleteAndKeys, Abilities):
    """The rules. See the package for how to run them."""

    def make_readonly(self, storage: Storage) -> Storage:
        """The same place, readonly. To be overridden where setting the attribute does not do."""
        storage.readonly = True
        return storage

    def test_readonly_neither_writes_nor_deletes(self, storage: Storage) -> None:
        """``put``, ``copy`` and ``take`` raise PermissionError, ``delete`` reports it for each key; reading goes on."""
        key = put(storage, mint(), b"x")
        readonly = self.make_readonly(storage)
        with raises(PermissionError):
            put(readonly, "other", b"x")
        failed = readonly.delete([key, "other"])
        assert {name: type(error) for name, error in failed.items()} == {key: PermissionError, "other": PermissionError}
        if isinstance(readonly, Copies):
            with raises(PermissionError):
                readonly.copy(key, "other")
        if isinstance(readonly, TakesFile):
            with raises(PermissionError):
                readonly.take("other", Path(__file__))
        if isinstance(readonly, Unfinished):
            assert readonly.discard_unfinished(datetime.now(UTC)) == 0
        assert read(readonly, key) == b"x"
        assert listed(readonly) == [key]

    def test_says_how_much_may_run_at_once(self, storage: Storage) -> None:
        """``parallel`` is a number from 1."""
        assert isinstance(storage.parallel, int)
        assert storage.parallel >= 1
