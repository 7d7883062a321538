"""Holder: what one session holds, and what was done to it since the last flush."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event, inspect
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.orm.exc import ObjectDeletedError

from sa_attachments import Attachment

from .folders import Folders
from .models import ATTRIBUTES, Doc
from .outer import Outer
from .wishes import ABSENT, Wish, key_of, loaded_by, original, type_of
from .world import World


class Holder:
    """See the module."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.outer: Outer | None = None
        self.wishes: dict[int, Wish] = {}

    def take(self, session: Session) -> None:
        """Go on with that session."""
        self.session = session
        self.folders = Folders(session)
        self.begun = False
        self.objects: list[Doc] = []
        self.uploaded: set[tuple[int, str]] = set()
        """Attributes of new objects that nothing but new attachments were assigned to."""
        event.listen(session, "after_begin", self._after_begin)
        event.listen(session, "after_transaction_end", self._after_transaction_end)

    @property
    def connected(self) -> bool:
        return self.begun or self.outer is not None

    def _after_begin(self, *_: Any) -> None:
        self.begun = True

    def _after_transaction_end(self, session: Session, transaction: SessionTransaction) -> None:
        if transaction.parent is None:
            self.begun = False

    def may_connect(self) -> bool:
        raise NotImplementedError

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
        wish = self.wishes.setdefault(key_of(doc), Wish(doc))
        if not wish.fresh:
            self.session.delete(doc)
            wish.deleted = True
            return
        if not self.folders.take_out(doc):
            self.session.expunge(doc)
        self._drop(wish)

    def taken_out(self, doc: Doc) -> None:
        """Of its folder: an orphan is deleted, or not added."""
        wish = self.wishes.setdefault(key_of(doc), Wish(doc))
        if wish.fresh:
            self._drop(wish)
        else:
            wish.orphan = True

    def put_in(self, doc: Doc) -> None:
        """Into a folder: it stays, or is added."""
        if inspect(doc).key is None:
            if doc.id not in self.wishes or self.wishes[doc.id].doc is not doc:
                self.add(doc)
        else:
            wish = self.wishes.setdefault(key_of(doc), Wish(doc))
            wish.orphan = wish.deleted = False
            self.session.add(doc)

    def deleted_with_folder(self, doc: Doc) -> None:
        """New ones are not."""
        if inspect(doc).key is not None:
            wish = self.wishes.setdefault(key_of(doc), Wish(doc))
            wish.deleted = True
        self._hold(doc)

    def doomed(self, pk: int) -> Doc | None:
        """The object that waits to be deleted."""
        return next((each for each in self.session.deleted if isinstance(each, Doc) and key_of(each) == pk), None)

    def is_adopted(self, pk: int) -> bool:
        return any(key_of(doc) == pk for doc in self.folders.adopted())

    def _drop(self, wish: Wish) -> None:
        """The new object is not added."""
        assert wish.doc not in self.session
        del self.wishes[wish.doc.id]
        if wish.deleted:
            self.wishes[wish.doc.id] = Wish(wish.doc, deleted=True)

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
