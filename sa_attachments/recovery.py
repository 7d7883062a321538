"""Recovery: what is left to clean when a transaction has ended, read from the ledger on a connection of its own.

Three short steps, with no transaction open while a storage works:

1. claim: what is due becomes ``purging``, committed durably, so that nobody can own it again, not even after a power
cut;
2. the bytes are deleted;
3. the lines are removed, or note the error and wait for the next sweep.

A staged file of unknown fate is claimed by *inserting* its line, unless there is one: the unique index decides. An
owner that committed is in the way, and keeps its file; one in flight, or prepared, makes the insert wait, which gives
up after a moment and is left to the sweep.
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Pool, and_, or_, select, update

from .access import Access
from .chunks import CHUNK, by_storage, chunked, lockable
from .clock import now
from .descriptor import Name, Named
from .errors import AttachmentError, AttachmentWarning, UnknownStorage, storage_errors
from .frames import Work
from .patience import PATIENCE
from .places import Places, Runner, Verdict, read_marker
from .queries import CONDEMNED, GONE, PURGING
from .scope import Scope
from .storage import Storage
from .tables import whereabouts

log = logging.getLogger("sa_attachments")


Purged = deque[tuple[Named, Exception | None]]
"""Files whose bytes were deleted, or the reason why not: their lines are still to be removed, or to tell it."""


class Purger(Access):
    """Cleans in one ledger. ``io`` runs what a storage does; it may raise ``Busy`` if that takes too long.

    No connection is held meanwhile: the pool is the application's, and a storage that hangs would take all of it. Names
    of storages stand for what they stood for in the beginning, however late it is: the override of a test may have
    ended, and the place of the application is none of its database's.
    """

    def __init__(
        self, scope: Scope, places: Places, io: Runner, patience: int = PATIENCE, pool: Pool | None = None
    ) -> None:
        """``patience``: milliseconds to wait for SQLite's one writer; where no user waits, it may be longer."""
        super().__init__(scope, patience, pool)
        self.resolve = scope.files.resolver()
        self.io = io
        self._places = places

    # One transaction's files

    def settle(self, work: Work, committed: bool, purged: Purged | None = None) -> None:
        """Clean up after one transaction, which may or may not have been committed; ``committed`` is a hint.

        With ``purged``, lines of purged files are not removed in a transaction of their own: they go in there, and the
        next one that settles removes them. A process that dies leaves them to the sweep.
        """
        names = {file.storage for file in (*work.void, *work.staged, *work.dropped)}
        allowed = {name: self._ledger_of(name) for name in names if self.problem(name) is None}
        with self.connection() as connection, _taken(purged) as former, self.transaction(connection):
            here = whereabouts(connection, self.ledger.lines)
            trusted = {name for name, ledger in allowed.items() if ledger == here}
            self._finish(connection, former)
            witness = next(iter((*work.staged, *(file for _, file in work.given))), None)
            there = committed and (witness is None or self._knows(connection, witness))
            suspects = work.void if there else [*work.void, *work.staged]
            if suspects and work.identities != {self.ledger.identity(connection)}:
                suspects = []  # Another search path, another ledger: what is not in it says nothing.
            claimed = self._condemn(connection, [file for file in suspects if file.storage in trusted])
            claimed += self._claim(connection, [file for file in work.dropped if file.storage in trusted])
            written = self._write(connection, [file for _, file in work.given]) if there else set()
        _remove(source.path() for source, file in work.given if file.name in written and source.is_as_read())
        if not claimed:
            return
        outcome: Purged = deque() if purged is None else purged
        self.io(partial(_delete_and_tell, partial(self._mounted, self.resolve), claimed, outcome))
        if purged is None or any(error for _, error in list(outcome)):  # a worker may add to it
            self.forget(outcome)

    def forget(self, purged: Purged) -> None:
        """Remove the lines of purged files; see ``settle``."""
        with self.connection() as connection, _taken(purged) as former, self.transaction(connection):
            self._finish(connection, former)

    def _finish(self, connection: Connection, outcome: Sequence[tuple[Named, Exception | None]]) -> None:
        self.finish(connection, [file for file, _ in outcome], {file: error for file, error in outcome if error})

    def _knows(self, connection: Connection, named: Named) -> bool:
        """Whether a transaction became durable, told by one of its lines."""
        line = {"key": named.key, "storage": named.storage}
        return connection.scalar(self.ledger.queries.state, line) is not None

    def _write(self, connection: Connection, files: Sequence[Named]) -> set[Name]:
        """Change lines, so that this transaction, durable as it is, makes durable the one that inserted them. Returns
        the names of those that are there: a savepoint that nobody told us of may have been rolled back.
        """
        c = self.ledger.lines.c
        found: set[Name] = set()
        for chunk in chunked(files):
            connection.execute(update(self.ledger.lines).where(self.ledger.among(chunk)).values(since=c.since + 1))
            lines = connection.execute(select(c.storage, c.key).where(self.ledger.among(chunk)))
            found.update((line.storage, line.key) for line in lines)
        return found

    def _condemn(self, connection: Connection, files: Sequence[Named]) -> list[Named]:
        """Claim files of an ended transaction of our own, unless a line says that it was committed after all."""
        mine: list[Named] = []
        claiming = self.ledger.queries.claim_suspects[connection.dialect.name]
        for chunk in chunked(files):
            suspects = [{"storage": file.storage, "key": file.key, "size": file.size} for file in chunk]
            connection.execute(claiming, suspects)
            found: set[Any] = set()
            for these in by_storage(chunk):
                found.update(map(tuple, connection.execute(self.ledger.queries.claimed_suspects, these)))
            mine += [file for file in chunk if file.name in found]
        return mine

    def _claim(self, connection: Connection, files: Sequence[Named]) -> list[Named]:
        """Make those of ``files`` that are condemned and due ``purging``."""
        dialect = connection.dialect
        claimed: list[Named] = []
        for chunk in chunked(files):
            for these in by_storage(chunk):
                if dialect.name == "sqlite" and dialect.update_returning:
                    found = connection.execute(self.ledger.queries.claim_due, these)  # in any order: one writer
                    claimed += [Named(row.storage, row.key, row.size or 0) for row in found]
                else:
                    claimed += [file for file, _ in self._locked(connection, self.ledger.queries.due, these)]
        return claimed

    # Whatever is due

    def purge_due(
        self, names: Sequence[str], tombstone_ttl: int
    ) -> Iterator[tuple[list[Named], dict[Named, Exception]]]:
        """Purge all that is due in these storages, in batches; yields each batch and what failed of it."""
        c = self.ledger.lines.c
        after = ("", "")
        while True:
            later = or_(_key(c) > after[0], and_(_key(c) == after[0], c.storage > after[1]))
            with self.begin() as connection:
                # Asked for first: no index helps to compare with a clock that is read for each line.
                due = and_(c.state.in_([PURGING, CONDEMNED, GONE]), c.purge_after <= connection.scalar(select(now())))
                waiting = self.ledger.queries.waiting(and_(due, later, c.storage.in_(names)), _key(c))
                found = self._locked(connection, waiting.limit(CHUNK))
            if not found:
                return
            claimed = [file for file, _ in found]
            failed = self.delete(claimed)
            with self.begin() as connection:
                self.finish(connection, claimed, failed, {file for file, stranger in found if stranger}, tombstone_ttl)
            yield claimed, failed
            after = claimed[-1].key, claimed[-1].storage

    def _locked(self, connection: Connection, waiting: Any, parameters: Any = None) -> list[tuple[Named, bool]]:
        """Claim the lines that a statement finds, passing over those that somebody holds. Tells of each whether it
        never had an owner.

        Lines that are ``gone`` stay so: their bytes are deleted once more, in case that a put arrived late.
        """
        self.ledger.begin_write(connection)
        rows: Sequence[Any] = connection.execute(waiting, parameters).all()
        for chunk in chunked((storage, key) for storage, key, _, state, _ in rows if state != GONE):
            for these in by_storage(chunk):
                connection.execute(self.ledger.queries.claim, these)
        return [
            (Named(storage, key, size or 0), state != GONE and owner is None)
            for storage, key, size, state, owner in rows
        ]

    # Steps

    def delete(self, files: Sequence[Named]) -> dict[Named, Exception]:
        """Delete the bytes of claimed files; returns what failed."""
        failed: dict[Named, Exception] = self.io(partial(_delete, partial(self._mounted, self.resolve), files))
        return failed

    def finish(
        self,
        connection: Connection,
        files: Sequence[Named],
        failed: dict[Named, Exception],
        strangers: Collection[Named] = (),
        tombstone_ttl: int = 0,
    ) -> None:
        """The bytes are gone: remove the lines. Strangers' stay as ``gone`` for a while, so that a late owner fails."""
        lines = self.ledger.lines
        purged = [file for file in files if file not in failed]
        for chunk in lockable(connection, (file for file in purged if file not in strangers)):
            for these in by_storage(chunk):
                connection.execute(self.ledger.queries.remove, these)
        for chunk in lockable(connection, (file for file in purged if file in strangers)):
            entombed = update(lines).where(self.ledger.among(chunk), lines.c.state == PURGING)
            connection.execute(entombed.values(state=GONE, since=now(), purge_after=now() + tombstone_ttl))
        for file, error in failed.items():
            log.warning("could not delete %s:%s, the next sweep tries again: %s", file.storage, file.key, error)
            noted = update(lines).where(self.ledger.among([file]))
            connection.execute(noted.values(attempts=lines.c.attempts + 1, last_error=str(error)[:1000]))

    def problem(self, name: str, again: bool = False, mark: bool = True) -> str | None:
        """Why nothing may be deleted in a storage's place; None if it may. Asked once per process, or ``again``.

        With ``mark``, a place that is nobody's becomes this database's.
        """
        known = self._places.known(self.scope)
        try:
            storage = self.resolve(name)
        except UnknownStorage as error:
            return str(error)
        verdict = known.verdicts.get(name)
        if verdict is not None and verdict.storage is storage and not again:
            return verdict.problem
        problem = self._places.problem(
            self.begin,
            self.ledger,
            name,
            storage,
            self.io,
            read=lambda: self._marker(known.late, name, storage, again),
            register=mark,
            mark=mark,
        )
        if mark or problem is not None:
            known.verdicts[name] = Verdict(storage, problem, self.sees or "")
        if problem is not None:
            warnings.warn(f"nothing is deleted: {problem}", AttachmentWarning, stacklevel=2)
        return problem

    def _mounted(self, resolve: Callable[[str], Storage], name: str) -> Storage:
        """The storage of that name. OSError where every file would count as deleted."""
        storage = resolve(name)
        if self._places.has_left(name, storage):
            raise OSError("its place is not marked as this database's any more: is its volume mounted?")
        return storage

    def _ledger_of(self, name: str) -> str | None:
        """Which ledger it was whose database may delete in a storage's place."""
        verdict = self._places.known(self.scope).verdicts.get(name)
        return None if verdict is None else verdict.ledger

    def _marker(
        self, late: dict[str, tuple[Storage, str | None]], name: str, storage: Storage, again: bool
    ) -> str | None:
        """Whose a place is. An answer that came too ``late`` for the one who asked is the next one's."""
        storage_and_marker = late.pop(name, None)
        if storage_and_marker is not None and storage_and_marker[0] is storage and not again:
            return storage_and_marker[1]

        def read() -> str | None:
            marker = read_marker(name, storage)
            late[name] = storage, marker
            return marker

        marker: str | None = self.io(read)
        late.pop(name, None)
        return marker


