"""Workshop: where one ``Storages`` has variants made that somebody asks for.

It finds out which column names an attachment, lets only one of those who ask for the same variant at the same time make
it, and knows the engine by which ``attachment.variant()`` may have it made without being told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.util import greenlet_spawn

from .attachment import Attachment, binding_of
from .column import ColumnType, ledger_owner
from .errors import BadConfiguration, VariantMissing
from .flights import Flights
from .ledger import Owner
from .making import Maker, declared_as
from .offload import in_greenlet
from .patience import Busy
from .processing.variants import held, is_current, is_there
from .recovery import Purger
from .references import Identity

WAIT = 1000
"""Milliseconds that publishing a variant waits for SQLite's one writer, at a time."""


class Workshop:
    """See the module."""

    def __init__(self, columns: Iterable[ColumnType], purgers: Callable[[Engine, int], Iterable[Purger]]) -> None:
        """``columns`` are those of the ``Storages``; ``purgers`` gives one for each ledger in a database."""
        self._columns = columns
        self._purgers = purgers
        self._flights = Flights()
        self._engine: Any = None

    def connect(self, engine: Any) -> None:
        """Have missing variants made by this engine from now on; None: by none."""
        self._engine = engine

    def make(
        self, engine: Any, attachment: Attachment, name: str, primary_key: Any, *, again: bool = True
    ) -> Attachment:
        """See ``Storages.make``."""
        engine = _plain(engine)
        is_whole = isinstance(primary_key, tuple) or primary_key is None
        identity: Identity | None = primary_key if is_whole else (primary_key,)
        what = engine, attachment.storage, attachment.key, name, again
        try:
            purger, column_type = self._home(engine, attachment)
            declared_as(column_type, name)
            maker = Maker(purger, column_type)
            return self._flights.share(what, lambda: maker.make(attachment, name, identity, again=again))
        except Busy as error:
            raise VariantMissing(
                f"making variant {name!r} of {attachment!r} needs a connection beside those in use, and {error}"
            ) from error

    def derived(self, attachment: Attachment, name: str) -> Attachment:
        """See ``Binding``."""
        self._require(attachment, name)
        return self.make(self._engine, attachment, name, None, again=False)

    async def aderived(self, attachment: Attachment, name: str) -> Attachment:
        """See ``Binding``."""
        self._require(attachment, name)
        return await greenlet_spawn(self.make, self._engine, attachment, name, None, again=False)

    def _require(self, attachment: Attachment, name: str) -> None:
        """Raise what can be told without asking a database."""
        column_type = binding_of(attachment)
        if isinstance(column_type, ColumnType):
            variant, facts = declared_as(column_type, name), held(attachment).get(name)
            if facts is not None and not is_there(facts) and is_current(facts, variant):
                raise Maker.failure(column_type.label, attachment, name, facts)
        if self._engine is None:
            raise VariantMissing(
                f"{attachment!r} has no variant {name!r} yet: Storages.make(engine, attachment, {name!r}) makes it, "
                "and after Storages.connect(engine) it is made when it is asked for"
            )

    def _home(self, engine: Engine, attachment: Attachment) -> tuple[Purger, ColumnType]:
        """The column that names an attachment, and who works in its database."""
        binding = binding_of(attachment)
        column = binding.column if isinstance(binding, ColumnType) else None
        for purger in self._purgers(engine, WAIT):
            owner = None if column is not None else _owner(purger, attachment)
            for each in self._columns:
                if each.column is None:
                    continue
                ledger = each.files.ledger_of(each.column.table)
                if ledger.lines.fullname != purger.ledger.lines.fullname:
                    continue
                if each.column is column or owner == ledger_owner(each):
                    return purger, each
        raise VariantMissing(
            f"no column of these Storages names {attachment!r}: it was dropped, or is not committed yet"
        )


def _owner(purger: Purger, attachment: Attachment) -> Owner | None:
    """Table and column that a file belongs to, as the ledger says."""
    c = purger.ledger.lines.c
    statement = select(c.owner_table, c.owner_column).where(purger.ledger.among([(attachment.storage, attachment.key)]))
    with purger.begin() as connection:
        row = connection.execute(statement).first()
    return None if row is None else (row.owner_table, row.owner_column)


def _plain(engine: Any) -> Engine:
    """An AsyncEngine's, told by what it has: its module needs greenlet."""
    plain = getattr(engine, "sync_engine", engine)
    if not isinstance(plain, Engine):
        raise BadConfiguration(f"{engine!r} is no engine: variants are made in a transaction of their own")
    if plain.dialect.is_async and not in_greenlet():
        raise BadConfiguration("an AsyncEngine wants to be awaited: use Storages.amake and Attachment.avariant")
    return plain
