"""DocumentFiles: files that documents name which are no rows, and the transaction that they share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import transaction
from sqlalchemy import MetaData
from sqlalchemy.engine import URL

from ...attachment import Attachment, binding_of, body_of, facts_of, origin_of
from ...descriptor import Named, named
from ...files import Storages
from ...frames import Frame, Work
from ...ledger import Ledger
from ...processing.steps import Step
from ...processing.steps import run as run_steps
from ...staging import Scope, Token
from ...storages.registry import Value
from ...sweep import SweepReport
from ...upload import Upload
from .doubts import Doubt, Doubts
from .manager import FilesManager, Staged

log = logging.getLogger("sa_attachments")

A = TypeVar("A", bound=Attachment)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What ``recover`` found out: numbers of files."""

    kept: int = 0
    """A document names them."""
    removed: int = 0
    """None does."""


class DocumentFiles:
    """Files of documents in ZODB, MongoDB or anything else that joins the transaction; see the package."""

    def __init__(
        self,
        mapping: Value | Mapping[str, Value] | None,
        ledger: str | URL = "sqlite:///attachments.db",
        *,
        is_named: Callable[[str], bool],
        in_doubt_for: timedelta = timedelta(minutes=10),
        transaction_manager: Any = transaction.manager,
        **options: Any,
    ) -> None:
        """
        :param mapping: the storages, as of ``Storages``; their places are this ledger's alone.
        :param ledger: URL of the database of the ledger; its tables are made when they are not there.
        :param is_named: tells of a key whether a committed document names it. It is called after failed commits and by
            ``recover``, and asks the database itself, not what a transaction of this thread sees.
        :param in_doubt_for: a document that is not there so long after the vote will never be.
        :param transaction_manager: whose transactions are joined.
        :param options: those of ``Storages``.
        """
        metadata = MetaData()
        self.storages = Storages(mapping, ledger=metadata, **options)
        """For ``configure``, ``override``, ``settled``, …"""
        self._doubts = Doubts(ledger, Ledger.of(metadata), metadata)
        self._is_named = is_named
        self._in_doubt_for = in_doubt_for
        self._transaction_manager = transaction_manager
        self._scope = Scope(self.storages, self._doubts.ledger, self.engine)
        self._identity: int | str | None = None
        self._met: set[tuple[str, int]] = set()

    @property
    def engine(self) -> Any:
        """SQLAlchemy's engine of the ledger's database."""
        return self._doubts.engine

    # In a transaction

    def stage(self, attachment: A, *, storage: str | None = None, steps: Iterable[Step] = ()) -> A:
        """Store a new attachment at once, for a document of the current transaction; write ``to_json()`` of what is
        returned into it. The file is removed if the transaction is aborted.

        One that ``DocumentFiles.storages.stage`` stored before the transaction is taken as it is; any other stored one
        belongs to somebody, and is copied. Raises what a step, the source or the storage raises.
        """
        manager = self._manager()
        token = origin_of(attachment)
        waiting = isinstance(token, Token) and not token.used and self._is_ours(attachment)
        if not waiting:
            new = attachment.copy() if attachment.is_stored else attachment
            ready = run_steps(tuple(steps), new, "a document's file")
            body = body_of(ready)
            self._meet(self.storages.real(storage or (body.storage if isinstance(body, Upload) else None)))
            attachment = self.storages.stage(ready, storage=storage)
            token = origin_of(attachment)
        else:
            self._meet(attachment.storage)
        assert isinstance(token, Token)
        for index, file in enumerate(named(facts_of(attachment))):
            manager.stage(Staged(file, token if not index else Token(None), fresh=not waiting))
        return attachment

    def drop(self, attachment: Attachment) -> None:
        """A document names the file no longer, if the transaction is committed: it is removed then, or when ``retain``
        is over.
        """
        manager = self._manager()
        for file in named(facts_of(attachment)):
            manager.drop(file)

    def bind(self, text: str, attachment_class: type[A] = Attachment) -> A:  # type: ignore[assignment]
        """The attachment that a document holds as ``to_json()``. Never pass what a client sent."""
        return self.storages.bind(text, attachment_class)

    # Care

    def recover(self, in_doubt_for: timedelta | None = None) -> Recovered:
        """Ask the documents about what killed processes and failed commits left in doubt, longer ago than
        ``in_doubt_for``. Raises what ``is_named`` raises; what was not asked stays in doubt.
        """
        self._doubts.create()
        found = self._doubts.older(self._in_doubt_for if in_doubt_for is None else in_doubt_for)
        verdicts = [(doubt, bool(self._is_named(doubt.named.key))) for doubt in found]
        self._settle(verdicts)
        kept = {doubt.named for doubt, is_named in verdicts if is_named}
        return Recovered(len(kept), len({doubt.named for doubt, _ in verdicts} - kept))

    def sweep(self, **options: Any) -> SweepReport:
        """``recover``, then ``Storages.sweep`` of this ledger, with its options. To be run regularly."""
        self.recover()
        return self.storages.sweep(self.engine, **options)

    # What the manager of a transaction asks for

    def promise(self, transaction_id: str, staged: Sequence[Named], dropped: Sequence[Named]) -> None:
        """See ``Keeper``."""
        self._doubts.promise(transaction_id, staged, dropped, self.storages.own_within)

    def committed(self, transaction_id: str, staged: Sequence[Staged], dropped: Sequence[Named]) -> None:
        """See ``Keeper``."""
        given = [(each.token.path, each.named) for each in staged if each.token.path is not None]
        verdicts = [(Doubt(transaction_id, each.named, True), True) for each in staged]
        verdicts += [(Doubt(transaction_id, file, False), False) for file in dropped]
        self._settle(verdicts, Work(given=given))

    def failed(self, transaction_id: str, staged: Sequence[Staged]) -> None:
        """See ``Keeper``. What is not there may still come for a while."""
        found = self._doubts.of(transaction_id)
        if not found:  # It was the vote itself that failed.
            for each in staged:
                each.free()
            self.remove([each.named for each in staged if each.fresh])
            return
        verdicts = [(doubt, bool(self._is_named(doubt.named.key))) for doubt in found]
        is_final = not self._in_doubt_for
        self._settle([each for each in verdicts if is_final or each[1] is each[0].wanted])

    def remove(self, files: Sequence[Named]) -> None:
        """See ``Keeper``."""
        if files:
            frame = Frame()
            frame.works[self._scope] = Work(void=list(files), identity=self._identity)
            self.storages.settle(frame)

    # Behind the curtain

    def _settle(self, verdicts: Sequence[tuple[Doubt, bool]], work: Work | None = None) -> None:
        work = work or Work()
        if verdicts:
            work.dropped += self._doubts.settle(verdicts, self.storages.retain)
        frame = Frame()
        frame.marked = True
        frame.works[self._scope] = work
        self.storages.settle(frame)

    def _manager(self) -> FilesManager:
        """Of the current transaction, which it joins."""
        current = self._transaction_manager.get()
        try:
            manager: FilesManager | None = current.data(self)
        except KeyError:
            manager = None
        if manager is None or manager.is_over:  # a savepoint that is older than it was rolled back
            manager = FilesManager(self, current, self._transaction_manager)
            manager.begin()
            current.set_data(self, manager)
        manager.check()
        return manager

    def _meet(self, name: str) -> None:
        """Before something is stored in a place for the first time: make the tables, and mark it as this database's."""
        about = name, id(self.storages.resolve(name))
        if about not in self._met:
            self._doubts.create()
            with self.engine.begin() as connection:
                self._identity = self._doubts.ledger.identity(connection)
                self.storages.meet(self._doubts.ledger, connection, name)
            self._met.add(about)

    def _is_ours(self, attachment: Attachment) -> bool:
        return getattr(binding_of(attachment), "files", None) is self.storages
