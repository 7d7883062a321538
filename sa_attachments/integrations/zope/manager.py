"""Manager: the data manager of one transaction, and its savepoints; in the order of the protocol.

It votes first of all, so that files are owned before any document can be committed, by whomever. From then on nobody
can say how the transaction will end but the documents themselves, and they are asked if it fails. It does nothing in
``tpc_finish``: others may fail there after it. What is left to do is done when all of them are through, in
``afterCompletion``.
"""

from __future__ import annotations

import logging
from typing import Any
from uuid import uuid4

from sqlalchemy.exc import DBAPIError
from transaction.interfaces import IDataManagerSavepoint, ISavepointDataManager, ISynchronizer
from zope.interface import implementer

from ...descriptor import Named
from ...errors import BadConfiguration
from ...patience import raise_unless_held
from .keeper import Keeper, Staged

log = logging.getLogger("sa_attachments")


@implementer(ISavepointDataManager, ISynchronizer)
class FilesManager:
    """See the module, and ``transaction.interfaces`` for what the methods promise."""

    def __init__(self, keeper: Keeper, transaction: Any, transaction_manager: Any) -> None:
        self.transaction_manager = transaction_manager
        self.transaction = transaction
        self.id = uuid4().hex
        self._keeper = keeper
        # That of this thread: another one may end the transaction.
        self._synchronized = getattr(transaction_manager, "manager", transaction_manager)
        self._staged: list[Staged] = []
        self._dropped: list[Named] = []
        self._voted = False
        self._over = False

    # What the application does

    def stage(self, staged: Staged) -> None:
        """Own a file if the transaction is committed."""
        staged.token.used = True
        self._staged.append(staged)

    def drop(self, named: Named) -> None:
        """Condemn a file if the transaction is committed."""
        if named not in self._dropped:
            self._dropped.append(named)

    def check(self) -> None:
        """BadConfiguration if it is too late for both."""
        if self._voted:
            raise BadConfiguration("the transaction has voted on its files: stage and drop them before it is committed")

    @property
    def is_over(self) -> bool:
        """Whether a savepoint that is older than this manager was rolled back, or the transaction ended."""
        return self._over

    # IDataManager

    def abort(self, transaction: Any) -> None:
        """Remove what was staged, unless the vote was begun: then the documents are asked."""
        if not (self._voted or self._over):
            self._end()
            self._keeper.remove(self._staged)

    def tpc_begin(self, transaction: Any) -> None:
        """Nothing: it was all done when the application asked for it."""

    def commit(self, transaction: Any) -> None:
        """Nothing."""

    def tpc_vote(self, transaction: Any) -> None:
        """Own what was staged, durably. OwnershipLost if it was staged too long ago."""
        dropped = set(self._dropped)
        unwanted = [each for each in self._staged if each.named in dropped]
        staged = [each for each in self._staged if each.named not in dropped]
        dropped -= {each.named for each in unwanted}
        self._staged, self._dropped = staged, [named for named in self._dropped if named in dropped]
        self._keeper.remove(unwanted)
        self._voted = True
        if staged or self._dropped:
            self._keeper.promise(self.id, staged, self._dropped)

    def tpc_finish(self, transaction: Any) -> None:
        """Nothing, so that it can't fail; see ``afterCompletion``."""

    def tpc_abort(self, transaction: Any) -> None:
        """Nothing: others are not aborted yet; see ``afterCompletion``."""

    def sortKey(self) -> str:
        """Before all others, of whom one may start with a space."""
        return f"\0sa_attachments:{self.id}"

    def savepoint(self) -> FilesSavepoint:
        """See ``FilesSavepoint``."""
        return FilesSavepoint(self, len(self._staged), len(self._dropped))

    def should_retry(self, error: BaseException) -> bool:
        """Whether the ledger was locked by somebody for too long."""
        if not isinstance(error, DBAPIError):
            return False
        try:
            raise_unless_held(error)
        except DBAPIError:
            return False
        return True

    # ISynchronizer

    def newTransaction(self, transaction: Any) -> None:
        """Nothing."""

    def beforeCompletion(self, transaction: Any) -> None:
        """Nothing."""

    def afterCompletion(self, transaction: Any) -> None:
        """All others are through: settle what was promised. Raises nothing."""
        if transaction is not self.transaction or self._over:
            return
        self._end()
        if self._voted and (self._staged or self._dropped):
            try:
                if transaction.status == COMMITTED:
                    self._keeper.committed(self.id, self._staged, self._dropped)
                else:
                    self._keeper.failed(self.id, self._staged)
            except Exception:
                log.warning("what became of files is not known, DocumentFiles.recover() asks later", exc_info=True)

    # Behind the curtain

    def begin(self) -> None:
        """Join the transaction. Raises what it raises if it is being committed."""
        self.transaction.join(self)
        self._synchronized.registerSynch(self)

    def roll_back(self, staged: int, dropped: int) -> None:
        """To a savepoint."""
        void, self._staged = self._staged[staged:], self._staged[:staged]
        del self._dropped[dropped:]
        self._keeper.remove(void)

    def _end(self) -> None:
        self._over = True
        self._synchronized.unregisterSynch(self)


@implementer(IDataManagerSavepoint)
class FilesSavepoint:
    """What was staged until then; a rollback removes the rest, and forgets what was dropped since."""

    def __init__(self, manager: FilesManager, staged: int, dropped: int) -> None:
        self._manager = manager
        self._counts = staged, dropped

    def rollback(self) -> None:
        """See ``transaction.interfaces``."""
        self._manager.roll_back(*self._counts)


COMMITTED = "Committed"  # transaction._transaction.Status has no public name
