"""StorageURL: the text that configures a storage, ``scheme:rest?options``.

A backend takes from it what it knows, and ends with ``done()``, so that a misspelt option never goes unnoticed:

>>> url = StorageURL("local:./files?durable=false&file_mode=640&parallel=4")
>>> url.scheme, url.path, url.flag("durable", True), oct(url.mode("file_mode", None)), url.number("parallel", 8)
('local', './files', False, '0o640', 4)
>>> url.done()
>>> url = StorageURL("local:./files?durible=false")
>>> url.flag("durable", True), url.done()
Traceback (most recent call last):
sa_attachments.errors.BadConfiguration: local:./files?durible=false: no option 'durible'; there are 'durable'

Where the rest begins with ``//``, a host comes first: in ``s3://bucket/prefix`` it is ``bucket``, the path ``/prefix``.

Traps
-----
Path and options are percent-decoded: write ``%3F`` for a question mark, ``%25`` for a percent sign in a folder's name.
A plus is a plus. Passwords and options that sound secret are left out of ``repr`` and messages:

>>> StorageURL("db:postgresql://me:pa/ss@host/x?token=abc&region=x")
StorageURL('db:postgresql://me:***@host/x?token=***&region=x')
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import parse_qsl, quote, unquote

from sa_attachments.errors import BadConfiguration, listing
from sa_attachments.storage import Storage

D = TypeVar("D", bound="int | bool | str | None")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_PASSWORDS = (  # the first is greedy, so that a password with raw slashes or at-signs is covered too
    (re.compile(r"(//[^/@:]*):.*@"), r"\1:***@"),
    (re.compile(r"(//[^/@:\[]*):(?!\d+(?:[/,]|\Z))[^@]*\Z"), r"\1:***"),  # with a raw question mark: cut off there
    (re.compile(r":[^:/@]*@"), ":***@"),
)
_SECRET = re.compile(r"pass|pwd|secret|token|key|credential|signature|sas", re.IGNORECASE)
_SECRETS = re.compile(rf"([^=&?%]*(?:{_SECRET.pattern})[^=&?%]*(?:=|%3D))(?:(?!%26)[^&?])+", re.IGNORECASE)
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class StorageURL:
    """A storage's URL, taken apart. Each getter removes an option; ``done`` complains of those that are left.

    ``scheme`` names the backend; ``rest`` is what stands between the colon and the question mark, as it was written.
    """

    def __init__(self, text: str, storage: Callable[[str], Storage] | None = None, name: str | None = None) -> None:
        """``storage`` gives other storages by name; ``name`` is what ``{name}`` stands for. Raises BadConfiguration if
        ``text`` is not of the form ``scheme:rest?options``.
        """
        self._storage = storage
        self._name = name
        scheme, colon, rest = text.strip().partition(":")
        self._template, _, query = rest.partition("?")
        self.rest, query = self._named(self._template), self._named(query)
        self.scheme = scheme.lower()
        if not colon or not _SCHEME.fullmatch(scheme):
            shown = masked(text.partition("?")[0])[:80]
            raise BadConfiguration(f"{shown!r} is no storage URL: expected scheme:rest?options, as 'local:./files'")
        try:
            # A plus is a plus, as in secret keys: forms alone mean a space by it.
            pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=bool(query))
        except ValueError:
            message = f"{self._place()}: expected options of the form name=value&name=value after the question mark"
            raise BadConfiguration(message) from None
        self._all = dict(pairs)
        self._left = dict(pairs)
        self._known: list[str] = []
        if len(self._all) < len(pairs):
            raise self.mistake("an option is given twice")

    @property
    def host(self) -> str:
        """What stands between ``//`` and the next slash, without user and password; empty if there is no ``//``."""
        return unquote(self._split()[0].rpartition("@")[2])

    @property
    def path(self) -> str:
        """The rest without the host, percent-decoded."""
        return unquote(self._split()[1])

    @property
    def inner(self) -> str:
        """The rest as a URL of its own, with the options that are escaped in it.

        >>> StorageURL("db:postgresql://me:a%3Fb@host/x%3Fsslmode=require%26application_name=y").inner
        'postgresql://me:a%3Fb@host/x?sslmode=require&application_name=y'
        """
        user, at, place = self._template.rpartition("@")
        place, *options = re.split("%3f", place, maxsplit=1, flags=re.IGNORECASE)
        return self._named("?".join([f"{user}{at}{place}", *map(unquote, options)]))

    def flag(self, name: str, default: bool) -> bool:
        """An option that is true or false (also: yes, no, on, off, 1, 0)."""
        value = self._take(name)
        if value is None:
            return default
        if value.lower() not in _FLAGS:
            raise self._bad(name, value, "true or false")
        return _FLAGS[value.lower()]

    def number(self, name: str, default: D, *, least: int = 1) -> int | D:
        """An option that is a whole number, not below ``least``."""
        value = self._take(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and int(value) >= least):
            raise self._bad(name, value, f"a whole number from {least}")
        return int(value)

    def mode(self, name: str, default: D) -> int | D:
        """An option that is a file mode in octal, as ``640``."""
        value = self._take(name)
        if value is None:
            return default
        if not re.fullmatch(r"(0o)?[0-7]{3,4}", value):
            raise self._bad(name, value, "an octal mode such as 640")
        return int(value.removeprefix("0o"), 8)

    def text(self, name: str, default: D) -> str | D:
        """An option that is any text but an empty one."""
        value = self._take(name)
        if value is None:
            return default
        if not value:
            raise self._bad(name, value, "some text")
        return value

    def storage(self, name: str) -> Storage:
        """Another storage of the same ``Storages``, to be a part of this one. UnknownStorage."""
        if self._storage is None:
            raise self.mistake(f"{name!r} can be another storage only where there are several")
        return self._storage(name)

    def done(self) -> None:
        """No more options are expected: BadConfiguration names those that nobody took, and those that there are."""
        if self._left:
            raise self.mistake(f"no option {listing(self._left)}; there are {listing(self._known)}")

    def mistake(self, message: str) -> BadConfiguration:
        """The error that says what is wrong with this URL, to be raised."""
        return BadConfiguration(f"{self}: {message}")

    def __str__(self) -> str:
        shown = [f"{name}={'***' if _SECRET.search(name) else masked(value)}" for name, value in self._all.items()]
        return f"{self._place()}?{'&'.join(shown)}" if shown else self._place()

    def __repr__(self) -> str:
        return f"StorageURL({str(self)!r})"

    def _place(self) -> str:
        return f"{self.scheme}:{masked(self.rest)}"

    def _named(self, text: str) -> str:
        return text if self._name is None else text.replace("{name}", quote(self._name, safe=""))

    def _split(self) -> tuple[str, str]:
        if not self.rest.startswith("//"):
            return "", self.rest
        host, slash, path = self.rest[2:].partition("/")
        return host, slash + path

    def _take(self, name: str) -> str | None:
        self._known.append(name)
        return self._left.pop(name, None)

    def _bad(self, name: str, value: str, expected: str) -> BadConfiguration:
        shown = "***" if _SECRET.search(name) else repr(masked(value))
        return self.mistake(f"{name} is {shown}, expected {expected}")


def masked(text: str) -> str:
    """A URL, or a part of one, without what is secret."""
    for pattern, shown in (*_PASSWORDS, (_SECRETS, r"\1***")):
        text = pattern.sub(shown, text)
    return text
