"""DocumentFiles: files that documents name which are no rows, and the transaction that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import transaction
from sqlalchemy import MetaData
from sqlalchemy.engine import URL

from ... import desk
from ...attachment import Attachment, binding_of, body_of, facts_of, origin_of
from ...descriptor import named
from ...errors import BadConfiguration
from ...files import Storages
from ...processing.steps import Step
from ...processing.steps import run as run_steps
from ...staging import Token
from ...storages.registry import Value
from ...sweep import SweepReport
from ...upload import Upload
from .keeper import Keeper, Staged
from .manager import FilesManager

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
        self._keeper = Keeper(self.storages, metadata, ledger, is_named, in_doubt_for)
        self._transaction_manager = transaction_manager

    @property
    def engine(self) -> Any:
        """SQLAlchemy's engine of the ledger's database."""
        return self._keeper.doubts.engine

    # In a transaction

    def stage(self, attachment: A, *, storage: str | None = None, steps: Iterable[Step] = ()) -> A:
        """Store a new attachment at once, for a document of the current transaction; write ``to_json()`` of what is
        returned into it. The file is removed if the transaction is aborted.

        One that ``DocumentFiles.storages.stage`` stored before the transaction is taken as it is; any other stored one
        belongs to somebody, and is copied. Raises what a step, the source or the storage raises.
        """
        desk.check(attachment)
        manager = self._manager()
        token = origin_of(attachment)
        waiting = isinstance(token, Token) and not token.used and self._is_ours(attachment)
        if not waiting:
            new = attachment.copy() if attachment.is_stored else attachment
            ready = run_steps(tuple(steps), new, "a document's file")
            body = body_of(ready)
            self._keeper.meet(self.storages.real(storage or (body.storage if isinstance(body, Upload) else None)))
            attachment = self.storages.stage(ready, storage=storage)
            token = origin_of(attachment)
        else:
            self._keeper.meet(attachment.storage)
        assert isinstance(token, Token)
        for index, file in enumerate(named(facts_of(attachment))):
            manager.stage(Staged(file, token if not index else Token(None), fresh=not waiting))
        return attachment

    def drop(self, attachment: Attachment) -> None:
        """A document names the file no longer, if the transaction is committed: it is removed then, or when ``retain``
        is over. BadConfiguration if it is of other ``Storages``.
        """
        desk.check(attachment)
        if binding_of(attachment) is not None and not self._is_ours(attachment):
            raise BadConfiguration(f"{attachment!r} is not of these files, but of other Storages: drop it there")
        manager = self._manager()
        for file in named(facts_of(attachment)):
            manager.drop(file)

    def bind(self, text: str, attachment_class: type[A] = Attachment) -> A:  # type: ignore[assignment]
        """The attachment that a document holds as ``to_json()``. Never pass what a client sent."""
        return self.storages.bind(text, attachment_class)

    # Care

    def recover(self, in_doubt_for: timedelta | None = None) -> Recovered:
        """Ask the documents about what killed processes and failed commits left in doubt, longer ago than
        ``in_doubt_for``, which is to be longer than any commit takes: one that is on its way would lose its files.
        Raises what ``is_named`` raises; what was not asked stays in doubt.
        """
        kept, removed = self._keeper.recover(self._keeper.in_doubt_for if in_doubt_for is None else in_doubt_for)
        return Recovered(kept, removed)

    def sweep(self, **options: Any) -> SweepReport:
        """``recover``, then ``Storages.sweep`` of this ledger, with its options. To be run regularly."""
        self.recover()
        return self.storages.sweep(self.engine, **options)

    # Behind the curtain

    def _manager(self) -> FilesManager:
        """Of the current transaction, which it joins."""
        current = self._transaction_manager.get()
        try:
            manager: FilesManager | None = current.data(self)
        except KeyError:
            manager = None
        if manager is None or manager.is_over:  # a savepoint that is older than it was rolled back
            manager = FilesManager(self._keeper, current, self._transaction_manager)
            manager.begin()
            current.set_data(self, manager)
        manager.check()
        return manager

    def _is_ours(self, attachment: Attachment) -> bool:
        return getattr(binding_of(attachment), "files", None) is self.storages
