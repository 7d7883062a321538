"""Custody: files that a transaction of a connection has staged, from their line in the ledger until a row names them.

The connection's events tell when a statement writes a name, how many rows took it, and how the transaction ended. As
with sessions they only hint: what is deleted is read from the ledger, when the connection begins another transaction or
goes back to its pool.

A file has one owner. So a statement is refused before it runs if it would write a name twice, or one that is not owned
(any more), or if nobody could tell whether a row took it; if more rows than one did, it raises after, and so does the
commit. A file that a statement wanted to give to a row that was not there is dropped with the commit.

Traps
-----
SQL that is sent as text with the descriptor in it passes unseen: there the ledger's line is all that is kept right.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Column, Connection, NestedTransaction, event, literal_column, select

from .claims import Claim, executing
from .column import ledger_owner, mentions
from .descriptor import Named
from .errors import AttachmentWarning, OwnershipLost
from .home import Home
from .ledger import Drop, Line, Owner, owner_of
from .naming import Naming
from .queries import OWNED
from .scope import Scope
from .staging import Token
from .watch import Watched, settle

EVENTS = (
    "begin",
    "begin_twophase",
    "commit",
    "rollback",
    "rollback_savepoint",
    "prepare_twophase",
    "commit_twophase",
    "rollback_twophase",
    "before_cursor_execute",
    "after_cursor_execute",
    "after_execute",
)
"""What is listened to on each connection that files are staged on: others don't pay for it."""


