"""Places: which database may delete in a storage's place.

A place carries a small file, the marker, with a UUID that follows from the identity of one database and one storage
name; ``attachment_storage`` holds the same UUID. Whoever finds another marker than its own deletes nothing: a
restored copy of the database, a second application, another folder, a volume that is not mounted, a second name for
the same place.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid4, uuid5
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Pool, select, text

from .birth import born
from .chunks import insert_ignoring
from .errors import FileMissing, storage_errors
from .ledger import Ledger
from .scope import Begin, Scope
from .storage import HasPath, Heals, Storage
from .tables import file_of, schema_of

MARKER = ".sa-attachments-place"
"""Key of the marker; not of the form of our keys, so that no sweep takes it for a file."""


Runner = Callable[[Callable[[], Any]], Any]
"""Runs what a storage does: at once, in a thread, or within a time limit."""


class Verdict(NamedTuple):
    """Whether a ledger's database may delete in a place."""

    storage: Storage
    """The one that was checked."""
    problem: str | None
    """What was wrong with it."""
    ledger: str
    """The whereabouts of the ledger that it is true of."""


class Known(NamedTuple):
    """What is known of places, by the names of their storages."""

    verdicts: dict[str, Verdict]
    late: dict[str, tuple[Storage, str | None]]
    """A storage, and its marker, which nobody has looked at yet."""


class Places:
    """What one ``Storages`` knows of its places. Each is checked once per process, and again by each sweep."""

    def __init__(self) -> None:
        self._in_memory: WeakKeyDictionary[Pool, str] = WeakKeyDictionary()
        self._known: WeakKeyDictionary[Pool, dict[Hashable, Known]] = WeakKeyDictionary()
        self._markers: dict[str, set[str]] = {}
        """What the places of a name's storages are to say, of each database."""

    def known(self, scope: Scope) -> Known:
        """What is known of the places of a database's ledger, as long as the engine lives: its pool, which it shares
        with those that ``Engine.execution_options`` makes of it, perhaps one for each request.
        """
        return self._known.setdefault(scope.engine.pool, {}).setdefault(scope.tables, Known({}, {}))

    def problem(
        self,
        begin: Begin,
        ledger: Ledger,
        name: str,
        storage: Storage,
        io: Runner,
        *,
        read: Callable[[], str | None] | None = None,
        register: bool = True,
        mark: bool = True,
    ) -> str | None:
        """Why this database may not delete in the place of ``name``; None if it may.

        A place that is nobody's is marked, unless ``mark`` is false; with ``register``, the database notes that the
        place is its own. ``io`` runs what the storage does, and ``read`` tells what the marker says, if somebody may
        know already. ``begin`` gives a connection in a transaction, perhaps more than once; it has ended whenever the
        storage works. On SQLite, nobody could commit while it has read.
        """
        if storage.readonly:
            return f"storage {name!r} is read-only"
        found = read() if read is not None else io(lambda: read_marker(name, storage))
        places = ledger.places
        with begin() as connection:
            fingerprint = self.fingerprint(connection, ledger)
            ours = self.identity(connection, ledger, name)
            self._markers.setdefault(name, set()).add(ours)
            row = connection.execute(select(places.c.place, places.c.fingerprint).where(places.c.name == name)).first()
        if row is not None and found is None:
            found = io(lambda: read_marker(name, storage))  # Somebody may have marked it since, and told the database.
        if row is None and found is None:
            if not mark:
                return None
            found = io(lambda: write_marker(name, storage, ours))
        if row is None and found == ours:
            if register:
                values = {"name": name, "place": ours, "fingerprint": fingerprint}
                with begin() as connection:
                    connection.execute(insert_ignoring(connection.dialect.name, places).values(values))
            return None
        if found is None:
            return (
                f"the place of storage {name!r}, {storage!r}, is another one than before (an unmounted volume, a wrong "
                "folder?): "
                "mount the volume or correct the URL; if a new place is meant, run 'sa-attachments takeover'"
            )
        if found != ours or row is None or row.fingerprint != fingerprint:
            return (
                f"the place of storage {name!r} belongs to another database or storage name (a database made anew, a "
                "restored copy, a file put in the place of the database's own?): "
                "give this one a place of its own, open it with '?readonly=true', or run 'sa-attachments takeover'"
            )
        return None

    def has_left(self, name: str, storage: Storage) -> bool:
        """Whether the place of a storage, or of a member of a mirror, is not the one any more that was looked at: its
        volume was unmounted, another one is there, or somebody took it over. Every file that is missing would count as
        deleted.
        """
        if isinstance(storage, Heals):
            return any(self.has_left(name, member) for member in storage.members.values())
        return isinstance(storage, HasPath) and read_marker(name, storage) not in self._markers.get(name, ())

    def take_over(self, connection: Connection, ledger: Ledger, name: str, storage: Storage, io: Runner) -> None:
        """Make the place belong to this database; from then on the one that it belonged to deletes nothing."""
        ours = self.identity(connection, ledger, name)
        io(lambda: replace_marker(name, storage, ours))
        places = ledger.places
        values = {"place": ours, "fingerprint": self.fingerprint(connection, ledger)}
        connection.execute(insert_ignoring(connection.dialect.name, places).values(name=name, **values))
        connection.execute(places.update().where(places.c.name == name).values(values))

    def identity(self, connection: Connection, ledger: Ledger, name: str) -> str:
        """What the marker of this database's place says."""
        # The other databases have one ledger each.
        schema = schema_of(connection, ledger.lines) if connection.dialect.name == "postgresql" else ""
        said = self.fingerprint(connection, ledger)
        return str(uuid5(NAMESPACE_URL, "\n".join(("sa-attachments", said, schema, name))))

    def fingerprint(self, connection: Connection, ledger: Ledger) -> str:
        """The identity of the database that a ledger is in, as the server tells it; a copied SQLite file differs, a
        moved one does not. A physical copy of a whole server has that of its original.
        """
        match connection.dialect.name:
            case "postgresql":
                row: Any = connection.execute(
                    text("SELECT system_identifier, current_database() FROM pg_control_system()")
                ).one()
                return f"postgresql/{row[0]}/{row[1]}"
            case "sqlite":
                name = file_of(connection, ledger.lines)
                if not name:
                    return self._in_memory.setdefault(connection.engine.pool, f"memory/{uuid4()}")
                # Device numbers change when a machine starts; the id of the file system does not, unless it is the
                # device number, as on XFS: there the birth has to do. A copy may get the inode of a file that was
                # replaced, but was not born when that was.
                path = Path(name)
                found, birth, volume = path.stat(), born(path) or "", os.statvfs(path).f_fsid
                return f"sqlite/{'' if birth and volume == found.st_dev else volume}/{found.st_ino}/{birth}"
            case _:
                names = "'server_uuid', 'server_uid', 'hostname', 'port', 'datadir'"
                rows = connection.exec_driver_sql(f"SHOW VARIABLES WHERE Variable_name IN ({names})")
                said = "/".join(str(value) for _, value in sorted(tuple(row) for row in rows))
                return f"mysql/{uuid5(NAMESPACE_URL, said)}/{schema_of(connection, ledger.lines)}"


