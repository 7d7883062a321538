"""Blobs: the bytes that a column holds, and back.

>>> from sa_attachments import Storages
>>> from sa_attachments.source import BytesSource
>>> reader = BlobReader(Plan("docs", "data", "file", Blobs()), Storages("memory:"))
>>> made = reader.make(Row((1,), size=5, filename="a.txt", source=BytesSource(b"hello")))
>>> made.value["filename"], made.value["size"], made.token == made.value["sha256"]
('a.txt', 5, True)
>>> reader.give_back([made.value], False).value
b'hello'
"""

from __future__ import annotations

from ..descriptor import Facts, named
from ..errors import FileMissing
from ..files import Storages
from .plan import Blobs, Plan
from .rows import Row
from .spot import Spot
from .taking import File, Made, Returned, Unadoptable, stored, whole


class BlobReader:
    """See ``Reader``. Raises UnknownStorage."""

    def __init__(self, plan: Plan, files: Storages) -> None:
        assert isinstance(plan.origin, Blobs)
        self._files = files
        self._label = plan.label
        self._name = files.real(plan.storage)
        self._storage = files.resolve(self._name)

    def storages(self) -> set[str]:
        return {self._name}

    def look(self, row: Row) -> None:
        return

    def make(self, row: Row, copying: bool = False) -> Made:
        if row.source is None:
            raise Unadoptable("unreadable", f"{self._label} holds text where bytes are due")
        facts = stored(
            row.source,
            self._name,
            self._storage,
            filename=row.filename,
            claimed=row.content_type,
            label=self._label,
        )
        return Made(row, facts, facts["sha256"], [File(each, True, False) for each in named(facts)])

    def spots(self, value: str) -> set[Spot]:
        return set()

    def give_back(self, items: list[Facts], plural: bool, avoid: frozenset[Spot] = frozenset()) -> Returned:
        if plural:
            raise Unadoptable("unreadable", f"{len(items)} attachments in a list do not fit into {self._label}")
        facts = items[0]
        storage = self._files.resolve(facts["storage"])
        try:
            return Returned(whole(storage, facts))
        except FileMissing as error:
            raise Unadoptable("missing", str(error)) from error
