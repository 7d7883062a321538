"""Keeper: what is done for the files of one transaction, when it votes and when it is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.engine import URL

from ...descriptor import Named
from ...files import Storages
from ...frames import Frame, Work
from ...ledger import Ledger
from ...scope import Scope
from ...staging import Token
from .doubts import Doubt, Doubts


@dataclass(frozen=True, slots=True, eq=False)
class Staged:
    """A file that was put for a transaction, or before it (then it outlives an abort, for the next attempt)."""

    named: Named
    token: Token
    fresh: bool

    def free(self) -> None:
        """The transaction does not own it: another one may."""
        self.token.revert()


class Keeper:
    """The storages, the ledger, the doubts, and the one who can be asked."""

    def __init__(
        self,
        storages: Storages,
        metadata: MetaData,
        url: str | URL,
        is_named: Callable[[str], bool],
        in_doubt_for: timedelta,
    ) -> None:
        self.storages = storages
        self.doubts = Doubts(url, Ledger.of(metadata), metadata)
        self.in_doubt_for = in_doubt_for
        self._is_named = is_named
        self._scope = Scope(storages, self.doubts.ledger, self.doubts.engine)
        self._identities: set[int | str] = set()
        self._met: set[tuple[str, int]] = set()

    def meet(self, name: str) -> None:
        """Before something is stored in a place for the first time: make the tables, and mark it as this database's."""
        about = name, id(self.storages.resolve(name))
        if about not in self._met:
            self.doubts.create()
            with self.doubts.engine.begin() as connection:
                self._identities = {self.doubts.ledger.identity(connection)}
                self.storages.meet(self.doubts.ledger, connection, name)
            self._met.add(about)

    # One transaction

    def promise(self, transaction_id: str, staged: Sequence[Staged], dropped: Sequence[Named]) -> None:
        """Own what was staged, and note that it is in doubt; durable when it returns. OwnershipLost."""
        self.doubts.promise(transaction_id, [each.named for each in staged], dropped, self.storages.own_within)

    def committed(self, transaction_id: str, staged: Sequence[Staged], dropped: Sequence[Named]) -> None:
        """All data managers finished: documents are as the transaction wanted them."""
        given = [(each.token.given, each.named) for each in staged if each.token.given is not None]
        verdicts = [(Doubt(transaction_id, each.named, True), True) for each in staged]
        verdicts += [(Doubt(transaction_id, file, False), False) for file in dropped]
        self._settle(verdicts, Work(given=given))

    def failed(self, transaction_id: str, staged: Sequence[Staged]) -> None:
        """A data manager failed: documents may be as the transaction wanted them all the same. Those that are not may
        still come for a while.
        """
        found = self.doubts.of(transaction_id)
        if not found:  # It was the vote itself that failed.
            self.remove(staged)
            return
        verdicts = self._asked(found)
        is_final = not self.in_doubt_for
        self._settle([each for each in verdicts if is_final or each[1] is each[0].wanted])

    def remove(self, staged: Sequence[Staged]) -> None:
        """Delete files that nobody owned, and nobody will. Raises nothing."""
        for each in staged:
            each.free()
        void = [each.named for each in staged if each.fresh]
        if void:
            frame = Frame()
            frame.works[self._scope] = Work(void=void, identities={*self._identities})
            self.storages.settle(frame)

    # Whatever is in doubt

    def recover(self, in_doubt_for: timedelta) -> tuple[int, int]:
        """Ask about what has been in doubt for so long; returns how many files are kept, and how many are not."""
        self.doubts.create()
        verdicts = self._asked(self.doubts.older(in_doubt_for))
        self._settle(verdicts)
        kept = {doubt.named for doubt, is_named in verdicts if is_named}
        return len(kept), len({doubt.named for doubt, _ in verdicts} - kept)

    def _asked(self, doubts: Sequence[Doubt]) -> list[tuple[Doubt, bool]]:
        return [(doubt, bool(self._is_named(doubt.named.key))) for doubt in doubts]

    def _settle(self, verdicts: Sequence[tuple[Doubt, bool]], work: Work | None = None) -> None:
        work = work or Work()
        if verdicts:
            work.dropped += self.doubts.settle(verdicts, self.storages.retain)
        frame: Any = Frame()
        frame.marked = True
        frame.works[self._scope] = work
        self.storages.settle(frame)
