"""Frames: what one transaction or savepoint of a session has staged and dropped. Pure decisions, no I/O.

>>> frame = Frame()
>>> frame.work("ledger").staged.append(Named("default", "k", 1))
>>> savepoint = Frame()
>>> savepoint.work("ledger").staged.append(Named("default", "l", 1))
>>> frame.absorb(savepoint)                       # it ended without being marked as released: rolled back
>>> frame.work("ledger").staged, frame.work("ledger").void
([Named(storage='default', key='k', size=1)], [Named(storage='default', key='l', size=1)])
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakSet

from .descriptor import Name, Named
from .source import PathSource


@dataclass(slots=True)
class Work:
    """What happened in one ledger."""

    staged: list[Named] = field(default_factory=list)
    """Put, and owned in this transaction."""
    void: list[Named] = field(default_factory=list)
    """Put, and never to be named: the flush failed, or the savepoint was rolled back."""
    dropped: list[Named] = field(default_factory=list)
    """Condemned in this transaction and due at once."""
    given: list[tuple[PathSource, Named]] = field(default_factory=list)
    """Local files that the user gave away, to be removed once the copy is committed."""
    identities: set[int | str] = field(default_factory=set)
    """Which of the ledgers of that name the lines are in; several, if the transaction saw one after the other."""

    def absorb(self, other: Work, kept: bool) -> None:
        """Take over what a savepoint did."""
        self.void += other.void
        self.identities |= other.identities
        if kept:
            self.staged += other.staged
            self.dropped += other.dropped
            self.given += other.given
        else:
            self.void += other.staged

    def keep_path_of(self, file: Named) -> None:
        """A given file was not taken after all."""
        self.given = [(source, each) for source, each in self.given if each != file]

    def __bool__(self) -> bool:
        return bool(self.staged or self.void or self.dropped or self.given)


class Undoable(Protocol):
    """Something done to an object of the user's, to be taken back if the transaction is void."""

    def revert(self) -> None:
        """The transaction is void."""
        ...

    def done(self) -> None:
        """The transaction is committed."""
        ...


class Frame:
    """One transaction or savepoint."""

    def __init__(self) -> None:
        self.works: dict[Any, Work] = {}
        self.loose: list[tuple[Any, Named]] = []
        """``(files, name)`` of files that were put and never came into a ledger: the flush failed before."""
        self.undo: list[Undoable] = []
        self.met: list[tuple[Any, Any, Any]] = []
        """``(references, rows, schema_translate_map)`` of what statements of listeners wrote during a flush, which may
        write them again.
        """
        self.let_go: set[Name] = set()
        """What they dropped, and the flush may have given to another row."""
        self.stored: list[tuple[Any, tuple[Any, ...]]] = []
        """``(column type, primary key)`` of rows that got new files, where somebody wants to hear of them."""
        self.connections: WeakSet[Any] = WeakSet()
        """Weakly: their pool remembers frames, which must not keep a connection out of it that nobody uses any more."""
        self.marked = False
        """Whether a commit, or a release, was announced. A hint: the database decides."""
        self.ended = False
        self.around: Frame | None = None
        """The frame of the nearest transaction around this savepoint that has one."""

    def staged(self, scope: Any) -> set[Named]:
        """What the whole transaction has staged so far in the ledger of ``scope``, and not given up again."""
        mine = set(self.works[scope].staged) if scope in self.works else set()
        return mine | self.around.staged(scope) if self.around is not None else mine

    def work(self, scope: Any) -> Work:
        """What happened in the ledger of ``scope``."""
        return self.works.setdefault(scope, Work())

    def absorb(self, child: Frame) -> None:
        """A savepoint ended: released, it joins this frame; else its staged files are suspects, its drops void."""
        for scope, work in child.works.items():
            self.work(scope).absorb(work, child.marked)
        self.loose += child.loose
        for connection in child.connections:
            self.seen(connection)
        if child.marked:
            self.undo += child.undo
            self.met += child.met
            self.let_go |= child.let_go
            self.stored += child.stored
        else:
            child.revert()
        child.forget()

    def forget(self) -> None:
        """Others take care of what happened."""
        self.works = {}
        self.loose = []
        self.stored = []

    def revert(self) -> None:
        """The frame is void: undo what it did to objects, latest first."""
        for undo in reversed(self.undo):
            undo.revert()
        self.undo.clear()

    def done(self) -> None:
        """The frame is committed, as far as one can tell: objects need not remember what they were."""
        for undo in self.undo:
            undo.done()
        self.undo.clear()

    def seen(self, connection: Any) -> None:
        """Note a connection that this transaction works on."""
        self.connections.add(connection)

    def __bool__(self) -> bool:
        return bool(self.loose) or any(self.works.values())
