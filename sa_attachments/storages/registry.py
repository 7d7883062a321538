"""Registry: the names of storages, and what they stand for.

A value is a URL, a storage, or the name of another entry; a name may be a pattern with one ``*``:

>>> storages = Registry({"default": "memory:", "avatars": "default", "tenant-*": "local:./tenants/{name}"})
>>> storages.real(None), storages.real("avatars"), storages.real("tenant-7")
('default', 'default', 'tenant-7')
>>> storages.resolve("avatars") is storages.resolve("default"), storages.resolve("tenant-7")
(True, LocalStorage('.../tenants/tenant-7'))
>>> storages.real("avatar")
Traceback (most recent call last):
sa_attachments.errors.UnknownStorage: there is no storage 'avatar'; configured are 'avatars', 'default', 'tenant-*'

It may begin empty and be configured later, from a flat mapping too:

>>> storages = Registry()
>>> storages.configure({"debug": "1", "attachments.default": "memory:"}, prefix="attachments.")
>>> storages
Registry({'default': 'memory:'})

Exact names win over patterns, longer patterns over shorter ones; a ``*`` stands for at least one character. Storages
are made when they are first asked for; the URL's scheme names their backend in the entry-point group
``sa_attachments.backends``.

Traps
-----
Rows record the real name: ``avatars`` above writes ``default`` into them, and may stand for another storage later. A
name that rows record has to stay. Two names for one place would be two owners of its files: use an alias.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.metadata import entry_points
from typing import Any, TypeAlias, cast

from sa_attachments.errors import AttachmentError, BadConfiguration, MissingExtra, UnknownStorage, listing
from sa_attachments.lock import Lock
from sa_attachments.storage import Storage

from .probe import probe
from .url import StorageURL

GROUP = "sa_attachments.backends"
"""The entry-point group of backends: each is a callable that takes a StorageURL and returns a storage."""

DEFAULT = "default"
"""The name that is meant where none is given."""

Value: TypeAlias = str | Storage

_NAME = re.compile(r"(?!\.+\Z)[ -.0-9;-\[\]-~]{1,100}")  # printable ASCII but / : \, and no way up a folder


class Registry:
    """Names and their storages; see the module."""

    def __init__(self, mapping: Value | Mapping[str, Value] | None = None) -> None:
        """One URL or storage alone is the default. Raises BadConfiguration."""
        self._lock = Lock(threading.RLock)
        self._configured = None if mapping is None else _Entries(_mapping(mapping))
        self._overrides: tuple[_Entries, ...] = ()
        self._expected: dict[str, str] = {}
        self._backends: dict[str, Callable[[StorageURL], Storage]] = {}

    def configure(self, mapping: Value | Mapping[str, Value], prefix: str = "") -> None:
        """Replace all names at once.

        With a ``prefix``, only what begins with it counts, and the prefix goes; one in capitals, as environment
        variables have, gives lower-case names. Raises BadConfiguration, and UnknownStorage if a mapped column uses a
        name that is not there, or a backend; nothing has changed then.
        """
        entries = _Entries(_mapping(mapping, prefix))
        with self._lock():
            used = {_check(entries, name, label): label for name, label in self._expected.items()}
            self._check_backends(entries, used)
            self._configured = entries

    def expect(self, name: str | None, label: str) -> None:
        """A column, ``label``, will use this name. UnknownStorage if names are configured and this is none of them."""
        with self._lock():
            if (entries := self._current()) is not None:
                _check(entries, _given(name), label)
            self._expected.setdefault(_given(name), label)

    def real(self, name: str | None = None) -> str:
        """The name that rows record: aliases followed. UnknownStorage if there is none."""
        return self._present().real(_given(name))

    def resolve(self, name: str | None = None) -> Storage:
        """The storage of that name, made on first use. Raises UnknownStorage, BadConfiguration, MissingExtra."""
        return self._resolve(self._present(), name)

    def resolver(self) -> Callable[[str], Storage]:
        """``resolve``, with what the names stand for now, whatever is configured later."""
        return partial(self._resolve, self._present())

    def names(self) -> list[str]:
        """The real names, without aliases and patterns."""
        entries = self._current()
        return [name for name in entries.values if "*" not in name and not entries.is_alias(name)] if entries else []

    def made(self) -> dict[str, Storage]:
        """The storages that were asked for so far, by their real names."""
        return dict(entries.live) if (entries := self._current()) else {}

    def parts(self) -> set[str]:
        """The real names that are parts of other storages, as far as these were made."""
        entries = self._current()
        return set(entries.parts) if entries else set()

    def patterns(self) -> list[str]:
        """The patterns of real names."""
        entries = self._current()
        return [name for name in entries.patterns if not entries.is_alias(name)] if entries else []

    def probe(self) -> dict[str, Exception | None]:
        """Try out each storage that is configured by its own name; tells of each what does not work, if anything."""
        found: dict[str, Exception | None] = dict.fromkeys(sorted(self.names()))
        for name in found:
            try:
                probe(name, self.resolve(name))
            except (AttachmentError, ImportError) as error:
                found[name] = error
        return found

    def matches(self, name: str) -> bool:
        """Whether ``resolve`` would find it."""
        try:
            self.real(name)
        except UnknownStorage:
            return False
        return True

    def override(self, target: Value | Mapping[str, Value] = "memory:") -> AbstractContextManager[None]:
        """For tests: inside the ``with``, every name has a fresh storage, whatever is or gets configured.

        A URL with ``{name}``, or one that names no place, gives each name a storage of its own; any other URL or a
        storage serves all names together, as ``default``; a mapping is taken as it is. Aliases stay aliases.
        """
        return self._overridden(target)

    @contextmanager
    def _overridden(self, target: Value | Mapping[str, Value]) -> Iterator[None]:
        with self._lock():
            entries = _Entries(self._stand_ins(target))
            self._overrides = (*self._overrides, entries)
        try:
            yield
        finally:
            with self._lock():
                self._overrides = tuple(other for other in self._overrides if other is not entries)

    def __repr__(self) -> str:
        entries = self._current()
        return f"{type(self).__name__}({entries!r})" if entries else f"{type(self).__name__}()"

    def _current(self) -> _Entries | None:
        return self._overrides[-1] if self._overrides else self._configured

    def _present(self) -> _Entries:
        return self._current() or _Entries({})

    def _stand_ins(self, target: Value | Mapping[str, Value]) -> Mapping[str, Value]:
        if isinstance(target, Mapping):
            return target
        if not isinstance(target, str) or not _has_many(target):
            return {DEFAULT: target, "*": DEFAULT}
        known = self._configured or _Entries({})
        stand_ins: dict[str, Value] = dict.fromkeys((DEFAULT, *self._expected, *known.values, "*"), target)
        return stand_ins | {name: known.values[name] for name in known.values if known.is_alias(name)}

    def _resolve(self, entries: _Entries, name: str | None) -> Storage:
        real = entries.real(_given(name))
        if (storage := entries.live.get(real)) is None:
            with self._lock():
                if (storage := entries.live.get(real)) is None:
                    storage = entries.live[real] = self._make(entries, real)
        return storage

    def _make(self, entries: _Entries, name: str) -> Storage:
        value = entries.value(name)
        if not isinstance(value, str):
            return value

        def part(other: str) -> Storage:
            entries.parts.add(entries.real(other))
            return self._resolve(entries, other)

        url = StorageURL(value, part, name)
        backend = self._backend(url.scheme, name)
        try:
            return backend(url)
        except RecursionError:
            raise BadConfiguration(f"storage {name!r}: {url} is a part of itself") from None
        except BadConfiguration as error:
            raise BadConfiguration(f"storage {name!r}: {error}") from None
        except AttachmentError:
            raise
        except ModuleNotFoundError as error:
            raise MissingExtra(f"storage {name!r} needs the module {error.name!r}", name=error.name) from error
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise BadConfiguration(f"storage {name!r}: {url}: {type(error).__name__}: {reason}") from error

    def _check_backends(self, entries: _Entries, used: Mapping[str, str]) -> None:
        """Whether the schemes of these names, of which columns use each, are installed; nothing is imported."""
        values = {name: entries.value(name) for name in used}
        schemes = {name: StorageURL(value).scheme for name, value in values.items() if isinstance(value, str)}
        installed = {*self._backends, *entry_points(group=GROUP).names}
        for name, scheme in schemes.items():
            if scheme not in installed:
                raise UnknownStorage(f"{used[name]}: {_no_backend(name, scheme, installed)}")

    def _backend(self, scheme: str, name: str) -> Callable[[StorageURL], Storage]:
        if scheme not in self._backends:
            found = entry_points(group=GROUP)
            if scheme not in found.names:
                raise UnknownStorage(_no_backend(name, scheme, found.names))
            point = found[scheme]
            try:
                self._backends[scheme] = point.load()
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] == point.module.partition(".")[0]:
                    raise
                extra = f"{point.dist.name if point.dist else 'sa-attachments'}[{scheme}]"
                message = f"storage {name!r} needs the module {error.name!r}: pip install {extra!r}"
                raise MissingExtra(message, name=error.name) from error
        return self._backends[scheme]


class _Entries:
    """One configuration, never changed, with the storages that were made from it."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.values = dict(values)
        self.live: dict[str, Storage] = {}
        self.parts: set[str] = set()
        for name, value in self.values.items():
            self._check(name, value)
        self.patterns = sorted((name for name in self.values if "*" in name), key=lambda name: (-len(name), name))
        for name in self.values:
            if self.is_alias(name):
                self.real(name.replace("*", "x"))

    def find(self, name: str) -> str | None:
        """The entry that ``name`` falls under, a pattern perhaps."""
        if name in self.values and "*" not in name:
            return name
        if not _NAME.fullmatch(name) or "*" in name:
            return None
        return next((pattern for pattern in self.patterns if _falls_under(name, pattern)), None)

    def value(self, name: str) -> Value:
        """What a real name stands for."""
        return self.values[cast(str, self.find(name))]

    def is_alias(self, entry: str) -> bool:
        value = self.values[entry]
        return isinstance(value, str) and ":" not in value

    def real(self, name: str) -> str:
        passed = [name]
        while (entry := self.find(passed[-1])) is not None and self.is_alias(entry):
            target = cast(str, self.values[entry]).replace("{name}", passed[-1])
            if target in passed:
                raise BadConfiguration(f"the aliases {' -> '.join(map(repr, [*passed, target]))} go round in circles")
            passed.append(target)
        if entry is None and len(passed) > 1:
            expected = f"expected a URL, as 'local:./files', or one of {listing(self.values)}"
            raise BadConfiguration(f"{passed[-2]!r} stands for {passed[-1]!r}: {expected}")
        if entry is None:
            known = f"configured are {listing(self.values)}"
            others = known if self.values else "none is configured yet, call configure() first"
            raise UnknownStorage(f"there is no storage {name!r}; {others}")
        return passed[-1]

    def _check(self, name: Any, value: Value) -> None:
        if not (isinstance(name, str) and _NAME.fullmatch(name)) or name.count("*") > 1:
            expected = "expected up to 100 printable ASCII characters, no colon or slash, at most one '*'"
            raise BadConfiguration(f"{name!r} can't name a storage: {expected}")
        if isinstance(value, str):
            if ":" in value:
                url = StorageURL(value)
                if "*" in name and not _has_many(value):
                    raise BadConfiguration(
                        f"all names like {name!r} would share {url}: put {{name}} into the URL, or use an alias"
                    )
        elif isinstance(value, type) or not all(hasattr(value, v) for v in ("put", "open", "stat", "delete", "keys")):
            expected = "expected a URL, as 'local:./files', a storage or the name of another entry"
            raise BadConfiguration(f"{name!r} is {type(value).__name__}: {expected}")
        elif "*" in name:
            raise BadConfiguration(
                f"all names like {name!r} would share {_shown(value)}: use a URL with {{name}}, or an alias"
            )

    def __repr__(self) -> str:
        return repr({name: _shown(value) for name, value in self.values.items()})


