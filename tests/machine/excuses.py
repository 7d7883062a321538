"""Excuses: why a flush or a statement may fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SAWarning
from sqlalchemy.orm.base import NO_VALUE
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError

from sa_attachments import Attachment, OwnershipLost, StorageFailed

from .model import Row
from .models import PLURAL
from .wishes import ABSENT, Hopes, Wish, original
from .world import World


class Excuses:
    """What was known before it was tried."""

    def __init__(self, world: World, *, lost: bool, clash: bool, stale: bool, unseen: bool, locked: bool) -> None:
        """
        :param lost: a file that is to be named, or copied, is gone.
        :param clash: a constraint will be violated.
        :param stale: an object stands for a row that is gone.
        :param unseen: a list would take away what others added to it, and its session never saw.
        :param locked: another session may hold a lock on a row, a title or a file.
        """
        self._world = world
        self._fired = world.fired
        self._lost = lost
        self._clash = clash
        self._stale = stale
        self.unseen = unseen
        self._locked = locked

    @classmethod
    def before(
        cls,
        world: World,
        visible: Mapping[int, Row],
        hopes: Hopes,
        wishes: Mapping[int, Wish],
        given: Sequence[Attachment],
        clash: bool,
        is_locked: Callable[[set[Any]], bool],
    ) -> Excuses:
        """What may excuse a flush of ``wishes``, or a statement with what is ``given``, over ``visible`` rows."""
        wanted = [*given, *(item for wish in wishes.values() for values in wish.slots.values() for item in values)]
        names = {name for item in wanted if (name := original(item)) is not None}
        titles = [wish.title for wish in wishes.values() if wish.title not in (ABSENT, None)]
        taken = {row.title for pk, row in visible.items() if pk not in wishes or wishes[pk].title != row.title}
        twice = any(wish.fresh and not wish.deleted and pk in visible for pk, wish in wishes.items())
        locks: set[Any] = {*hopes, *titles, *names}
        for row in (visible[pk] for pk in hopes if pk in visible):
            locks |= {row.title, *(entry.name for _, entry in row.entries())}
        locks |= {each.title for each in hopes.values() if each is not None}
        return cls(
            world,
            lost=not names <= set(world.stored()) - world.unheard,
            clash=clash or twice or len(titles) > len(set(titles)) or not taken.isdisjoint(titles),
            stale=any(pk not in visible for pk, wish in wishes.items() if wish.deleted or not wish.fresh),
            unseen=any(_unseen(world, visible[pk], wish) for pk, wish in wishes.items() if pk in visible and hopes[pk]),
            locked=is_locked(locks - {None}),
        )

    def cover(self, error: Exception) -> bool:
        match error:
            case StorageFailed():
                return self._world.fired > self._fired
            case OwnershipLost():
                return self._lost
            case IntegrityError():
                return self._clash
            case StaleDataError() | ObjectDeletedError() | SAWarning():
                return self._stale or self.unseen
            case DBAPIError() if is_lock(error):
                return self._locked and "lock timeout" in str(error)
            case _:
                return False


def _unseen(world: World, row: Row, wish: Wish) -> bool:
    seen = inspect(wish.doc).committed_state.get(PLURAL, NO_VALUE)
    if wish.fresh or seen is NO_VALUE:
        return False
    known = Counter(world.item(each).content for each in seen or ())
    return bool(Counter(entry.item.content for entry in row.slots[PLURAL]) - known)


def is_lock(error: DBAPIError) -> bool:
    """Whether a statement did not get a lock in time; asyncpg's error for that has no class of the DBAPI."""
    return isinstance(error, OperationalError) or getattr(error.orig, "sqlstate", None) == "55P03"
