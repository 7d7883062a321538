"""Inserts: ORM-enabled INSERT, upserts included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import false, or_

from .conflicts import conditions, given, refuse_foreign, set_on_conflict
from .dml import Statement, distribute
from .errors import OwnershipLost
from .references import Reference, meant


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
        met = [(group, [conditions(table, given(group[0], row)) for row in rows]) for table, group in self.by_table()]
        conflicts = [(group, or_(false(), *(c for each in found for c in each))) for group, found in met]
        for group, conflict in conflicts:
            self.drop_from(self.read_where(group, conflict), group)
        result = self._invoke(rows, stored, many, parameters)
        for group, conflict in conflicts:
            self.keep(self.read_where(group, conflict), group)
        for group, found in met:
            for new, each in zip(stored, found, strict=True):
                for reference in group:
                    if not each and reference.key in new:
                        self.drops.keep(reference.type.items(new[reference.key]))
        self.drops.carry_out()
        return result

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
        if any("REPLACE" in str(prefix).upper() for prefix, _ in self.statement._prefixes):
            lost = [reference.target for reference in self.references]
        if lost:
            raise OwnershipLost(
                f"rows may lose {lost[0]} by INSERT ... SELECT, and nobody could tell which: read the rows, and insert "
                "them as values"
            )


_ABSENT = object()


def _value(row: Any, reference: Reference) -> Any:
    return next((value for key, value in row.items() if meant(reference, key) is reference.column), _ABSENT)


def _merged(row: Any, new: dict[str, Any], references: Sequence[Reference]) -> Any:
    by_column: dict[Any, Any] = {
        reference.column: new[reference.key] for reference in references if reference.key in new
    }
    return {key: by_column.get(meant(references[0], key), value) for key, value in row.items()}
