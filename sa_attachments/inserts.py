"""Inserts: ORM-enabled INSERT, upserts included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import false, literal, literal_column, or_, select, true

from .chunks import chunked
from .column import mentions
from .conflicts import conditions, given, refuse_foreign, replaces, set_anywhere, set_on_conflict, targets_of
from .dml import Statement, distribute
from .errors import OwnershipLost
from .references import Reference, Rows, meant


class Insert(Statement):
    """See the module."""

    def run(self) -> Any:
        if self.statement.select is not None:
            self._refuse_select()
            return None
        parameters: Any = self.state.parameters
        single = self.statement._values or {}
        many = [row for rows in self.statement._multi_values for row in rows]
        rows: list[Any] = many or (parameters if isinstance(parameters, list) else [{**(parameters or {}), **single}])
        places = [(i, r) for i, row in enumerate(rows) for r in self.references if _value(row, r) is not _ABSENT]
        upsert = self.statement._post_values_clause is not None or self.statement._prefixes
        if not places and not upsert:
            return None
        refuse_foreign(self.statement, self.references)
        self.stage.check(self.references)
        stored = distribute(self, places, lambda index, r: _value(rows[index], r), len(rows))
        if not upsert:
            return self._invoke(rows, stored, many, parameters)
        met = [(group, [self._conditions(group, row) for row in rows]) for _, group in self.by_table()]
        before = [self._read_met(*each) for each in met]
        result = self._invoke(rows, stored, many, parameters)
        tries = _TRIES
        while tries and any(self._is_overtaken(*each, there) for each, there in zip(met, before, strict=True)):
            self.take_back(result)
            former, before = before, [self._read_met(*each) for each in met]
            # If no row came, one that the statement inserted was locked, by a trigger that inserted what refers to it.
            came = any(there.keys() - known.keys() for there, known in zip(before, former, strict=True))
            tries = tries - 1 if came else 0
            result = self._invoke(rows, stored, many, parameters)
        for (group, found), there in zip(met, before, strict=True):
            self.drop_from(there, group)
            self._keep_of(group, found, there)
        for group, found in met:
            self._keep_unseen(group, found, stored)
        self.drops.carry_out()
        return result

    def _conditions(self, group: list[Reference], row: Any) -> list[Any]:
        return conditions(group[0].table, given(group[0], row), targets_of(self.statement, group[0].table))

    def _read_met(self, group: list[Reference], met: list[list[Any]]) -> Rows:
        """The rows that agree in a key with a new one."""
        self.begin()
        rows: Rows = {}
        for chunk in chunked([condition for each in met for condition in each], _TERMS):
            rows |= self.read_where(group, or_(*chunk))
        return rows

    def _is_overtaken(self, group: list[Reference], met: list[list[Any]], before: Rows) -> bool:
        """Whether a row was in the way that came after those ``before`` had been read: PostgreSQL waits for the
        transaction that inserts it, and nobody knows what it named when it was changed.
        """
        connection = self.begin()
        if connection.dialect.name != "postgresql":
            return False
        # An inserted row has no xmax; one that was changed instead has that of the lock which it was given before. Rows
        # of a view have none, and take the one from outside.
        outside = select(literal_column("CAST('0' AS xid)").label("xmax")).subquery()
        for chunk in chunked([condition for each in met for condition in each], _TERMS):
            changed: Any = literal_column("CAST(xmax AS text) <> '0'")
            found = select(*group[0].primary_key).where(or_(*chunk), changed).lateral()
            keys = connection.execute(select(found).select_from(outside.join(found, true())))
            if any(tuple(key) not in before for key in keys):
                return True
        return False

    def _keep_of(self, group: list[Reference], met: list[list[Any]], before: Rows) -> None:
        """What rows name that agree in a key now, or did before. Those that are not seen any more have other keys,
        unless they were replaced.
        """
        now = self._read_met(group, met)
        if others := before.keys() - now.keys():
            now |= self.read(others, group)
        self.keep(now, group)
        if not replaces(self.statement):
            self.keep({identity: row for identity, row in before.items() if identity not in now}, group)

    def _keep_unseen(self, group: list[Reference], met: list[list[Any]], stored: list[dict[str, Any]]) -> None:
        """A new file that no row was seen with stays, unless a row is seen that was in its way: the database may have
        rounded the key, a trigger changed it, or a key be known to the database alone.
        """
        anywhere = set_anywhere(self.statement, group)
        new = [
            (conflict, items)
            for conflict, row in zip(met, stored, strict=True)
            if (items := [(r, item) for r in group if r.key in row for item in r.type.items(row[r.key])])
            if not self.drops.keeps(item for _, item in items)
        ]
        for chunk in chunked(new, _LOOKS):
            looks = []
            for conflict, items in chunk:
                named = [mentions(r.column, item.key) for r, item in items if r in anywhere]
                # Locked, as a row may be younger than what the transaction sees; but what it wrote itself it does.
                in_the_way = _some(group, conflict).with_for_update(key_share=True).exists()
                looks.append(in_the_way & ~_some(group, named).exists())
            for (_, items), is_nobodys in zip(chunk, self.begin().execute(select(*looks)).one(), strict=True):
                if not is_nobodys:
                    self.drops.keep(item for _, item in items)

    def _invoke(self, rows: list[Any], stored: list[dict[str, Any]], many: list[Any], parameters: Any) -> Any:
        if many:
            statement = self.statement._generate()
            statement._multi_values = (
                [_merged(row, new, self.references) for row, new in zip(rows, stored, strict=True)],
            )
            return self.invoke(statement)
        if isinstance(parameters, list):
            return self.invoke(params=stored)
        by_statement = {key: value for key, value in stored[0].items() if key not in (parameters or {})}
        statement = self.statement.values(by_statement) if by_statement else self.statement
        by_parameters = {key: value for key, value in stored[0].items() if key in (parameters or {})}
        return self.invoke(statement, params=by_parameters)

    def _refuse_select(self) -> None:
        targets = {getattr(name, "key", name) for name in self.statement._select_names or ()}
        for target in (reference.target for reference in self.references if reference.column.key in targets):
            raise OwnershipLost(
                f"{target} can't be filled by INSERT ... SELECT: two rows would name one file. "
                "Read the attachments and insert them, which copies them in the storage"
            )
        lost = [reference.target for reference, _ in set_on_conflict(self.statement, self.references)]
        if replaces(self.statement):
            lost = [reference.target for reference in self.references]
        if lost:
            raise OwnershipLost(
                f"rows may lose {lost[0]} by INSERT ... SELECT, and nobody could tell which: read the rows, and insert "
                "them as values"
            )


_LOOKS = 50
"""Rows that one SELECT looks for."""
_TERMS = 250
"""Conditions of one SELECT: SQLite takes no more than 1,000 terms beside each other."""
_TRIES = 4
"""How often an upsert that was overtaken is executed once more before what it met is left for ``Storages.verify``."""
_ABSENT = object()


def _some(group: Sequence[Reference], alternatives: Sequence[Any]) -> Any:
    return select(literal(1)).select_from(group[0].table).where(or_(false(), *alternatives))


def _value(row: Any, reference: Reference) -> Any:
    return next((value for key, value in row.items() if meant(reference, key) is reference.column), _ABSENT)


def _merged(row: Any, new: dict[str, Any], references: Sequence[Reference]) -> Any:
    by_column: dict[Any, Any] = {
        reference.column: new[reference.key] for reference in references if reference.key in new
    }
    return {key: by_column.get(meant(references[0], key), value) for key, value in row.items()}
