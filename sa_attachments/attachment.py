"""Attachment: the frozen value on a model that names one file.

It has two lives. A *new* one is made from a source, and reading it reads the source:

>>> new = Attachment.upload(b"hello", filename="hello.txt", metadata={"caption": "Hi"})
>>> new.is_stored, new.filename, new.read_text()
(False, 'hello.txt', 'hello')

When the session flushes, a *stored* one takes its place; reading that reads the storage:

>>> from sa_attachments import Storages
>>> stored = Storages("memory:").stage(new)
>>> stored.is_stored, stored.size, stored.content_type, stored.sha256[:8]
(True, 5, 'text/plain', '2cf24dba')
>>> with stored.open() as file: file.seek(1), file.read()
(1, b'ello')
>>> stored.replace(filename="bye.txt") == stored     # the same file under another name
True

Traps
-----
Two stored attachments are equal if they name the same file; two new ones only if they are the same object. A new one
asked for ``size``, ``sha256`` or ``stored_at`` raises ``NotStored``. ``to_json`` is for your own caches and queues:
storage and key are capabilities, so never accept them from a client.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Never, NoReturn, Self, TypeVar, cast

from . import filename as filenames
from .binding import Binding
from .content import Content, StoredSource, in_thread
from .descriptor import Facts, checked, damaged, encode, frozen, parse, thawed, variant_of, variants_of
from .errors import BadConfiguration, BadSource, DescriptorDamaged, NotStored, NoUrl, UnknownStorage, storage_errors
from .intake import claimed, data_uri, described
from .intake import source as wrap
from .schema import core_schema, json_schema
from .source import Window
from .storage import HasPath, SignsDownloads, Storage
from .upload import Upload

A = TypeVar("A", bound="Attachment")


class Attachment(Content):
    """One file, new or stored. Frozen; see the module."""

    __slots__ = ("_binding", "_body", "_origin")

    _body: Upload | str | Facts  # new | a stored one's descriptor as text | the same, decoded
    _binding: Binding | None
    _origin: object  # what the tracker remembers of a stored one that is not committed yet

    def __init__(self, *_: Never, **__: Never) -> None:
        raise TypeError(f"make a new one by {type(self).__name__}.upload(source)")

    # Making

    @classmethod
    def upload(
        cls,
        source: Any,
        filename: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        storage: str | None = None,
        *,
        move: bool = False,
    ) -> Self:
        """A new attachment of bytes, a ``Path``, a binary file, an (async) iterator of bytes, or a framework's upload.

        ``filename`` and ``content_type`` are display data and default to what the source says. ``metadata`` holds JSON
        values. ``storage`` overrides the column's. ``move`` gives a ``Path`` away: where the storage can, its bytes are
        not copied, and the path is removed once the row is committed. Raises BadSource, or FileMissing for a path
        without a file.
        """
        if isinstance(source, Attachment):
            raise BadSource("an attachment is assigned as it is; Attachment.copy() makes a new upload of a stored one")
        if move and not isinstance(source, Path):
            raise BadSource(f"only a pathlib.Path can be moved, not {type(source).__name__}")
        if storage is not None and not isinstance(storage, str):
            raise BadSource(f"a storage is given by its name, not as {type(storage).__name__}")
        said_name, said_type = described(source)
        upload = Upload(
            wrap(source),
            filenames.clean(name) if (name := filename or said_name) else None,
            claimed(content_type or said_type),
            checked(metadata),
            storage,
            move,
        )
        return make(cls, upload, None)

    @classmethod
    def from_data_uri(
        cls,
        uri: str,
        filename: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        storage: str | None = None,
    ) -> Self:
        """A new attachment of the bytes in a ``data:`` URI (RFC 2397). Raises BadSource.

        >>> Attachment.from_data_uri("data:text/plain;base64,aGk=", "hi.txt").read()
        b'hi'
        """
        content, content_type = data_uri(uri)
        return cls.upload(content, filename, content_type, metadata, storage)

    def copy(self) -> Self:
        """A new attachment of a stored one's bytes, with its description. The storage copies them where it can."""
        facts = self._facts()
        upload = Upload(
            StoredSource(self),
            facts["filename"],
            facts.get("claimed_content_type"),
            frozen(facts.get("metadata")),
            content_type=facts["content_type"],
        )
        return make(type(self), upload, None)

    def replace(self, *, filename: str | None = None, metadata: Mapping[str, Any] | None = None) -> Self:
        """The same file with another description; what is not given stays. Assign the result."""
        if isinstance(self._body, Upload):
            body: Upload | Facts = dataclasses.replace(
                self._body,
                filename=self._body.filename if filename is None else filenames.clean(filename),
                metadata=self._body.metadata if metadata is None else checked(metadata),
            )
        else:
            body = dict(self._facts())
            if filename is not None:
                body["filename"] = filenames.clean(filename)
            if metadata is not None:
                body["metadata"] = thawed(checked(metadata))
        made = make(type(self), body, self._binding)
        set_origin(made, getattr(self, "_origin", None))
        return made

    # Describing

    @property
    def is_stored(self) -> bool:
        """Whether the bytes are in a storage (which says nothing of a commit)."""
        return type(self._body) is not Upload

    @property
    def storage(self) -> str:
        """Name of the storage the file is in. NotStored for a new one."""
        return str(self._facts()["storage"])

    @property
    def key(self) -> str:
        """Opaque name inside the storage. NotStored for a new one."""
        return str(self._facts()["key"])

    @property
    def filename(self) -> str:
        """The cleaned display name; ``"unnamed"`` if nobody gave one."""
        if isinstance(self._body, Upload):
            return self._body.filename or "unnamed"
        return str(self._facts()["filename"])

    @property
    def content_type(self) -> str:
        """What the bytes say they are (of a new one that was not stored yet: what its source says)."""
        if isinstance(self._body, Upload):
            return self._body.content_type or self._body.claimed_content_type or "application/octet-stream"
        return str(self._facts()["content_type"])

    @property
    def claimed_content_type(self) -> str | None:
        """What the client said it is. Not to be trusted."""
        if isinstance(self._body, Upload):
            return self._body.claimed_content_type
        return self._facts().get("claimed_content_type")

    @property
    def size(self) -> int:
        """Number of bytes. NotStored for a new one."""
        return int(self._facts()["size"])

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes, 64 hex digits. NotStored for a new one."""
        return str(self._facts()["sha256"])

    @property
    def stored_at(self) -> datetime:
        """When it was stored, UTC. NotStored for a new one."""
        said = self._facts()["stored_at"]
        try:
            return datetime.fromisoformat(said)
        except ValueError as error:
            raise DescriptorDamaged(f"{self._label} holds {said[:80]!r} where a time is due") from error

    @property
    def metadata(self) -> Mapping[str, Any]:
        """JSON values that the application keeps with the file; frozen, see ``replace``."""
        if isinstance(self._body, Upload):
            return self._body.metadata
        return frozen(self._facts().get("metadata"))

    @property
    def variants(self) -> Mapping[str, Self]:
        """The files derived from this one that are there, by name. NotStored for a new one."""
        facts = self._facts()
        found = {name: variant_of(facts, name) for name in variants_of(facts)}
        return MappingProxyType(
            {name: make(type(self), each, self._binding) for name, each in found.items() if each is not None}
        )

    def variant(self, name: str) -> Self:
        """The file derived from this one that the column declares as ``name``; see ``sa_attachments.making``.

        If it is not there yet, it is made here and now, where ``Storages.connect`` was called; else VariantMissing.
        VariantFailed if making it has failed before; UnknownVariant; NotStored.
        """
        found = variant_of(self._facts(), name)
        return self._home().derived(self, name) if found is None else make(type(self), found, self._binding)

    async def avariant(self, name: str) -> Self:
        """``variant`` without blocking the event loop."""
        found = variant_of(self._facts(), name)
        return await self._home().aderived(self, name) if found is None else make(type(self), found, self._binding)

    def to_json(self) -> str:
        """The descriptor as text, for your own caches, queues and documents; ``Storages.bind`` takes it back.

        NotStored for a new one.
        """
        return encode(self._facts())

    def url(self, expires: float | timedelta = 3600) -> str:
        """An address that serves the file for ``expires`` seconds. NoUrl if the storage can't give one."""
        facts, place = self._facts(), self._place()
        if not isinstance(place, SignsDownloads):
            raise NoUrl(
                f"storage {self.storage!r} ({type(place).__name__}) has no URLs to give:"
                " serve the file through the application, as docs/serving.md shows"
            )
        lifetime = expires if isinstance(expires, timedelta) else timedelta(seconds=expires)
        with storage_errors(self.storage, "sign", self.key):
            return place.sign_download(
                self.key, expires=lifetime, filename=facts["filename"], content_type=facts["content_type"]
            )

    def check(self, attribute: Any) -> None:
        """Run the steps of a mapped attribute (``User.avatar``) without storing anything, for forms. Raises Refused."""
        owner = getattr(attribute, "class_", None)
        if not hasattr(getattr(attribute, "type", None), "check"):
            raise BadConfiguration(f"{attribute} holds no attachments: expected an attribute, as User.avatar")
        attribute.type.check(self, f"{owner.__name__}.{attribute.key}" if owner else None)

    async def acheck(self, attribute: Any) -> None:
        """``check`` without blocking the event loop."""
        await in_thread(self.check, attribute)

    # Being a value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Attachment):
            return NotImplemented
        both_stored = self.is_stored and other.is_stored
        return (self.storage, self.key) == (other.storage, other.key) if both_stored else self is other

    def __hash__(self) -> int:
        return hash((self.storage, self.key)) if self.is_stored else id(self)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"attachments are frozen: assign attachment.replace({name}=...) to the model instead")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("attachments are frozen")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return make, (type(self), self._body, None)

    __get_pydantic_core_schema__ = classmethod(core_schema)
    __get_pydantic_json_schema__ = classmethod(json_schema)

    def __repr__(self) -> str:
        kind = type(self).__name__
        if isinstance(self._body, Upload):
            return f"<new {kind} {self.filename!r}>"
        try:
            return f"<{kind} {self.filename!r} {self.storage}:{self.key}>"
        except DescriptorDamaged:
            return f"<damaged {kind}>"

    # Behind the curtain

    @property
    def _label(self) -> str:
        return self._binding.label if self._binding else "an unbound attachment"

    def _facts(self) -> dict[str, Any]:
        body = self._body
        if isinstance(body, dict):
            return body
        if isinstance(body, Upload):
            raise NotStored(f"{self!r} is not stored yet: flush or commit the session first, or use Storages.stage")
        facts = parse(body)
        if facts is None:
            raise damaged(body, self._label)
        set_body(self, facts)
        return facts

    def _open(self, start: int, end: int | None) -> BinaryIO:
        if isinstance(self._body, Upload):
            whole = self._body.source.open(self._body.guards)
            if not start and end is None:
                return whole
            return cast(BinaryIO, io.BufferedReader(Window(whole, start, end, whole.close)))
        with storage_errors(self.storage, "open", self.key):
            return self._place().open(self.key, start, end)

    def _reading(self) -> AbstractContextManager[None]:
        return storage_errors(self.storage, "read", self.key) if self.is_stored else nullcontext()

    def _size(self) -> int | None:
        return self.size if self.is_stored else None

    def _local(self) -> Path | None:
        if isinstance(self._body, Upload):
            return self._body.source.path()
        place = self._place()
        with storage_errors(self.storage, "give the path of", self.key):
            return place.path(self.key) if isinstance(place, HasPath) else None

    def _home(self) -> Binding:
        if self._binding is None:
            raise UnknownStorage(
                f"{self!r} came out of a pickle or a text and knows no storages: pass it through Storages.bind"
            )
        return self._binding

    def _place(self) -> Storage:
        return self._home().resolve(self.storage)


# The rest is for the layers above, not for users.

set_body = vars(Attachment)["_body"].__set__
set_binding = vars(Attachment)["_binding"].__set__
set_origin = vars(Attachment)["_origin"].__set__
"""Remember on a stored attachment what the tracker needs until it is committed."""


def make(cls: type[A], body: Upload | str | Facts, binding: Binding | None) -> A:
    """An attachment around a body. The text of a descriptor is decoded only when it is touched."""
    made = object.__new__(cls)
    set_body(made, body)
    set_binding(made, binding)
    return made


def bind(attachment: Attachment, binding: Binding) -> None:
    """Let an attachment that knows no column know this one."""
    if attachment._binding is None:
        set_binding(attachment, binding)


binding_of: Callable[[Attachment], Binding | None] = attrgetter("_binding")
body_of: Callable[[Attachment], Upload | str | Facts] = attrgetter("_body")
facts_of: Callable[[Attachment], Facts] = Attachment._facts
"""The decoded descriptor; not to be changed. NotStored, DescriptorDamaged."""


def origin_of(attachment: Attachment) -> object:
    return getattr(attachment, "_origin", None)
