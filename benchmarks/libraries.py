"""Contests with other libraries that keep files in a folder of this machine, as far as they are here: DEPOT,
sqlalchemy-file and advanced-alchemy.

None of them flushes files to the disk, so neither do ours (``durable=false``) and the floor. DEPOT and sqlalchemy-file
listen to all sessions of the process from when they are imported, those of the other sides too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from contest import Contest, Run
from rows import Automatic, Database
from sqlalchemy import event, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from transactions import compare, delete, insert, replace, roll_back

COUNT = 1000


class Other(Automatic, ABC):
    """A model whose column is that of another library."""

    def __init__(self, folder: Path, database: Database, durable: bool = False) -> None:
        self.root, self.name, self.engine = folder / "files", uuid4().hex, database.engine
        self.root.mkdir()
        column_type = self.column_type()

        class Base(DeclarativeBase):
            pass

        class Doc(Base):
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True)
            title: Mapped[str]
            file: Mapped[Any] = mapped_column(column_type)

        self.base, self.model = Base, Doc

    @abstractmethod
    def column_type(self) -> Any:
        """That of the column, with a storage of its own in ``root``."""

    @abstractmethod
    def file(self, data: bytes, name: str) -> Any:
        """What is assigned."""

    def new(self, number: int, data: bytes) -> Any:
        return self.model(title=f"photo {number}", file=self.file(data, f"photo-{number}.jpg"))

    def replace(self, row: Any, data: bytes) -> None:
        row.file = self.file(data, "other.jpg")

    def finish(self, run: Run) -> None:
        """Each row has a file."""
        with Session(self.engine) as session:
            rows = session.scalar(select(func.count()).select_from(self.model))
        there = sum(1 for path in self.root.rglob("*") if path.is_file() and "json" not in path.name)
        assert there == rows, f"{there} files and {rows} rows"


def others() -> Mapping[str, Callable[..., Other]]:
    """Those that are here, by name."""
    known = {
        "DEPOT": ("depot", Depot),
        "sqlalchemy-file": ("sqlalchemy_file", SqlalchemyFile),
        "advanced-alchemy": ("advanced_alchemy", AdvancedAlchemy),
    }
    return {name: make for name, (module, make) in known.items() if find_spec(module) is not None}


def contests(rounds: int, where: Path | None, scale: float = 1.0) -> Iterable[Contest]:
    """The rows of this group."""
    count = max(200, int(COUNT * scale))
    for work in (insert, replace, delete, roll_back):
        contest = Contest(f"{work.__name__.replace('_', ' ')}, beside other libraries", f"{count:,} × 10 KB")
        yield compare(work, count, contest, rounds, where, durable=False, beside=others())


class Depot(Other):
    def column_type(self) -> Any:
        from depot.fields.sqlalchemy import UploadedFileField
        from depot.manager import DepotManager

        DepotManager.configure(self.name, {"depot.storage_path": str(self.root)})
        return UploadedFileField(upload_storage=self.name)

    def file(self, data: bytes, name: str) -> Any:
        from depot.io.utils import FileIntent

        return FileIntent(data, name, "image/jpeg")


class SqlalchemyFile(Other):
    def column_type(self) -> Any:
        from libcloud.storage.drivers.local import LocalStorageDriver
        from sqlalchemy_file import FileField
        from sqlalchemy_file.storage import StorageManager

        StorageManager.add_storage(self.name, LocalStorageDriver(str(self.root.parent)).get_container(self.root.name))
        return FileField(upload_storage=self.name)

    def file(self, data: bytes, name: str) -> Any:
        from sqlalchemy_file import File

        return File(content=data, filename=name, content_type="image/jpeg")


class AdvancedAlchemy(Other):
    _HEARD = ("before_flush", "after_commit", "after_rollback")

    def column_type(self) -> Any:
        from advanced_alchemy._listeners import SyncFileObjectListener
        from advanced_alchemy.types.file_object import StoredObject, storages
        from advanced_alchemy.types.file_object.backends.obstore import ObstoreBackend
        from obstore.store import LocalStore

        # As its own configuration does to its sessions.
        self._heard = [(name, getattr(SyncFileObjectListener, name)) for name in self._HEARD]
        for name, listener in self._heard:
            event.listen(Session, name, listener)
        storages.register_backend(ObstoreBackend(key=self.name, fs=LocalStore(str(self.root))))
        return StoredObject(backend=self.name)

    def file(self, data: bytes, name: str) -> Any:
        from advanced_alchemy.types.file_object import FileObject

        return FileObject(backend=self.name, filename=f"{uuid4().hex}-{name}", content=data)

    def finish(self, run: Run) -> None:
        for name, listener in self._heard:
            event.remove(Session, name, listener)
        super().finish(run)
