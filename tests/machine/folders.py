"""Folders: those that one session made, and what they do to their docs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from sqlalchemy import inspect
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import ObjectDeletedError

from .models import Doc, Folder


class Folders:
    """See the module."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._mine: dict[int, Folder] = {}
        self._taken_out: list[Doc] = []

    def get(self, number: int) -> Folder | None:
        """What it holds is loaded anew, unless changes of it wait to be flushed."""
        folder = self._mine.get(number)
        if folder is None or not self._is_there(folder):
            return None
        # None if a statement has deleted the row of a doc that waits to be put in.
        return folder if all(doc in self._session for doc in self._docs(folder)) else None

    def open(self, number: int) -> Folder:
        """A new one, if need be."""
        folder = self.get(number)
        if folder is None:
            folder = self._mine[number] = Folder()
            self._session.add(folder)
        return folder

    def take_out(self, doc: Doc) -> bool:
        """Of whatever folders it is in, as far as this session knows. False if it is in none."""
        if inspect(doc).persistent:
            with suppress(ObjectDeletedError):
                self._session.get(Folder, doc.folder or 0)
        folders = [folder for folder in self._all() if doc in self._docs(folder)]
        for folder in folders:
            folder.docs.remove(doc)
            self._taken_out.append(doc)
        return bool(folders)

    def _all(self) -> list[Folder]:
        return [each for each in list(self._session) if isinstance(each, Folder) and self._is_there(each)]

    def _is_there(self, folder: Folder) -> bool:
        return folder in self._session and folder not in self._session.deleted

    def _docs(self, folder: Folder) -> list[Doc]:
        if inspect(folder).persistent and not inspect(folder).attrs.docs.history.has_changes():
            self._session.expire(folder, ["docs"])
        try:
            return folder.docs
        except ObjectDeletedError:
            return []

    def adopted(self) -> Iterator[Doc]:
        """Docs that wait to be put into a folder: SQLAlchemy leaves them there this time, even if they are deleted."""
        for folder in self._all():
            added = inspect(folder).attrs.docs.history.added or ()
            yield from (doc for doc in added if doc in self._session)

    def rolled_back(self) -> None:
        """To a savepoint: SQLAlchemy would still take for an orphan what was taken out, and did not change."""
        for doc in self._taken_out:
            if inspect(doc).persistent:
                self._session.expire(doc)

    def forget(self) -> None:
        """They may not be there any more."""
        self._mine.clear()
        self._taken_out.clear()
