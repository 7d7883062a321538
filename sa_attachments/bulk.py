"""Bulk statements: ORM-enabled INSERT, UPDATE and DELETE, which never pass through a flush.

The same order as there: store, own, read under lock, write, drop. What rows name afterwards is read once more, so
that it does not matter which of the rows that were read the statement really changed.

Traps
-----
``bulk_save_objects`` and its kin, Core statements and raw SQL pass here unseen; values of theirs that name files are
refused by the column type, and what they delete is found by ``Storages.verify``, or by triggers. So is what PostgreSQL
deletes inside of a SELECT, ``select(delete(Model).returning(...).cte())``.
Inside of ``from_statement()`` a statement that may take files from rows is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Integer, String, Uuid, case, literal, tuple_
from sqlalchemy.orm import Mapper, ORMExecuteState, bulk_persistence
from sqlalchemy.orm.exc import StaleDataError

from .attachment import Attachment
from .chunks import one_of
from .column import nameable
from .conflicts import replaces, set_on_conflict
from .dml import Statement, distribute
from .errors import OwnershipLost
from .frames import Frame
from .inserts import Insert
from .naming import writes_within
from .references import Identity, Reference, Rows, meant, read_waiting

RESTRICTED = 50_000
"""Up to so many rows, a statement is held to those that were read under lock: it would meet others unseen."""
BOUND = 1000
"""Keys that are passed as parameters; more of them are written into the SQL."""


def execute(state: ORMExecuteState, references: Sequence[Reference], frame: Callable[[], Frame]) -> Any:
    """Run the statement with its files; None if it does not concern any."""
    before = nameable.get()
    try:
        return _execute(state, references, frame)
    finally:
        nameable.set(before)


def _execute(state: ORMExecuteState, references: Sequence[Reference], frame: Callable[[], Frame]) -> Any:
    statement: Any = state.statement
    if state.is_from_statement:
        return _refuse_to_lose(statement.element, references)
    if state.execution_options.get("autoflush", True):
        # As the statement itself will do, but before rows are read: a flush in between would change what they name.
        state.session._autoflush()
    table = statement.entity_description["table"]
    here = [reference for reference in references if reference.table is table]
    by_key = state.is_update and state.is_executemany and statement.whereclause is None
    if state.is_update and here and replaces(statement):
        raise OwnershipLost(
            f"rows may lose {here[0].target} by UPDATE OR REPLACE, which deletes those that are in its way, and nobody "
            "could tell which: delete them before"
        )
    if state.is_insert or by_key:
        state.parameters = _spread(state.bind_mapper, state.parameters)
    if state.is_insert:
        return Insert(state, references, frame).execute()
    if state.is_delete:
        return _ByCondition(state, here, frame).execute({}) if here else None
    if by_key and not _assigned(statement, here):
        return _UpdateByKey(state, references, frame).execute()
    given: Any = state.parameters if isinstance(state.parameters, dict) else {}
    by_name = {r: value for key, value in given.items() for r in here if meant(r, key) is r.column}
    values = {**_assigned(statement, here), **by_name}
    return _ByCondition(state, list(values), frame).execute(values) if values else None


def _spread(mapper: Mapper[Any] | None, parameters: Any) -> Any:
    """Parameters with the attributes that composites and hybrids in them stand for, as SQLAlchemy will see them."""
    rows = parameters if isinstance(parameters, list) else [parameters or {}]
    if mapper is None or not any(key not in mapper.column_attrs for row in rows for key in row):
        return parameters
    found = [dict(row) for row in rows]
    inner: Any = bulk_persistence
    spread = inner._expand_other_attrs if hasattr(inner, "_expand_other_attrs") else inner._expand_composites  # 2.0
    spread(mapper, found)
    for row in found:
        for key in [key for key in row if key in mapper.all_orm_descriptors and key not in mapper.attrs]:
            del row[key]  # a hybrid, which would be spread once more
    return found if isinstance(parameters, list) else found[0]


def _refuse_to_lose(statement: Any, references: Sequence[Reference]) -> None:
    """OwnershipLost if a statement that another one carries out may take files from rows."""
    here = [reference for reference in references if reference.table is statement.entity_description["table"]]
    lost: Any = here
    if statement.is_insert and not replaces(statement):
        lost = dict(set_on_conflict(statement, here))
    elif statement.is_update and not replaces(statement):
        lost = _assigned(statement, here)
    if lost:
        raise OwnershipLost(
            f"rows may lose {next(iter(lost)).target} by a statement inside of from_statement(), unseen: execute it by "
            "itself, session.scalars(delete(Model).returning(Model)) gives objects too"
        )


class _ByCondition(Statement):
    """UPDATE and DELETE of the rows that a condition selects."""

    def run(self, values: dict[Reference, Any]) -> Any:
        if any(writes_within(each) for each in self.statement._where_criteria):
            raise OwnershipLost(
                f"rows may lose {self.references[0].target} by a statement whose condition writes (a CTE): it would be "
                "carried out twice. Execute the inner one first, and pass on what it returns"
            )
        self.stage.check(self.references)
        given = {reference: self.items(reference, value) for reference, value in values.items()}
        first = iter(self.store([(reference, item) for reference, items in given.items() for item in items]))
        # One set of files is stored before any row is locked; further rows get copies of it.
        templates = {reference: [next(first) for _ in items] for reference, items in given.items()}
        rows = self._matching()
        self.drop_from(rows, self.references)
        for reference, items in templates.items():
            self.bring(reference, items)
        result = self.invoke(self._rewritten(rows, templates))
        self.keep_of(rows, rows, self.references)
        self.drops.carry_out()
        return result

    def _matching(self) -> Rows:
        rows = {}
        parameters: Any = self.state.parameters
        criteria = (*self.statement._where_criteria, *self._of_subclass())
        for each in parameters if isinstance(parameters, list) else [parameters or {}]:
            rows.update(self.read_where(self.references, *criteria, **each))
        return rows

    def _of_subclass(self) -> list[Any]:
        """The condition that rows of a table with several classes are of this one. Without, more are locked, and get
        copies of a file.
        """
        mapper = self.references[0].mapper
        condition, kind = mapper._single_table_criterion, mapper.polymorphic_on
        is_here = kind is not None and self.statement.table.corresponding_column(kind) is kind
        return [condition] if condition is not None and is_here else []

    def _rewritten(self, rows: Rows, templates: dict[Reference, list[Attachment]]) -> Any:
        statement = self.statement
        with_files = {reference: items for reference, items in templates.items() if items}
        if len(rows) <= (RESTRICTED if _can_be_written(self.references[0]) else BOUND) or with_files:
            statement = statement.where(self._among(list(rows)))
        for reference, items in with_files.items():
            if any(meant(reference, key) is reference.column for key in self.state.parameters or ()):
                raise OwnershipLost(
                    f"{reference.target}: pass its file to update().values(), not as a parameter of the execution"
                )
            if getattr(statement, "_ordered_values", None) or getattr(statement, "_maintain_values_ordering", False):
                raise OwnershipLost(f"{reference.target}: pass its file to update().values(), not to ordered_values()")
            statement = statement.values({reference.key: self._one_set_each(reference, items, list(rows))})
        return statement

    def _one_set_each(self, reference: Reference, items: list[Attachment], identities: list[Identity]) -> Any:
        more = self.store([(reference, item.copy()) for _ in identities[1:] for item in items])
        self.bring(reference, more)
        sets = [items, *(more[at : at + len(items)] for at in range(0, len(more), len(items)))]
        if len(identities) < 2:
            return reference.type.value(items)
        branches = [
            (self._among([identity]), literal(reference.type.value(each), reference.type))
            for identity, each in zip(identities, sets, strict=True)
        ]
        return case(*branches)

    def _among(self, identities: Sequence[Identity]) -> Any:
        """The condition that a row is one of these, in terms that ``synchronize_session="evaluate"`` understands."""
        reference = self.references[0]
        entity = self.statement.entity_description["entity"]
        key = [getattr(entity, name) for name in reference.identity_keys]
        if len(key) == 1:
            return one_of(key[0], [i[0] for i in identities], len(identities) > BOUND and _can_be_written(reference))
        # No OR of comparisons: SQLite takes no more than 1,000 terms beside each other.
        return one_of(tuple_(*key), identities)


class _UpdateByKey(Statement):
    """UPDATE with a list of parameters, each holding a primary key."""

    def run(self) -> Any:
        parameters: Any = self.state.parameters
        self.references = [r for r in self.references if any(r.key in each for each in parameters)]
        groups = [(group, self._identities(group)) for _, group in self.by_table()]
        if not groups or any(None in identities for _, identities in groups):
            return None  # What lacks is what SQLAlchemy complains of.
        self.stage.check(self.references)
        places = [(index, r) for index, each in enumerate(parameters) for r in self.references if r.key in each]
        overrides = distribute(self, places, lambda index, r: parameters[index][r.key], len(parameters))
        met = [(group, identities, read_waiting(self.begin(), group, identities)) for group, identities in groups]
        for group, _, rows in met:
            self.drop_from(rows, group)
        result = self.invoke(params=overrides)
        for group, identities, rows in met:
            self.keep_of(identities, rows, group)
            if late := self.read(identities.keys() - rows.keys(), group).keys():
                # What it named nobody knows, and a moment before it would not have been met.
                raise StaleDataError(f"{group[0].target}: row {next(iter(late))} was not there, and is there since")
        self.drops.carry_out()
        return result

    def _identities(self, references: Sequence[Reference]) -> dict[Any, None]:
        """The primary keys of the rows of one table; None among them if one lacks."""
        parameters: Any = self.state.parameters
        mine = [each for each in parameters if any(reference.key in each for reference in references)]
        keys = references[0].identity_keys
        return dict.fromkeys(tuple(each[k] for k in keys) if all(k in each for k in keys) else None for each in mine)


def _assigned(statement: Any, references: Sequence[Reference]) -> dict[Any, Any]:
    """What ``values()`` says of attachment columns."""
    pairs = list((statement._values or {}).items()) + list(getattr(statement, "_ordered_values", None) or [])
    return {
        reference: value
        for key, value in pairs
        for reference in references
        if meant(reference, key) is reference.column
    }


def _can_be_written(reference: Reference) -> bool:
    """Whether its primary keys can stand in the text of a statement."""
    key = reference.primary_key
    return len(key) == 1 and isinstance(key[0].type, Integer | String | Uuid)
