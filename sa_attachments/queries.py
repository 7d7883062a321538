"""Queries: the statements on lines of a ledger that transactions run, each made once: to make one takes longer than to
carry it out.

Where one is for many lines, ``chunks.by_storage`` has its parameters.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Delete,
    Insert,
    Table,
    Update,
    and_,
    bindparam,
    case,
    delete,
    exists,
    false,
    func,
    literal_column,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.util import memoized_property  # has no lock that a fork finds closed, as functools' in Python 3.11

from .chunks import insert_ignoring
from .clock import now

OWNED, CONDEMNED, PURGING, GONE = "owned", "condemned", "purging", "gone"


class Queries:
    """Those of one ledger."""

    def __init__(self, lines: Table) -> None:
        self._lines = lines
        c, twin = lines.c, lines.alias()
        self._is_anothers = and_(
            c.owner_table.is_(None), exists().where(twin.c.key == c.key, twin.c.storage != c.storage)
        )
        """The condition that a line is a stranger's whose file is somebody's under the other name of a place."""
        self._these = c.key.in_(bindparam("keys", expanding=True)) & (c.storage == bindparam("of"))
        self._is_due = and_(self._these, c.state == CONDEMNED, c.purge_after <= now())
        self._claim = update(lines).values(state=PURGING, since=now(), purge_after=now())

    # In the transaction of the rows

    @memoized_property
    def own(self) -> Insert:
        """New lines, unless ``deadline`` is over."""
        # A line that comes too late must not be written at all, whenever the statement runs: NULL violates NOT NULL.
        since = case((now() < bindparam("deadline", type_=BigInteger), now()), else_=null())
        # No row names it yet: triggers, where there are any, count from 0.
        return self._lines.insert().values(state=literal_column(f"'{OWNED}'"), since=since, names=text("0"))

    @memoized_property
    def own_and_tell(self) -> Any:
        """The same on PostgreSQL, which tells what ``Ledger.identity`` would ask."""
        return self.own.returning(literal_column("tableoid", BigInteger))

    @memoized_property
    def write_nothing(self) -> Update:
        """What begins to write on SQLite."""
        return update(self._lines).where(false()).values(attempts=0)

    @memoized_property
    def drop(self) -> Update:
        """Condemn lines, due in ``keep`` milliseconds."""
        return self._condemn(prolong=False).where(self._these)

    @memoized_property
    def drop_later(self) -> Update:
        """The same, where that is not now."""
        return self._condemn(prolong=True).where(self._these)

    @memoized_property
    def retain(self) -> Update:
        """The same for one line, with what a restore needs."""
        c = self._lines.c
        what, who = bindparam("what", type_=c.descriptor.type), bindparam("who", type_=c.owner_pk.type)
        mine = and_(c.key == bindparam("k"), c.storage == bindparam("s"))
        return self._condemn(prolong=True).where(mine).values(descriptor=what, owner_pk=who)

    def _condemn(self, prolong: bool) -> Update:
        """Condemn what is owned and has no name, as far as triggers know; or ``prolong`` what they condemned."""
        c, due = self._lines.c, now() + bindparam("keep", type_=BigInteger)
        nameless = and_(c.state == OWNED, func.coalesce(c.names, 0) <= 0)
        if prolong:
            nameless = or_(nameless, and_(c.state == CONDEMNED, c.names == 0))
        later = case((c.purge_after > due, c.purge_after), else_=due)  # triggers may keep it longer
        return update(self._lines).where(nameless).values(state=CONDEMNED, since=now(), purge_after=later)

    # Afterwards

    @memoized_property
    def state(self) -> Any:
        """That of one line."""
        c = self._lines.c
        return select(c.state).where(c.key == bindparam("key"), c.storage == bindparam("storage"))

    @memoized_property
    def claim_suspects(self) -> dict[str, Any]:
        """By database: insert lines as ``purging``, unless they are there."""
        values = {"state": literal_column(f"'{PURGING}'"), "since": now(), "purge_after": now()}
        return {
            name: insert_ignoring(name, self._lines).values(values)
            for name in ("sqlite", "postgresql", "mysql", "mariadb")
        }

    @memoized_property
    def claimed_suspects(self) -> Any:
        """Which of these lines were inserted so."""
        c = self._lines.c
        return select(c.storage, c.key).where(self._these, c.state == PURGING, c.owner_table.is_(None))

    def waiting(self, condition: Any, order: Any) -> Any:
        """Lines to be claimed, locked; but for those that somebody holds."""
        c = self._lines.c
        found = select(c.storage, c.key, c.size, c.state, c.owner_table).where(self._free(condition))
        return found.order_by(order, c.storage).with_for_update(skip_locked=True, of=self._lines)

    def _free(self, condition: Any) -> Any:
        return and_(condition, self._lines.c.held.is_(False), ~self._is_anothers)

    @memoized_property
    def due(self) -> Any:
        """Which of these lines are condemned and due, locked."""
        return self.waiting(self._is_due, self._lines.c.key)

    @memoized_property
    def claim(self) -> Update:
        """Make these lines ``purging``."""
        return self._claim.where(self._these)

    @memoized_property
    def claim_due(self) -> Any:
        """Both at once, in any order: for SQLite, which has one writer."""
        c = self._lines.c
        return self._claim.where(self._free(self._is_due)).returning(c.storage, c.key, c.size)

    @memoized_property
    def remove(self) -> Delete:
        """These lines, whose bytes are gone."""
        c = self._lines.c
        return delete(self._lines).where(self._these, c.state.in_([PURGING, GONE]))
