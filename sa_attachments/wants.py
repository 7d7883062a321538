"""Wants: the files that attributes of one flush or statement need, and how they are stored, all in parallel.

The same new attachment wanted twice is stored once and copied once, since a stored file has one owner.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .attachment import Attachment, binding_of, body_of, set_origin
from .column import Home
from .content import StoredSource
from .descriptor import Named
from .errors import FileMissing, OwnershipLost
from .ledger import Line
from .offload import gather
from .processing.steps import run
from .processing.storing import store
from .references import Reference
from .upload import Upload


@dataclass(eq=False, slots=True)
class Want:
    """A new attachment, the attribute that wants it stored, and what it became."""

    attachment: Attachment
    reference: Reference
    stored: Attachment | None = None
    named: Named | None = None

    def place(self) -> str:
        """Name of the storage that it goes to."""
        body, column_type = body_of(self.attachment), self.reference.type
        return column_type.files.real((isinstance(body, Upload) and body.storage) or column_type.storage)

    def line(self) -> Line:
        """What the ledger is to know."""
        assert self.named is not None
        return line(self.named, self.reference)


def line(file: Named, reference: Reference) -> Line:
    """What the ledger is to know of a file that an attribute names."""
    return Line(file, reference.table.fullname, reference.column.name)


def copy_wanted(attachment: Attachment, reference: Reference) -> Want:
    """A want for a copy of a stored attachment that belongs to somebody else. OwnershipLost if it knows no storages."""
    if binding_of(attachment) is None:
        raise OwnershipLost(
            f"{attachment!r} came out of a pickle or a text: pass it through Storages.bind, then assign it "
            f"to {reference.target}"
        )
    return Want(attachment.copy(), reference)


def store_all(wants: Sequence[Want], started: Callable[[Any, Named], None]) -> None:
    """Run the steps and put the bytes, in parallel. All are waited for, then the first error is raised."""
    by_storage: dict[tuple[Home, str], list[Want]] = {}
    for want in wants:
        by_storage.setdefault((want.reference.type.files, want.place()), []).append(want)
    jobs = []
    parallel = 1
    for (files, name), group in by_storage.items():
        parallel = max(parallel, files.resolve(name).parallel)
        jobs += [_Job(together, files, name, started) for together in _apart(group)]
    for outcome in gather(jobs, parallel):
        if outcome.error is not None:
            raise outcome.error


def _apart(wants: Sequence[Want]) -> Iterable[list[Want]]:
    """Wants that can be stored at the same time; those that read one object's position are kept together."""
    groups: dict[Hashable, list[Want]] = {}
    for want in wants:
        body: Any = body_of(want.attachment)
        groups.setdefault(id(want.attachment) if body.source.shared is None else id(body.source.shared), []).append(
            want
        )
    return groups.values()


class _Job:
    """Stores wants one after the other."""

    def __init__(self, wants: list[Want], files: Home, name: str, started: Callable[[Any, Named], None]) -> None:
        self._wants = wants
        self._files = files
        self._name = name
        self._started = started

    def __call__(self) -> None:
        done: dict[int, Attachment] = {}
        for want in self._wants:
            twin = done.get(id(want.attachment))
            want.stored = self._store(want, want.attachment if twin is None else twin.copy())
            set_origin(want.stored, want.attachment)
            done.setdefault(id(want.attachment), want.stored)

    def _store(self, want: Want, attachment: Attachment) -> Attachment:
        def started(file: Named) -> None:
            want.named = file
            self._started(self._files, file)

        column_type, target = want.reference.type, want.reference.target
        original = _original(attachment)
        passed = original is not None and let_in(original, want.reference)
        ready = attachment if passed else run(column_type.steps, attachment, target)
        storage = self._files.resolve(self._name)
        try:
            stored = store(
                ready, self._name, storage, started=started, binding=column_type, cls=column_type.attachment_class
            )
        except FileMissing as error:
            if original is None:
                raise
            gone = f"{target} may not name a file that is gone (dropped and purged, or rolled back): {error}"
            raise OwnershipLost(gone) from error
        assert want.named is not None
        want.named = want.named._replace(size=stored.size)
        return stored


def _original(attachment: Attachment) -> Attachment | None:
    """What a copy is a copy of."""
    body = body_of(attachment)
    return body.source.attachment if isinstance(body, Upload) and isinstance(body.source, StoredSource) else None


def let_in(stored: Attachment, reference: Reference) -> bool:
    """Whether the steps of the attribute let a stored file in already, for another row perhaps."""
    return getattr(binding_of(stored), "steps", None) == reference.type.steps
