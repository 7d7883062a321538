"""Watch: frames that connections remember, so that they are settled even if nobody says how their transaction ended.

>>> from sqlalchemy import create_engine
>>> frame = Watched(lambda: None)                     # nobody will say it
>>> with create_engine("sqlite://").connect() as connection:
...     frame.seen(connection)
...     frame in connection.info["sa_attachments"]
True

What a connection remembers is settled when it goes back to its pool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, event

from .frames import Frame

_INFO = "sa_attachments"
_OPEN = "sa_attachments_open"
"""Frames whose session is there, and has not ended them when the connection went back."""


class Watched(Frame):
    """``session`` is who says how the transaction ended, as long as it is there."""

    def __init__(self, session: Callable[[], object | None]) -> None:
        super().__init__()
        self.session = session

    def seen(self, connection: Connection) -> None:
        if connection in self.connections:
            return
        super().seen(connection)
        if connection.closed or connection.invalidated:
            return  # It went back to its pool, or was thrown away, before the savepoint that it was seen in ended.
        pool = connection.engine.pool
        # Not by event.contains: it goes by the pool's id, which may have been that of a disposed engine's pool before.
        if _checkin not in pool.dispatch.checkin:
            event.listen(pool, "checkin", _checkin)
        frames = connection.connection.info.setdefault(_INFO, [])
        # A session may use its connection for thousands of transactions before it gives it back.
        frames[:] = [frame for frame in frames if frame or not frame.ended]
        frames.append(self)


def settle(frame: Frame) -> None:
    """Clean up what an ended transaction left."""
    for files in {scope.files for scope in frame.works} | {files for files, _ in frame.loose}:
        files.settle(frame)
    frame.forget()


def _checkin(dbapi_connection: Any, record: Any) -> None:
    """A connection goes back to its pool: the outer transaction of a joined session is over, or a session was
    garbage-collected.
    """
    try:
        left, frames = record.info.pop(_OPEN, ()), record.info.pop(_INFO, ())
        # Sessions that are about to end them see to them; those that nobody closes may be collected any time later.
        if still := [frame for frame in (*left, *frames) if frame.session() is not None and not frame.ended]:
            record.info[_OPEN] = still
        for frame in (*left, *frames):
            if frame.session() is None or (frame.ended and frame in frames):
                frame.marked = frame.marked and frame.ended
                settle(frame)
    except BaseException:
        # Who is cancelled while he waits for cleaning: after an error here, SQLAlchemy never takes the connection back.
        record._ConnectionRecord__pool._return_conn(record)
        raise
