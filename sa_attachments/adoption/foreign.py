"""Foreign: files that another library stored, adopted where they are, with the keys that it chose, or copied; and back.

Read and write the values of ``libraries``; their descriptor keeps the value, as ``adopted``, for the way back.

>>> from sa_attachments import Storages
>>> files = Storages("memory:")
>>> files.resolve().put("7", io.BytesIO(b"hello"), size=5, content_type="text/plain")
>>> reader = ForeignReader(Plan("docs", "upload", "file", Depot({"old": "default"})), files)
>>> text = '{"depot_name": "old", "file_id": "7", "path": "old/7", "filename": "a.txt", "files": ["old/7"]}'
>>> made = reader.make(Row((1,), text))
>>> made.value["key"], made.value["filename"], made.files[0].fresh
('7', 'a.txt', False)
>>> reader.give_back([made.value], False).value == text
True
"""

from __future__ import annotations

import io
import json
from contextlib import suppress
from functools import partial
from typing import Any

from ..descriptor import Facts, named, variant_of
from ..errors import FileMissing, UnknownStorage, storage_errors
from ..files import Storages
from ..recovery import discard
from ..storage import HasPath, Storage
from ..storages import well_formed
from .libraries import LIBRARIES, Theirs
from .plan import AdvancedAlchemy, Depot, Plan, SQLAlchemyFile
from .rows import Row
from .spot import Spot, spot_of
from .taking import (
    File,
    Made,
    Returned,
    StorageSource,
    Unadoptable,
    can_be_key,
    in_place,
    put_back,
    refuse_notes,
    stored,
    take_away,
)


