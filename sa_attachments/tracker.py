"""The tracker: listeners that tell when to look. What is true is read from the ledger.

One is wired to SQLAlchemy's ``Session`` class, when the first attachment column is mapped, and returns at once where
nothing with attachments is flushed; the others to each session that touches an attachment. They keep no state of their
own: frames live in ``session.info``, as long as the session.

Traps
-----
``after_commit`` fires for savepoints and joined sessions too, ``after_rollback`` not for every rollback, ``close()``
fires neither; ``after_transaction_end`` is the only event that fires for all of them. It does not fire for sessions
that are garbage-collected, which are noticed when their connection goes back to its pool; nor if ``close()`` is the
first to notice that a connection is lost, and raises: then the transaction is forgotten, and a weak reference tells.

SQLAlchemy makes a session refuse to go on after a flush that failed, but not if it failed in ``before_flush``, or a
commit in ``before_commit``: what the database refuses us there must not be followed by a commit of the rest, which
PostgreSQL would take for a rollback without a word.
"""

from __future__ import annotations

from typing import Any
from weakref import ref

from sqlalchemy import Connection, event, inspect
from sqlalchemy.orm import (
    EXT_CONTINUE,
    InstanceState,
    Mapper,
    ORMExecuteState,
    Session,
    SessionTransaction,
    UOWTransaction,
    configure_mappers,
)

from .bulk import execute
from .column import ColumnType
from .errors import OwnershipLost
from .flush import Flush
from .frames import Frame
from .mapped import is_new, learn
from .references import of_row, of_state, of_table
from .slots import collect
from .staging import deactivate, is_in_doubt
from .statements import hear
from .watch import Watched, settle

_INFO = "sa_attachments"


class Frames:
    """The frames of one session, and the flush that runs."""

    def __init__(self, session: Session) -> None:
        self._session = ref(session)
        # Weakly: a transaction whose close() failed goes, and with it what connections it still has.
        self._frames: dict[ref[SessionTransaction], Frame] = {}
        self.flush: Flush | None = None

    @classmethod
    def of(cls, session: Session) -> Frames:
        """The frames of a session that touches attachments."""
        frames = session.info.get(_INFO)
        if not isinstance(frames, Frames):
            frames = session.info[_INFO] = cls(session)
            for name, listener in _TOUCHED.items():
                event.listen(session, name, listener)
        return frames

    def current(self, session: Session) -> Frame:
        """The frame of the innermost transaction."""
        self.let_go(session)
        return self._of(session.get_nested_transaction() or session.get_transaction() or session.begin())

    def begin(self, session: Session) -> Flush:
        """A flush begins. What listeners executed after the former one it has not to follow: others may have moved
        since what they wrote.
        """
        frame = self.current(session)
        frame.met.clear()
        frame.let_go.clear()
        self.flush = Flush(session, frame)
        return self.flush

    def _of(self, transaction: SessionTransaction) -> Frame:
        """The frame of a transaction, which may not have had one yet."""
        key = ref(transaction)
        if key not in self._frames:
            frame = Watched(self._session)
            self._frames[ref(transaction, lambda _: self._forget(frame))] = frame
            around = transaction.parent
            while around is not None and ref(around) not in self._frames:
                around = around.parent
            frame.around = None if around is None else self._frames[ref(around)]
        return self._frames[key]

    def mark(self, session: Session) -> None:
        """The innermost transaction says that it is committed, or released."""
        transaction = session.get_nested_transaction() or session.get_transaction()
        if transaction is not None and (frame := self._frames.get(ref(transaction))) is not None:
            frame.marked = True

    def end(self, transaction: SessionTransaction) -> Frame | None:
        """A transaction ended. Returns the frame if it was the root."""
        frame = self._end(ref(transaction))
        if frame is None or not transaction.nested:
            return frame
        parent = transaction.parent
        while parent is not None and not parent.nested and parent.parent is not None:
            parent = parent.parent
        assert parent is not None
        self._of(parent).absorb(frame)
        return None

    def let_go(self, session: Session) -> None:
        """Transactions that the session does not have any more, and that never ended, are void."""
        mine, transaction = set(), session.get_nested_transaction() or session.get_transaction()
        while transaction is not None:
            mine.add(ref(transaction))
            transaction = transaction.parent
        for key in [key for key in reversed(self._frames) if key not in mine]:
            if (frame := self._end(key)) is not None:
                _resolve(frame)

    def _end(self, key: ref[SessionTransaction]) -> Frame | None:
        frame = self._frames.pop(key, None)
        if frame is not None:
            frame.ended = True
            if self.flush is not None and self.flush.frame is frame:
                self.flush.close()
                self.flush = None
        return frame

    def _forget(self, frame: Frame) -> None:
        """Its transaction never ended, and nobody holds it, as the collector may say at any moment and in any thread:
        what is left is up to ``let_go``, and to those who get its connections.
        """
        frame.ended = True
        frame.revert()
        if (flush := self.flush) is not None and flush.frame is frame:
            flush.close()


