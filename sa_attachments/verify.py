"""Verify: compare what rows name, what the ledger says and what the storages hold.

Eight kinds of findings, each about one file:

``missing``    a row names a file that its storage does not hold;
``incomplete`` a member of a mirror does not hold a file that another one does;
``damaged``    the bytes, in a member of a mirror perhaps, have another size (or, asked for ``checksums``, another
               SHA-256) than the row says;
``unowned``    a row names a file that the ledger does not call owned;
``unnamed``    the ledger calls a file owned that no row of its column names;
``ownerless``  the ledger calls a file owned by a table or column that is not in the database;
``stranger``   a storage holds a file that the ledger does not know;
``unreadable`` a row's descriptor is damaged.

``repair`` mends what can be mended without losing anything, after asking again under lock: ``unowned`` files get
their line back, ``unnamed`` and ``ownerless`` ones are condemned, ``incomplete`` ones are copied to where they lack,
unless another copy is damaged. Strangers are left to the sweep; files of columns that are not mapped in this process
are left alone, and those whose rows may be hidden (``sa_attachments.sight``).

Traps
-----
Of a storage that does not answer one problem is told. Without a ``repair`` nothing is locked: a file that changes hands
meanwhile may be reported; look twice before you worry. The names of all files are kept in memory: about 150 bytes each.
Where files are unnamed or ownerless, all texts of the database are read that look like descriptors: a table may have
been renamed, or copied.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, and_, select, update
from sqlalchemy.exc import DBAPIError

from .attachment import Attachment, facts_of
from .chunks import CHUNK
from .clock import now
from .column import ColumnType, ledger_owner
from .descriptor import Name, Named, named
from .errors import DescriptorDamaged, FileMissing, StorageFailed, UnknownStorage, listing, storage_errors
from .integrity import flaws, is_whole
from .key import is_key, moment
from .ledger import Line, Owner
from .patience import raise_unless_held
from .queries import CONDEMNED, OWNED
from .recovery import Purger
from .rows import Page, Rows
from .sight import Sight
from .storage import Heals
from .sweep import Progress, listed


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one file that should not be so; ``repaired`` tells whether it is so no longer."""

    kind: str
    storage: str
    key: str
    where: str
    """The row (``users.avatar (7,)``), or what else knows the file."""
    repaired: bool = False


@dataclass(slots=True)
class VerifyReport:
    """What was found."""

    rows: int = 0
    """Each counted once for each attachment column in which it is not NULL."""
    files: int = 0
    lines: int = 0
    findings: list[Finding] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)
    """By storage: why nothing is deleted there, or why it could not be looked at. By column: why rows may be hidden."""
    unmapped: Counter[str] = field(default_factory=Counter)
    """By column that is not mapped in this process: how many files were not compared."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong (any more)."""
        return not self.problems and all(finding.repaired for finding in self.findings)

    @property
    def counts(self) -> Counter[str]:
        """Number of findings by kind."""
        return Counter(finding.kind for finding in self.findings)


