"""Application: a small one with a database, a folder and a model of its own, and the invariant that it keeps
whatever happens to it.

The bytes of each file follow from its filename, so that a row tells what it must find: ``upload("a")`` makes a file
``a``, and ``application.problems()`` says which committed rows do not have their bytes, and where the ledger
disagrees with them. When all was swept, ``application.problems(swept=True)`` also tells of everything else that
lies in the storage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentListType, AttachmentType, FileDamaged, FileMissing, Storages
from sa_attachments.places import MARKER
from sa_attachments.processing.variants import Variant, declared
from sa_attachments.queries import CONDEMNED, GONE, OWNED
from sa_attachments.storage import Storage
from sa_attachments.storages.local import LocalStorage
from sa_attachments.sweep import SweepReport

AT_ONCE = timedelta(0)

State = dict[str, list[str]]
"""Filenames by row and column: ``{"1.file": ["a"]}``; empty ones are left out."""


def content(filename: str) -> bytes:
    """The bytes that a file of this name must have; large ones are of some megabytes."""
    return f"the bytes of {filename}, ".encode() * (400_000 if filename.startswith("large") else 5)


def upload(filename: str) -> Attachment:
    """A new attachment with its bytes."""
    return Attachment.upload(content(filename), filename)


def shout(attachment: Attachment) -> Attachment:
    """A recipe; fails for what is bad."""
    if attachment.filename.startswith("bad"):
        raise ValueError("it is bad")
    return Attachment.upload(attachment.read().upper())


def shout_twice(attachment: Attachment) -> Attachment:
    """What the recipe becomes later."""
    return Attachment.upload(attachment.read().upper() * 2)


RECIPES = declared({"loud": shout, "soft": Variant(shout, lazy=True)})
LATER = declared({"loud": shout_twice, "more": shout})


class Application:
    """See the module. ``folder`` holds ``files``, the storage, and ``given``, files that the application gives away."""

    def __init__(self, engine: Engine, folder: Path, storage: Storage | str | None = None, **options: Any) -> None:
        self.engine = engine
        self.folder = folder
        self.given = folder / "given"
        self.files = Storages(storage or LocalStorage(folder / "files"), **options)

        class Base(DeclarativeBase):
            pass

        class Doc(Base):
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
            file: Mapped[Attachment | None] = mapped_column(AttachmentType(self.files))
            cover: Mapped[Attachment | None] = mapped_column(AttachmentType(self.files))
            pages: Mapped[Sequence[Attachment]] = mapped_column(AttachmentListType(self.files))
            photo: Mapped[Attachment | None] = mapped_column(AttachmentType(self.files, variants=RECIPES))

        class Mark(Base):
            """One for each transaction that a workload committed."""

            __tablename__ = "marks"
            id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)

        self.Base, self.Doc, self.Mark = Base, Doc, Mark

    def deploy(self, recipes: Mapping[str, Variant]) -> None:
        """Let photos have other variants from now on."""
        self.Doc.photo.type.variants = recipes

    @property
    def ledger(self) -> Any:
        """The table of lines."""
        return self.files.ledger_of(self.Doc.__table__).lines  # type: ignore[arg-type]

    @property
    def storage(self) -> Any:
        """The only one."""
        return self.files.resolve()

    def create(self) -> None:
        """Make the tables."""
        self.Base.metadata.create_all(self.engine)
        self.given.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def session(self, **options: Any) -> Iterator[Session]:
        with Session(self.engine, **options) as session:
            yield session

    def give(self, filename: str) -> Attachment:
        """A new attachment of a file that is given away."""
        return Attachment.upload(self.given / filename, move=True)

    def sweep(self, **options: Any) -> SweepReport:
        """Sweep all, however young."""
        return self.files.sweep(self.engine, **{"grace": AT_ONCE, "stranger_retain": AT_ONCE, **options})

    # What is there

    def marks(self) -> int:
        """How many transactions of the workload were committed."""
        with self.session() as session:
            return session.scalar(select(func.count()).select_from(self.Mark)) or 0

    def state(self) -> State:
        """What the committed rows name."""
        with self.session() as session:
            return {
                f"{doc.id}.{column}": [item.filename or "" for item in items]
                for doc in session.scalars(select(self.Doc).order_by(self.Doc.id))
                for column, items in _columns(doc)
                if items
            }

    def problems(self, *, swept: bool = False) -> list[str]:
        """What is not as it must be."""
        found: list[str] = []
        named: list[str] = []
        with self.session() as session:
            for doc in session.scalars(select(self.Doc).order_by(self.Doc.id)):
                for column, items in _columns(doc):
                    for item in items:
                        named.append(item.key)
                        found += [f"doc {doc.id}.{column}: {problem}" for problem in _damage(item)]
                        for name, variant in item.variants.items():
                            named.append(variant.key)
                            found += [f"doc {doc.id}.{column}, {name}: {each}" for each in _damage(variant, item)]
            lines = {line.key: line.state for line in session.execute(select(self.ledger.c.key, self.ledger.c.state))}
        found += [f"named twice: {key}" for key in set(named) if named.count(key) > 1]
        owned = {key for key, state in lines.items() if state == OWNED}
        found += [f"named, but {lines.get(key, 'not in the ledger')}: {key}" for key in set(named) - owned]
        found += [f"owned by nobody: {key}" for key in owned - set(named)]
        stored = {key for key, modified in self.storage.keys()}  # noqa: SIM118 - no dict
        found += [
            f"purged, and could be owned again: {key}"
            for key, state in lines.items()
            if state == CONDEMNED and key not in stored
        ]
        if swept:
            found += [f"left {state}: {key}" for key, state in lines.items() if state not in (OWNED, GONE)]
            found += [f"orphaned: {key}" for key in stored - set(named) - {MARKER}]
            found += [f"left over: {name}" for name in self.left_over()]
        return found

    def left_over(self) -> list[str]:
        """What killed puts left in the storage."""
        return [str(path) for path in (self.folder / "files" / ".unfinished").glob("*")]


def _columns(doc: Any) -> Iterator[tuple[str, Sequence[Attachment]]]:
    yield "file", [doc.file] if doc.file else []
    yield "cover", [doc.cover] if doc.cover else []
    yield "pages", doc.pages
    yield "photo", [doc.photo] if doc.photo else []


def _damage(item: Attachment, original: Attachment | None = None) -> Iterator[str]:
    try:
        data = item.read()
    except FileMissing:
        yield f"lost: {item.filename}, {item.key}"
        return
    except FileDamaged as error:
        yield f"damaged: {error}"
        return
    loud = None if original is None else content(original.filename).upper()
    expected = [content(item.filename)] if loud is None else [loud, loud * 2]
    if data not in expected or hashlib.sha256(data).hexdigest() != item.sha256:
        yield f"damaged: {item.filename}, {item.key}"