class ForeignReader:
    """See ``Reader``. Raises UnknownStorage."""

    def __init__(self, plan: Plan, files: Storages) -> None:
        assert isinstance(plan.origin, Depot | SQLAlchemyFile | AdvancedAlchemy)
        self._origin = plan.origin
        self._library = LIBRARIES[plan.origin.kind]
        self._label = plan.label
        self._files = files
        self._target = files.real(plan.storage) if plan.storage or plan.origin.mode == "copy" else None
        self._met: set[str] = set()  # which need not be mapped, if they have one name
        for name in plan.origin.storages.values():
            files.resolve(name)
        if self._target is not None:
            files.resolve(self._target)

    def storages(self) -> set[str]:
        names = {self._files.real(name) for name in self._origin.storages.values()} | self._met
        return names | ({self._target} if self._target is not None else set())

    def look(self, row: Row) -> None:
        for theirs in self._read(row.value)[0]:
            for each in (theirs, *theirs.variants.values()):
                self._ours(each.storage)
                refuse_notes(each.keys[0])
                fits = can_be_key if self._origin.mode == "in_place" and not self._origin.fallback else well_formed
                if not any(fits(key) for key in each.keys):
                    raise Unadoptable("name", f"{each.keys[0]!r} can't be a key")

    def make(self, row: Row, copying: bool = False) -> Made:
        theirs, plural = self._read(row.value)
        made = Made(row, [], row.value)
        values: list[Facts] = []
        try:
            for each in theirs:
                facts = self._taken(each, made, copying or self._origin.mode == "copy")
                values.append(facts | {"adopted": {"value": each.said, **facts.get("adopted", {})}})
        except BaseException:
            discard(self._files.resolve, made.fresh)
            raise
        made.value = values if plural else values[0]
        return made

    def _read(self, value: str | None) -> tuple[list[Theirs], bool]:
        return self._library.read(value or "")

    def _ours(self, theirs: str) -> str:
        """Our name of a place of theirs."""
        name = self._origin.storages.get(theirs) or self._origin.storages.get("*") or theirs
        try:
            ours = self._files.real(name)
        except UnknownStorage as error:
            raise UnknownStorage(
                f"{self._label} names files in {theirs!r}, say which storage that is: {error}"
            ) from None
        self._met.add(ours)
        return ours

    def _taken(self, theirs: Theirs, made: Made, copying: bool) -> Facts:
        facts = self._take(theirs, made, copying)
        for name, each in theirs.variants.items():
            variant = self._take(each, made, copying) | {"metadata": dict(each.about)}
            facts["variants"][name] = {k: v for k, v in variant.items() if k not in ("v", "variants")}
        return facts

    def _take(self, theirs: Theirs, made: Made, copying: bool) -> Facts:
        name = self._ours(theirs.storage)
        storage = self._files.resolve(name)
        key = self._found(theirs, name, storage)
        refuse_notes(key)
        if not copying and not can_be_key(key):
            raise Unadoptable("name", f"{key!r} is too long for the ledger: say fallback='copy'")
        about: dict[str, Any] = {
            "filename": theirs.filename,
            "claimed": theirs.content_type,
            "metadata": theirs.metadata,
        }
        try:
            if copying:
                target = self._target or name
                source = StorageSource(storage, name, key)
                facts = stored(source, target, self._files.resolve(target), label=self._label, **about)
                made.files.append(File(named(facts)[0], True, True))
                return facts
            facts = in_place(name, storage, key, stored_at=theirs.stored_at, **about)
        except FileMissing as error:
            raise Unadoptable("missing", str(error)) from error
        beside = theirs.beside(key) if isinstance(storage, HasPath) else None
        if beside is not None:
            facts["adopted"] = {"beside": [beside]}
        made.files.append(File(named(facts)[0], False, True, (beside,) if beside else ()))
        return facts

    def _found(self, theirs: Theirs, name: str, storage: Storage) -> str:
        keys = theirs.keys if isinstance(storage, HasPath) else theirs.keys[::-1]
        for key in keys:
            if not well_formed(key):
                continue
            try:
                with storage_errors(name, "look at", key):
                    storage.stat(key)
            except FileMissing:
                continue
            return key
        raise Unadoptable("missing", f"there is no file {keys[0]!r} in storage {name!r}")

    # Back

    def spots(self, value: str) -> set[Spot]:
        found = set()
        for theirs in self._read(value)[0]:
            for each in (theirs, *theirs.variants.values()):
                name = self._ours(each.storage)
                found |= {spot_of(name, self._files.resolve(name), key) for key in each.keys}
        return found

    def give_back(self, items: list[Facts], plural: bool, avoid: frozenset[Spot] = frozenset()) -> Returned:
        given: list[Returned] = []
        try:
            for facts in items:
                given.append(self._as_it_was(facts, avoid) or self._written(facts))  # noqa: PERF401 - see below
        except (FileMissing, Unadoptable) as error:
            for undo in (undo for each in given for undo in each.undo):
                undo()
            if isinstance(error, FileMissing):
                raise Unadoptable("missing", str(error)) from error
            raise
        value = f"[{', '.join(each.value for each in given)}]" if plural else given[0].value
        kept = frozenset().union(*(each.kept for each in given))
        return Returned(value, kept, tuple(undo for each in given for undo in each.undo))

    def _as_it_was(self, facts: Facts, avoid: frozenset[Spot]) -> Returned | None:
        """The value that an adopted file had; its bytes are put back where they are not. None if others are there, or
        if a file there is to be avoided.
        """
        remembered = facts.get("adopted")
        value = remembered.get("value") if isinstance(remembered, dict) else None
        if not isinstance(value, str) or avoid & self.spots(value):
            return None
        theirs = self._read(value)[0][0]
        pairs: list[tuple[Theirs, Facts | None]] = [(theirs, facts)]
        pairs += [(each, variant_of(facts, name)) for name, each in theirs.variants.items()]
        places = [self._put_back(each, ours, facts) for each, ours in pairs]
        kept = frozenset(place for place in places if place is not None)
        return Returned(value, kept) if None not in places else None

    def _put_back(self, theirs: Theirs, facts: Facts | None, owner: Facts) -> tuple[str, str] | None:
        """See that a file is where it was; None if another one is there."""
        name = self._ours(theirs.storage)
        storage = self._files.resolve(name)
        try:
            key = self._found(theirs, name, storage)
        except Unadoptable:
            key = theirs.keys[0] if isinstance(storage, HasPath) else theirs.keys[-1]
            if facts is None or not self._copied(facts, name, storage, key):
                return None
        else:
            elsewhere = facts is not None and (facts["storage"], facts["key"]) != (name, key)
            if facts is not None and elsewhere and in_place(name, storage, key)["sha256"] != facts["sha256"]:
                return None
        beside = theirs.beside(key) if isinstance(storage, HasPath) else None
        if facts is not None and beside is not None:
            about = {"metadata": {}, "filename": "unnamed", **owner, **facts, "content_type": facts["content_type"]}
            self._set_aside(about, name, storage, key)
        return name, key

    def _written(self, facts: Facts) -> Returned:
        """A value for a file that was uploaded since."""
        name, place = self._home(facts)
        storage = self._files.resolve(name)
        key = self._library.key(facts, isinstance(storage, HasPath))
        elsewhere = (name, key) != (facts["storage"], facts["key"])
        if elsewhere and not self._copied(facts, name, storage, key):
            raise Unadoptable("unreadable", f"another file lies at {name}:{key}")
        aside = self._set_aside(facts, name, storage, key) if isinstance(storage, HasPath) else []
        value = json.dumps(self._library.write(facts, place, key))
        undo = partial(take_away, name, storage, [key, *aside])
        return Returned(value, frozenset({(name, key)}), (undo,) if elsewhere else ())

    def _home(self, facts: Facts) -> tuple[str, str]:
        """Our and their name of the place for a file of ours: its own, if they know it, else the first that they do."""
        known = [(self._files.real(ours), theirs) for theirs, ours in self._origin.storages.items() if theirs != "*"]
        mine = [pair for pair in known if pair[0] == facts["storage"]]
        return next(iter([*mine, *known]), (facts["storage"], facts["storage"]))

    def _copied(self, facts: Facts, name: str, storage: Storage, key: str) -> bool:
        """Let the bytes lie at a key of theirs; False if others do."""
        return put_back(name, storage, key, self._files.resolve(facts["storage"]), facts)

    def _set_aside(self, facts: Facts, name: str, storage: Storage, key: str) -> list[str]:
        """See that what the library keeps beside a file in a local folder is there; returns its key, if any."""
        aside = self._library.aside(facts, key)
        if aside is None:
            return []
        with storage_errors(name, "put", aside[0]), suppress(FileExistsError):
            storage.put(aside[0], io.BytesIO(aside[1]), size=len(aside[1]), content_type="application/json")
        return [aside[0]]
