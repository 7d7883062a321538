"""Shop: an application of its own folder and module, as a user has it, for commands to be run on."""

from __future__ import annotations

import importlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from sa_attachments import Attachment
from sa_attachments.cli.program import program

SOURCE = """
from datetime import timedelta
from pathlib import Path
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sa_attachments import Attachment, AttachmentType, Storages
from sa_attachments.storages.local import LocalStorage

# On SQLite, what a busy machine does not do in time would be left to a sweep: to make the place this database's, too.
BUSY = timedelta(seconds=5)
files = Storages({"default": LocalStorage(Path(__file__).parent / "files"), "photos": "default"}, budget=BUSY)
nothing = 42

class Base(DeclarativeBase):
    pass

class Product(Base):
    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    photo: Mapped[Attachment] = mapped_column(AttachmentType(files))
"""


class Shop:
    """See the module. ``name`` is that of its module, ``url`` that of its database."""

    def __init__(self, folder: Path, name: str, url: URL) -> None:
        self.folder = folder
        self.name = name
        self.url = url.render_as_string(hide_password=False)
        self.engine: Engine = create_engine(url)
        (folder / f"{name}.py").write_text(SOURCE)
        importlib.invalidate_caches()
        self.module: Any = importlib.import_module(name)
        self.module.Base.metadata.create_all(self.engine)

    @property
    def options(self) -> list[str]:
        return ["--storages", f"{self.name}:files", "--database", self.url]

    def run(self, *arguments: str, **options: Any) -> Result:
        """A command, told by options where the application is."""
        return run(*arguments, *self.options, **options)

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        """What a command prints, as one document."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == exit_code, result.output
        return json.loads(result.stdout)

    def sell(self, *contents: bytes) -> list[Path]:
        """Commit products; returns where their photos lie."""
        with Session(self.engine) as session:
            products = [self.module.Product(photo=Attachment.upload(content)) for content in contents]
            session.add_all(products)
            session.commit()
            keys = [str(product.photo.key) for product in products]
        assert self.module.files.settled(20)
        return [self.folder / "files" / key for key in keys]

    def lose(self, content: bytes) -> Path:
        """Store a file that nobody will ever own."""
        staged = self.module.files.stage(Attachment.upload(content))
        return self.folder / "files" / str(staged.key)

    def execute(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement))


def run(*arguments: str, **options: Any) -> Result:
    """``sa-attachments`` with these arguments; exceptions are the test's."""
    return CliRunner().invoke(program, list(arguments), catch_exceptions=False, **options)


AT_ONCE = ["--grace", "0", "--stranger-retain", "0"]
DAY = timedelta(days=1)
