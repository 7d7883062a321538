"""Libraries: how filedepot, sqlalchemy-file and advanced-alchemy write down a file, read and written without them.

>>> library = DepotColumn()
>>> files, plural = library.read('{"depot_name": "d", "file_id": "7", "path": "d/7", "files": ["d/7", "d/8"],'
...     '"filename": "a.png", "content_type": "image/png", "thumb_id": "8", "thumb_path": "d/8"}')
>>> files[0].keys, files[0].filename, files[0].variants["thumb"].keys, plural
(('7/file', '7'), 'a.png', ('8/file', '8'), False)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import NAMESPACE_URL, uuid5

from ..descriptor import Facts, checked, thawed
from ..errors import BadSource
from .columns import is_text
from .taking import Unadoptable


@dataclass(frozen=True, slots=True)
class Theirs:
    """A file as the other library describes it."""

    storage: str
    """The name that the library gives to the place."""
    keys: tuple[str, ...]
    """Where it may be, by the kind of the place: the first is that in a local folder."""
    filename: str | None = None
    content_type: str | None = None
    stored_at: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    """What else a variant says: width and height."""
    variants: Mapping[str, Theirs] = field(default_factory=dict)
    said: str = ""
    """The text that describes it, of a list its item."""

    def beside(self, key: str) -> str | None:
        """The key of what the library keeps beside a file in a local folder."""
        folder, slash, name = key.rpartition("/")
        return f"{folder}/metadata.json" if slash and name == "file" else None


@dataclass(frozen=True, slots=True)
class _Contained(Theirs):
    def beside(self, key: str) -> str | None:
        return f"{key}.metadata.json"


class Library(Protocol):
    """The column of one library."""

    def read(self, text: str) -> tuple[list[Theirs], bool]:
        """The files that a value names, and whether it is a list. Unadoptable if it is no such value."""
        ...

    def key(self, facts: Facts, local: bool) -> str:
        """Where the library would look for a file of ours; always the same for one file."""
        ...

    def write(self, facts: Facts, storage: str, key: str) -> dict[str, Any]:
        """The value for a file of ours that lies at ``key`` of the place that it calls ``storage``."""
        ...

    def aside(self, facts: Facts, key: str) -> tuple[str, bytes] | None:
        """What it keeps beside such a file in a local folder: key and bytes."""
        ...


class DepotColumn:
    """``UploadedFileField`` of filedepot: a JSON text; in a local folder each file is ``<id>/file``."""

    def read(self, text: str) -> tuple[list[Theirs], bool]:
        value = _mapping(_parsed(text), "file_id")
        storage = str(value.get("depot_name") or str(value.get("path", "")).partition("/")[0])
        variants = {
            name.removesuffix("_path"): self._file(path)
            for name, path in value.items()
            if name.endswith("_path") and isinstance(path, str) and "/" in path
        }
        taken = {f"{storage}/{value['file_id']}", *(f"{each.storage}/{each.keys[-1]}" for each in variants.values())}
        variants |= _others(value.get("files"), taken, self._file)
        found = self._file(f"{storage}/{value['file_id']}")
        stored_at = _time(value.get("uploaded_at"))
        return [
            Theirs(
                storage,
                found.keys,
                _text(value.get("filename")),
                _text(value.get("content_type")),
                stored_at,
                variants=variants,
                said=text,
            )
        ], False

    def _file(self, path: str) -> Theirs:
        storage, _, key = path.partition("/")
        return Theirs(storage, (f"{key}/file", key))

    def key(self, facts: Facts, local: bool) -> str:
        identity = str(uuid5(NAMESPACE_URL, facts["key"]))
        return f"{identity}/file" if local else identity

    def write(self, facts: Facts, storage: str, key: str) -> dict[str, Any]:
        identity = key.removesuffix("/file")
        return {
            "depot_name": storage,
            "files": [f"{storage}/{identity}"],
            "file_id": identity,
            "path": f"{storage}/{identity}",
            "filename": facts["filename"],
            "content_type": facts["content_type"],
            "uploaded_at": _moment(facts).strftime("%Y-%m-%d %H:%M:%S"),
            "_public_url": None,
        }

    def aside(self, facts: Facts, key: str) -> tuple[str, bytes] | None:
        about = {
            "filename": facts["filename"],
            "content_type": facts["content_type"],
            "content_length": facts["size"],
            "last_modified": _moment(facts).strftime("%Y-%m-%d %H:%M:%S"),
        }
        return f"{key.removesuffix('/file')}/metadata.json", json.dumps(about).encode()


class SQLAlchemyFileColumn:
    """``FileField`` of sqlalchemy-file: a JSON object, or a list of them; in a local folder ``<id>.metadata.json`` lies
    beside each file.
    """

    def read(self, text: str) -> tuple[list[Theirs], bool]:
        parsed = _parsed(text)
        if isinstance(parsed, list):
            return [self._read(_mapping(each, "file_id"), json.dumps(each)) for each in parsed], True
        return [self._read(_mapping(parsed, "file_id"), text)], False

    def _read(self, value: Mapping[str, Any], text: str) -> Theirs:
        found = self._file(str(value.get("path") or f"{value.get('upload_storage')}/{value['file_id']}"))
        variants: dict[str, Theirs] = {}
        for name, each in value.items():
            if isinstance(each, Mapping) and isinstance(each.get("path"), str) and "file_id" in each:
                about = {key: each[key] for key in ("width", "height") if isinstance(each.get(key), int)}
                file = self._file(each["path"])
                variants[name] = _Contained(file.storage, file.keys, about=about)
        taken = {f"{each.storage}/{each.keys[0]}" for each in (found, *variants.values())}
        variants |= _others(value.get("files"), taken, self._file)
        extra = value.get("extra")
        metadata = _metadata(extra.get("meta_data") if isinstance(extra, Mapping) else None)
        mine = {k: v for k, v in metadata.items() if k not in ("filename", "content_type")}
        return _Contained(
            found.storage,
            found.keys,
            _text(value.get("filename")),
            _text(value.get("content_type")),
            _time(value.get("uploaded_at")),
            mine,
            variants=variants,
            said=text,
        )

    def _file(self, path: str) -> Theirs:
        storage, _, key = path.rpartition("/")
        return _Contained(storage, (key,))

    def key(self, facts: Facts, local: bool) -> str:
        return str(uuid5(NAMESPACE_URL, facts["key"]))

    def write(self, facts: Facts, storage: str, key: str) -> dict[str, Any]:
        about = {"filename": facts["filename"], "content_type": facts["content_type"]}
        return {
            "content_path": None,
            "filename": facts["filename"],
            "content_type": facts["content_type"],
            "size": facts["size"],
            "files": [f"{storage}/{key}"],
            "extra": {"content_type": facts["content_type"], "meta_data": {**facts["metadata"], **about}},
            "file_id": key,
            "upload_storage": storage,
            "uploaded_at": _moment(facts).isoformat(),
            "path": f"{storage}/{key}",
            "url": None,
            "saved": True,
        }

    def aside(self, facts: Facts, key: str) -> tuple[str, bytes] | None:
        about = {**facts["metadata"], "filename": facts["filename"], "content_type": facts["content_type"]}
        return f"{key}.metadata.json", json.dumps(about).encode()


@dataclass(frozen=True, slots=True)
class _Plain(Theirs):
    def beside(self, key: str) -> str | None:
        return None


class AdvancedAlchemyColumn:
    """``StoredObject`` of advanced-alchemy: a JSON object, or a list of them, that say the path in the backend."""

    def read(self, text: str) -> tuple[list[Theirs], bool]:
        parsed = _parsed(text)
        if isinstance(parsed, list):
            if not any(parsed):
                raise Unadoptable("empty", f"the list {text[:80]!r} names no file")
            return [self._read(_mapping(each, "filename"), json.dumps(each)) for each in parsed if each], True
        return [self._read(_mapping(parsed, "filename"), text)], False

    def _read(self, value: Mapping[str, Any], text: str) -> Theirs:
        path = str(value["filename"])
        return _Plain(
            str(value.get("backend")),
            (path,),
            path.rpartition("/")[2],
            _text(value.get("content_type")),
            _moment_of(value.get("last_modified")),
            _metadata(value.get("metadata")),
            said=text,
        )

    def key(self, facts: Facts, local: bool) -> str:
        return str(uuid5(NAMESPACE_URL, facts["key"]))  # of our own form, the next sweep would take it

    def write(self, facts: Facts, storage: str, key: str) -> dict[str, Any]:
        return {
            "filename": key,
            "content_type": facts["content_type"],
            "size": facts["size"],
            "last_modified": _moment(facts).timestamp(),
            "checksum": None,
            "etag": None,
            "version_id": None,
            "metadata": facts["metadata"],
            "backend": storage,
        }

    def aside(self, facts: Facts, key: str) -> tuple[str, bytes] | None:
        return None


LIBRARIES: dict[str, Library] = {
    "depot": DepotColumn(),
    "sqlalchemy-file": SQLAlchemyFileColumn(),
    "advanced-alchemy": AdvancedAlchemyColumn(),
}


def _others(files: Any, taken: set[str], read: Any) -> dict[str, Theirs]:
    """Files that a processor or filter of the application's own stored: purged with the rest, so they are variants."""
    found = [each for each in files if isinstance(each, str) and "/" in each] if isinstance(files, list) else []
    rest: Iterator[str] = (each for each in dict.fromkeys(found) if each not in taken)
    return {f"file-{number}": read(each) for number, each in enumerate(rest, 1)}


def _parsed(text: str) -> Any:
    if not text.strip():
        raise Unadoptable("empty", "the value is an empty text")
    try:
        if not is_text(text):
            raise ValueError
        value = json.loads(text)
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise Unadoptable("unreadable", f"{text[:80]!r} is no JSON") from error


def _mapping(value: Any, required: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not isinstance(value.get(required), str) or not value[required]:
        raise Unadoptable("unreadable", f"{str(value)[:80]!r} describes no file: it has no {required!r}")
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _metadata(value: Any) -> dict[str, Any]:
    """As attachments can have it."""
    try:
        return thawed(checked(value))
    except BadSource as error:
        raise Unadoptable("unreadable", str(error)) from error


def _moment_of(timestamp: Any) -> str | None:
    try:
        return datetime.fromtimestamp(timestamp, UTC).isoformat()
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _time(value: Any) -> str | None:
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _moment(facts: Facts) -> datetime:
    found = datetime.fromisoformat(facts["stored_at"])
    return found if found.tzinfo else found.replace(tzinfo=UTC)