@contextmanager
def _taken(purged: Purged | None) -> Iterator[list[tuple[Named, Exception | None]]]:
    """All that is in there now, which goes back if the lines could not be removed."""
    taken: list[tuple[Named, Exception | None]] = []
    try:
        while purged:
            taken.append(purged.popleft())
        yield taken
    except BaseException:
        if purged is not None:
            purged.extend(taken)
        raise


def _key(columns: Any) -> Any:
    """The key, in a form that no index holds: of what is due there is little, and a database that is asked for it in
    the order of the primary key may read all lines instead.
    """
    return columns.key.concat("")


def _remove(paths: Iterable[Path]) -> None:
    """Remove what was given away; a path that can't be removed keeps nothing from being purged."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("could not remove %s, which was given away and is stored: %s", path, error)


def _delete_and_tell(resolve: Callable[[str], Storage], claimed: Sequence[Named], outcome: Purged) -> None:
    """Delete files, and tell of each what came of it, however late that is."""
    failed = _delete(resolve, claimed)
    outcome.extend((file, failed.get(file)) for file in claimed)


def _delete(resolve: Callable[[str], Storage], files: Iterable[Named]) -> dict[Named, Exception]:
    """Delete files from their storages; returns what failed."""
    by_storage: dict[str, list[Named]] = {}
    for file in files:
        by_storage.setdefault(file.storage, []).append(file)
    failed: dict[Named, Exception] = {}
    for name, group in by_storage.items():
        try:
            with storage_errors(name, "delete"):
                errors = resolve(name).delete([file.key for file in group])
            failed.update((file, errors[file.key]) for file in group if file.key in errors)
        except AttachmentError as error:
            failed.update(dict.fromkeys(group, error))
    return failed


def discard(resolve: Callable[[str], Storage], files: Iterable[Named]) -> None:
    """Delete files that never came into a ledger: nobody else knows of them."""
    for file, error in _delete(resolve, files).items():
        log.warning("could not delete %s:%s, a sweep finds it: %s", file.storage, file.key, error)
