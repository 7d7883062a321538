"""Actor: one session, what it should do to the rows, and what may excuse it if it fails.

Nothing is predicted but contents and descriptions: which key a file has is learned from the database after each flush
and statement. What a flush did to a row is compared with what was assigned since the last one, over what the
transaction sees of the others at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, SessionTransaction

from sa_attachments import Attachment

from .excuses import Excuses
from .holder import Holder
from .model import Item, Name, Row, State, Transaction
from .models import ATTRIBUTES, Doc
from .outer import Mode, Outer
from .wishes import ABSENT, Hope, Hopes, Wish, hope, key_of
from .world import World

LOST = 3  # libpq's PQTRANS_INERROR: the server will answer COMMIT by ROLLBACK.


class Actor(Holder):
    """See the module."""

    def __init__(self, world: World, committed: State, others: list[Actor], expires: bool) -> None:
        self.options = {"expire_on_commit": expires, "autoflush": False}
        super().__init__(world)
        self.take(self.open(**self.options))
        self.committed = committed
        self.others = others
        self.restart()

    def open(self, **options: Any) -> Session:
        """A session of the kind that is played with."""
        return Session(self.world.engine, **options)

    def restart(self) -> None:
        """Another transaction begins."""
        self.transaction = Transaction(self.committed)
        self.savepoints: list[tuple[SessionTransaction, Transaction]] = []
        self.wishes: dict[int, Wish] = {}
        self.touched: set[Any] = set()
        """Primary keys, titles and files that may be locked by this transaction."""
        self.young: set[Name] = set()
        """Files that were put for this transaction."""

    def may_connect(self) -> bool:
        return not (self.world.has_one_writer and any(other.connected for other in self.others if other is not self))

    # What should come of it

    def hopes(self) -> dict[int, Hope | None]:
        """What rows should look like after a flush."""
        found: dict[int, Hope | None] = {}
        adopted = {key_of(doc) for doc in self.folders.adopted()}
        for doc in self.folders.adopted():
            self.wishes.setdefault(key_of(doc), Wish(doc))
        for pk, wish in self.wishes.items():
            row = self.transaction.row(pk)
            if (wish.orphan or (wish.deleted and pk not in adopted)) and not wish.fresh:
                found[pk] = None
                continue
            if row is None and not wish.fresh and not wish.slots and wish.title is ABSENT:
                found[pk] = None  # It was only put into the folder that the object says anyway: nothing is written.
                continue
            hoped = hope(row if row is not None and (wish.deleted or not wish.fresh) else Row(None))
            if wish.title is not ABSENT:
                hoped.title = wish.title
            hoped.slots.update({each: self._items(values) for each, values in wish.slots.items()})
            hoped.same = set(wish.same)
            found[pk] = hoped
        return found

    def _items(self, values: Iterable[Attachment]) -> tuple[Item, ...]:
        return tuple(self.world.item(value) for value in values)

    # Doing it

    def flush(self) -> bool:
        return self.write(self.session.flush, self.hopes(), flushes=True)

    def flush_all(self) -> bool:
        """And what the first flush leaves to the next one."""
        return self.flush() and (not self.wishes or self.flush())

    def write(
        self,
        action: Callable[[], Any],
        hopes: Hopes,
        given: Sequence[Attachment] = (),
        *,
        flushes: bool = False,
        commits: bool = False,
        clash: bool = False,
    ) -> bool:
        """Do something that writes rows. False if it failed, and had an excuse; then ``recover``.

        ``given`` are attachments of a statement; ``clash`` tells that the statement may violate a constraint.
        """
        wishes = self.wishes if flushes else {}
        excuses = Excuses.before(self.world, self.transaction.rows(), hopes, wishes, given, clash, self._is_locked)
        self.touched |= set(hopes)
        try:
            action()
        except Exception as error:
            if not excuses.cover(error):
                raise
            return False
        finally:
            self.young |= self.world.put_since()
        assert not excuses.unseen, "a list took away what its session never saw"
        if flushes:
            # A folder that one of them was put into takes its DELETE back, until the next flush.
            left = {pk: wish.doc for pk, wish in self.wishes.items() if wish.deleted and self.doomed(pk)}
            self.wishes = {pk: Wish(doc, deleted=True) for pk, doc in left.items()}
        with self._reader(commits) as connection:
            rows = self.world.rows(connection)
            unseen = self.young - self.world.kept(connection)
        # A file that comes and goes in one transaction of a session is not kept.
        assert unseen == self.young or self.outer is not None
        self._learn(hopes, rows, unseen)
        return True

    @contextmanager
    def _reader(self, commits: bool) -> Iterator[Connection]:
        if commits:
            with self.world.observer.connect() as connection:
                yield connection
        else:
            yield self.session.connection()

    def _learn(self, hopes: Hopes, rows: Mapping[int, Row], unseen: set[Name]) -> None:
        for pk in {*rows, *self.transaction.rows(), *hopes}:
            before, row = self.transaction.row(pk), rows.get(pk)
            if pk not in hopes:
                assert row == before, f"row {pk} is {row}, and should still be {before}"
                continue
            hoped = hopes[pk]
            if hoped is None or row is None:
                assert hoped is row, f"row {pk} is {row}, and should be {hoped}"
            else:
                assert hoped.holds(row, before), f"row {pk} is {row}, and should be {hoped}"
        every = [name for row in rows.values() for name in row.files()]
        assert len(every) == len(set(every)), f"a file is named twice: {every}"
        for pk in hopes:
            self._touch(self.transaction.row(pk))
            self._touch(rows.get(pk))
        self.transaction.write({pk: rows.get(pk) for pk in hopes}, unseen)

    def _touch(self, row: Row | None) -> None:
        if row is not None:
            self.touched |= {row.title, *row.files()}

    # Ends

    def recover(self, then: str) -> None:
        """After a failure: go on, if the session lets us, or roll back in some way."""
        then = "rollback" if then == "close" and self.outer is not None else then
        if then == "continue" and self.session.is_active and not self._poisoned():
            return
        if then == "savepoint" and self.savepoints:
            self.rollback_to(1)
        elif then == "close":
            self.close()
        else:
            self.rollback()

    def _is_locked(self, wants: set[Any]) -> bool:
        return any(other.is_in_the_way_of(wants) for other in self.others if other is not self)

    def is_in_the_way_of(self, wants: set[Any]) -> bool:
        """Whether this transaction may hold a lock on one of these rows, titles or files."""
        return bool(self.touched & wants)

    def _poisoned(self) -> bool:
        if self.world.has_one_writer or not self.connected:
            return False
        connection = self.session.connection()
        if connection.dialect.is_async:  # asyncpg does not tell
            try:
                connection.exec_driver_sql("SELECT 1")
            except DBAPIError:
                return True
            return False
        driver: Any = connection.connection.driver_connection
        return bool(driver.info.transaction_status == LOST)

    def commit(self) -> bool:
        if any(wish.deleted for wish in self.wishes.values()) and not self.flush():
            return False
        ends = self.outer is None or (self.outer.mode == "control_fully" and self._will_begin())
        if not self.write(self.session.commit, self.hopes(), flushes=True, commits=ends):
            return False
        if ends:
            self.transaction.commit_into(self.committed)
            self.leave()
        elif self.outer is not None:
            self.outer.kept = self.transaction.copy()
            self.savepoints.clear()
        return True

    def _will_begin(self) -> bool:
        return self.begun or bool(self.session.new or self.session.dirty or self.session.deleted)

    def commit_unheard(self) -> None:
        """Everything is flushed; the commit raises, although it happens."""
        try:
            self.session.commit()
        except ConnectionResetError:
            self.session.rollback()
        else:
            raise AssertionError("the error of the commit was swallowed")
        self.world.unheard |= {name for name, _ in self.transaction.names()}
        self.transaction.commit_into(self.committed)
        self.restart()

    def rollback(self) -> None:
        begun = self.begun
        self.session.rollback()
        self._check_given_back()
        self._undone(begun)

    def close(self, how: str = "close") -> list[Doc]:
        """Returns the objects that the session had; they are detached now."""
        if self.savepoints and self.outer is not None:
            self.rollback_to(len(self.savepoints))
        begun = self.begun and (self.outer is None or self.outer.mode in ("control_fully", "create_savepoint"))
        getattr(self.session, how if self.outer is None else "close")()
        self._undone(begun)
        objects, self.objects = self.objects, []
        return [doc for doc in objects if inspect(doc).detached]

    def _undone(self, begun: bool) -> None:
        """What the session did, if it had ``begun``, was rolled back: what it joined, too, or a savepoint in it."""
        if self.outer is None:
            self.restart()
        elif begun and self.outer.mode != "create_savepoint":
            assert not self.outer.transaction.is_active
            self.leave()
        else:
            assert self.outer.transaction.is_active
            if begun:
                self.transaction = self.outer.kept.copy()
            self.savepoints.clear()
            self.wishes.clear()

    def join(self, mode: Mode) -> None:
        """A transaction that begins now."""
        self.outer = Outer(self.world.engine, mode, self.transaction.copy())
        self.take(self.outer.open(**self.options))

    def leave(self) -> None:
        """The transaction ended, and so did what it had joined."""
        self.restart()
        if self.outer is not None:
            self.session.close()
            self.outer.connection.close()
            self.outer = None
            self.take(self.open(**self.options))

    def end_outer(self, commit: bool) -> list[Doc]:
        """The session is closed before; returns what it had."""
        docs = self.close()
        if self.outer is not None:
            self.outer.end(commit)
            if commit:
                self.transaction.commit_into(self.committed)
            self.leave()
        return docs

    def savepoint(self) -> bool:
        if not self.flush_all():
            return False
        self.savepoints.append((self.session.begin_nested(), self.transaction.copy()))
        return True

    def release(self) -> bool:
        nested, _ = self.savepoints[-1]
        if any(wish.deleted for wish in self.wishes.values()) and not self.flush():
            return False
        done = self.write(nested.commit, self.hopes(), flushes=True)
        if done:
            self.savepoints.pop()
        return done

    def rollback_to(self, depth: int) -> None:
        """Roll back the innermost savepoint, or one around it."""
        nested, saved = self.savepoints[-depth]
        del self.savepoints[-depth:]
        nested.rollback()
        self.folders.rolled_back()
        self.transaction = saved
        self.wishes.clear()
        self._check_given_back()

    def _check_given_back(self) -> None:
        """New objects that were rolled back have their uploads again. What the others have is loaded anew."""
        for doc in self.objects:
            mine = {(id(doc), each) for each in ATTRIBUTES}
            if not inspect(doc).transient:
                self.uploaded -= mine
            for _, each in self.uploaded & mine:
                assert not any(item.is_stored for item in self.values(doc, each, offline=True)), "it was not put back"

    def needed(self) -> Iterator[tuple[Name, Item]]:
        """What this transaction names, or would name again after a rollback to a savepoint."""
        kept = () if self.outer is None else (self.outer.kept,)
        for transaction in (self.transaction, *kept, *(saved for _, saved in self.savepoints)):
            yield from transaction.names()
