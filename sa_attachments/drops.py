"""Drops: the files that a flush or a statement leaves without a name.

What rows named before, less what they name afterwards, is condemned in the ledger, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from copy import copy
from typing import Any

from sqlalchemy import Table

from .attachment import Attachment, facts_of
from .column import kept_for
from .descriptor import Name, Named, encode, named
from .errors import DescriptorDamaged
from .frames import Frame
from .ledger import Drop
from .references import Identity, Reference, names, read_locked
from .staging import Stage


class Drops:
    """Collects what was named and what still is."""

    def __init__(self, stage: Stage, frame: Frame) -> None:
        self._stage = stage
        self._frame = frame
        self._named: dict[Name, tuple[Reference, Drop]] = {}
        self._kept: set[Name] = set()
        self._seen: list[Attachment] = []  # kept too: their names are asked for only where something lost its name
        self._brought: set[Named] = set()
        self._tenants: dict[Table, tuple[str, ...]] = {}

    def named(self, reference: Reference, items: Sequence[Attachment], identity: Identity | None) -> None:
        """Files that an attribute named, in the row with this primary key (None: in no row)."""
        if not items:
            return
        retain = kept_for(reference.type)
        for item in items:
            try:
                facts = facts_of(item)
            except DescriptorDamaged:
                continue
            for index, file in enumerate(named(facts)):
                if identity is None:
                    self._brought.add(file)
                if identity is None or not retain:
                    drop = Drop(file)
                else:
                    drop = Drop(
                        file, retain, None if index else facts, encode_identity((*self._tenant(reference), *identity))
                    )
                self._named.setdefault(file.name, (reference, drop))

    def _tenant(self, reference: Reference) -> tuple[str, ...]:
        """See ``Ledger.tenant``."""
        if reference.table not in self._tenants:
            scope, connection = self._stage.of(reference)
            self._tenants[reference.table] = scope.ledger.tenant(connection, reference.table)
        return self._tenants[reference.table]

    def keep(self, items: Iterable[Attachment]) -> None:
        """Files that rows name afterwards."""
        self._seen += items

    def keeps(self, items: Iterable[Attachment]) -> bool:
        """Whether a row was seen to name all of these files."""
        return names(items) <= self._all_kept()

    def of_listeners(self, deleted: Container[tuple[Any, Identity | None]]) -> None:
        """What statements of listeners wrote during a flush, which may have written it again. A row that is not seen
        any more may have another primary key, unless it was ``deleted``.
        """
        for references, rows, schemas in self._frame.met:
            # A copy, since options stay with a connection: a statement may work in other schemas than the flush.
            connection = copy(self._stage.of(references[0])[1]).execution_options(schema_translate_map=schemas)
            now = read_locked(connection, references, rows)
            for identity, row in rows.items():
                unseen = {} if (references[0].table, identity) in deleted else row
                for reference in references:
                    self.named(reference, reference.items_in(row), None)
                    self.keep(reference.items_in(now.get(identity, unseen)))
        self._frame.met.clear()

    @property
    def rest(self) -> set[Name]:
        """What lost its name."""
        return self._named.keys() - self._all_kept() if self._named else set()

    def _all_kept(self) -> set[Name]:
        self._kept |= names(self._seen)
        self._seen.clear()
        return self._kept

    def carry_out(self) -> None:
        """Condemn the rest."""
        by_scope: dict[Any, list[tuple[Reference, Drop]]] = {}
        rest = self.rest
        for name, (reference, drop) in self._named.items():
            if name in rest:
                by_scope.setdefault(self._stage.of(reference)[0], []).append((reference, drop))
        for scope, group in by_scope.items():
            # What was staged in this transaction nobody has seen: there is nothing to go back to.
            unseen = self._frame.staged(scope)
            drops = [Drop(drop.named) if drop.retain and drop.named in unseen else drop for _, drop in group]
            scope.ledger.drop(self._stage.of(group[0][0])[1], drops)
            work = self._frame.work(scope)
            work.dropped += [drop.named for drop in drops if not drop.retain]
            for drop in drops:
                if drop.named in self._brought:
                    work.keep_path_of(drop.named)


def encode_identity(identity: Identity) -> str:
    """A primary key as text, for the ledger.

    >>> encode_identity((1, "a"))
    '["1","a"]'
    """
    return encode([str(part) for part in identity])
