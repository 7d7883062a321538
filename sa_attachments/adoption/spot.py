"""Spot: where a file of the old world lies, and the keys by which the ledger may know it.

In a folder of this machine that is a real path, since folders of several storages may lie in one another, and links
lead from one to another; elsewhere it is a key of a storage.

>>> list(Spot(None, "/srv/old/a/b.txt").aliases())
['b.txt', 'a/b.txt', 'old/a/b.txt', 'srv/old/a/b.txt']
>>> list(Spot("media", "a/b.txt").aliases())
['a/b.txt']
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from ..storage import Storage
from ..storages import well_formed

if TYPE_CHECKING:
    from ..storages.local import LocalStorage


class Spot(NamedTuple):
    """``key`` is a real path if ``storage`` is None."""

    storage: str | None
    key: str

    def aliases(self) -> Iterator[str]:
        """All keys that a storage may give to the file."""
        parts = [self.key] if self.storage is not None else self.key.split("/")[1:]
        for first in range(len(parts) - 1, -1, -1):
            key = "/".join(parts[first:])
            if well_formed(key):
                yield key

    def has(self, name: str, storage: Storage, key: str) -> bool:
        """Whether the storage of that name has it under this key."""
        return self in (Spot(name, key), spot_of(name, storage, key))


def spot_of(name: str, storage: Storage, key: str) -> Spot:
    """The spot of a key.

    >>> from sa_attachments.storages.memory import MemoryStorage
    >>> spot_of("media", MemoryStorage(), "a/b.txt")
    Spot(storage='media', key='a/b.txt')
    """
    if is_local(storage):
        return Spot(None, os.path.join(os.path.realpath(storage.root), key))  # noqa: PTH118
    return Spot(name, key)


def is_local(storage: object) -> TypeGuard[LocalStorage]:
    """Whether it is a folder of this machine."""
    from ..storages.local import LocalStorage  # what needs no folder is to be had where there is no Unix, too

    return isinstance(storage, LocalStorage)
