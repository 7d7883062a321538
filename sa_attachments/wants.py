"""Wants: the files that attributes of one flush or statement need, and how they are stored, all in parallel.

The same new attachment wanted twice is stored once and copied once, since a stored file has one owner.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from .attachment import Attachment, binding_of, body_of, facts_of, set_origin
from .binding import Binding
from .content import StoredSource
from .descriptor import Facts, Named, named
from .errors import AttachmentError, BadSource, FileMissing, OwnershipLost
from .home import Home
from .ledger import Line, owner_of
from .offload import Outcome, gather
from .processing.steps import Step, run
from .processing.storing import store
from .processing.variants import Variant, derived, entry, failed, held, holding, is_current
from .references import Reference
from .upload import Upload, given

log = logging.getLogger("sa_attachments")


@dataclass(eq=False, slots=True)
class Want:
    """A new attachment, the attribute that wants it stored, and what it became."""

    attachment: Attachment
    reference: Reference
    stored: Attachment | None = None

    def place(self) -> str:
        """Name of the storage that it goes to."""
        body, column_type = body_of(self.attachment), self.reference.type
        return column_type.files.real((isinstance(body, Upload) and body.storage) or column_type.storage)

    @property
    def files(self) -> list[Named]:
        """What it became: its own file first, then those of its variants."""
        assert self.stored is not None
        return list(named(facts_of(self.stored)))

    def lines(self) -> list[Line]:
        """What the ledger is to know."""
        return [line(file, self.reference) for file in self.files]


_Place = tuple[Home, str]
"""Storages, and the name of one of them."""


def line(file: Named, reference: Reference) -> Line:
    """What the ledger is to know of a file that an attribute names."""
    return Line(file, *owner_of(reference.column))


def copy_wanted(attachment: Attachment, reference: Reference) -> Want:
    """A want for a copy of a stored attachment that belongs to somebody else. OwnershipLost if it knows no storages."""
    if binding_of(attachment) is None:
        raise OwnershipLost(
            f"{attachment!r} came out of a pickle or a text: pass it through Storages.bind, then assign it "
            f"to {reference.target}"
        )
    return Want(attachment.copy(), reference)


def store_all(wants: Sequence[Want], started: Callable[[Any, Named], None]) -> None:
    """Run the steps and put the bytes, in parallel, in each storage as many at a time as it says. After one that failed
    none is begun; those that were are waited for, then the first error is raised.
    """
    for want in wants:
        refuse_held(want.reference.type.files, want.attachment, want.reference.target)
    places = {want: (want.reference.type.files, want.place()) for want in wants}
    limits = {place: max(1, place[0].resolve(place[1]).parallel) for place in dict.fromkeys(places.values())}
    slots = {place: threading.Semaphore(limit) for place, limit in limits.items()}
    groups: dict[_Place, list[_Job]] = {}
    failed = threading.Event()
    for together in _apart(wants):
        groups.setdefault(places[together[0]], []).append(_Job(together, places, started, slots, failed))
    batches = []
    for place, jobs in groups.items():
        parallel = limits[place]
        if any(job.keeps_busy for job in jobs):
            parallel = max(parallel, os.cpu_count() or 1)  # the storage takes no more at a time all the same
        batches.append(partial(gather, jobs, parallel))
    for stored in gather(batches, len(batches)):
        outcomes: list[Outcome[Any]] = [stored, *(stored.value or [])]
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error


def refuse_held(files: Home, attachment: Attachment, target: str) -> None:
    """BadSource if a file that is given away is one of a storage: its row would lose it."""
    source = given(body_of(attachment))
    if source is not None and (holder := files.holder_of(path := source.path())) is not None:
        raise BadSource(
            f"{target}: {path} is in the folder of the storage {holder!r}, whose files can't be given away: assign the "
            "attachment that has the file, or its copy(); what is no attachment's, upload from outside of that folder"
        )


def _apart(wants: Sequence[Want]) -> Iterable[list[Want]]:
    """Wants that can be stored at the same time; those that read one object's position are kept together, whatever
    storages they go to.
    """
    groups: dict[Hashable, list[Want]] = {}
    for want in wants:
        body: Any = body_of(want.attachment)
        shared = body.source.shared
        groups.setdefault((id(want.attachment), want.place()) if shared is None else id(shared), []).append(want)
    return groups.values()


class _Job:
    """Stores wants one after the other."""

    def __init__(
        self,
        wants: list[Want],
        places: Mapping[Want, _Place],
        started: Callable[[Any, Named], None],
        slots: Mapping[_Place, AbstractContextManager[Any]],
        failed: threading.Event,
    ) -> None:
        self._wants = wants
        self._places = places
        self._started = started
        self._slots = slots
        self._failed = failed

    @property
    def keeps_busy(self) -> bool:
        return any(_keeps_busy(want.reference.type) for want in self._wants)

    def __call__(self) -> None:
        done: dict[int, Attachment] = {}
        try:
            for want in () if self._failed.is_set() else self._wants:
                twin = done.get(id(want.attachment))
                want.stored = self._store(want, want.attachment if twin is None else twin.copy())
                set_origin(want.stored, want.attachment)
                done.setdefault(id(want.attachment), want.stored)
        except BaseException:
            self._failed.set()
            raise

    def _store(self, want: Want, attachment: Attachment) -> Attachment:
        column_type, target, place = want.reference.type, want.reference.target, self._places[want]
        whole = Whole(*place, column_type, target, partial(self._started, place[0]), self._slots[place])
        try:
            return whole.store(attachment, column_type.attachment_class)
        except FileMissing as error:
            if _original(attachment) is None:
                raise
            gone = f"{target} may not name a file that is gone (dropped and purged, or rolled back): {error}"
            raise OwnershipLost(gone) from error


class Rules(Binding, Protocol):
    """What a column, or whoever stands for one, says of new files."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """What they go through."""
        ...

    @property
    def variants(self) -> Mapping[str, Variant]:
        """What is derived from them."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """Stores files with all that belongs to them: through the steps, and with their variants."""

    files: Home
    name: str
    """Of the storage."""
    rules: Rules
    target: str
    started: Callable[[Named], None]
    """Told each name before its first byte is stored."""
    slots: AbstractContextManager[Any] = field(default_factory=nullcontext)
    """Held while a file is put."""

    def store(self, attachment: Attachment, cls: type[Attachment]) -> Attachment:
        """A new attachment, as a stored one."""
        original = _original(attachment)
        if original is not None and has_passed(original, self.rules):
            ready = attachment
        else:
            original, ready = None, run(self.rules.steps, attachment, self.target)
        if _is_read_twice(self.rules) and original is None:
            ready.open().close()  # spools what can be read only once: the variants read it after the file was stored
        stored = self._put(ready, cls)
        entries = {}
        for name, variant in self.rules.variants.items():
            found = None if original is None else self._copied(original, name, variant, cls)
            if found is None and not variant.lazy:
                found = self._derived(ready, name, variant, cls)
            if found is not None:
                entries[name] = found
        return holding(stored, entries) if entries else stored

    def _put(self, ready: Attachment, cls: type[Attachment]) -> Attachment:
        storage = self.files.resolve(self.name)
        with self.slots:
            return store(ready, self.name, storage, started=self.started, binding=self.rules, cls=cls)

    def _copied(self, original: Attachment, name: str, variant: Variant, cls: type[Attachment]) -> Facts | None:
        """A variant that the original has, made by the same recipe: copied with it."""
        found = original.variants.get(name)
        if found is None or not is_current(held(original)[name], variant):
            return None
        with suppress(
            AttachmentError
        ):  # It was made anew meanwhile, or is damaged: no reason not to copy the original.
            return entry(self._put(found.copy(), cls), variant)
        return None

    def _derived(self, ready: Attachment, name: str, variant: Variant, cls: type[Attachment]) -> Facts:
        """A variant made now, or the reason why it failed: the upload is not lost for that."""
        label = f"{self.target}, variant {name!r}"
        try:
            return entry(self._put(derived(variant, ready, label), cls), variant)
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes into the descriptor
            reason = failed(error, variant)
            log.warning("%s failed: %s", label, reason["error"])
            return reason


def _keeps_busy(rules: Rules) -> bool:
    """Whether recipes, or steps that say so of themselves as those of images do, have the processors work."""
    return _is_read_twice(rules) or any(getattr(step, "keeps_busy", False) for step in rules.steps)


def _is_read_twice(rules: Rules) -> bool:
    return any(not variant.lazy for variant in rules.variants.values())


def _original(attachment: Attachment) -> Attachment | None:
    """What a copy is a copy of."""
    body = body_of(attachment)
    return body.source.attachment if isinstance(body, Upload) and isinstance(body.source, StoredSource) else None


def has_passed(stored: Attachment, rules: Rules) -> bool:
    """Whether the steps let a stored file in already, for another row perhaps."""
    return getattr(binding_of(stored), "steps", None) == rules.steps


def let_in(stored: Attachment, rules: Rules) -> bool:
    """Whether a stored file is as if it had been stored by these rules, its variants too."""
    return has_passed(stored, rules) and getattr(binding_of(stored), "variants", None) == rules.variants
