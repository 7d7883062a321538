"""Dml: what ORM-enabled INSERT, UPDATE and DELETE have in common; see ``sa_attachments.bulk``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import ORMExecuteState
from sqlalchemy.sql.elements import BindParameter, Null

from .attachment import Attachment, origin_of
from .conflicts import replacing
from .drops import Drops
from .errors import OwnershipLost
from .frames import Frame
from .references import Identity, Reference, Rows, read_locked, read_rows
from .staging import SessionStage, Token, deactivate
from .wants import Want, copy_wanted


class Statement:
    """What the kinds have in common."""

    run: Any
    """What each kind does."""

    def __init__(self, state: ORMExecuteState, references: Sequence[Reference], frame: Callable[[], Frame]) -> None:
        self.state = state
        self.statement: Any = state.statement
        self.references = list(references)
        self._frame = frame()
        # Those with a list of parameters SQLAlchemy carries out as a flush would, on the mapper's own connection.
        by_mapper = state.is_executemany and getattr(self.statement, "whereclause", None) is None
        chosen_by = None if by_mapper else state.bind_arguments
        self.stage = SessionStage(state.session, self._frame, state.execution_options, chosen_by)
        self.drops = Drops(self.stage, self._frame)
        self._brought: list[tuple[Reference, Attachment]] = []
        self._invoked: Connection | None = None
        self._savepoint = f"sa_attachments_{id(self):x}"  # a listener may execute another one while this one runs

    def execute(self, *args: Any) -> Any:
        """Run the statement with its files, or leave none of them."""
        try:
            result = self.run(*args)
            if self._invoked is not None and self._invoked.dialect.name != "sqlite":
                # SQLite refuses while rows of a RETURNING are unread: the transaction's end does it there.
                self._invoked.dialect.do_release_savepoint(self._invoked, self._savepoint)
            if self.state.session._flushing:
                self._frame.let_go |= self.drops.rest
            return result
        except BaseException as error:
            if self._is_undone():
                self.stage.abandon(error)
            else:  # Its rows may name what it brought: nothing of the transaction may be committed.
                deactivate(self.state.session)
            raise

    def _is_undone(self) -> bool:
        """Whether no row is left of it, of which some parts may have been carried out before one failed: a transaction
        may go on after that.
        """
        if self._invoked is None:
            return True
        try:
            self._invoked.dialect.do_rollback_to_savepoint(self._invoked, self._savepoint)
        except SQLAlchemyError:
            return False
        return True

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

    def bring(self, reference: Reference, items: Sequence[Attachment]) -> None:
        """New files, which go again if no row takes them."""
        self._brought += [(reference, item) for item in items]
        self.drops.named(reference, items, None)

    def keep_of(self, identities: Iterable[Identity], before: Rows, references: Sequence[Reference]) -> None:
        """What these rows of one table name after the statement. That a row is not seen any more that was there
        ``before`` is no proof that it names nothing: it may have another primary key, or not be in a view any more.
        """
        now = self.read(identities, references)
        self.keep(now, references)
        if before.keys() - now.keys():
            self.drops.keep(item for _, item in self._brought)

    def keep(self, rows: Rows, references: Sequence[Reference]) -> None:
        """What the rows of one table name after the statement."""
        if self.state.session._flushing:
            options = self.stage.of(references[0])[1].get_execution_options()
            self._frame.met.append((references, rows, options.get("schema_translate_map")))
        for row in rows.values():
            for items in row.values():
                self.drops.keep(items)

    def read(self, identities: Iterable[Identity], references: Sequence[Reference]) -> Rows:
        return read_locked(self.begin(), references, identities)

    def by_table(self) -> list[tuple[Any, list[Reference]]]:
        """The references by table; with joined inheritance there are several."""
        found: dict[Any, list[Reference]] = {}
        for reference in self.references:
            found.setdefault(reference.table, []).append(reference)
        return list(found.items())

    def read_where(self, references: Sequence[Reference], *conditions: Any, **parameters: Any) -> Rows:
        """What the rows of one table name that fulfil the conditions; locked."""

        def called(column: Any) -> Any:
            found = self.statement.table.corresponding_column(column)  # an alias's, perhaps
            return column if found is None else found

        key = [called(column) for column in references[0].primary_key]
        columns = [called(reference.column) for reference in references]
        statement = select(*key, *columns).where(*conditions).params(**parameters).order_by(*key)
        # What else is in a condition may be a subquery that can't be locked.
        return read_rows(self.begin(), statement.with_for_update(key_share=True, of=key[0]), references)

    def invoke(self, statement: Any = None, **options: Any) -> Any:
        """Let SQLAlchemy run the statement."""
        connection = self.stage.of(self.references[0])[1]
        connection.dialect.do_savepoint(connection, self._savepoint)
        self._invoked = connection
        with replacing(connection, self.statement):
            return self.state.invoke_statement(statement, **options)

    def take_back(self, result: Any) -> None:
        """Undo what SQLAlchemy ran, to have it run again."""
        assert self._invoked is not None
        result.close()
        self._invoked.dialect.do_rollback_to_savepoint(self._invoked, self._savepoint)
        self._invoked.dialect.do_release_savepoint(self._invoked, self._savepoint)
        for reference, item in self._brought:
            self.stage.allow(reference, [item])

    def begin(self) -> Connection:
        """The statement's connection; on SQLite it has the write lock now."""
        scope, connection = self.stage.of(self.references[0])
        scope.ledger.begin_write(connection)
        return connection

    def drop_from(self, rows: Rows, references: Sequence[Reference]) -> None:
        """What these rows of one table named may have lost its name."""
        for identity, row in rows.items():
            for reference in references:
                self.drops.named(reference, reference.items_in(row), identity)


def distribute(
    statement: Statement, places: Sequence[tuple[int, Reference]], value: Any, rows: int
) -> list[dict[str, Any]]:
    """Store the attachments of all rows at once; returns for each row what takes their place, by attribute."""
    items = [statement.items(reference, value(index, reference)) for index, reference in places]
    flat = [(reference, item) for (_, reference), group in zip(places, items, strict=True) for item in group]
    stored = iter(statement.store(flat))
    found: list[dict[str, Any]] = [{} for _ in range(rows)]
    for (index, reference), group in zip(places, items, strict=True):
        mine = [next(stored) for _ in group]
        statement.bring(reference, mine)
        found[index][reference.key] = reference.type.value(mine)
    return found
