"""Rules for variants: they are asked for, and rebuilt, while other transactions go on."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule
from sqlalchemy.orm import Session

from sa_attachments import StorageFailed, VariantFailed, VariantMissing

from .model import Row
from .models import CONTENTS, Doc, fails, files
from .play import ATTRIBUTE, PK, Play
from .wishes import type_of


class Variants(Play):
    """See the module."""

    @rule(pk=PK, attribute=ATTRIBUTE, name=st.sampled_from(sorted(CONTENTS)), which=st.integers(0, 1))
    def make(self, pk: int, attribute: str, name: str, which: int) -> None:
        """A task makes a variant of what is committed."""
        row = self.committed.rows.get(pk)
        entries = () if row is None else row.slots[attribute]
        if not self._may_write() or row is None or not entries:
            return
        entry = entries[which % len(entries)]
        with Session(self.world.observer) as session:
            items = type_of(attribute).items(getattr(session.get_one(Doc, pk), attribute))
        attachment = next(item for item in items if item.key == entry.name[1])
        fired = self.world.fired
        try:
            made = files.make(self.world.engine, attachment, name, primary_key=pk)
        except VariantMissing as error:
            if isinstance(error, VariantFailed):
                assert self.world.fired > fired or (name == "loud" and fails(entry.item.content))
            else:
                assert self._is_in_the_way_of(pk, row)
        except StorageFailed:
            assert self.world.fired > fired
        else:
            assert (made.storage, made.key) in self.world.stored()
        self._learn_variants({pk})

    @rule(lazy=st.booleans())
    def rebuild(self, lazy: bool) -> None:
        if not self._may_write():
            return
        fired = self.world.fired
        report = files.rebuild(self.world.engine, lazy=lazy)
        rows = self.committed.rows
        bad = [entry for row in rows.values() for _, entry in row.entries() if fails(entry.item.content)]
        assert len(report.failed) <= len(bad) or self.world.fired > fired, report
        assert not report.busy or any(self._is_in_the_way_of(pk, row) for pk, row in rows.items()), report
        assert (report.stale, report.undeclared, report.overtaken) == (0, 0, 0), report
        self._learn_variants(set(rows))

    def _may_write(self) -> bool:
        return not self.world.has_one_writer or not any(actor.connected for actor in self.actors)

    def _is_in_the_way_of(self, pk: int, row: Row) -> bool:
        return any(actor.is_in_the_way_of({pk, row.title, *row.files()} - {None}) for actor in self.actors)

    def _learn_variants(self, pks: set[int]) -> None:
        """Nothing else of the rows has changed."""
        self.world.put_since()
        rows = self.world.committed_rows()
        for pk in pks:
            before, now = self.committed.rows[pk], rows[pk]
            assert now.plain() == before.plain()
            if now != before:
                assert not any(pk in actor.transaction.changed for actor in self.actors)
            self.committed.rows[pk] = now
