"""A world whose database counts names by triggers, and raw SQL for it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from sqlalchemy import MetaData, text

from sa_attachments import Attachment
from sa_attachments.descriptor import named
from sa_attachments.ledger import Ledger, Line
from tests.alembic_ext.installing import install
from tests.scenarios.models import Base
from tests.scenarios.world import World


class CountingWorld(World):
    """Its invariant includes that the database has counted right."""

    TABLES = "docs with triggers"

    def create(self, metadata: MetaData, schema: str | None = None) -> None:
        super().create(metadata, schema)
        install(self.observer, metadata, schema)

    def check(self, *contents: bytes, swept: bool = False) -> None:
        super().check(*contents, swept=swept)
        names = Counter((facts["storage"], facts["key"]) for facts in self.named())
        assert {name: count for name, count in self.counts().items() if count} == dict(names)

    def counts(self) -> dict[tuple[str, str], int | None]:
        """The names of all files that the ledger knows."""
        found: dict[tuple[str, str], int | None] = {}
        with self.observer.connect() as connection:
            for schema in {table.schema or schema for table, schema in self._all_tables()}:
                where = "attachment_ledger" if schema is None else f"{schema}.attachment_ledger"
                for storage, key, names in connection.execute(text(f"SELECT storage, {self._key}, names FROM {where}")):
                    found[storage, key] = names
        return found

    def raw(self, statement: str, **parameters: Any) -> None:
        """What another client does, in a transaction of its own."""
        with self.observer.begin() as connection:
            connection.execute(text(statement), parameters)

    def owned(self, content: bytes) -> dict[str, Any]:
        """The descriptor of a file that has a line, and no name yet."""
        facts: dict[str, Any] = json.loads(self.files.stage(Attachment.upload(content)).to_json())
        with self.observer.begin() as connection:
            line = Line(named(facts)[0], "docs", "file")
            Ledger.of(Base.metadata).own(connection, [line], self.files.own_within)
        return facts