class Custody:
    """What one ``Storages`` keeps for the transactions of one connection."""

    def __init__(self, files: Home, connection: Connection) -> None:
        self._files = files
        self._connection = ref(connection)
        self._statements: WeakKeyDictionary[Any, Naming] = WeakKeyDictionary()
        """Those that name claims, by SQLAlchemy's contexts."""
        self._new()
        for name in EVENTS:
            event.listen(connection, name, getattr(self, f"_{name}"))

    def _new(self) -> None:
        self.frame = Watched(lambda: None)
        self._claims: dict[Named, tuple[Scope, Claim]] = {}
        """By the first of their files."""
        self._tokens: list[tuple[tuple[str, ...], Token]] = []
        self._spoiled: list[tuple[tuple[str, ...], str]] = []
        self._drops: list[tuple[tuple[str, ...], Scope, Column[Any], Sequence[Named]]] = []
        self._runs = self._failed = False
        """Whether a statement is executed, or failed, that may have been meant to take names from rows."""

    def take(self, scope: Scope, files: Sequence[Named], owner: Owner | None, steps: tuple[Any, ...]) -> Claim:
        """A claim of files that are owned now."""
        claim = Claim(self, tuple(files), owner, steps, self._savepoints())
        self._claims[files[0]] = scope, claim
        return claim

    def took(self, token: Token) -> None:
        """A file that was staged before the transaction is owned now."""
        self._tokens.append((self._savepoints(), token))

    def waits(self, claim: object, steps: tuple[Any, ...]) -> bool:
        """Whether this is a claim of this transaction, through the same steps, whose files no row took yet."""
        if not isinstance(claim, Claim) or not self._knows(claim):
            return False
        return claim.written is None and claim.dropped is None and claim.steps == steps

    def drop(self, scope: Scope, column: Column[Any], files: Sequence[Named]) -> None:
        """Files of a column are dropped."""
        self._drops.append((self._savepoints(), scope, column, files))
        if (mine := self._claims.get(files[0])) is not None:
            mine[1].dropped = self._savepoints()

    def lets(self, claim: Claim, column_type: Any) -> bool:
        """Note that a statement wants to write the name of a claim into a column; whether it may."""
        connection, context = executing() or (None, None)
        is_ours = connection is not None and connection is self._connection() and self._knows(claim)
        if not is_ours or column_type.files is not self._files or column_type.steps != claim.steps:
            return False
        self._statements.setdefault(context, Naming()).bound.append((claim, column_type))
        return True

    def _knows(self, claim: Claim) -> bool:
        mine = self._claims.get(claim.files[0])
        return mine is not None and mine[1] is claim

    # Statements

    def _before_cursor_execute(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        naming = self._statements.get(context)
        # An INSERT of many rows may come in several parts.
        if naming is not None and not naming.proved:
            naming.look(context)
            self._prove(connection, naming)
        self._failed = self._failed or self._runs
        self._runs = context.isupdate or context.isdelete

    def _after_cursor_execute(
        self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
    ) -> None:
        self._runs = False
        if (naming := self._statements.get(context)) is not None and naming.proved:
            naming.count(cursor)

    def _after_execute(self, *said: Any) -> None:
        context = getattr(said[-1], "context", None)  # of a result; a default's is a plain value
        naming = None if context is None else self._statements.pop(context, None)
        if naming is None or not naming.writes:
            return
        for claim, _type in naming.bound:
            claim.written, claim.doubtful = None, False
        met_none = naming.rows == 0 and naming.met_no_row(said[0])
        if met_none or met_none is None:
            for claim, _type in naming.bound:
                claim.tried = met_none is True
        elif naming.rows == 0 or naming.is_exact:
            for claim, _type in naming.bound:
                claim.written = self._savepoints()
        else:
            message = (
                f"{len(naming.bound)} staged files, {naming.sets} sets of parameters, {naming.rows} rows: "
                "nobody can tell which row took which file, and a file has one owner. Roll this transaction, or the "
                "savepoint, back; then execute the statement for one row at a time, with a file staged for each"
            )
            self._spoiled.append((self._savepoints(), message))
            raise OwnershipLost(message)

    def _prove(self, connection: Connection, naming: Naming) -> None:
        """Before a statement runs that writes names."""
        bound = naming.bound
        if not naming.writes:
            return
        for number, (claim, column_type) in enumerate(bound):
            if claim.written is not None or any(claim is other for other, _ in bound[:number]):
                self._refuse(claim, column_type, "a row has its name already; stage it again, which copies it")
            if column_type.column is None:
                self._refuse(claim, column_type, "its type is no column's; use that one's, type_=table.c.column.type")
        if why := naming.doubt():
            self._refuse(*bound[0], why)
        naming.foretell(connection)
        for claim, column_type in bound:
            scope, _ = self._claims[claim.files[0]]
            if not _is_owned(connection, scope, claim):
                self._refuse(claim, column_type, "it is not owned any more; stage it again")
            if claim.owner != ledger_owner(column_type):
                claim.owner = ledger_owner(column_type)
                for file in claim.files:
                    scope.ledger.transfer(connection, Line(file, *claim.owner))
        if naming.is_several:  # If it fails in the middle, some databases keep what it did before.
            for claim, _ in bound:
                claim.written, claim.doubtful = self._savepoints(), True
        naming.proved = True

    def _refuse(self, claim: Claim, column_type: Any, why: str) -> NoReturn:
        file = claim.files[0]
        raise OwnershipLost(f"{column_type.label} may not name {file.storage}:{file.key}: {why}")

    # Transactions

    def _savepoints(self) -> tuple[str, ...]:
        """The names of those that are open."""
        connection = self._connection()
        nested: NestedTransaction | None = None if connection is None else connection.get_nested_transaction()
        found: list[str] = []
        while nested is not None:
            found.append(nested._savepoint)
            nested = nested._previous_nested
        return tuple(found)

    def _begin(self, *_: Any) -> None:
        self._leave()

    _begin_twophase = _begin

    def _leave(self) -> None:
        """A transaction is over; perhaps nobody told how."""
        frame = self.frame
        self._new()
        frame.ended = True
        if frame:
            settle(frame)

    def _rollback_savepoint(self, connection: Connection, name: str, context: Any) -> None:
        for work in self.frame.works.values():
            # Which of them were in it the ledger knows.
            work.void += work.staged
            work.staged = []
        self._give_back((name,))
        self._spoiled = [each for each in self._spoiled if name not in each[0]]
        self._drops = [each for each in self._drops if name not in each[0]]
        self._claims = {file: each for file, each in self._claims.items() if name not in each[1].savepoints}
        for _, claim in self._claims.values():
            if claim.written is not None and name in claim.written:
                claim.written, claim.doubtful = None, False
            if claim.dropped is not None and name in claim.dropped:
                claim.dropped = None

    def _give_back(self, savepoints: tuple[str, ...]) -> None:
        """Files that were staged before the transaction can be claimed again; those of ``savepoints``, if any."""
        for inside, token in self._tokens:
            if not savepoints or set(savepoints) & set(inside):
                token.revert()

    def _commit(self, connection: Connection) -> None:
        # SQLAlchemy takes a transaction for ended whose commit was refused, and would leave it open.
        with self._refusing(connection, lambda: connection.dialect.do_rollback(connection.connection)):
            self._ending(connection)
        self._committed()

    def _prepare_twophase(self, connection: Connection, xid: Any) -> None:
        self._ending(connection)

    def _commit_twophase(self, connection: Connection, xid: Any, is_prepared: bool) -> None:
        if not is_prepared:
            with self._refusing(connection, lambda: connection.dialect.do_rollback_twophase(connection, xid, False)):
                self._ending(connection)
        self._committed()

    def _rollback(self, *_: Any) -> None:
        self._give_back(())
        self._claims.clear()
        self._statements.clear()  # one that failed would hold its connection
        self.frame.ended = True

    _rollback_twophase = _rollback

    @contextmanager
    def _refusing(self, connection: Connection, roll_back: Callable[[], None]) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._rollback()
            if not connection.invalidated:
                roll_back()
            raise

    def _committed(self) -> None:
        self._claims.clear()
        self._statements.clear()
        self.frame.ended = self.frame.marked = True

    def _ending(self, connection: Connection) -> None:
        """Before the commit, or the first of its phases."""
        if self._spoiled:
            raise OwnershipLost(self._spoiled[0][1])
        for scope, claim in list(self._claims.values()):
            if claim.doubtful or (claim.written is None and (claim.tried or claim.owner is not None)):
                with scope.on(connection):
                    self._unnamed(connection, scope, claim)
        if self._failed or self._runs:
            for _, scope, column, files in self._drops:
                with scope.on(connection):
                    self._look(connection, scope, column, files)

    def _look(self, connection: Connection, scope: Scope, column: Column[Any], files: Sequence[Named]) -> None:
        """A statement failed, which leaves rows as they were: look whether one names what was dropped before."""
        if column.table is scope.ledger.lines:
            return  # Nobody said which column it was.
        there: Any = select(literal_column("1")).where(mentions(column, files[0].key))
        if connection.scalar(there.limit(1)) is None:
            return
        owner = owner_of(column)
        if [file for file in files if scope.ledger.reclaim(connection, Line(file, *owner))]:
            warnings.warn(
                f"{files[0].storage}:{files[0].key} was dropped, and a row of {'.'.join(owner)} names it, as a "
                "statement failed: it is kept. Drop a file after the statement that takes its name from the row",
                AttachmentWarning,
                stacklevel=2,
            )

    def _unnamed(self, connection: Connection, scope: Scope, claim: Claim) -> None:
        """No row took a file, as far as we know: a text may have named it."""
        if claim.tried and not claim.doubtful:
            scope.ledger.drop(connection, [Drop(file) for file in claim.files])
            self.frame.work(scope).dropped += claim.files
        elif OWNED in scope.ledger.states(connection, claim.files).values():
            file, owner = claim.files[0], claim.owner or ("no table",)
            warnings.warn(
                f"{file.storage}:{file.key} was staged for {'.'.join(owner)}, and no statement gave it to a row: it "
                "stays until Storages.verify(repair=True) finds it. Drop it, or roll back",
                AttachmentWarning,
                stacklevel=2,
            )


def _is_owned(connection: Connection, scope: Scope, claim: Claim) -> bool:
    """Whether all of its files are."""
    states = scope.ledger.states(connection, claim.files)
    return all(states.get(file.name) == OWNED for file in claim.files)