class Verification:
    """One comparison, over one ledger and the columns whose files it knows."""

    def __init__(
        self,
        purger: Purger,
        columns: Sequence[ColumnType],
        report: VerifyReport,
        *,
        repair: bool,
        checksums: bool,
        young: int,
        progress: Progress,
    ) -> None:
        """``young``: what was minted since this time, in milliseconds since the epoch, is no stranger yet."""
        self._purger = purger
        self._columns = columns
        self._report = report
        self._repair = repair
        self._checksums = checksums
        self._young = young
        self._progress = progress
        self._named: dict[Name, str] = {}
        self._known: set[Name] = set()
        self._silent: set[str] = set()

    def run(self, storages: Sequence[str]) -> None:
        """Rows against ledger and storages, then the ledger against rows, then the storages against the ledger."""
        for name in storages:  # first, as nothing is copied to where a place is in doubt
            self._trying(name, self._check_place)
        for column in self._columns:
            assert column.column is not None
            for page in Rows(self._purger, column).pages(column.column.is_not(None), size=CHUNK):
                self._check_rows(column, page)
        self._check_lines()
        for name in storages:
            self._trying(name, self._check_storage)

    def _trying(self, name: str, check: Callable[[str], None]) -> None:
        try:
            check(name)
        except StorageFailed as error:
            self._report.problems[name] = str(error)

    # Rows

    def _check_rows(self, column: ColumnType, rows: Page) -> None:
        files: dict[Named, tuple[str, Attachment]] = {}
        for identity, items in rows:
            self._report.rows += 1
            where = f"{column.label} {identity}"
            for item in items:
                try:
                    parts = {item.key: item, **{part.key: part for part in item.variants.values()}}
                    for file in named(facts_of(item)):
                        files[file] = where, parts.get(file.key, item)
                        self._named[file.name] = where
                except DescriptorDamaged:
                    self._found("unreadable", Named("", "", 0), where)
        self._progress(column.label, len(rows))
        with self._purger.begin() as connection:
            states = self._purger.ledger.states(connection, files)
        for file, (where, item) in files.items():
            if states.get(file.name) != OWNED:
                self._found("unowned", file, where, self._own_again(column, file))
            self._check_bytes(file, item, where)

    def _check_bytes(self, file: Named, item: Attachment, where: str) -> None:
        self._report.files += 1
        if file.storage in self._silent:
            return
        sha256 = item.sha256 if self._checksums and file.key == item.key else None
        try:
            storage = self._purger.resolve(file.storage)
            if isinstance(storage, Heals) and self._check_members(storage, file, sha256, where):
                return
            if not self._purger.io(lambda: is_whole(storage, file, sha256)):
                self._found("damaged", file, where)
        except (FileMissing, UnknownStorage) as error:
            self._found("missing", file, f"{where}: {error}")
        except StorageFailed as error:  # told once: nobody knows what a place holds that does not answer
            self._silent.add(file.storage)
            self._report.problems[file.storage] = str(error)

    def _check_members(self, mirror: Heals, file: Named, sha256: str | None, where: str) -> bool:
        """What members of a mirror lost or damaged. False if all lost it, or if the place is in doubt."""
        if file.storage in self._report.problems:
            return False
        lacking, damaged = self._purger.io(lambda: flaws(mirror, file, sha256))
        if len(lacking) == len(mirror.members):
            return False
        if damaged:
            self._found("damaged", file, f"{where}, in {listing(damaged)}")
        if lacking:
            where = f"{where}, lacking in {listing(lacking)}"
            try:  # What is damaged may be what is read first.
                self._found("incomplete", file, where, not damaged and self._heal(mirror, file))
            except (FileMissing, StorageFailed) as error:
                self._found("incomplete", file, f"{where}: {error}")
        return True

    def _heal(self, storage: Heals, file: Named) -> bool:
        """Copy a file to the members of a mirror that lost it, while its line is locked: a purge can't come between,
        whose bytes would come back.
        """
        if not self._repair:
            return False
        ledger = self._purger.ledger
        try:
            with self._purger.begin() as connection:
                ledger.begin_write(connection)
                if ledger.states(connection, [file], lock=True).get(file.name) != OWNED:
                    return False
                with storage_errors(file.storage, "heal", file.key):
                    return bool(self._purger.io(lambda: storage.heal(file.key)))
        except DBAPIError as error:
            raise_unless_held(error)
            return False

    def _own_again(self, column: ColumnType, file: Named) -> bool:
        """Give a named file its line back, if its bytes are there."""
        if not self._repair:
            return False
        ledger, line = self._purger.ledger, Line(file, *ledger_owner(column))
        try:
            with storage_errors(file.storage, "look at", file.key):
                storage = self._purger.resolve(file.storage)
                self._purger.io(lambda: storage.stat(file.key))
        except (FileMissing, UnknownStorage, StorageFailed):
            return False
        try:
            with self._purger.begin() as connection:
                ledger.begin_write(connection)
                if not Rows(self._purger, column).still_name(connection, file, locked=True):
                    return False
                if ledger.reclaim(connection, line):
                    return True
                if ledger.states(connection, [file]):
                    return False
                ledger.adopt(connection, line)
                return True
        except DBAPIError as error:
            raise_unless_held(error)
            return False

    # Lines

    def _check_lines(self) -> None:
        c = self._purger.ledger.lines.c
        owner = c.owner_table, c.owner_column
        suspects: dict[Named, Owner] = {}
        after = ("", "")
        while True:
            later = (c.key > after[0]) | and_(c.key == after[0], c.storage > after[1])
            statement = select(c.storage, c.key, c.size, c.state, *owner).where(later).order_by(c.key, c.storage)
            with self._purger.begin() as connection:
                rows = connection.execute(statement.limit(CHUNK)).all()
                known = {(row.storage, row.key) for row in rows}
                nameless = {
                    Named(row.storage, row.key, row.size or 0): (row.owner_table, row.owner_column)
                    for row in rows
                    if row.state == OWNED and (row.storage, row.key) not in self._named
                }
                # After the lines: of each, the table is there by now.
                sight = self._sight(connection, nameless) if nameless else None
            if not rows:
                break
            self._report.lines += len(rows)
            self._known |= known
            if sight is not None:
                suspects |= self._suspects(sight, nameless)
            self._progress("ledger", len(rows))
            after = rows[-1].key, rows[-1].storage
        if suspects:
            self._check_suspects(suspects)

    def _sight(self, connection: Connection, files: Mapping[Named, Owner]) -> Sight:
        compared = [each.column for each in self._columns if each.column is not None]
        return Sight(connection, self._purger.ledger, compared, set(files.values()))

    def _suspects(self, sight: Sight, files: Mapping[Named, Owner]) -> dict[Named, Owner]:
        """Look at files that no row names which is seen; returns those whose owners' rows are all seen, or gone."""
        suspects = {}
        mapped = {ledger_owner(each) for each in self._columns}
        for file, owner in files.items():
            if not owner[1]:
                continue  # Documents own it.
            label, doubt = ".".join(owner), sight.doubt(owner)
            if owner not in mapped and (doubt or sight.knows(owner)):
                self._report.unmapped[label] += 1
            elif doubt:
                self._report.problems[label] = f"nobody can tell whether rows name all of its files, as {doubt}"
            else:
                suspects[file] = owner
        return suspects

    def _check_suspects(self, files: Mapping[Named, Owner]) -> None:
        """Look at files that no row of their owners names, unless others do: of a table that was renamed, or a copy."""
        with self._purger.begin() as connection:
            sight = self._sight(connection, files)
        elsewhere, doubt = sight.elsewhere(self._purger, {file.key: owner for file, owner in files.items()})
        for file, owner in files.items():
            where = f"ledger, for {'.'.join(owner)}"
            if file.key in elsewhere:
                self._report.unmapped[elsewhere[file.key]] += 1
            elif sight.knows(owner):
                self._check_unnamed("unnamed", file, owner, where, self._repair)
            else:
                why = f"; nothing is condemned, as {doubt}" if doubt and self._repair else ""
                where += f", which is not in the database{why}"
                self._check_unnamed("ownerless", file, owner, where, self._repair and doubt is None)

    def _check_unnamed(self, kind: str, file: Named, owner: Owner, where: str, repair: bool) -> None:
        ledger = self._purger.ledger
        c = ledger.lines.c
        mine = and_(ledger.among([file]), c.state == OWNED, c.owner_table == owner[0], c.owner_column == owner[1])
        with self._purger.begin() as connection:
            if repair:
                ledger.begin_write(connection)
                # Who gives a file another name changes its line: while that is ours, rows need no lock. Waiting for
                # them here could deadlock with their users.
                if connection.scalar(select(c.key).where(mine).with_for_update(skip_locked=True)) is None:
                    return
            if any(Rows(self._purger, each).still_name(connection, file) for each in self._columns):
                return
            if repair:
                condemned = update(ledger.lines).where(mine)
                connection.execute(condemned.values(state=CONDEMNED, since=now(), purge_after=now()))
        self._found(kind, file, where, repair)

    # Storages

    def _check_place(self, name: str) -> None:
        if self._purger.resolve(name).readonly:
            return
        problem = self._purger.problem(name, again=True, mark=False)
        if problem is not None:
            self._report.problems[name] = problem

    def _check_storage(self, name: str) -> None:
        for chunk in listed(self._purger, name):
            self._progress(name, len(chunk))
            for key, _ in chunk:
                if is_key(key) and moment(key) < self._young and (name, key) not in self._known:
                    self._found("stranger", Named(name, key, 0), f"storage {name!r}")

    def _found(self, kind: str, file: Named, where: str, repaired: bool = False) -> None:
        self._report.findings.append(Finding(kind, file.storage, file.key, where, repaired))
