"""Actor: one session, what it should do to the rows, and what may excuse it if it fails.

Nothing is predicted but contents and descriptions: which key a file has is learned from the database after each flush
and statement. What a flush did to a row is compared with what was assigned since the last one, over what the
transaction sees of the others at that moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, event, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.orm.exc import ObjectDeletedError

from sa_attachments import Attachment

from .excuses import Excuses
from .model import Item, Name, Row, State, Transaction
from .models import ATTRIBUTES, Doc
from .wishes import ABSENT, Hope, Hopes, Wish, hope, key_of, loaded_by, original, type_of
from .world import World

LOST = 3  # libpq's PQTRANS_INERROR: the server will answer COMMIT by ROLLBACK.


class Actor:
    """See the module."""

    def __init__(self, world: World, committed: State, others: list[Actor], expires: bool) -> None:
        self.world = world
        self.committed = committed
        self.others = others
        self.session = self.open(expire_on_commit=expires, autoflush=False)
        self.connected = False
        self.objects: list[Doc] = []
        self.uploaded: set[tuple[int, str]] = set()
        """Attributes of new objects that nothing but new attachments were assigned to."""
        event.listen(self.session, "after_begin", self._after_begin)
        event.listen(self.session, "after_transaction_end", self._after_transaction_end)
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

    def _after_begin(self, *_: Any) -> None:
        self.connected = True

    def _after_transaction_end(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            self.connected = False

    # Objects

    def may_connect(self) -> bool:
        return not (self.world.has_one_writer and any(other.connected for other in self.others if other is not self))

    def find(self, pk: int, offline: bool = False) -> Doc | None:
        """The object that stands for a row, as far as this session knows; ``offline``, without asking the database."""
        wish = self.wishes.get(pk)
        if wish is not None and (wish.fresh or wish.deleted):
            return wish.doc if wish.fresh else None
        if offline or not self.may_connect():
            mine = (doc for doc in self.objects if doc in self.session and inspect(doc).identity == (pk,))
            return next(mine, None)
        doc = self.session.get(Doc, pk)
        if doc is not None:
            self._hold(doc)
        return doc

    def values(self, doc: Doc | None, attribute: str, offline: bool = False) -> tuple[Attachment, ...]:
        """What an object says that it names; nothing if that would have to be asked for and can't."""
        if doc is None or (attribute not in inspect(doc).dict and (offline or not self.may_connect())):
            return ()
        try:
            return tuple(type_of(attribute).items(getattr(doc, attribute)))
        except ObjectDeletedError:
            return ()

    def assign(self, doc: Doc, attribute: str, value: Any) -> None:
        loaded = loaded_by(doc, attribute)
        setattr(doc, attribute, value)
        self.note(doc, attribute, loaded)

    def note(self, doc: Doc, attribute: str, loaded: Any = ABSENT) -> None:
        """An attribute was set; ``loaded`` is what the object held as the row's value."""
        wish = self.wishes.setdefault(key_of(doc), Wish(doc))
        value = inspect(doc).dict[attribute]
        if attribute == "title":
            wish.title = value
            (wish.same.add if loaded == value else wish.same.discard)(attribute)
            return
        wish.slots[attribute] = items = tuple(type_of(attribute).items(value))
        new = all(not item.is_stored and original(item) is None for item in items)
        (self.uploaded.add if new else self.uploaded.discard)((id(doc), attribute))

    def add(self, doc: Doc) -> None:
        """A new object, for a row that should not be there, or whose object was deleted."""
        self.session.add(doc)
        self._hold(doc)
        wish = self.wishes[doc.id] = Wish(doc, fresh=True, deleted=doc.id in self.wishes)
        state = inspect(doc).dict
        for each in ("title", *ATTRIBUTES):
            if each in state:
                self.note(doc, each)
        assert not wish.same or wish.same == {"title"}

    def delete(self, doc: Doc) -> None:
        pk = key_of(doc)
        wish = self.wishes.get(pk)
        if wish is not None and wish.fresh:
            self.session.expunge(doc)
            del self.wishes[pk]
            if wish.deleted:
                self.wishes[pk] = Wish(doc, deleted=True)
            return
        self.session.delete(doc)
        self.wishes[pk] = Wish(doc, deleted=True)

    def forget(self, pk: int, attribute: str | None = None) -> None:
        """What was assigned to the object of a row was taken back, or is loaded anew."""
        for doc in self.objects:
            if inspect(doc).identity == (pk,):
                self.uploaded -= {(id(doc), each) for each in ATTRIBUTES if attribute in (None, each)}
        wish = self.wishes.get(pk)
        if wish is None or wish.fresh:
            return
        if attribute is None:
            del self.wishes[pk]
        else:
            wish.slots.pop(attribute, None)
            wish.same.discard(attribute)

    def forget_object(self, pk: int) -> None:
        """A statement deleted the row, and its object is no longer in the session."""
        wish = self.wishes.get(pk)
        if wish is not None and wish.fresh:
            wish.deleted = False
        else:
            self.wishes.pop(pk, None)

    def _hold(self, doc: Doc) -> None:
        if not any(doc is each for each in self.objects):
            self.objects.append(doc)

    # What should come of it

    def hopes(self) -> dict[int, Hope | None]:
        """What rows should look like after a flush."""
        found: dict[int, Hope | None] = {}
        for pk, wish in self.wishes.items():
            row = self.transaction.row(pk)
            if wish.deleted and not wish.fresh:
                found[pk] = None
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
            self.wishes.clear()
        with self._reader(commits) as connection:
            rows = self.world.rows(connection)
            unseen = self.young - self.world.kept(connection)
        # A file that comes and goes in one transaction is not kept.
        assert unseen == self.young
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
        done = self.write(self.session.commit, self.hopes(), flushes=True, commits=True)
        if done:
            self.transaction.commit_into(self.committed)
            self.restart()
        return done

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
        self.session.rollback()
        self._check_given_back()
        self.restart()

    def close(self, how: str = "close") -> list[Doc]:
        """Returns the objects that the session had; they are detached now."""
        getattr(self.session, how)()
        self.restart()
        objects, self.objects = self.objects, []
        return [doc for doc in objects if inspect(doc).detached]

    def savepoint(self) -> bool:
        if not self.flush():
            return False
        self.savepoints.append((self.session.begin_nested(), self.transaction.copy()))
        return True

    def release(self) -> bool:
        nested, _ = self.savepoints[-1]
        done = self.write(nested.commit, self.hopes(), flushes=True)
        if done:
            self.savepoints.pop()
        return done

    def rollback_to(self, depth: int) -> None:
        """Roll back the innermost savepoint, or one around it."""
        nested, saved = self.savepoints[-depth]
        del self.savepoints[-depth:]
        nested.rollback()
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
        for transaction in (self.transaction, *(saved for _, saved in self.savepoints)):
            yield from transaction.names()
