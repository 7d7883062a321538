"""Excuses: why a flush or a statement may fail."""

from __future__ import annotations

from sqlalchemy.exc import IntegrityError, OperationalError, SAWarning
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from sa_attachments import OwnershipLost, StorageFailed

from .world import World


class Excuses:
    """What was known before it was tried."""

    def __init__(self, world: World, *, lost: bool, clash: bool, stale: bool, locked: bool) -> None:
        """
        :param lost: a file that is to be named, or copied, is gone.
        :param clash: a constraint will be violated.
        :param stale: an object stands for a row that is gone.
        :param locked: another session may hold a lock on a row, a title or a file.
        """
        self._world = world
        self._fired = world.fired
        self._lost = lost
        self._clash = clash
        self._stale = stale
        self._locked = locked

    def cover(self, error: Exception) -> bool:
        match error:
            case StorageFailed():
                return self._world.fired > self._fired
            case OwnershipLost():
                return self._lost
            case IntegrityError():
                return self._clash
            case StaleDataError() | ObjectDeletedError() | SAWarning():
                return self._stale
            case OperationalError():
                return self._locked and "lock timeout" in str(error)
            case _:
                return False
