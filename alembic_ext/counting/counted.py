"""What the triggers of one table count. It is written into them, so that what is installed can be read again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlencode

VERSION = 2
"""Of the triggers' SQL: those of another version are to be made anew. 2: MariaDB's clock is read in UTC."""

_SIGNATURE = re.compile(r"sa_attachments (\d+) ([^ ;]*)(?: ([^ ;]*))?;")


class Counted(NamedTuple):
    """A column that names files, and for how many milliseconds files are kept that it dropped."""

    column: str
    retain: int = 0


@dataclass(frozen=True)
class Counting:
    """The triggers of one table. ``ledger_schema`` is where the ledger is; None is the default schema."""

    table: str
    columns: tuple[Counted, ...]
    schema: str | None = None
    ledger_schema: str | None = None
    version: int = field(default_factory=lambda: VERSION)

    @property
    def where(self) -> tuple[str | None, str]:
        """The table, for lookups."""
        return self.schema, self.table

    @property
    def fullname(self) -> str:
        """The table, for messages."""
        return self.table if self.schema is None else f"{self.schema}.{self.table}"

    @property
    def signature(self) -> str:
        """A text of letters that no SQL minds."""
        ledger = "" if self.ledger_schema is None else f" {quote(self.ledger_schema, safe='')}"
        return f"sa_attachments {self.version} {urlencode(self.columns)}{ledger};"

    @classmethod
    def read(cls, table: str, schema: str | None, text: str) -> Counting | None:
        """What a trigger's text says that it does; None if it is not one of ours."""
        found = _SIGNATURE.search(text)
        if found is None:
            return None
        columns = tuple(Counted(column, int(retain)) for column, retain in parse_qsl(found[2]))
        return cls(table, columns, schema, unquote(found[3]) if found[3] else None, int(found[1]))
