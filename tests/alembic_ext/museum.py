"""Museum: a database from before, with bytes, paths and what else is to be adopted, and what must be true of it at any
time.

``migrate`` runs operations as Alembic does, in a transaction of the migration. ``problems`` compares rows, ledger and
storages without the library's help.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import JSON, Column, Engine, Integer, LargeBinary, MetaData, String, Table, Text, cast, select
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sa_attachments import Attachment, AttachmentListType, AttachmentType, Storages
from sa_attachments.ledger import Ledger
from sa_attachments.places import MARKER
from sa_attachments.storages.local import LocalStorage
from sa_attachments.sweep import SweepReport

BLOB = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
DESCRIPTOR = JSON().with_variant(postgresql.JSONB(), "postgresql")
NOW = timedelta(0)


class Museum:
    """See the module. The storages are ``default`` and ``old``, folders of those names; ``root`` holds the paths."""

    rows = 0
    """How many rows it was filled with."""
    most = 0
    """Bytes of its largest file."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.root = folder / "old"
        self.root.mkdir(exist_ok=True)
        self.files = Storages(
            {name: LocalStorage(folder / name, durable=False, parallel=4) for name in ("default", "old")}
        )
        self.metadata = MetaData()
        self.ledger = Ledger.of(self.metadata)
        self.docs = Table(
            "docs",
            self.metadata,
            Column("id", Integer, primary_key=True, autoincrement=False),
            Column("data", BLOB),
            Column("name", String(255)),
            Column("kind", String(100)),
            Column("path", Text),
            Column("file", DESCRIPTOR),
            Column("pages", DESCRIPTOR),
        )

        class Base(DeclarativeBase):
            pass

        class Doc(Base):
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
            file: Mapped[Attachment | None] = mapped_column(AttachmentType(self.files))
            pages: Mapped[list[Attachment]] = mapped_column(AttachmentListType(self.files))

        self.Doc = Doc

    def open(self, *, file: bool = True) -> Museum:
        """Make the tables; without ``file``, the column of that name is still to be added."""
        if not file:
            old = MetaData()
            Table("docs", old, *(c._copy() for c in self.docs.c if c.name != "file")).create(self.engine)
            self.ledger.lines.create(self.engine)
            self.ledger.places.create(self.engine)
        else:
            self.metadata.create_all(self.engine)
        return self

    def insert(self, *rows: dict[str, Any]) -> None:
        with self.engine.begin() as connection:
            connection.execute(self.docs.insert(), list(rows))

    def lay(self, path: str, data: bytes) -> None:
        """Put a file below the root."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def migrate(self, work: Callable[[Any], Any], **options: Any) -> Any:
        """Run operations in the transaction of a migration."""
        with self.engine.connect() as connection:
            opts = {"attachment_storages": self.files, **options}
            context = MigrationContext.configure(connection, opts=opts)
            with context.begin_transaction(), context.begin_transaction(_per_migration=True):
                return work(Operations(context))

    def column(self, name: str) -> dict[int, Any]:
        """What the column says, by row; JSON as text."""
        column = self.docs.c[name]
        what = cast(column, Text) if isinstance(column.type, JSON) else column
        with self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(select(self.docs.c.id, what).order_by(self.docs.c.id))}

    def facts(self, name: str = "file") -> dict[int, Any]:
        """The descriptors."""
        return {number: json.loads(text) for number, text in self.column(name).items() if text not in (None, "null")}

    def lines(self) -> dict[tuple[str, str], tuple[str, bool]]:
        """State and ``held`` of each line of the ledger."""
        c = self.ledger.lines.c
        with self.engine.connect() as connection:
            rows = connection.execute(select(c.storage, c.key, c.state, c.held))
            return {(row.storage, row.key): (row.state, bool(row.held)) for row in rows}

    def stored(self, storage: str = "default") -> set[str]:
        """What lies in the folder of a storage."""
        root = self.folder / storage
        found = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()} if root.exists() else set()
        return found - {MARKER}

    def sweep(self) -> SweepReport:
        assert self.files.settled(30)
        return self.files.sweep(self.engine, full=True, grace=NOW, stranger_retain=NOW)

    def problems(self, name: str = "file") -> list[str]:
        """What is wrong: names without their bytes or their line, lines without a name, copies that nobody names."""
        found, named = [], set()
        lines = self.lines()
        for number, facts in self.facts(name).items():
            for file in files_of(facts):
                where = file["storage"], file["key"]
                if where in named:
                    found.append(f"{number}: {where} is named twice")
                named.add(where)
                with suppress(FileNotFoundError):
                    data = (self.folder / where[0] / where[1]).read_bytes()
                    if (len(data), hashlib.sha256(data).hexdigest()) == (file["size"], file["sha256"]):
                        continue
                found.append(f"{number}: {where} has not its bytes")
        found += [f"{where} has no line" for where in named if lines.get(where, ("",))[0] != "owned"]
        found += [
            f"{where} is owned by nobody" for where, line in lines.items() if line[0] == "owned" and where not in named
        ]
        found += [f"{key} is an orphan" for key in self.stored() if ("default", key) not in lines]
        return found


def files_of(facts: Any) -> Iterator[Any]:
    """All files that a descriptor, or a list of them, names."""
    for each in facts if isinstance(facts, list) else [facts]:
        yield each
        for variant in (each.get("variants") or {}).values():
            yield {"storage": each["storage"], **variant}
