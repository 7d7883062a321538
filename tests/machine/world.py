"""World: the database and the storages that the machine plays with, as they really are.

Every upload of the machine carries a mark in its metadata, which copies and renamed attachments keep: it tells which
bytes a descriptor must lead to, whatever key they have.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection, Engine, text
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

from sa_attachments import Attachment, making, rows
from sa_attachments.storage import Storage
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.testing import Faulty

from .model import Entry, Item, Name, Row
from .models import ATTRIBUTES, CONTENTS, DEFAULT, RETAINED, VAULT, Base, fails, files

NOW = timedelta(0)


class Broken(OSError):
    """What a storage of the machine says when it fails."""


class World:
    """``engine`` is what the sessions use, ``observer`` looks at the database beside it; ``make`` gives an example its
    storages.
    """

    def __init__(self, engine: Engine, observer: Engine, make: Callable[[], Storage] = MemoryStorage) -> None:
        self.engine = engine
        self.observer = observer
        self._make = make
        self._stack = ExitStack()
        Base.metadata.create_all(observer)

    @property
    def has_one_writer(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def begin(self) -> None:
        """Empty: another example starts."""
        self.storages = {name: Faulty(self._make()) for name in (DEFAULT, VAULT)}
        self.fired = 0
        self.dirty = False
        self.staged: set[Name] = set()
        self.unheard: set[Name] = set()
        """Named by a commit that a session took for a rollback: it may think that a staged one is still to be had."""
        self._contents: dict[str, bytes] = {}
        self._seen = dict.fromkeys(self.storages, 0)
        self._stack.enter_context(files.override(self.storages))
        # Sessions of the same thread give no row up meanwhile.
        self._stack.enter_context(patch.multiple(making, WAIT=0.02))
        self._stack.enter_context(patch.multiple(rows, _TRIES=1))
        with self.observer.begin() as connection:
            for table in ("docs", "folders", "attachment_ledger", "attachment_storage"):
                connection.exec_driver_sql(f"DELETE FROM {table}")

    def end(self) -> None:
        self._stack.close()

    # What the machine makes

    def upload(self, caption: str | None = None, same: bool = False) -> Attachment:
        """A new attachment, its bytes like no other's, or like those of all that are the ``same``."""
        mark = str(len(self._contents))
        self._contents[mark] = b"same" if same else f"bytes of {mark}".encode()
        return Attachment.upload(
            io.BytesIO(self._contents[mark]),
            f"{mark}.txt",
            metadata={"mark": mark} if caption is None else {"mark": mark, "caption": caption},
        )

    def item(self, attachment: Attachment) -> Item:
        """What it should be."""
        return self._item(attachment.filename, attachment.metadata)

    def _item(self, filename: str, metadata: Mapping[str, Any]) -> Item:
        return Item(self._contents[metadata["mark"]], filename, metadata.get("caption"))

    # Failures

    def fail(self, storage: str, verb: str, on: int | None, after: bool) -> None:
        """Let a verb fail: the next time, or until it is healed; before or after its work was done."""

        def action() -> None:
            self.fired += 1
            # A failed put is undone at once; what can't be deleted, or whose place is in doubt, is left to a sweep.
            self.dirty = self.dirty or verb in ("delete", "open")
            raise Broken(f"{verb} is broken")

        self.storages[storage].at(verb, on, action, after=after)

    def heal(self) -> None:
        for storage in self.storages.values():
            storage.heal()

    def sweep(self) -> None:
        """Whatever nobody owns goes now."""
        time.sleep(0.003)  # Times of files and of the database are compared in milliseconds.
        fired = self.fired
        report = files.sweep(self.engine, grace=NOW, stranger_retain=NOW)
        if self.fired == fired:
            assert report.ok, report
            self.dirty = False

    # What is there

    def put_since(self) -> set[Name]:
        """What was put, or tried to, since this was asked the last time."""
        found = set()
        for name, storage in self.storages.items():
            for verb, args in storage.calls[self._seen[name] :]:
                if verb in ("put", "copy"):
                    found.add((name, args[verb == "copy"]))
            self._seen[name] = len(storage.calls)
        return found

    def stored(self) -> dict[Name, bytes]:
        found = {}
        for name, storage in self.storages.items():
            for key, _ in storage.inner.keys():  # noqa: SIM118 - it is no dict
                with storage.inner.open(key) as file:
                    found[name, key] = file.read()
        return found

    def originals(self) -> dict[Name, bytes]:
        """Of what is stored, what is no variant."""
        return {name: data for name, data in self.stored().items() if data in self._contents.values()}

    def rows(self, connection: Connection) -> dict[int, Row]:
        """What the database says, read past the library."""
        columns = ", ".join(f"CAST({each} AS TEXT)" for each in ATTRIBUTES)
        found = {}
        for pk, title, *values in connection.execute(text(f"SELECT id, title, {columns} FROM docs")):
            slots = {each: self._entries(value) for each, value in zip(ATTRIBUTES, values, strict=True)}
            found[pk] = Row(title, slots)
        return found

    def committed_rows(self) -> dict[int, Row]:
        with self.observer.connect() as connection:
            return self.rows(connection)

    def ledger(self) -> dict[Name, tuple[str, bool]]:
        """For each file its state, and whether it is kept for a restore."""
        statement = text("SELECT storage, key, state, descriptor IS NOT NULL FROM attachment_ledger")
        with self.observer.connect() as connection:
            return {(storage, key): (state, bool(kept)) for storage, key, state, kept in connection.execute(statement)}

    def kept(self, connection: Connection) -> set[Name]:
        """Files that are condemned and kept for a restore."""
        statement = text(
            "SELECT storage, key FROM attachment_ledger WHERE state = 'condemned' AND descriptor IS NOT NULL"
        )
        return {(storage, key) for storage, key in connection.execute(statement)}

    def waiting(self) -> set[Name]:
        """Variants that are kept with what they belonged to, and that its new row, as an older object says, does not
        name: they go when their time has come.
        """
        statement = text(
            "SELECT storage, key FROM attachment_ledger WHERE state = 'condemned' AND descriptor IS NULL "
            "AND owner_column = :retained AND purge_after > :soon"
        )
        soon = (time.time() + 3600) * 1000
        with self.observer.connect() as connection:
            rows = connection.execute(statement, {"retained": RETAINED, "soon": soon})
            return {(storage, key) for storage, key in rows}

    def _entries(self, value: str | None) -> tuple[Entry, ...]:
        parsed = json.loads(value) if value else None
        items = parsed if isinstance(parsed, list) else [parsed] if parsed else []
        return tuple(self._entry(item) for item in items)

    def _entry(self, facts: Mapping[str, Any]) -> Entry:
        item = self._item(facts["filename"], facts["metadata"])
        assert (facts["size"], facts["sha256"]) == (len(item.content), hashlib.sha256(item.content).hexdigest())
        variants = tuple((name, self._variant(name, item, each)) for name, each in facts["variants"].items())
        assert self.fired or "loud" in facts["variants"], facts
        return Entry(item, (facts["storage"], facts["key"]), variants)

    def _variant(self, name: str, item: Item, facts: Mapping[str, Any]) -> Name | None:
        if "error" in facts:
            assert self.fired or (name == "loud" and fails(item.content)), facts
            return None
        content = CONTENTS[name](item.content)
        assert (facts["size"], facts["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        return facts["storage"], facts["key"]

    # What must be there

    def check(
        self, committed: Mapping[int, Row], kept: Iterable[Name], named: Mapping[Name, Item], young: set[Name]
    ) -> None:
        """The invariant.

        ``committed`` are the rows, ``named`` all files that they or open transactions name; ``kept`` are retained, and
        ``young`` are files that a transaction put which is still open: they may be there for as long as it is.
        """
        if in_greenlet():
            await_only(asyncio.wait_for(files.asettled(), 30))
        else:
            assert files.settled(30)
        assert self.committed_rows() == committed
        owned = {name for row in committed.values() for name in row.files()}
        self.staged -= owned | set(kept)
        stored = self.stored()
        for name, item in named.items():
            assert name in stored, f"{item.filename} is lost: {name}"
            assert stored[name] == item.content
        waiting = self.waiting()
        extra = set(stored) - set(named) - young - self.staged - waiting
        assert self.dirty or not extra, f"files that nobody names: {sorted(stored[name] for name in extra)}"
        lines = self.ledger()
        assert {name for name, (state, _) in lines.items() if state == "owned"} == owned
        # Variants are kept with what they belong to, and nobody asks for them alone.
        with_descriptor = {name for name, (state, is_kept) in lines.items() if state == "condemned" and is_kept}
        assert with_descriptor <= set(kept)
        assert {name for name in kept if lines.get(name, ("", False))[0] != "condemned"} == set()
        others = {state for name, (state, _) in lines.items() if name not in owned | waiting and name not in kept}
        assert others <= ({"gone", "purging", "condemned"} if self.dirty else {"gone"}), lines

    def verify(self, young: set[Name]) -> None:
        """What the library itself finds wrong."""
        report = files.verify(self.engine, checksums=True)
        strangers = {(found.storage, found.key) for found in report.findings if found.kind == "stranger"}
        assert report.counts.total() == report.counts["stranger"], report.findings
        assert self.dirty or strangers <= young | self.staged, report.findings
