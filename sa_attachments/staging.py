"""Staging: store the new files of a flush or a statement, all in parallel, and own them, before a row names them.

A ``Stage`` does the work for one flush or statement: of a session here, of a connection in ``desk``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from copy import copy
from functools import partial
from typing import Any

from sqlalchemy import Column, Connection, Engine, delete, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from .attachment import Attachment, body_of, facts_of
from .column import nameable
from .descriptor import Named, named
from .errors import BadConfiguration, FileMissing, LedgerMissing, NoTransaction, OwnershipLost, storage_errors
from .frames import Frame
from .home import Home
from .ledger import Drop, Line, owner_of
from .offload import gather
from .patience import commits_by_itself, isolation_level
from .queries import CONDEMNED
from .references import Reference
from .scope import Scope
from .source import PathSource
from .upload import given
from .wants import Place, Want, let_in, line, places_of, store_all

_OF_A_DROP = ("state", "since", "purge_after", "attempts", "descriptor", "owner_pk", "owner_table", "owner_column")
"""What the ledger knows of a file that was dropped, and forgets when it is owned again."""


class Token:
    """Says of an attachment that ``Storages.stage`` stored whether a row has claimed it, and what was ``given`` away
    for it.
    """

    __slots__ = ("given", "tried", "used")

    def __init__(self, given: PathSource | None) -> None:
        self.given = given
        self.used = False
        self.tried = False
        """Whether it ever was; that it was rolled back is what the session heard, and it may have heard wrong."""

    def revert(self) -> None:
        """The claim was rolled back."""
        self.used = False

    def done(self) -> None:
        """The claim stands."""


class Stage(ABC):
    """Stores and owns files for one flush or statement."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._nameable: dict[Any, Any] = {}
        self._owned: list[tuple[Scope, Connection, Named]] = []
        self._claimed: list[tuple[Scope, Connection, Named, Token]] = []
        self._taken_over: list[tuple[Scope, Connection, Named, dict[str, Any]]] = []
        self._elsewhere: Exception | None = None
        self._outer = nameable.get()
        self.show()

    @abstractmethod
    def of(self, reference: Reference) -> tuple[Scope, Connection]:
        """The scope of an attribute, and the connection to it, in a transaction."""

    @abstractmethod
    def _bind(self, reference: Reference) -> Engine | Connection:
        """What that connection is of, or the connection itself."""

    @abstractmethod
    def _begun(self, reference: Reference) -> Engine | Connection:
        """The connection to an attribute if it has a transaction already, else what it will be of."""

    def check(self, references: Iterable[Reference]) -> None:
        """Refuse what can't work, before anything is stored: a missing ledger, a connection that commits by itself."""
        for reference in references:
            refuse_autocommit(self._begun(reference), reference)
            Scope.of(reference, self._bind(reference)).require(reference.table, partial(self._beginning, reference))

    def _beginning(self, reference: Reference) -> AbstractContextManager[Connection]:
        return nullcontext(self.of(reference)[1])

    def put(self, wants: Sequence[Want]) -> None:
        """Store the files and own them; until that has succeeded nobody but the frame knows of them."""
        if not wants:
            return
        places = places_of(wants)
        self._meet(places)
        loose: dict[Home, list[Named]] = {}
        try:
            try:
                store_all(places, loose)
            except Exception as error:
                self._elsewhere = error
                raise
            for scope, (connection, group) in self._by_scope(wants).items():
                owned = self.own(scope, connection, group)
                loose[scope.files] = [file for file in loose[scope.files] if file.key not in owned]
        except BaseException as error:
            self.abandon(error)
            raise
        finally:
            self._frame.loose += [(files, file) for files, some in loose.items() for file in some]

    def abandon(self, error: BaseException | None = None) -> None:
        """The flush or statement failed: should the transaction be committed nevertheless, no row names what this one
        owned so far, and what it took over is as it was.

        If ``error`` leaves the transaction in doubt, more errors of the database are of no interest. Else they are the
        first to tell that it is void, and a commit after them would silently be none.
        """
        untold = suppress(SQLAlchemyError) if self.is_in_doubt(error) else nullcontext()
        taken_over, self._taken_over = self._taken_over, []
        for scope, connection, file, before in reversed(taken_over):
            with untold:
                connection.execute(update(scope.ledger.lines).where(scope.ledger.among([file])).values(before))
        owned, self._owned = self._owned, []
        for scope, connection, file in owned:
            with untold:
                scope.ledger.drop(connection, [Drop(file)])
                work = self._frame.work(scope)
                work.dropped.append(file)
                work.keep_path_of(file)
        claimed, self._claimed = self._claimed, []
        for scope, connection, file, token in claimed:
            with untold:
                connection.execute(delete(scope.ledger.lines).where(scope.ledger.among([file])))
                self._frame.work(scope).keep_path_of(file)
                token.revert()

    def is_in_doubt(self, error: BaseException | None) -> bool:
        """Whether nobody knows what is left of the transaction. What steps, sources and storages raise says nothing of
        it, though they may have databases of their own.
        """
        return error is not self._elsewhere and is_in_doubt(error)

    def _meet(self, places: Mapping[Want, Place]) -> None:
        for reference, (_, name) in {(want.reference, place) for want, place in places.items()}:
            Scope.of(reference, self._bind(reference)).meet(name, partial(self._beginning, reference))

    def _by_scope(self, wants: Iterable[Want]) -> dict[Scope, tuple[Connection, list[Want]]]:
        by_reference: dict[Reference, list[Want]] = {}
        for want in wants:
            by_reference.setdefault(want.reference, []).append(want)
        found: dict[Scope, tuple[Connection, list[Want]]] = {}
        for reference, group in by_reference.items():
            scope, connection = self.of(reference)
            found.setdefault(scope, (connection, []))[1].extend(group)
        return found

    def own(self, scope: Scope, connection: Connection, wants: Sequence[Want]) -> set[str]:
        """Insert the lines of files that were just put. Returns their keys."""
        owners = {reference: owner_of(reference.column) for reference in {want.reference for want in wants}}
        lines = [Line(file, *owners[want.reference]) for want in wants for file in want.files]
        work = self._frame.work(scope)
        self._owned += [(scope, connection, line.named) for line in lines]  # before: it may be interrupted
        work.identities.add(scope.ledger.own(connection, lines, scope.files.own_within))
        work.staged += [line.named for line in lines]
        for want in wants:
            if (source := given(body_of(want.attachment))) is not None:
                work.given.append((source, want.files[0]))
        return {line.named.key for line in lines}

    def claim(self, reference: Reference, item: Attachment, token: Token) -> bool:
        """Own a file that was staged before the transaction; False if a row claimed it, or other steps let it in."""
        if token.used or not let_in(item, reference.type):
            return False
        scope, connection = self.of(reference)
        lines = [line(each, reference) for each in named(facts_of(item))]
        files = [each.named for each in lines]
        for each in lines:
            mine = scope, connection, each.named, token
            self._claimed.append(mine)  # before: it may be interrupted
            try:
                scope.ledger.own(connection, [each], scope.files.own_within)
            except OwnershipLost:
                self._claimed.remove(mine)  # The line is another one's, and not to be taken back where others go on.
                raise
        if token.tried:
            self._require_bytes(reference, files)
        if token.given is not None:
            self._frame.work(scope).given.append((token.given, files[0]))
        token.used = token.tried = True
        self._frame.undo.append(token)
        return True

    def take_over(self, reference: Reference, file: Named, giver: Column[Any] | None) -> bool:
        """Own a file that another column gives up, or one that was dropped and not purged yet; False if it is not."""
        scope, connection = self.of(reference)
        c, mine = scope.ledger.lines.c, line(file, reference)
        if giver is not None:
            table, column = owner_of(giver)
            before = {"owner_table": table, "owner_column": column}
            found = scope.ledger.transfer(connection, mine)
        else:
            scope.ledger.begin_write(connection)
            # What nobody owned yet, and a sweep condemned, stays so: once it had an owner, whose drop leaves no
            # tombstone, the attachment that was staged would be let in after its bytes were gone.
            dropped = (
                select(*(c[name] for name in _OF_A_DROP))
                .where(scope.ledger.among([file]), c.state == CONDEMNED, c.owner_table.is_not(None))
                .with_for_update(skip_locked=True)  # by another connection, of this session or of this thread perhaps
            )
            row = connection.execute(dropped).one_or_none()
            before = {} if row is None else row._asdict()
            found = row is not None and scope.ledger.reclaim(connection, mine)
        if found:
            self._taken_over.append((scope, connection, file, before))
        return found

    def _require_bytes(self, reference: Reference, files: Sequence[Named]) -> None:
        """OwnershipLost if a file is gone: a commit that failed, as it seemed, may have dropped it. Nobody deletes what
        is owned, so what is there stays.
        """
        for outcome in gather([partial(_look_for, reference, file) for file in files], len(files)):
            if outcome.error is not None:
                raise outcome.error

    def close(self) -> None:
        """Its statements are done; perhaps they were those of a hook, while another session's flush goes on."""
        self._nameable.clear()
        self._owned.clear()
        self._claimed.clear()
        self._taken_over.clear()
        self._elsewhere = None  # whose traceback holds this object
        self.hide()

    def hide(self) -> None:
        """Until ``show``, no statement writes what it is allowed to: a flush that is prepared may still be refused."""
        if nameable.get() is self._nameable:
            nameable.set(self._outer)

    def show(self) -> None:
        """The statements that write it come now."""
        nameable.set(self._nameable)

    def allow(self, reference: Reference, items: Iterable[Attachment]) -> None:
        """Let the statements of this flush write these names into the attribute: once, and nowhere else."""
        fairy = self.of(reference)[1].connection
        # One column, unless the mapping combines those of joined tables, or is to a subquery.
        columns = (reference.column, *reference.mapper.column_attrs[reference.key].columns)
        self._nameable.update(((column, item.key), fairy) for column in columns for item in items)


