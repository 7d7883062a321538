"""Paths: files that a column names by their path, or URL, below a root, and back.

A path that leaves its root, by ``..`` or by a link, is refused; a file is opened without following a link at its end,
and where it really lies is asked once more after it was opened.

>>> import tempfile
>>> from sa_attachments import Storages
>>> folder = tempfile.TemporaryDirectory()
>>> root = Path(folder.name)
>>> _ = root.joinpath("a.txt").write_bytes(b"hello")
>>> reader = PathReader(Plan("docs", "path", "file", Paths(root)), Storages("memory:"))
>>> made = reader.make(Row((1,), "a.txt"))
>>> made.value["filename"], made.value["size"], made.value["adopted"]
('a.txt', 5, {'path': 'a.txt'})
>>> reader.give_back([made.value], False).value
'a.txt'
>>> reader.look(Row((2,), "../a.txt"))
Traceback (most recent call last):
sa_attachments.adoption.taking.Unadoptable: '../a.txt' leads out of ...
>>> folder.cleanup()
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ..descriptor import Facts, named
from ..errors import BadConfiguration, FileMissing, StorageFailed
from ..filename import extension
from ..files import Storages
from ..source import PathSource
from ..storage import Storage, TakesFile
from ..storages import well_formed
from ..storages.registry import Registry
from .columns import is_text
from .folder import Folder
from .plan import Paths, Plan
from .rows import Row
from .spot import Spot, is_local
from .taking import (
    File,
    Made,
    Returned,
    StorageSource,
    Unadoptable,
    can_be_key,
    chunks_of,
    in_place,
    put_back,
    refuse_notes,
    stored,
    take_away,
)

_URL = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)


class PathReader:
    """See ``Reader``. Raises UnknownStorage, and BadConfiguration for a root that is not there, or that files can't be
    adopted below; of a row, for one that they can't be linked from.
    """

    def __init__(self, plan: Plan, files: Storages) -> None:
        assert isinstance(plan.origin, Paths)
        self._paths = plan.origin
        self._label = plan.label
        self._files = files
        self._name = files.real(plan.storage)
        self._storage = files.resolve(self._name)
        prefix = plan.origin.prefix
        self._prefix = f"{prefix}/" if prefix[-1:].isalnum() else prefix  # media is not the beginning of media2
        self._is_url = "://" in prefix
        self._root, self._remote = _root(plan.origin, self._storage)
        self._inside = self._place_of_root() if plan.origin.mode == "in_place" else ""

    def storages(self) -> set[str]:
        return {self._name}

    def look(self, row: Row) -> None:
        if self._paths.mode == "link":
            self._check_linkable()  # here, as the way back links nothing, nor does a table without rows
        path = self._relative(row)
        if self._root is not None:
            self._root.find(path)
        else:
            self._check_name(path)
        if self._paths.mode == "in_place" and self._paths.fallback is None:
            self._key(path)

    def make(self, row: Row, copying: bool = False) -> Made:
        path = self._relative(row)
        adopted = {"adopted": {"path": row.value}}
        try:
            if self._paths.mode == "in_place" and not copying:
                return self._in_place(row, path, adopted)
            facts = self._copied(row, path, self._paths.mode == "link" and not copying)
        except FileMissing as error:
            raise Unadoptable("missing", f"there is no file {path!r}: {error}") from error
        except StorageFailed:
            raise
        except OSError as error:
            raise Unadoptable("unreadable", f"{path!r} can't be read: {error}") from error
        return Made(row, facts | adopted, row.value, [File(each, True, True) for each in named(facts)])

    def _in_place(self, row: Row, path: str, adopted: Facts) -> Made:
        key = self._key(path)
        name = row.filename or path.rpartition("/")[2]
        facts = in_place(self._name, self._storage, key, filename=name, claimed=row.content_type)
        return Made(row, facts | adopted, row.value, [File(each, False, True) for each in named(facts)])

    def _copied(self, row: Row, path: str, link: bool) -> Facts:
        name = row.filename or path.rpartition("/")[2]
        about: dict[str, Any] = {"filename": name, "claimed": row.content_type, "label": self._label}
        if self._root is None:
            assert self._remote is not None
            self._check_name(path)
            return stored(StorageSource(self._remote, "root", path), self._name, self._storage, **about)
        with self._root.opened(path, linking=link) as found:
            return stored(PathSource(found), self._name, self._storage, move=link, **about)

    # Where files are

    def _relative(self, row: Row) -> str:
        """The path below the root that a value stands for."""
        value, prefix = row.value or "", self._prefix
        if not value.strip():
            raise Unadoptable("empty", f"{self._label} is an empty text")
        if prefix:
            if not value.startswith(prefix):
                raise Unadoptable("outside", f"{value!r} does not begin with {prefix!r}")
            value = value.removeprefix(prefix)
            if self._is_url:
                value = unquote(urlsplit(f"//x/{value}").path[1:])
            value = value.lstrip("/")
        elif _URL.match(value) and "://" in value:
            raise Unadoptable("outside", f"{value!r} is a URL: say by prefix what is to be taken off")
        if "\0" in value or not is_text(value):
            raise Unadoptable("unreadable", f"{row.value!r} is no path")
        return value

    def _key(self, path: str) -> str:
        """The key of a file in the place of the storage."""
        if self._root is not None:
            path = self._root.straight(path)
        key = self._inside + path
        refuse_notes(key)
        if not can_be_key(key):
            raise Unadoptable("name", f"{key!r} can't be a key: adopt it by mode='copy', or say fallback='copy'")
        return key

    def _check_name(self, path: str) -> None:
        refuse_notes(path)
        if not well_formed(path):
            raise Unadoptable("name", f"{path!r} can't be a key in {self._paths.root}")

    def _place_of_root(self) -> str:
        """What keys of files below the root begin with."""
        if self._root is None:
            return ""
        if not is_local(self._storage):
            raise BadConfiguration(
                f"mode 'in_place': storage {self._name!r} is no folder of this machine: leave out root"
            )
        inside = os.path.relpath(self._root.path, os.path.realpath(self._storage.root))
        if inside == ".." or inside.startswith("../"):
            raise BadConfiguration(f"mode 'in_place': {str(self._root.path)!r} is not inside of storage {self._name!r}")
        return "" if inside == "." else f"{inside}/"

    def _check_linkable(self) -> None:
        place = self._storage
        if self._root is None or not isinstance(place, TakesFile):
            raise BadConfiguration(f"mode 'link' needs folders of this machine, and {self._name!r} is none: use 'copy'")
        if not is_local(place):
            return  # it can take files, and copies those that it can't
        there = next(each for each in (place.root, *place.root.parents) if each.exists())
        if there.stat().st_dev != Path(self._root.path).stat().st_dev:
            raise BadConfiguration(f"mode 'link': {self._name!r} is on another file system than the root: use 'copy'")

    # Back

    def spots(self, value: str) -> set[Spot]:
        path = self._relative(Row((), value))
        if self._root is not None:
            return {Spot(None, real) for real in self._root.places(path)}
        return set() if self._paths.root is not None else {Spot(self._name, path)}

    def give_back(self, items: list[Facts], plural: bool, avoid: frozenset[Spot] = frozenset()) -> Returned:
        if plural:
            raise Unadoptable("unreadable", f"{len(items)} attachments in a list do not fit into {self._label}")
        facts = items[0]
        adopted = facts.get("adopted")
        value: Any = adopted.get("path") if isinstance(adopted, dict) else None
        try:
            remembered = isinstance(value, str) and not avoid & self.spots(value)
            return (self._as_it_was(value, facts) if remembered else None) or self._written(facts)
        except FileMissing as error:
            raise Unadoptable("missing", str(error)) from error
        except StorageFailed:
            raise
        except OSError as error:
            raise Unadoptable("unreadable", f"{facts['filename']!r} can't be put back: {error}") from error

    def _as_it_was(self, value: str, facts: Facts) -> Returned | None:
        """The path that the row had, with its file; None if another one lies there now."""
        path = self._relative(Row((), value))
        if self._is_own(path, facts):
            return Returned(value, frozenset({(facts["storage"], facts["key"])}))
        return Returned(value) if self._write(path, facts) else None

    def _is_own(self, path: str, facts: Facts) -> bool:
        """Whether the attachment's own file is the one at the path, which has to stay then, whatever the mode is."""
        storage, key = self._files.resolve(facts["storage"]), str(facts["key"])
        if self._root is not None and is_local(storage):
            return Path(storage.root, key).resolve() == Path(self._root.path, path).resolve()
        return f"/{key}".endswith(f"/{os.path.normpath(path)}")

    def _written(self, facts: Facts) -> Returned:
        """A path for a file that was uploaded since. It never has the form of our keys: without a line, the next sweep
        would take it for a file that nobody names.
        """
        suffix = extension(facts["filename"])
        path = facts["key"] + (suffix if well_formed(suffix) else ".bin")
        if not self._write(path, facts):
            raise Unadoptable("unreadable", f"another file lies at {path!r}")
        return Returned(self._value(path), undo=(partial(self._remove, path),))

    def _value(self, path: str) -> str:
        return self._prefix + (quote(path) if self._is_url else path)

    def _write(self, path: str, facts: Facts) -> bool:
        """Let the bytes lie at the path; False if others do."""
        storage = self._files.resolve(facts["storage"])
        if self._root is not None:
            return self._root.write(path, facts, lambda: chunks_of(storage, facts))
        assert self._remote is not None
        return put_back("root", self._remote, path, storage, facts)

    def _remove(self, path: str) -> None:
        if self._root is not None:
            self._root.remove(path)
        else:
            assert self._remote is not None
            take_away("root", self._remote, [path])


def _root(paths: Paths, storage: Storage) -> tuple[Folder | None, Storage | None]:
    """The root as a folder, or as a storage."""
    root = paths.root
    if root is None:
        return (Folder(storage.root), None) if is_local(storage) else (None, storage)
    if isinstance(root, str) and _URL.match(root):
        remote = Registry(root).resolve()
        if is_local(remote):
            return Folder(remote.root), None
        if paths.mode != "copy":
            raise BadConfiguration(f"mode {paths.mode!r} of {root!r}: leave out root, and name that storage instead")
        return None, remote
    return Folder(Path(root)), None
