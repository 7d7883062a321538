"""For tests: the contract that every storage keeps, and a storage that fails on command.

Whoever writes a backend runs the contract on it:

>>> import pytest
>>> from sa_attachments.storages.memory import MemoryStorage
>>> class TestMemory(StorageContract):
...     @pytest.fixture
...     def storage(self):
...         return MemoryStorage()

and whoever wants to see what an application makes of a full disk:

>>> import io
>>> storage = Faulty(MemoryStorage()).fail("put", on=2, error=OSError("disk full"))
>>> storage.put("a", io.BytesIO(b""), size=0, content_type="text/plain")
>>> storage.put("b", io.BytesIO(b""), size=0, content_type="text/plain")
Traceback (most recent call last):
OSError: disk full
>>> [call.verb for call in storage.calls], [key for key, modified in storage.keys()]
(['put', 'put'], ['a'])

The package's pytest plugin adds the fixture ``override_storages`` (see ``sa_attachments.pytest_plugin``).
"""

from .contract import StorageContract
from .faulty import Call, Faulty

__all__ = ["Call", "Faulty", "StorageContract"]
