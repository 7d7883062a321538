"""Rebuilding: bring the variants of all rows in line with what their columns declare, while the application goes on.

Missing ones are made, those by a former recipe are made anew, failed ones are tried again, and those that no column
declares any more are dropped. What is in line is passed over, so a rebuild that was killed is begun again. Rows are
changed as ``sa_attachments.making`` says.

Traps
-----
A variant by a former recipe is served until it is replaced; if the new recipe fails, it stays. Lazy variants that
nobody asked for are made only on demand: with ``lazy``.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from .attachment import Attachment
from .column import ColumnType
from .descriptor import Facts
from .errors import AttachmentError, DescriptorDamaged, FileMissing
from .making import Maker, Wish
from .moving import Progress
from .offload import gather
from .processing.variants import Variant, held, is_current, is_there
from .recovery import Purger
from .references import Identity
from .rows import Page, Rows, check_part, tried_again


@dataclass(slots=True)
class RebuildReport:
    """What a rebuild did; in a dry run, what it would do."""

    attachments: int = 0
    """Attachments that were looked at."""
    current: int = 0
    """Variants that were in line already."""
    missing: int = 0
    """Variants that were not there: never made, or failed."""
    stale: int = 0
    """Variants that were made by a former recipe."""
    undeclared: int = 0
    """Variants that their column declares no more."""
    made: int = 0
    dropped: int = 0
    overtaken: int = 0
    """Variants whose row was changed or deleted meanwhile: begin again, if you like."""
    busy: int = 0
    """Variants whose row somebody held until the end: rebuild again."""
    failed: list[str] = field(default_factory=list)
    """Why a variant could not be made, or a row not be read."""

    @property
    def ok(self) -> bool:
        """Whether all variants are in line now."""
        left = self.missing + self.stale + self.undeclared - self.made - self.dropped - self.overtaken
        return not self.failed and not self.busy and left <= 0


class Rebuild:
    """One rebuild, over one ledger."""

    def __init__(
        self,
        purger: Purger,
        report: RebuildReport,
        *,
        names: Collection[str],
        lazy: bool,
        part: tuple[int, int],
        dry_run: bool,
        progress: Progress,
    ) -> None:
        """``names``: only these variants; none are all. ``part``: ``(2, 4)`` does the second quarter of the rows.

        Raises BadConfiguration.
        """
        check_part(part)
        self._purger = purger
        self._report = report
        self._names = set(names)
        self._lazy = lazy
        self._part = part
        self._dry_run = dry_run
        self._progress = progress

    def run(self, columns: Sequence[ColumnType]) -> None:
        """Do it for what these columns name."""
        rows = [(each, Rows(self._purger, each)) for each in columns]
        total = -(-sum(found.count(_some(each)) for each, found in rows) // self._part[1])
        for each, found in rows:
            maker = Maker(self._purger, each)
            left: list[Wish] = []
            for page in found.pages(_some(each), self._part):
                left += self._page(maker, each, page)
                self._progress(len(page), total)
            left = tried_again(left, partial(self._publish, maker))
            self._report.busy += len(left)
            maker.discard(left)

    def _page(self, maker: Maker, each: ColumnType, page: Page) -> list[Wish]:
        """Make what the rows of a page lack; returns what somebody holds the row of."""
        wishes: list[Wish] = []
        for identity, items in page:
            for item in items:
                try:
                    wishes += self._wishes(each, identity, item)
                except DescriptorDamaged as error:
                    self._report.failed.append(f"{each.label} {identity}: {error}")
        if self._dry_run:
            return []
        making, jobs = [], []
        for wish in [wish for wish in wishes if wish.name in each.variants]:
            try:
                place = maker.place(wish.parent)
            except AttachmentError as error:  # of a storage that is configured no more
                self._failed(each, wish, str(error))
                wishes.remove(wish)
            else:
                making.append(wish)
                jobs.append(partial(maker.carry_out, wish.parent, wish.name, each.variants[wish.name], place))
        for wish, outcome in zip(making, gather(jobs, os.cpu_count() or 1), strict=True):
            if outcome.value is not None:
                wish.new = outcome.value
            elif isinstance(outcome.error, FileMissing) and not maker.still_names(wish.identity, wish.parent):
                self._report.overtaken += 1
                wishes.remove(wish)
            elif isinstance(outcome.error, AttachmentError):
                self._failed(each, wish, str(outcome.error))
                wishes.remove(wish)
            elif outcome.error is not None:
                raise outcome.error
        return self._publish(maker, [wish for wish in wishes if self._is_worth_it(each, wish)])

    def _wishes(self, each: ColumnType, identity: Identity, item: Attachment) -> Iterator[Wish]:
        """What has to be done about one attachment."""
        entries = held(item)
        self._report.attachments += 1
        for name, variant in each.variants.items():
            if self._is_meant(name) and not self._is_in_line(entries.get(name), variant):
                yield Wish(identity, item, name, entries.get(name))
        for name, facts in entries.items():
            if self._is_meant(name) and name not in each.variants:
                self._report.undeclared += 1
                yield Wish(identity, item, name, facts)

    def _is_in_line(self, facts: Facts | None, variant: Variant) -> bool:
        if facts is None and variant.lazy and not self._lazy:
            return True
        if facts is None or not is_there(facts):
            self._report.missing += 1
            return False
        if not is_current(facts, variant):
            self._report.stale += 1
            return False
        self._report.current += 1
        return True

    def _is_meant(self, name: str) -> bool:
        return not self._names or name in self._names

    def _is_worth_it(self, each: ColumnType, wish: Wish) -> bool:
        """Whether the row is to be changed: a failure is noted, but not in place of a file."""
        if wish.new is None or is_there(wish.new):
            return True
        self._failed(each, wish, str(wish.new["error"]))
        return wish.seen is None or not is_there(wish.seen)

    def _failed(self, each: ColumnType, wish: Wish, why: str) -> None:
        self._report.failed.append(f"{each.label} {wish.identity}, variant {wish.name!r}: {why}")

    def _publish(self, maker: Maker, wishes: Sequence[Wish]) -> list[Wish]:
        taken, left = maker.publish(wishes)
        self._report.made += sum(wish.file is not None for wish in taken)
        self._report.dropped += sum(wish.new is None for wish in taken)
        self._report.overtaken += len(wishes) - len(taken) - len(left)
        return left


def _some(each: ColumnType) -> Any:
    """The rows to look at. Where no variants are declared (any more), rows may have some nevertheless."""
    assert each.column is not None
    return each.column.is_not(None)
