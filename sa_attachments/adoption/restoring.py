"""Restoring: the way back. Rows say again what they said before they were adopted, and name no attachments.

Bytes go back into their column, paths and other libraries' values into theirs; a file that was uploaded since is
written where the old column can name it. For each batch:

1. what the ledger says of files that rows named, and that are not theirs any more, is looked up (see ``Ground``);
2. what rows need is read, or written where it has to be, in parallel;
3. in one transaction, the rows are locked and read again; those that are as they were say what they said, and the lines
   of the files that stay where they are removed; the others become ``purging``;
4. their bytes are deleted, then their lines.

It can be killed at any moment and begun again. At the end, files that the column had dropped before are purged too, but
those that it names still.

Traps
-----
Rows without an attachment are left alone: what their old column says, if anything, they go on saying.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection, and_, func, select, update
from sqlalchemy.exc import DBAPIError

from ..chunks import chunked
from ..clock import milliseconds, now
from ..descriptor import Facts, Named, named
from ..errors import StorageFailed
from ..moving import Progress
from ..offload import gather
from ..patience import is_perhaps_committed
from ..queries import CONDEMNED, PURGING
from ..rows import PAGE
from .adopting import grouped
from .finishing import clear, noted_beside
from .ground import Ground, look, spare, spots
from .passes import passes
from .plan import Paths
from .report import AdoptionReport, Unadopted
from .rows import Adopted, Held, Identity, Rows
from .survey import LOOK, items_of, pages
from .taking import Reader, Returned, Unadoptable, digest_of, refused, row_of
from .workplace import Workplace

MEMORY = 2 * 1024 * 1024
"""Bytes of blobs that are in memory at a time, but for a larger one: drivers, and SQLite, copy them several times."""
_TRIES = 5
_NOTHING = hashlib.sha256().hexdigest()


@dataclass(slots=True, eq=False)
class _Back:
    """A row on its way back."""

    identity: Identity
    text: str
    said: str | None
    items: list[Facts]
    plural: bool = False
    ground: Ground = field(default_factory=Ground)
    returned: Returned | None = None

    @property
    def size(self) -> int:
        return sum(int(facts["size"]) for facts in self.items)


class Restoring:
    """The reverse of one adoption; see the module."""

    def __init__(
        self, place: Workplace, rows: Rows, reader: Reader, report: AdoptionReport, progress: Progress
    ) -> None:
        self._place = place
        self._rows = rows
        self._reader = reader
        self._plan = rows.plan
        self._report = report
        self._progress = progress
        self._storages: set[str] = set(reader.storages())
        self._left_alone: set[Identity] = set()

    def run(self) -> None:
        """Take back all rows. Raises AdoptionFailed, StorageFailed."""
        with self._place.begin() as connection:
            total = self._rows.count_adopted(connection)
        for _ in passes(self._report, self._plan.label, self._left):
            self._pass(total)
        self._clean()

    def _left(self) -> int:
        """How many rows still name attachments, but those that were reported."""
        with self._place.begin() as connection:
            return self._rows.count_adopted(connection) - len(self._left_alone)

    def _pass(self, total: int) -> None:
        left: list[_Back] = []
        for page in pages(self._place, self._rows.adopted, PAGE):
            rows = [row for row in page if row.identity not in self._left_alone]
            left += self._return(self._read(rows))
            self._progress(len(rows), total)
        for attempt in range(_TRIES):
            time.sleep(0.1 * attempt if left else 0)
            is_last = attempt == _TRIES - 1
            left = [back for some in chunked(left, PAGE) for back in self._return(self._again(some), is_last)]
        for back in left:
            self._refuse(back, Unadoptable("overtaken", "somebody held or changed it all the time"))

    def _read(self, page: Sequence[Adopted]) -> list[_Back]:
        found = []
        for identity, text, said in page:
            items = items_of(text)
            back = _Back(identity, text, said, items or [], text.lstrip().startswith("["))
            if items is None:
                self._refuse(back, Unadoptable("unreadable", f"{text[:80]!r} describes no attachment"))
            elif not self._is_changed(back, said):
                found.append(back)
        return found

    def _is_changed(self, back: _Back, said: str | None) -> bool:
        """Whether the old application wrote something else since: either may be what somebody wants to keep."""
        adopted = [each for facts in back.items if isinstance(each := facts.get("adopted"), dict)]
        mine = [each for each in adopted if each.get("row") == row_of(back.identity)]  # another row's says less of it
        if said in (None, "", "null", "[]", _NOTHING) or not mine:
            return False
        was = back.items[0]["sha256"] if self._rows.binary else mine[0].get("value", mine[0].get("path"))
        if (digest_of(said) == mine[0].get("list")) if back.plural else (said == was):
            return False
        what = "other bytes" if self._rows.binary else f"{said[:120]!r}"
        problem = f"{self._plan.label} says {what} since it was adopted: empty it, or {self._plan.into}"
        self._refuse(back, Unadoptable("changed", problem))
        return True

    def _again(self, backs: Sequence[_Back]) -> list[_Back]:
        with self._place.begin() as connection:
            held, _ = self._rows.lock(connection, [back.identity for back in backs])
        found = [(back, held.get(back.identity, Held(back.said, back.text))) for back in backs]  # or held by somebody
        return self._read(
            [
                Adopted(back.identity, row.into, None if self._rows.binary else row.token)
                for back, row in found
                if row.into not in (None, "null", "[]")
            ]
        )

    def _return(self, backs: Sequence[_Back], is_last: bool = False) -> list[_Back]:
        """Returns the rows that are to be tried again."""
        groups = grouped(backs, MEMORY) if self._rows.binary else [backs]
        return [left for group in groups if group for left in self._give_back(group, is_last)]

    def _give_back(self, group: Sequence[_Back], is_last: bool) -> list[_Back]:
        grounds = look(self._place, self._reader, [back.items for back in group])
        for back, ground in zip(group, grounds, strict=True):
            back.ground = ground
        mine = self._plan.fullname, self._plan.into
        left = [] if is_last else [back for back in group if mine in back.ground.owners]
        group = [back for back in group if back not in left]
        ready = []
        for back, outcome in zip(group, gather([partial(self._put, back) for back in group], 8), strict=True):
            if isinstance(outcome.error, Unadoptable):
                self._refuse(back, outcome.error)
            elif outcome.error is not None:
                raise outcome.error
            elif outcome.value is None:
                left.append(back)
            else:
                back.returned = outcome.value
                ready.append(back)
        left += self._switch(ready)
        for back in group:
            back.returned = None  # bytes, perhaps many
        return left

    def _put(self, back: _Back) -> Returned | None:
        """None if links lead elsewhere now."""
        returned = self._reader.give_back(back.items, back.plural, back.ground.avoid)
        return returned if spots(self._reader, back.items) == back.ground.spots else None

    # One transaction

    def _switch(self, backs: Sequence[_Back]) -> list[_Back]:
        backs = [back for back in backs if back.identity not in self._left_alone]
        if not backs:
            return []
        doomed: list[Named] = []
        try:
            with self._place.begin() as connection:
                done, left = self._write(connection, backs, doomed)
        except (DBAPIError, Unadoptable) as error:
            if is_perhaps_committed(error):
                raise
            if len(backs) > 1:
                return [left for each in backs for left in self._switch([each])]
            refusal = refused(error, self._plan.label)
            if refusal is None or refusal.kind == "overtaken":
                return list(backs)
            self._refuse(backs[0], refusal)
            return []
        self._report.rows += len(done)
        self._report.files += sum(len(named(facts)) for back in done for facts in back.items)
        self._report.size += sum(back.size for back in done)
        self._purge(doomed)
        return left

    def _write(
        self, connection: Connection, backs: Sequence[_Back], doomed: list[Named]
    ) -> tuple[list[_Back], list[_Back]]:
        """Returns the rows that are done, and those to be tried again; fills ``doomed``."""
        self._place.ledger.begin_write(connection)
        held, there = self._rows.lock(connection, [back.identity for back in backs])
        done = [back for back in backs if (row := held.get(back.identity)) is not None and row.into == back.text]
        changed = [back for back in done if self._is_changed(back, held[back.identity].token)]
        done = self._standing(connection, [back for back in done if back not in changed])
        if done:
            values = {back.identity: back.returned.value for back in done if back.returned is not None}
            self._rows.give_back(connection, values)
            if not self._rows.took(connection, values):
                raise Unadoptable("unreadable", f"{self._plan.label} does not keep what it is given back")
            files = [(file, back.returned) for back in done for facts in back.items for file in named(facts)]
            stay = [file for file, returned in files if returned is not None and file.name in returned.kept]
            self._place.disown(connection, stay)
            if not self._place.keep(connection, {line for back in done for line in back.ground.condemned}):
                raise Unadoptable("overtaken", "a file is being purged that a row is to name again")
            doomed += [file for file, returned in files if returned is not None and file.name not in returned.kept]
            self._place.doom(connection, doomed)
        return done, [back for back in backs if back not in done + changed and back.identity in there]

    def _standing(self, connection: Connection, backs: Sequence[_Back]) -> list[_Back]:
        """Those of whose ground the ledger says what it said before their files were looked at."""
        lines = self._place.at(connection, {spot for back in backs for spot in back.ground.lines})
        return [back for back in backs if all(lines[spot] == found for spot, found in back.ground.lines.items())]

    # What is not needed any more

    def _purge(self, doomed: Sequence[Named]) -> None:
        """Delete the bytes; what can't be deleted now is left to the end, or to the sweep."""
        if not doomed:
            return
        names = {file.storage for file in doomed}
        self._storages |= names
        trusted = {name for name in names if self._place.problem(name) is None}
        with self._place.begin() as connection:
            claimed = self._claimed(connection, [file for file in doomed if file.storage in trusted])
        failed = self._place.delete(claimed)
        with self._place.begin() as connection:
            self._place.finish(connection, claimed, failed)

    def _claimed(self, connection: Connection, files: Sequence[Named]) -> list[Named]:
        states = self._place.ledger.states(connection, files)
        return [file for file in files if states.get(file.name) == PURGING]

    def _clean(self) -> None:
        """Purge what this column dropped before, and what is due; raise if anything is left."""
        c = self._place.ledger.lines.c
        with self._place.begin() as connection:
            owned_here = self._place.column_of(connection, self._plan)
        mine = and_(owned_here, c.state == CONDEMNED)
        if not self._rows.binary:
            spare(self._place, self._rows, self._reader)
        # What triggers say that a row names is left alone, as ``doom`` leaves it.
        held_ones = and_(mine, c.held.is_(True), func.coalesce(c.names, 0) <= 0)
        while True:
            with self._place.begin() as connection:
                statement = select(c.storage, c.key, c.size, c.descriptor).where(held_ones).limit(LOOK)
                found = connection.execute(statement).all()
                held = {Named(row.storage, row.key, row.size or 0): noted_beside(row.descriptor) for row in found}
                # Adopted where they are, and dropped since; the old column may still name them.
                stay = [file for file in held if self._rows.mentions(connection, self._last(file.key))]
                self._place.disown(connection, stay)
            if not held:
                break
            leave = [file for file in held if file not in stay]
            clear(self._place, [(file.storage, key) for file in leave for key in held[file]])  # while it is known
            with self._place.begin() as connection:
                self._place.doom(connection, leave)
        with self._place.begin() as connection:
            self._storages |= set(connection.scalars(select(c.storage).where(owned_here).distinct()))
            connection.execute(update(self._place.ledger.lines).where(mine).values(purge_after=now()))
        trusted = [name for name in sorted(self._storages) if self._place.problem(name) is None]
        ttl = milliseconds(self._place.files.times.tombstone_ttl)
        failed = (
            {file: e for _, some in self._place.purge_due(trusted, ttl) for file, e in some.items()} if trusted else {}
        )
        if failed:
            file, error = next(iter(failed.items()))
            raise StorageFailed(
                f"{len(failed)} files could not be deleted, run it again: {file.storage}:{file.key}: {error}",
                storage=file.storage,
                operation="delete",
                key=file.key,
            )

    def _refuse(self, back: _Back, problem: Unadoptable) -> None:
        self._left_alone.add(back.identity)
        if back.returned is not None:
            for undo in back.returned.undo:
                undo()
        self._report.note(
            Unadopted(back.identity, problem.kind, back.text[:120], str(problem)),
            back.text,
            self._plan.fullname,
            self._plan.into,
        )
        if self._plan.policy == "fail":
            raise self._report.refuse(self._plan.label, "stopped; what was taken back so far stays, run it again")

    def _last(self, key: str) -> str:
        """What of a key the old column would mention: a file's name; of a library's, its folder's, which is its id."""
        parts = key.split("/")
        by_folder = parts[-1] == "file" and len(parts) > 1 and not isinstance(self._plan.origin, Paths)
        return parts[-2] if by_folder else parts[-1]