class SessionStage(Stage):
    """That of a session, whose connections it works on."""

    def __init__(
        self, session: Session, frame: Frame, execution_options: Any = None, bind_arguments: Any = None
    ) -> None:
        """A statement's options and what its connection is chosen by; a flush has none."""
        super().__init__(frame)
        self._session = session
        self._options = execution_options
        self._arguments = bind_arguments
        self._known: dict[tuple[Any, Any], tuple[Scope, Connection]] = {}

    def of(self, reference: Reference) -> tuple[Scope, Connection]:
        where = reference.mapper, reference.table
        if where not in self._known:
            connection = self._session.connection(bind_arguments=self._chosen_by(reference))
            refuse_autocommit(connection, reference)
            self._frame.seen(connection)
            if self._options and "schema_translate_map" in self._options:
                # A copy, since options stay with a connection: they are the statement's, not the session's.
                schemas = self._options["schema_translate_map"]
                connection = copy(connection).execution_options(schema_translate_map=schemas)
            self._known[where] = Scope.of(reference, connection), connection
        return self._known[where]

    def _chosen_by(self, reference: Reference) -> dict[str, Any]:
        """What the session chooses a connection by: the same as for the statement, or for the flush's own ones."""
        return dict(self._arguments or {"mapper": reference.mapper.base_mapper})

    def _bind(self, reference: Reference) -> Engine | Connection:
        by = self._chosen_by(reference)
        return by.pop("bind", None) or self._session.get_bind(**by)

    def _begun(self, reference: Reference) -> Engine | Connection:
        bind = self._bind(reference)
        transaction: Any = self._session.get_transaction()
        begun = transaction._connections.get(bind) if transaction is not None else None
        return bind if begun is None else begun[0]

    def check(self, references: Iterable[Reference]) -> None:
        """Refuse a session with a database for each row, too."""
        if self._session.connection_callable is not None:
            raise BadConfiguration(
                f"{type(self._session).__name__} chooses a database for each row, and the line of a file must be in "
                "the one that its row is in: use a session for each shard to change rows with attachments"
            )
        super().check(references)

    def close(self) -> None:
        super().close()
        self._known.clear()  # and with it connections


