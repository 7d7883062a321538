"""Statements: how the tracker hears of ORM-enabled INSERT, UPDATE and DELETE, and sessions that only read don't pay.

SQLAlchemy's event for it, ``do_orm_execute``, fires for SELECT too, and as soon as anybody listens each statement of
each session is prepared twice: 3 % more instructions for a SELECT of one row. So we stand in for the classes that carry
out the three kinds, by themselves or for a SELECT (``from_statement``), and which SQLAlchemy keeps in a registry; what
they do stays as it is.

Traps
-----
The registry is not documented. Where it is not as we know it, the event is listened to instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Mapper, ORMExecuteState, Session
from sqlalchemy.sql.base import CompileState

Listener = Callable[[ORMExecuteState], Any]
"""Runs the statement and returns the result; None leaves that to SQLAlchemy."""

KINDS = ("insert", "update", "delete", "orm_from_statement")

_HEARD = "sa_attachments_heard"


def hear(concerns: Callable[[Mapper[Any]], bool], listener: Listener) -> None:
    """Let ``listener`` run the statements of the mappers that it concerns."""
    registry: Any = getattr(CompileState, "plugins", {})
    known = {("orm", kind): registry.get(("orm", kind)) for kind in KINDS}
    if all(hasattr(each, "orm_pre_session_exec") and hasattr(each, "orm_execute_statement") for each in known.values()):
        registry.update({key: _standing_in(each, concerns, listener) for key, each in known.items()})
    else:
        event.listen(Session, "do_orm_execute", _by_event(concerns, listener))


def _by_event(concerns: Callable[[Mapper[Any]], bool], listener: Listener) -> Listener:
    def heard(state: ORMExecuteState) -> Any:
        if state.is_select or not (state.is_insert or state.is_update or state.is_delete):
            return None
        return listener(state) if state.bind_mapper is not None and concerns(state.bind_mapper) else None

    return heard


def _standing_in(known: Any, concerns: Callable[[Mapper[Any]], bool], listener: Listener) -> Any:
    def ours(statement: Any, execution_options: Any) -> bool:
        inner = statement.element if statement.is_from_statement else statement
        subject = inner._propagate_attrs.get("plugin_subject") if inner.is_dml else None
        return subject is not None and _HEARD not in execution_options and concerns(subject.mapper)

    class StandIn(known):  # type: ignore[misc]
        @classmethod
        def orm_pre_session_exec(
            cls, session: Any, statement: Any, params: Any, execution_options: Any, bind_arguments: Any, early: bool
        ) -> Any:
            # For ours it is as before an event: what follows is done when the listener invokes the statement.
            early = early or ours(statement, execution_options)
            return super().orm_pre_session_exec(session, statement, params, execution_options, bind_arguments, early)

        @classmethod
        def orm_execute_statement(
            cls, session: Any, statement: Any, params: Any, execution_options: Any, bind_arguments: Any, conn: Any
        ) -> Any:
            if not ours(statement, execution_options):
                return super().orm_execute_statement(
                    session, statement, params, execution_options, bind_arguments, conn
                )
            options = execution_options.union({_HEARD: True})
            state = ORMExecuteState(session, statement, params, options, bind_arguments, cls, [])
            state._starting_event_idx = 0  # those of the event were called before
            result = listener(state)
            return state.invoke_statement() if result is None else result

    StandIn.__name__ = StandIn.__qualname__ = known.__name__
    return StandIn