def holds(storage: Storage, path: Path) -> bool:
    """Whether a path, without symbolic links, is in the place of a storage that keeps its files on this machine."""
    if isinstance(storage, Heals):
        return any(holds(member, path) for member in storage.members.values())
    try:
        return isinstance(storage, HasPath) and path.is_relative_to(storage.path(MARKER).resolve().parent)
    except OSError:
        return False  # It is not marked: nobody owns a file there. Or it can't be looked at, as the path then.


def marked_above(path: Path) -> Path | None:
    """The folder with a marker that a path, without symbolic links, is in: one of a storage that nobody made so far, as
    that of a pattern, or of another application.
    """
    for folder in path.parents:
        try:
            if (folder / MARKER).is_file():
                return folder
        except OSError:  # It can't be looked at.
            continue
    return None


def replace_marker(name: str, storage: Storage, identity: str) -> None:
    """Mark a place, whoever it belonged to."""
    with storage_errors(name, "replace its marker"):
        for error in storage.delete([MARKER]).values():
            raise error
    write_marker(name, storage, identity)


def read_marker(name: str, storage: Storage) -> str | None:
    """Whose the place is; None if nobody's."""
    with storage_errors(name, "read its marker"):
        try:
            with storage.open(MARKER) as file:
                return file.read(100).decode("ascii", "replace").strip()
        except FileMissing:
            return None


def write_marker(name: str, storage: Storage, identity: str) -> str | None:
    """Mark a place that is nobody's; returns whose it is afterwards."""
    with storage_errors(name, "mark its place"):
        try:
            storage.put(MARKER, io.BytesIO(identity.encode()), size=len(identity), content_type="text/plain")
        except FileExistsError:
            return read_marker(name, storage) or "somebody's"  # in a part of a mirror
    return identity
