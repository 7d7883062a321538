"""Descriptors: the JSON form of an attachment in its column.

``{"v": 1, "storage", "key", "filename", "content_type", "claimed_content_type", "size", "sha256", "stored_at",
"metadata", "variants"}``. Newer versions are read, and what they hold beyond this one is kept.

>>> facts = decode('{"v": 2, "storage": "s", "key": "k", "filename": "f", "content_type": "text/plain", "size": 1,'
...                '"sha256": "00", "stored_at": "2026-01-01T00:00:00+00:00", "novel": true}', "docs.file")
>>> facts["novel"], named(facts)
(True, [Named(storage='s', key='k', size=1)])
>>> decode('{"key": 1}', "docs.file")
Traceback (most recent call last):
sa_attachments.errors.DescriptorDamaged: docs.file holds '{"key": 1}', which does not describe an attachment
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from reprlib import repr as short
from types import MappingProxyType
from typing import Any, NamedTuple

from .errors import BadSource, DescriptorDamaged
from .key import well_formed

VERSION = 1

Facts = dict[str, Any]
"""A decoded descriptor."""

_TEXTS = ("storage", "key", "filename", "content_type", "sha256", "stored_at")

_read = json.JSONDecoder().decode  # json.loads, without asking what kind of text it was given

_NOTHING: Mapping[str, Any] = MappingProxyType({})


Name = tuple[str, str]
"""``(storage, key)``, by which a stored file is known."""


class Named(NamedTuple):
    """One stored file that a descriptor names: the attachment's own, or one of its variants. ``size`` in bytes."""

    storage: str
    key: str
    size: int

    @property
    def name(self) -> Name:
        """What tells it from others."""
        return self.storage, self.key


def decode(text: str, label: str) -> Facts:
    """Parse a descriptor; DescriptorDamaged, naming ``label`` and the text's start, if it is none."""
    facts = parse(text)
    if facts is None:
        raise damaged(text, label)
    return facts


def parse(text: str) -> Facts | None:
    """The same, but None if it is none: for those who make up a label only when it is needed."""
    try:
        facts = _read(text)
    except (ValueError, RecursionError):
        return None
    return facts if _describes(facts) else None


def damaged(text: str, label: str) -> DescriptorDamaged:
    """The error that names where the text was found, and its start."""
    return DescriptorDamaged(f"{label} holds {text[:80]!r}, which does not describe an attachment")


def split(text: str) -> list[Facts | str]:
    """The items of a list column: descriptors, and as text what is none, to be complained of when it is touched."""
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        return [text]
    return [item if _describes(item) else encode(item) for item in items] if isinstance(items, list) else [text]


