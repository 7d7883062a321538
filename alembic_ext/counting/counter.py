"""Counter: what the triggers do, and in what order they are made; each database writes it in its own SQL.

What every one of them keeps to:

- A name is gained before another one is lost, so that no statement on one row takes a file through zero.
- A file that is named again becomes owned again, from ``condemned`` only.
- A file is condemned when its last name is lost. One whose ``names`` is NULL was never counted, and is left alone.
- Only the descriptor, the items of a list and their variants name files; metadata never does. What is no descriptor
  names nothing, and raises nothing; but a row whose value becomes unreadable loses no name by that, which may be in it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

from sqlalchemy import Connection, Dialect

from ..script import placed, quoter
from .counted import Counted, Counting

LEDGER = "attachment_ledger"
GAINED = "gained"
LOST = "lost"


class Installed(NamedTuple):
    """Triggers of ours that a database has on one table; not ``whole`` if one is missing, or they differ."""

    counting: Counting
    whole: bool


class Counter(ABC):
    """Writes the triggers of one kind of database, as lists of statements."""

    now: str
    """Milliseconds since the epoch, by the database's clock."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.quote = quoter(dialect)

    # To be called in this order

    @abstractmethod
    def lock(self, countings: Sequence[Counting]) -> list[str]:
        """Keep everybody from changing these tables and the ledger until the transaction ends, or ``unlock``.

        On SQLite this must be the first statement, since it begins the transaction.
        """

    @abstractmethod
    def reset(self, ledger_schema: str | None) -> list[str]:
        """Count no names at all; followed by ``add`` for each table with triggers, and ``regain``, this counts anew."""

    @abstractmethod
    def add(self, counting: Counting) -> list[str]:
        """Add the names that the rows of a table hold."""

    def regain(self, ledger_schema: str | None) -> list[str]:
        """Own what is named and condemned: it came back by a way that triggers don't see, as a partition does."""
        assignments = self._assignments(self._owned())
        return [f"UPDATE {self.at(ledger_schema, LEDGER)} SET {assignments} WHERE state = 'condemned' AND names > 0"]

    @abstractmethod
    def subtract(self, counting: Counting) -> list[str]:
        """Take them away. That condemns nothing."""

    @abstractmethod
    def create(self, counting: Counting) -> list[str]:
        """Make the triggers; the one that may condemn last."""

    @abstractmethod
    def drop(self, counting: Counting) -> list[str]:
        """Remove them; the one that may condemn first."""

    @abstractmethod
    def drop_found(self, connection: Connection, counting: Counting) -> list[str]:
        """Remove those that the table has by now: it may have had another name when they were made."""

    def unlock(self, failed: bool = False) -> list[str]:
        """The opposite of ``lock``, where the transaction's end does not do it; what was counted is undone if that
        ``failed``.
        """
        return []

    @abstractmethod
    def installed(self, connection: Connection, schemas: Collection[str | None] = ()) -> list[Installed]:
        """The triggers that the database has, whatever version made them: in its default schema, and in these."""

    def beside(self, connection: Connection) -> Collection[str]:
        """Schemas that ``installed`` does not look into by itself, and that may have no ledger of their own."""
        return ()

    @abstractmethod
    def home(self, connection: Connection) -> str | None:
        """The schema that a name without one means."""

    def here(self, connection: Connection, counting: Counting) -> Counting:
        """The same by the names that this connection needs: a schema that it is in has no other one than None."""
        return _from(self.home(connection), counting)

    # Parts

    def at(self, schema: str | None, name: str) -> str:
        """A quoted name, in its schema."""
        return placed(self.quote, schema, name)

    def name(self, table: str, purpose: str, longest: int = 63) -> str:
        """A name for something that belongs to a table."""
        name = f"{table}_attachments_{purpose}" if purpose else f"{table}_attachments"
        if len(name.encode()) <= longest:
            return name
        digest = sha256(table.encode()).hexdigest()[:8]
        short = table.encode()[: longest - len(name.encode()) + len(table.encode()) - 9].decode(errors="ignore")
        return name.replace(table, f"{short}_{digest}", 1)

    def event(self, table: str, name: str) -> str:
        """The event of a trigger of a table, as its name says; nothing, if the table had another name before."""
        event = name.rpartition("_")[2]
        return event if name == self.name(table, event) else ""

    def gain(self, q: str = "") -> str:
        """The assignments for a line that gains a name; those that read ``state`` and ``names`` before they write them,
        since MySQL assigns from left to right.
        """
        assigned = {
            column: f"CASE WHEN {q}state = 'condemned' THEN {value} ELSE {q}{column} END"
            for column, value in self._owned().items()
        }
        return self._assignments({**assigned, "names": f"{q}names + 1"})

    def _owned(self) -> dict[str, str]:
        """What a condemned line says when it is owned again; its state last, see ``gain``."""
        return {
            "since": self.now,
            "purge_after": "NULL",
            "attempts": "0",
            "descriptor": "NULL",
            "owner_pk": "NULL",
            "state": "'owned'",
        }

    def lose(self, retain: int, q: str = "") -> str:
        """The assignments for a line that loses a name."""
        last = f"CASE WHEN {q}state = 'owned' AND {q}names <= 1 THEN {{}} ELSE {{}} END"
        assigned = {
            "since": last.format(self.now, f"{q}since"),
            "purge_after": last.format(f"{self.now} + {retain}", f"{q}purge_after"),
            "state": last.format("'condemned'", f"{q}state"),
            "names": f"CASE WHEN {q}names > 0 THEN {q}names - 1 ELSE {q}names END",
        }
        return self._assignments(assigned)

    def _assignments(self, assigned: dict[str, str]) -> str:
        return ", ".join(f"{self.quote(column)} = {value}" for column, value in assigned.items())

    def fewer(self, lost: str, q: str = "") -> str:
        """A count less what was lost, but never below none."""
        return f"CASE WHEN {q}names > {lost} THEN {q}names - {lost} ELSE {q}names - {q}names END"

    def changed(self, columns: Sequence[Counted], differs: str) -> str:
        """The condition that an UPDATE changed one of the columns."""
        return " OR ".join(f"{differs}".format(c=self.quote(each.column)) for each in columns)


def gather(rows: Iterable[tuple[Counting | None, str]], home: str | None, events: set[str]) -> list[Installed]:
    """Put triggers, each by what it says and its event, together by table."""
    found: dict[tuple[str | None, str], dict[str, Counting]] = {}
    for said, event in rows:
        if said is not None:
            counting = _from(home, said)
            found.setdefault(counting.where, {})[event] = counting
    return [
        Installed(next(iter(by_event.values())), by_event.keys() == events and len(set(by_event.values())) == 1)
        for by_event in found.values()
    ]


def _from(home: str | None, counting: Counting) -> Counting:
    schema, ledger_schema = (None if each == home else each for each in (counting.schema, counting.ledger_schema))
    return replace(counting, schema=schema, ledger_schema=ledger_schema)
