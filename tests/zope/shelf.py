"""Shelf: documents in one JSON file, which joins transactions of the ``transaction`` package: a small database that is
no database. Its data manager writes a new file in the vote, and puts it in the place of the old one in ``tpc_finish``;
or with ``one_phase`` already in the vote, as whatever can't vote does, and then it sorts last.

``at`` is called with the name of each phase before it happens, and with ``"after …"`` when it did: to fail, to count.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager
from zope.interface import implementer

Texts = dict[str, str]


class Shelf:
    """See the module. Documents are texts by name."""

    def __init__(self, path: Path, manager: Any, *, one_phase: bool = False, sort: str | None = None) -> None:
        self.path = path
        self.manager = manager
        self.one_phase = one_phase
        self.sort = ("~shelf" if one_phase else "shelf") if sort is None else sort
        self.at: Callable[[str], None] = lambda phase: None

    def committed(self) -> Texts:
        """What everybody sees."""
        return json.loads(self.path.read_text()) if self.path.exists() else {}

    def is_named(self, key: str) -> bool:
        """Whether a committed document holds the text."""
        return any(key in text for text in self.committed().values())

    def get(self, name: str) -> str | None:
        """What the transaction of this shelf sees."""
        return self._joined().texts.get(name)

    def set(self, name: str, text: str | None) -> None:
        """None removes it."""
        texts = self._joined().texts
        if text is None:
            texts.pop(name, None)
        else:
            texts[name] = text

    def _joined(self) -> ShelfManager:
        current = self.manager.get()
        try:
            joined: ShelfManager | None = current.data(self)
        except KeyError:
            joined = None
        if joined is None or joined.over:
            joined = ShelfManager(self)
            current.join(joined)
            current.set_data(self, joined)
        return joined


@implementer(ISavepointDataManager)
class ShelfManager:
    def __init__(self, shelf: Shelf) -> None:
        self.transaction_manager = shelf.manager
        self.texts = shelf.committed()
        self.over = False
        self._shelf = shelf
        self._new = shelf.path.with_suffix(".new")

    def abort(self, transaction: Any) -> None:
        self._shelf.at("abort")
        self.over = True

    def tpc_begin(self, transaction: Any) -> None:
        self._step("tpc_begin")

    def commit(self, transaction: Any) -> None:
        self._step("commit")

    def tpc_vote(self, transaction: Any) -> None:
        self._step("tpc_vote", self._publish if self._shelf.one_phase else self._write)

    def tpc_finish(self, transaction: Any) -> None:
        self._step("tpc_finish", (lambda: None) if self._shelf.one_phase else self._replace)

    def tpc_abort(self, transaction: Any) -> None:
        self.over = True
        self._new.unlink(missing_ok=True)

    def sortKey(self) -> str:
        return self._shelf.sort

    def savepoint(self) -> ShelfSavepoint:
        return ShelfSavepoint(self)

    def _step(self, phase: str, work: Callable[[], None] = lambda: None) -> None:
        self._shelf.at(phase)
        work()
        self._shelf.at(f"after {phase}")

    def _write(self) -> None:
        self._new.write_text(json.dumps(self.texts))

    def _replace(self) -> None:
        self._new.replace(self._shelf.path)

    def _publish(self) -> None:
        self._write()
        self._replace()


@implementer(IDataManagerSavepoint)
class ShelfSavepoint:
    def __init__(self, manager: ShelfManager) -> None:
        self._manager = manager
        self._texts = dict(manager.texts)

    def rollback(self) -> None:
        self._manager.texts = dict(self._texts)