encode: Callable[[Any], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""A descriptor as compact JSON text. Like json.dumps, which would make an encoder each time."""


def as_text(value: Any) -> str:
    """What a driver gave for a descriptor: parsed JSON perhaps, or on SQLite, which keeps what it is given, bytes.

    >>> as_text(b'{"v":1}'), as_text(b"\\xff"), as_text([1])
    ('{"v":1}', '\\\\xff', '[1]')
    """
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else encode(value)


def named(facts: Mapping[str, Any]) -> list[Named]:
    """All files that a descriptor names: the attachment's own first, then its variants'."""
    found, variants = [Named(facts["storage"], facts["key"], facts["size"])], facts.get("variants")
    if variants and isinstance(variants, dict):
        each = (variant for variant in variants.values() if isinstance(variant, dict))
        found += [named_by(variant, facts) for variant in each if isinstance(variant.get("key"), str)]
    return found


def named_by(variant: Mapping[str, Any], facts: Mapping[str, Any]) -> Named:
    """The file that the entry of a variant names, in the descriptor ``facts``; of a damaged one, what can be told."""
    storage, size = variant.get("storage"), variant.get("size")
    return Named(
        storage if isinstance(storage, str) else facts["storage"], variant["key"], size if isinstance(size, int) else 0
    )


def variants_of(facts: Mapping[str, Any]) -> dict[str, Facts]:
    """What a descriptor holds of its variants, by name: descriptors, each with the digest of its ``recipe``, and of
    those that failed ``{"error", "recipe"}``.
    """
    variants = facts.get("variants")
    return (
        {name: each for name, each in variants.items() if isinstance(each, dict)} if isinstance(variants, dict) else {}
    )


def variant_of(facts: Mapping[str, Any], name: str) -> Facts | None:
    """The descriptor of a variant, if it is there; without variants of its own."""
    found = variants_of(facts).get(name, {})
    whole = {"storage": facts["storage"], **found, "v": VERSION, "variants": {}}
    return whole if "key" in found and _describes(whole) else None


def described(facts: Mapping[str, Any], file: Named) -> Mapping[str, Any]:
    """What a descriptor says of one of its files: of its own all, of a variant's what is known."""
    if (facts["storage"], facts["key"]) == file.name:
        return facts
    return next((each for each in variants_of(facts).values() if each.get("key") == file.key), {})


def renamed(facts: Facts, old: Named, new: Named) -> Facts:
    """The descriptor with one of its files under another name.

    >>> facts = {"storage": "a", "key": "k", "size": 1, "variants": {"thumb": {"key": "t", "size": 1}}}
    >>> moved = renamed(facts, Named("a", "k", 1), Named("b", "l", 1))
    >>> moved["storage"], moved["key"], moved["variants"]["thumb"]
    ('b', 'l', {'storage': 'a', 'key': 't', 'size': 1})
    """
    variants = {
        name: {"storage": facts["storage"], **variant} if isinstance(variant, dict) and "key" in variant else variant
        for name, variant in (facts.get("variants") or {}).items()
    }
    for variant in variants.values():
        if isinstance(variant, dict) and (variant.get("storage"), variant.get("key")) == old.name:
            variant |= {"storage": new.storage, "key": new.key}
    if (facts["storage"], facts["key"]) == old.name:
        facts = {**facts, "storage": new.storage, "key": new.key}
    return {**facts, "variants": variants}


def frozen(metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """A deeply frozen copy of JSON values; BadSource if they are not JSON."""
    if not metadata:
        return _NOTHING
    try:
        plain = _freeze(json.loads(json.dumps(metadata, default=_thawed, allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadSource(f"metadata is kept as JSON, and {_said(metadata)} is not: {error}") from None
    if not isinstance(plain, MappingProxyType):
        raise BadSource(f"metadata is a mapping, not {type(metadata).__name__}")
    return plain


def checked(metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """``frozen``, of what is to be stored; BadSource too for text that databases refuse to keep as JSON."""
    if not metadata:
        return _NOTHING
    plain = frozen(metadata)
    for text in _texts(plain):
        if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
            raise BadSource(f"metadata holds {text[:40]!r}, with a NUL or half a surrogate pair: no database keeps it")
    return plain


def _said(metadata: Any) -> str:
    try:
        return short(metadata)
    except ValueError:  # one of its integers has more digits than Python prints
        return "what was given"


def thawed(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A plain copy, as it goes into a descriptor."""
    return {name: _thaw(value) for name, value in metadata.items()} if metadata else {}


def _texts(value: Any) -> Iterator[str]:
    """All strings in JSON values, names included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield name
            yield from _texts(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _texts(item)


def _freeze(value: Any) -> Any:
    if isinstance(value, dict):
        return MappingProxyType({name: _freeze(item) for name, item in value.items()})
    return tuple(_freeze(item) for item in value) if isinstance(value, list) else value


def _thaw(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _thaw(item) for name, item in value.items()}
    return [_thaw(item) for item in value] if isinstance(value, list | tuple) else value


def _thawed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _describes(facts: Any) -> bool:
    if type(facts) is not dict:
        return False
    # Each row that is touched comes by here: all() and isinstance() would take twice as long, unions of types more.
    get = facts.get
    for name in _TEXTS:
        if type(get(name)) is not str:
            return False
    size, metadata, variants, claimed = get("size"), get("metadata"), get("variants"), get("claimed_content_type")
    return (
        type(size) is int
        and size >= 0
        and (metadata is None or type(metadata) is dict)
        and (variants is None or type(variants) is dict)
        and (claimed is None or type(claimed) is str)
        and well_formed(facts["key"])
    )