def wire() -> None:
    """Listen to the ``Session`` class; once."""
    if event.contains(Session, "before_flush", _before_flush):
        return
    event.listen(Session, "before_flush", _before_flush)
    hear(_concerns, _execute)


def _before_flush(session: Session, context: UOWTransaction, instances: Any) -> None:
    flush = None
    try:
        if _INFO in vars(session).get("info", ()):  # not asked of the session, which makes one if it has none
            _abandon(session)
        # SQLAlchemy is about to refuse it where another flush failed, and nobody called rollback().
        if (slots := collect(session, instances)) and session.is_active:
            flush = Frames.of(session).begin(session)
            flush.prepare(slots)
            context.states = _Work(context.states)
    except BaseException as error:
        if flush.in_doubt if flush is not None else is_in_doubt(error):
            deactivate(session)
        raise


def _before_commit(session: Session) -> None:
    if session._flushing:  # A listener releases a savepoint of its own, and the flush goes on.
        return
    try:
        _abandon(session)
    except BaseException as error:
        if is_in_doubt(error):
            deactivate(session)
        raise


class _Work(dict[Any, Any]):
    """The states of a flush that is to be carried out even if listeners leave it none: SQLAlchemy would return without
    a word, and what was stored would stay.
    """

    def __bool__(self) -> bool:
        return True


def _after_flush(session: Session, context: UOWTransaction) -> None:
    frames = Frames.of(session)
    if frames.flush is not None:
        flush, frames.flush = frames.flush, None
        try:
            flush.finish()
        finally:
            flush.close()


def _abandon(session: Session) -> None:
    """A flush that was prepared and never ended must not leave files that are owned and that no row names."""
    frames = Frames.of(session)
    frames.let_go(session)
    if frames.flush is not None:
        flush, frames.flush = frames.flush, None
        if session.is_active:
            flush.abandon()
        else:  # rolled back already, and the connection may be in a transaction of somebody else
            flush.close()


def _after_commit(session: Session) -> None:
    Frames.of(session).mark(session)


def _after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    frame = Frames.of(session).end(transaction)
    if frame is not None:
        _resolve(frame)


_TOUCHED: dict[str, Any] = {
    "after_flush": _after_flush,
    "before_commit": _before_commit,
    "after_commit": _after_commit,
    "after_transaction_end": _after_transaction_end,
}
"""What is listened to on each session that touches attachments: others don't pay for it."""


def _resolve(frame: Frame) -> None:
    """The root ended: objects get back what they were, or forget it; what is left to clean goes to recovery."""
    if frame.marked:
        frame.done()
    else:
        frame.revert()
    if not any(_joined(connection) for connection in frame.connections):
        settle(frame)


def _joined(connection: Connection) -> bool:
    """Whether a transaction that the session did not begin is still open on the connection."""
    return not (connection.closed or connection.invalidated) and connection.in_transaction()


def _concerns(mapper: Mapper[Any]) -> bool:
    configure_mappers()  # A statement may be the first thing that the process does with them.
    return bool(of_table(mapper))


def _execute(state: ORMExecuteState) -> Any:
    assert state.bind_mapper is not None
    return execute(state, of_table(state.bind_mapper), lambda: Frames.of(state.session).current(state.session))


# Mapped classes


@event.listens_for(Mapper, "after_mapper_constructed")
def _mapper_constructed(mapper: Mapper[Any], cls: type[Any]) -> None:
    if any(isinstance(column.type, ColumnType) for column in mapper.columns):
        wire()


@event.listens_for(Mapper, "mapper_configured")
def _mapper_configured(mapper: Mapper[Any], cls: type[Any]) -> None:
    references = learn(mapper)
    if of_row(mapper.class_manager):
        wire()  # A column may have been added since the mapper was constructed, or is none of the mapper's.
        event.listen(mapper, "before_delete", _deleting, raw=True)
    if references:
        event.listen(mapper, "before_insert", _saving, raw=True, retval=True)  # else SQLAlchemy wraps it
        event.listen(mapper, "before_update", _saving, raw=True, retval=True)


@event.listens_for(object, "attribute_instrument")
def _attribute_instrumented(cls: type[Any], key: str, attribute: Any) -> None:
    """One may be added to a class that is in use."""
    mapper: Any = inspect(cls, raiseerr=False)
    if mapper is not None and mapper.configured and is_new(mapper, key):
        _mapper_configured(mapper, cls)


def _saving(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> Any:
    session = state.session
    if session is not None:
        _flush_of(session).saving(state)
    elif state.key is None:
        for reference in of_state(state):
            if reference.type.items(state.dict.get(reference.key)):
                raise OwnershipLost(
                    f"{reference.target}: a listener took a new object out of its session, whose row is written "
                    "nevertheless: nobody would take care of its file. Let it go before the flush, or after it"
                )
    return EXT_CONTINUE


def _deleting(mapper: Mapper[Any], connection: Connection, state: InstanceState[Any]) -> None:
    session = state.session
    if session is not None:
        _flush_of(session).deleting(state)


def _flush_of(session: Session) -> Flush:
    frames = Frames.of(session)
    return frames.begin(session) if frames.flush is None else frames.flush
