"""World: one database, one storage, and the invariant that every scenario ends with.

``world.check(b"one", b"two")`` waits for the cleaning and asserts that committed rows name exactly files with these
bytes, each named once, that the storage holds these files and no others, and that the ledger says the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

from sqlalchemy import Connection, Engine, MetaData, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from sa_attachments import AttachmentListType, AttachmentType, Storages
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.sweep import SweepReport
from sa_attachments.testing import Faulty

from .models import Base, files

DEFAULT = "default"
Name = tuple[str, str]
"""``(storage, key)``"""


class World:
    """See the module. ``engine`` is what the scenario's sessions use, ``observer`` looks at the database beside it.

    ``prepared``: the tables are there already. Worlds of the same ``TABLES`` have the same ones.
    """

    TABLES: ClassVar[str] = "docs"

    def __init__(self, name: str, engine: Engine, observer: Engine, *, prepared: bool = False) -> None:
        self.name = name
        self.engine = engine
        self.observer = observer
        self.files: Storages = files
        self.storages: dict[str, Faulty] = {DEFAULT: Faulty(MemoryStorage(parallel=4))}
        self.prepared = prepared
        self._tables: list[tuple[MetaData, str | None]] = []
        if prepared:
            self._tables.append((Base.metadata, None))
        else:
            self.create(Base.metadata)

    @property
    def storage(self) -> Faulty:
        """The one that columns use unless they say otherwise."""
        return self.storages[DEFAULT]

    @property
    def is_async(self) -> bool:
        return self.engine.dialect.is_async

    def create(self, metadata: MetaData, schema: str | None = None) -> None:
        """Make the tables of other models; their files count too."""
        observer = self.observer.execution_options(schema_translate_map={None: schema}) if schema else self.observer
        metadata.create_all(observer)
        self._tables.append((metadata, schema))

    def session(self, **options: Any) -> Session:
        return Session(self.engine, **options)

    def settle(self) -> None:
        """Wait until ended transactions are cleaned up after."""
        if in_greenlet():
            await_only(asyncio.wait_for(self.files.asettled(), 20))
        else:
            assert self.files.settled(20), "cleaning did not end within 20 s"

    def heal(self) -> None:
        """After a test that failed, perhaps: what hangs would be waited for by all that come after."""
        for storage in self.storages.values():
            storage.heal()

    def sweep(self) -> SweepReport:
        """Sweep all at once."""
        self.settle()
        time.sleep(0.01)  # a sweep leaves alone what is as young as the millisecond
        return self.files.sweep(self.engine, grace=timedelta(0), stranger_retain=timedelta(0))

    # What is there

    def check(self, *contents: bytes, swept: bool = False) -> None:
        """The invariant; ``contents`` are the bytes of the files that committed rows name. Lines that a sweep keeps as
        ``gone`` are fine if it has ``swept``.
        """
        self.settle()
        rows = self.named()
        names = [(facts["storage"], facts["key"]) for facts in rows]
        assert len(names) == len(set(names)), f"one file is named twice: {names}"
        stored = self.stored()
        there = {name: stored.get(name, b"<lost>") for name in names}
        assert sorted(there.values()) == sorted(contents), "rows name other files than they should"
        assert {name: data for name, data in stored.items() if name not in there} == {}, "files that no row names"
        for facts in rows:
            data = stored[facts["storage"], facts["key"]]
            assert (facts["size"], facts["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        lines = {name: state for name, state in self.ledger().items() if not (swept and state == "gone")}
        assert lines == dict.fromkeys(names, "owned")

    def named(self) -> list[dict[str, Any]]:
        """The descriptors of all files that committed rows name; damaged ones name none."""
        found = []
        with self.observer.connect() as connection:
            for table, schema in self._all_tables():
                for column in table.columns:
                    if isinstance(column.type, AttachmentType | AttachmentListType):
                        for value in _texts(connection, table, schema, column.name):
                            found += _descriptors(value)
        return found

    def ledger(self) -> dict[Name, str]:
        """The state of all files that the ledger knows."""
        lines: dict[Name, str] = {}
        with self.observer.connect() as connection:
            for schema in {table.schema or schema for table, schema in self._all_tables()}:
                where = "attachment_ledger" if schema is None else f"{schema}.attachment_ledger"
                for storage, key, state in connection.execute(text(f"SELECT storage, {self._key}, state FROM {where}")):
                    lines[storage, key] = state
        return lines

    def stored(self) -> dict[Name, bytes]:
        """The bytes of all files in all storages."""
        found = {}
        for name, storage in self.storages.items():
            for key, _ in storage.inner.keys():  # noqa: SIM118 - no dictionary
                with storage.inner.open(key) as file:
                    found[name, key] = file.read()
        return found

    @property
    def puts(self) -> int:
        """How often something was written to the default storage so far, but for its marker."""
        return sum(
            call.verb == "copy" or (call.verb == "put" and not call.args[0].startswith("."))
            for call in self.storage.calls
        )

    @contextmanager
    def nothing_stored(self) -> Iterator[None]:
        """What happens inside must not even write a file."""
        before = self.puts
        yield
        assert self.puts == before, "a file was stored"

    @property
    def _key(self) -> str:
        return "`key`" if self.engine.dialect.name in ("mysql", "mariadb") else "key"

    def _all_tables(self) -> Iterator[tuple[Table, str | None]]:
        for metadata, schema in self._tables:
            for table in metadata.tables.values():
                yield table, schema


class AsyncWorld(World):
    """The same for tests that are coroutines."""

    def __init__(self, name: str, engine: AsyncEngine, observer: Engine, *, prepared: bool = False) -> None:
        super().__init__(name, engine.sync_engine, observer, prepared=prepared)
        self.asynchronous = engine

    def sessions(self, **options: Any) -> AsyncSession:
        return AsyncSession(self.asynchronous, **options)

    async def acheck(self, *contents: bytes, swept: bool = False) -> None:
        """``check``."""
        await greenlet_spawn(lambda: self.check(*contents, swept=swept))


def _texts(connection: Connection, table: Table, schema: str | None, column: str) -> list[str]:
    schema = table.schema or schema
    name = table.name if schema is None else f"{schema}.{table.name}"
    kind = "CHAR" if connection.dialect.name in ("mysql", "mariadb") else "TEXT"
    statement = text(f"SELECT CAST({column} AS {kind}) FROM {name} WHERE {column} IS NOT NULL")
    return [value for (value,) in connection.execute(statement)]


def _descriptors(value: str) -> list[dict[str, Any]]:
    try:
        parsed = json.loads(value)
    except ValueError:
        return []
    items = parsed if isinstance(parsed, list) else [parsed]
    found = [item for item in items if isinstance(item, Mapping) and "key" in item]
    return [*found, *(each for item in found for each in item.get("variants", {}).values() if "key" in each)]
