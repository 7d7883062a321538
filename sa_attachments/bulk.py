"""Bulk statements: ORM-enabled INSERT, UPDATE and DELETE, which never pass through a flush.

The same order as there: store, own, read under lock, write, drop. What rows name afterwards is read once more, so
that it does not matter which of the rows that were read the statement really changed.

Traps
-----
``bulk_save_objects`` and its kin, Core statements and raw SQL pass here unseen; values of theirs that name files are
refused by the column type, and what they delete is found by ``Storages.verify``, or by triggers. So is what PostgreSQL
deletes inside of a SELECT, ``select(delete(Model).returning(...).cte())``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Integer, String, Uuid, bindparam, case, false, literal, or_, select, tuple_
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import ORMExecuteState
from sqlalchemy.sql.elements import BindParameter, Null

from .attachment import Attachment, origin_of
from .column import nameable
from .conflicts import conditions, given, refuse_foreign, replacing
from .drops import Drops
from .errors import OwnershipLost
from .frames import Frame
from .references import Reference, Row, meant, read_locked, read_rows
from .staging import Stage, Token
from .wants import Want, copy_wanted

Rows = dict[tuple[Any, ...], Row]

RESTRICTED = 50_000
"""Up to so many rows, a statement is held to those that were read under lock: it would meet others unseen."""
BOUND = 1000
"""Keys that are passed as parameters; more of them are written into the SQL."""

_SAVEPOINT = "sa_attachments"


def execute(state: ORMExecuteState, references: Sequence[Reference], frame: Callable[[], Frame]) -> Any:
    """Run the statement with its files; None if it does not concern any."""
    before = nameable.get()
    try:
        return _execute(state, references, frame)
    finally:
        nameable.set(before)


def _execute(state: ORMExecuteState, references: Sequence[Reference], frame: Callable[[], Frame]) -> Any:
    if state.execution_options.get("autoflush", True):
        # As the statement itself will do, but before rows are read: a flush in between would change what they name.
        state.session._autoflush()
    statement: Any = state.statement
    table = statement.entity_description["table"]
    here = [reference for reference in references if reference.table is table or state.is_insert]
    if state.is_insert:
        return _Insert(state, here, frame).execute()
    if state.is_delete:
        return _Rows(state, here, frame).execute({}) if here else None
    if state.is_executemany and statement.whereclause is None and not _assigned(statement, here):
        return _UpdateByKey(state, here, frame).execute()
    given: Any = state.parameters if isinstance(state.parameters, dict) else {}
    values = {**_assigned(statement, here), **{r: given[r.key] for r in here if r.key in given}}
    return _Rows(state, list(values), frame).execute(values) if values else None


class _Statement:
    """What the kinds have in common."""

    run: Any

    def __init__(self, state: ORMExecuteState, references: Sequence[Reference], frame: Callable[[], Frame]) -> None:
        self.state = state
        self.statement: Any = state.statement
        self.references = list(references)
        self._frame = frame()
        # Those with a list of parameters SQLAlchemy carries out as a flush would, on the mapper's own connection.
        by_mapper = state.is_executemany and getattr(self.statement, "whereclause", None) is None
        chosen_by = None if by_mapper else state.bind_arguments
        self.stage = Stage(state.session, self._frame, state.execution_options, chosen_by)
        self.drops = Drops(self.stage, self._frame)

    def execute(self, *args: Any) -> Any:
        """Run the statement with its files, or leave none of them."""
        try:
            return self.run(*args)
        except BaseException:
            self.stage.abandon()
            raise

    def items(self, reference: Reference, value: Any) -> list[Attachment]:
        """The attachments in a value of the statement; OwnershipLost if it is SQL, which may name anything."""
        if isinstance(value, BindParameter):
            value = value.effective_value
        elif isinstance(value, Null):
            value = None
        elif hasattr(value, "__clause_element__") or hasattr(value, "compile"):
            raise OwnershipLost(
                f"{reference.target} is set by an SQL expression, which may name the file of another row: "
                "assign attachments instead, which are copied in the storage"
            )
        return list(reference.type.items(reference.type.coerce(value)))

    def store(self, wanted: Sequence[tuple[Reference, Attachment]]) -> list[Attachment]:
        """Store new attachments and copy stored ones, each for a row of its own; a staged one is claimed."""
        found: list[Attachment | Want] = []
        for reference, item in wanted:
            token = origin_of(item)
            if not item.is_stored:
                found.append(Want(item, reference))
            elif isinstance(token, Token) and self.stage.claim(reference, item, token):
                found.append(item)
            else:
                found.append(copy_wanted(item, reference))
        self.stage.put([want for want in found if isinstance(want, Want)])
        kept = [it for each in found if (it := each.stored if isinstance(each, Want) else each) is not None]
        for (reference, _), item in zip(wanted, kept, strict=True):
            self.stage.allow(reference, [item])
        return kept

    def keep(self, rows: Rows) -> None:
        """What the rows name after the statement."""
        if self.state.session._flushing:
            self._frame.met.append((self.references, rows))
        for row in rows.values():
            for items in row.values():
                self.drops.keep(items)

    def read(self, identities: Iterable[tuple[Any, ...]]) -> Rows:
        return read_locked(self.begin(), self.references, identities)

    def read_where(self, *conditions: Any, **parameters: Any) -> Rows:
        """What the rows name that fulfil the conditions; locked."""
        key = self.references[0].primary_key
        statement = select(*key, *(reference.column for reference in self.references)).where(*conditions)
        statement = statement.params(**parameters).order_by(*key).with_for_update(key_share=True)
        return read_rows(self.begin(), statement, self.references)

    def invoke(self, statement: Any = None, **options: Any) -> Any:
        """Run the statement, which leaves no row if it fails: a transaction may go on after that."""
        connection = self.stage.of(self.references[0])[1]
        if connection.dialect.name == "postgresql":
            return self.state.invoke_statement(statement, **options)
        # Never released, which SQLite refuses while rows of a RETURNING are unread: the transaction's end does it.
        connection.dialect.do_savepoint(connection, _SAVEPOINT)
        try:
            with replacing(connection, self.statement):
                return self.state.invoke_statement(statement, **options)
        except BaseException:
            with suppress(SQLAlchemyError):  # The first error counts.
                connection.dialect.do_rollback_to_savepoint(connection, _SAVEPOINT)
            raise

    def begin(self) -> Any:
        scope, connection = self.stage.of(self.references[0])
        scope.ledger.begin_write(connection)
        return connection

    def drop_from(self, rows: Rows) -> None:
        """What these rows named may have lost its name."""
        for identity, row in rows.items():
            for reference in self.references:
                self.drops.named(reference, row.get(reference.column.name, ()), identity)


class _Rows(_Statement):
    """UPDATE and DELETE of the rows that a condition selects."""

    def run(self, values: dict[Reference, Any]) -> Any:
        self.stage.check(self.references)
        wanted = [(reference, item) for reference, value in values.items() for item in self.items(reference, value)]
        first = iter(self.store(wanted))
        # One set of files is stored before any row is locked; further rows get copies of it.
        templates = {
            reference: [next(first) for _ in self.items(reference, value)] for reference, value in values.items()
        }
        rows = self._matching()
        self.drop_from(rows)
        for reference, items in templates.items():
            self.drops.named(reference, items, None)
        result = self.invoke(self._rewritten(rows, templates))
        self.keep(self.read(rows))
        self.drops.carry_out()
        return result

    def _matching(self) -> Rows:
        rows = {}
        parameters: Any = self.state.parameters
        for each in parameters if isinstance(parameters, list) else [parameters or {}]:
            rows.update(self.read_where(*self.statement._where_criteria, **each))
        return rows

    def _rewritten(self, rows: dict[tuple[Any, ...], Any], templates: dict[Reference, list[Attachment]]) -> Any:
        statement = self.statement
        with_files = {reference: items for reference, items in templates.items() if items}
        if len(rows) <= (RESTRICTED if _can_be_written(self.references[0]) else BOUND) or with_files:
            statement = statement.where(_among(self.references[0], list(rows)))
        for reference, items in with_files.items():
            if reference.key in (self.state.parameters or {}):
                raise OwnershipLost(
                    f"{reference.target}: pass its file to update().values(), not as a parameter of the execution"
                )
            statement = statement.values({reference.key: self._one_set_each(reference, items, list(rows))})
        return statement

    def _one_set_each(self, reference: Reference, items: list[Attachment], identities: list[tuple[Any, ...]]) -> Any:
        more = self.store([(reference, item.copy()) for _ in identities[1:] for item in items])
        self.drops.named(reference, more, None)
        sets = [items, *(more[at : at + len(items)] for at in range(0, len(more), len(items)))]
        if len(identities) < 2:
            return reference.type.value(items)
        branches = [
            (_among(reference, [identity]), literal(reference.type.value(each), reference.type))
            for identity, each in zip(identities, sets, strict=True)
        ]
        return case(*branches)


class _UpdateByKey(_Statement):
    """UPDATE with a list of parameters, each holding a primary key."""

    def run(self) -> Any:
        parameters: Any = self.state.parameters
        self.references = [r for r in self.references if any(r.key in each for each in parameters)]
        if not self.references:
            return None
        self.stage.check(self.references)
        places = [(index, r) for index, each in enumerate(parameters) for r in self.references if r.key in each]
        overrides = _distribute(self, places, lambda index, r: parameters[index][r.key], len(parameters))
        identities = [tuple(each[key] for key in self.references[0].identity_keys) for each in parameters]
        self.drop_from(self.read(dict.fromkeys(identities)))
        result = self.invoke(params=overrides)
        self.keep(self.read(dict.fromkeys(identities)))
        self.drops.carry_out()
        return result


class _Insert(_Statement):
    """INSERT, upserts included."""

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
        stored = _distribute(self, places, lambda index, r: _value(rows[index], r), len(rows))
        if not upsert:
            return self._invoke(rows, stored, many, parameters)
        met = [conditions(self.references[0].table, given(self.references[0], row)) for row in rows]
        conflict = or_(false(), *(condition for each in met for condition in each))
        self.drop_from(self.read_where(conflict))
        result = self._invoke(rows, stored, many, parameters)
        self.keep(self.read_where(conflict))
        for new, each in zip(stored, met, strict=True):
            for reference in self.references:
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


_ABSENT = object()


def _value(row: Any, reference: Reference) -> Any:
    return next((value for key, value in row.items() if meant(reference, key) is reference.column), _ABSENT)


def _merged(row: Any, new: dict[str, Any], references: Sequence[Reference]) -> Any:
    by_column: dict[Any, Any] = {
        reference.column: new[reference.key] for reference in references if reference.key in new
    }
    return {key: by_column.get(meant(references[0], key), value) for key, value in row.items()}


def _distribute(
    statement: _Statement, places: Sequence[tuple[int, Reference]], value: Any, rows: int
) -> list[dict[str, Any]]:
    """Store the attachments of all rows at once; returns for each row what takes their place, by attribute."""
    items = [statement.items(reference, value(index, reference)) for index, reference in places]
    flat = [(reference, item) for (_, reference), group in zip(places, items, strict=True) for item in group]
    stored = iter(statement.store(flat))
    found: list[dict[str, Any]] = [{} for _ in range(rows)]
    for (index, reference), group in zip(places, items, strict=True):
        mine = [next(stored) for _ in group]
        statement.drops.named(reference, mine, None)
        found[index][reference.key] = reference.type.value(mine)
    return found


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


def _among(reference: Reference, identities: Sequence[tuple[Any, ...]]) -> Any:
    """The condition that a row is one of these, in terms that ``synchronize_session="evaluate"`` understands."""
    entity = reference.mapper.class_
    key = [getattr(entity, name) for name in reference.identity_keys]
    if len(key) == 1:
        values, written = [i[0] for i in identities], len(identities) > BOUND and _can_be_written(reference)
        return key[0].in_(bindparam(None, values, expanding=True, literal_execute=written))
    # No OR of comparisons: SQLite takes no more than 1,000 terms beside each other.
    return tuple_(*key).in_(identities)
