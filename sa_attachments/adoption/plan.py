"""Plan: what is to be adopted, from where, into which column; it can be written down, shown and taken back.

>>> plan = Plan("docs", "data", "file", Blobs(filename="name"), policy="skip")
>>> print(plan.command())
sa-attachments adopt blob docs data file --filename name --policy skip

>>> Plan("docs", "data", "file", Blobs(), policy="perhaps")
Traceback (most recent call last):
sa_attachments.errors.BadConfiguration: policy 'perhaps': expected 'fail', 'null', 'skip'
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from ..errors import BadConfiguration, listing

POLICIES = ("fail", "skip", "null")


@dataclass(frozen=True, slots=True)
class Blobs:
    """Bytes in a column. ``filename`` and ``content_type`` are columns that say what the file is called and claimed
    to be.
    """

    kind: ClassVar[str] = "blob"
    filename: str | None = None
    content_type: str | None = None

    def options(self) -> Mapping[str, Any]:
        """What the command line calls its fields."""
        return {"filename": self.filename, "content-type": self.content_type}


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths, or URLs, of files below ``root``: a folder, or the URL of a storage, as ``s3://bucket/media``.

    ``mode``: ``copy`` the bytes into the storage, ``link`` them there (local folders of one file system), or leave them
    ``in_place``, where ``root`` lies in the place of the storage. ``prefix`` is what the values begin with and the
    files' paths don't, as ``https://cdn.example/media/``; after a letter or digit a slash is meant. With
    ``fallback="copy"``, what can't be adopted in place is copied: files that several rows share, links, and names that
    can't be keys.
    """

    kind: ClassVar[str] = "path"
    root: str | Path | None = None
    mode: str = "copy"
    prefix: str = ""
    fallback: str | None = None
    filename: str | None = None
    content_type: str | None = None

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, ("copy", "link", "in_place"))
        _one_of("fallback", self.fallback, (None, "copy"))
        if self.root is None and self.mode != "in_place":
            raise BadConfiguration(f"mode {self.mode!r} needs the root that the paths are below")

    def options(self) -> Mapping[str, Any]:
        """What the command line calls its fields."""
        return {
            "root": self.root,
            "mode": None if self.mode == "copy" else self.mode,
            "prefix": self.prefix,
            "fallback": self.fallback,
            "filename": self.filename,
            "content-type": self.content_type,
        }


@dataclass(frozen=True, slots=True)
class _Foreign:
    kind: ClassVar[str]
    storages: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    mode: str = "in_place"
    fallback: str | None = None
    filename: ClassVar[None] = None
    content_type: ClassVar[None] = None

    def __post_init__(self) -> None:
        _one_of("mode", self.mode, ("in_place", "copy"))
        _one_of("fallback", self.fallback, (None, "copy"))

    def options(self) -> Mapping[str, Any]:
        """What the command line calls its fields."""
        return {
            "map": [f"{theirs}={ours}" for theirs, ours in self.storages.items()],
            "mode": None if self.mode == "in_place" else self.mode,
            "fallback": self.fallback,
        }


class Depot(_Foreign):
    """What ``UploadedFileField`` of filedepot wrote, thumbnails included.

    ``storages`` maps names of depots to ours; a name that is not in it is the same with us. ``mode`` is ``in_place``,
    without copying a byte, or ``copy``. With ``fallback="copy"``, files that several rows share are copied.
    """

    kind: ClassVar[str] = "depot"


class SQLAlchemyFile(_Foreign):
    """What ``FileField`` or ``ImageField`` of sqlalchemy-file wrote, lists and thumbnails included; options as of
    ``Depot``, for libcloud's containers.
    """

    kind: ClassVar[str] = "sqlalchemy-file"


class AdvancedAlchemy(_Foreign):
    """What ``StoredObject`` of advanced-alchemy wrote, lists included; options as of ``Depot``, for its backends."""

    kind: ClassVar[str] = "advanced-alchemy"


Origin = Blobs | Paths | Depot | SQLAlchemyFile | AdvancedAlchemy


@dataclass(frozen=True, slots=True)
class Plan:
    """The column ``source`` of ``table``, what is in it, and the column ``into`` for its attachments."""

    table: str
    source: str
    into: str
    origin: Origin
    schema: str | None = None
    storage: str | None = None
    """Where copies go, and where files are that are adopted in place; None is the default storage."""
    policy: str = "fail"
    """What becomes of rows that can't be adopted: ``fail``; ``skip`` them; or ``null``: empty the column ``source``."""
    report: str | Path | None = None
    """A file to which a line of JSON is added for each row that could not be adopted."""
    ledger_schema: str | None = None

    def __post_init__(self) -> None:
        _one_of("policy", self.policy, POLICIES)
        if self.policy == "null" and self.report is None:
            raise BadConfiguration("policy 'null' empties columns: name a file for the report of what they said")
        if self.source == self.into:
            raise BadConfiguration(f"{self.label} can't be adopted into itself: add a column for the attachments")

    @property
    def label(self) -> str:
        """For messages: ``docs.data``."""
        return f"{self.fullname}.{self.source}"

    @property
    def fullname(self) -> str:
        """The table's name as the ledger knows it."""
        return f"{self.schema}.{self.table}" if self.schema else self.table

    def command(self, *more: str) -> str:
        """The command line that does the same."""
        said = {
            **self.origin.options(),
            "storage": self.storage,
            "schema": self.schema,
            "policy": None if self.policy == "fail" else self.policy,
            "report": self.report,
        }
        words = ["sa-attachments", "adopt", self.origin.kind, self.table, self.source, self.into, *more]
        for name, value in said.items():
            for each in value if isinstance(value, list) else [value]:
                if each not in (None, ""):
                    words += [f"--{name}", str(each)]
        return shlex.join(words)


def _one_of(name: str, value: str | None, expected: tuple[str | None, ...]) -> None:
    if value not in expected:
        raise BadConfiguration(f"{name} {value!r}: expected {listing(each for each in expected if each)}")