def is_in_doubt(error: BaseException | None) -> bool:
    """Whether nobody knows what is left of the transaction: the database failed, or the work was interrupted."""
    raised = error.__cause__ if isinstance(error, OwnershipLost | LedgerMissing) else error
    return isinstance(raised, DBAPIError) or not isinstance(raised, Exception | None)


def deactivate(session: Session) -> None:
    """What SQLAlchemy does when a flush fails: the session is to be rolled back before it goes on."""
    if session.is_active:
        session._autobegin_t()._begin().rollback(_capture_exception=True)


def _look_for(reference: Reference, file: Named) -> None:
    try:
        with storage_errors(file.storage, "stat"):
            reference.type.files.resolve(file.storage).stat(file.key)
    except FileMissing:
        raise OwnershipLost(
            f"{reference.target}: {file.storage}:{file.key} was deleted, by a transaction that was committed although "
            "its session heard of an error: upload it again"
        ) from None


def refuse_autocommit(bind: Engine | Connection, reference: Reference) -> None:
    """NoTransaction if each statement is committed by itself."""
    if isolation_level(bind) == "AUTOCOMMIT":
        raise NoTransaction(
            f"{reference.target}: the connection is set to AUTOCOMMIT, and files can't follow a transaction: "
            "use another isolation level for sessions with attachments"
        )
    begun = bind if isinstance(bind, Connection) and bind.in_transaction() else None
    if begun is not None and commits_by_itself(begun.connection.driver_connection):
        raise NoTransaction(
            f"{reference.target}: the driver commits each statement, and files can't follow a transaction "
            "(for sqlite3 with isolation_level=None, emit BEGIN in an engine event: see SQLAlchemy's documentation)"
        )