def _mapping(mapping: Value | Mapping[str, Value], prefix: str = "") -> Mapping[str, Value]:
    if not isinstance(mapping, Mapping):
        return {DEFAULT: mapping}
    if not prefix:
        return mapping
    picked = {name[len(prefix) :]: value for name, value in mapping.items() if name.startswith(prefix)}
    if not picked:
        expected = f"{prefix}{DEFAULT.upper() if prefix.isupper() else DEFAULT}"
        raise BadConfiguration(f"nothing begins with {prefix!r}: expected {expected!r} at least")
    return {name.lower(): value for name, value in picked.items()} if prefix.isupper() else picked


def _given(name: str | None) -> str:
    return DEFAULT if name is None else name


def _no_backend(name: str, scheme: str, installed: Iterable[str]) -> str:
    return f"storage {name!r}: there is no backend {scheme!r}; installed are {listing(installed)}"


def _check(entries: _Entries, name: str, label: str) -> str:
    try:
        return entries.real(name)
    except UnknownStorage as error:
        raise UnknownStorage(f"{label}: {error}") from None


def _has_many(url: str) -> bool:
    """Whether a URL can stand for storages of several names without giving them one place."""
    return "{name}" in url or not StorageURL(url).rest


def _falls_under(name: str, pattern: str) -> bool:
    before, _, after = pattern.partition("*")
    return len(name) > len(before) + len(after) and name.startswith(before) and name.endswith(after)


def _shown(value: Value) -> str:
    if not isinstance(value, str):
        return f"<{type(value).__name__}>"
    return str(StorageURL(value)) if ":" in value else value
