"""Wants: the files that attributes of one flush or statement need, and how they are stored, all in parallel.

The same new attachment wanted twice is stored once and copied once, since a stored file has one owner.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
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
from .storage import Storage
from .upload import Upload, given

log = logging.getLogger("sa_attachments")


@dataclass(eq=False, slots=True)
class Want:
    """A new attachment, the attribute that wants it stored, and what it became."""

    attachment: Attachment
    reference: Reference
    stored: Attachment | None = None

    @property
    def files(self) -> list[Named]:
        """What it became: its own file first, then those of its variants."""
        assert self.stored is not None
        return named(facts_of(self.stored))


Place = tuple[Home, str]
"""Storages, and the real name of one of them."""


def places_of(wants: Iterable[Want]) -> dict[Want, Place]:
    """Where each of them goes. A name is looked up once, for all of them."""
    found: dict[Want, Place] = {}
    known: dict[tuple[Home, str | None], Place] = {}
    for want in wants:
        column_type = want.reference.type
        body: Any = body_of(want.attachment)
        said = column_type.files, body.storage or column_type.storage
        if said not in known:
            known[said] = said[0], said[0].real(said[1])
        found[want] = known[said]
    return found


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


def store_all(places: Mapping[Want, Place], started: dict[Home, list[Named]]) -> None:
    """Run the steps and put the bytes, in parallel, in each storage as many at a time as it says. After one that failed
    none is begun; those that were are waited for, then the first error is raised. Names are added to ``started`` before
    their first byte is stored.
    """
    limits = {place: max(1, place[0].resolve(place[1]).parallel) for place in dict.fromkeys(places.values())}
    slots: dict[Place, AbstractContextManager[Any]]
    slots = {place: threading.Semaphore(limit) if limit > 1 else threading.Lock() for place, limit in limits.items()}
    wholes = {
        (reference, place): Whole(
            place[1],
            place[0].resolve(place[1]),
            reference.type,
            reference.target,
            started.setdefault(place[0], []).append,
            slots[place],
        )
        for reference, place in {(want.reference, place) for want, place in places.items()}
    }
    for want, place in places.items():
        refuse_held(place[0], want.attachment, wholes[want.reference, place].target)
    jobs: dict[Place, list[Callable[[], None]]] = {}
    failed = threading.Event()
    for together in _apart(places, wholes):
        first, _ = together[0]
        jobs.setdefault(places[first], []).append(partial(_store, together, failed))
    for _, place in (each for each, whole in wholes.items() if _keeps_busy(whole.rules)):
        limits[place] = max(limits[place], os.cpu_count() or 1)  # the storage takes no more at a time all the same
    batches = [partial(gather, each, limits[place]) for place, each in jobs.items()]
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


def _apart(
    places: Mapping[Want, Place], wholes: Mapping[tuple[Reference, Place], Whole]
) -> Iterable[list[tuple[Want, Whole]]]:
    """Wants that can be stored at the same time; those that read one object's position are kept together, whatever
    storages they go to.
    """
    groups: dict[Hashable, list[tuple[Want, Whole]]] = {}
    for want, place in places.items():
        body: Any = body_of(want.attachment)
        shared = body.source.shared
        group = groups.setdefault((id(want.attachment), place) if shared is None else id(shared), [])
        group.append((want, wholes[want.reference, place]))
    return groups.values()


def _store(together: Iterable[tuple[Want, Whole]], failed: threading.Event) -> None:
    """One after the other, unless another one ``failed``."""
    done: dict[int, Attachment] = {}
    try:
        for want, whole in () if failed.is_set() else together:
            wanted = id(want.attachment)
            new = done[wanted].copy() if wanted in done else want.attachment
            want.stored = _stored(whole, new, want.reference)
            set_origin(want.stored, want.attachment)
            done.setdefault(wanted, want.stored)
    except BaseException:
        failed.set()
        raise


def _stored(whole: Whole, new: Attachment, reference: Reference) -> Attachment:
    try:
        return whole.store(new, reference.type.attachment_class)
    except FileMissing as error:
        if _original(new) is None:
            raise
        gone = f"{whole.target} may not name a file that is gone (dropped and purged, or rolled back): {error}"
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

    name: str
    """Of the storage."""
    storage: Storage
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
        if not self.rules.variants:
            return self._put(ready, cls)
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
        with self.slots:
            return store(ready, self.name, self.storage, started=self.started, binding=self.rules, cls=cls)

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
