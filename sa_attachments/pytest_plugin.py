"""The pytest plugin: tests that store nothing where the application does.

    def test_avatar(override_storages, session):
        override_storages(myapp.files)          # until the test ends, all its names are in memory
        session.add(User(avatar=Attachment.upload(b"...")))
        session.commit()

pytest loads it by itself where sa_attachments is installed; it imports nothing of it until the fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from sa_attachments.storage import Storage
    from sa_attachments.storages.registry import Registry


class Override(Protocol):
    """What the fixture ``override_storages`` is."""

    def __call__(self, files: Registry, target: str | Storage | Mapping[str, str | Storage] = "memory:") -> None:
        """Let the names of ``files`` stand for ``target`` until the test ends, see ``Registry.override``."""
        ...


@pytest.fixture
def override_storages() -> Iterator[Override]:
    """A function ``override_storages(files, target="memory:")``: until the test ends, every name has a fresh storage.

    ``target`` may be a URL (``f"local:{tmp_path}?durable=false"``), a storage (``Faulty(MemoryStorage())``), or a
    mapping of names to these.
    """
    with ExitStack() as stack:

        def override(files: Registry, target: str | Storage | Mapping[str, str | Storage] = "memory:") -> None:
            stack.enter_context(files.override(target))

        yield override
