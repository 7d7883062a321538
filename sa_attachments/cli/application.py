"""Application: the ``Storages`` that a command takes care of, the models that use it, and the database of their rows.

Modules are imported as ``flask`` and ``uvicorn`` do it, with the working directory on the path:

>>> found("sa_attachments.cli.demo.documents:files")
Storages({'default': '<LocalStorage>'})
>>> found("sa_attachments.cli.demo.documents:file")
Traceback (most recent call last):
sa_attachments.cli.failure.Failure: 'sa_attachments.cli.demo.documents' has no 'file'; that module has 'files'

Traps
-----
``verify`` can tell only of mapped columns whether a row names a file: import all models. Nothing is lost otherwise:
what nobody here knows is left alone. What the application prints goes to standard error: the answer is the only thing
on standard output.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import update_wrapper
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import click
from sqlalchemy import Engine

from sa_attachments import Storages
from sa_attachments.errors import listing

from . import configuration
from .database import Database
from .failure import Failure, one_line

T = TypeVar("T")

_DOTTED = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"


class Application:
    """What the options, the environment or ``pyproject.toml`` name."""

    def __init__(self, files: Storages, database: Database) -> None:
        self.files = files
        self.database = database

    @classmethod
    def of(cls, storages: str | None, database: str | None, imports: Sequence[str]) -> Application:
        """Import and open what is named. Raises Failure."""
        here = Path.cwd()
        table = configuration.read(here)
        storages = storages or table.storages
        if not storages:
            raise Failure(_missing("storages", "myapp.files:files"))
        if not (database or table.database):
            raise Failure(_missing("database", "postgresql+psycopg:///app"))
        for folder in (table.folder, here):
            if folder is not None and str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
        files = found(storages)
        for name in imports or table.imports:
            imported(name)
        if not files.names() and not files.patterns():
            raise Failure(
                f"{storages!r} has no storages yet: name the module that calls its configure() by --import (or under "
                "import in pyproject.toml)"
            )
        application = cls(
            files, Database(database) if database else Database(table.database or "", table.folder or here)
        )
        if not files.ledgers():
            application.require_columns()
        return application

    def require_columns(self) -> None:
        """Raises Failure if no mapped column uses the storages, as when the models were not imported."""
        if not self.files.columns:
            raise Failure(
                "no mapped column uses these Storages: name the modules with the models by --import (or under import "
                "in pyproject.toml)"
            )

    def run(self, work: Callable[[Engine], T]) -> T:
        """What ``work`` returns. Raises Failure, and LedgerMissing if the database has none."""

        def checked(engine: Engine) -> T:
            with engine.connect() as connection:
                for ledger in self.files.ledgers():
                    ledger.require(connection)
            return work(engine)

        with redirect_stdout(sys.stderr), _io():
            return self.database.run(checked)


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name the application, and the application as its first argument."""

    def run(*, storages: str | None, database: str | None, imports: tuple[str, ...], **others: Any) -> Any:
        with _io():
            application = Application.of(storages, database, imports)
        return command(application, **others)

    for decorate in (
        click.option(
            "--import",
            "imports",
            metavar="MODULE",
            multiple=True,
            envvar="SA_ATTACHMENTS_IMPORT",
            show_envvar=True,
            help="Import this module too: that with the models, or that calls configure(). May be repeated; the "
            "variable takes several, separated by blanks. Default: import in pyproject.toml.",
        ),
        click.option(
            "--database",
            metavar="URL",
            envvar="SA_ATTACHMENTS_DATABASE",
            show_envvar=True,
            help="SQLAlchemy's URL of the rows' database, with any driver. Default: database in pyproject.toml.",
        ),
        click.option(
            "--storages",
            metavar="MODULE:NAME",
            envvar="SA_ATTACHMENTS_STORAGES",
            show_envvar=True,
            help="The Storages, as myapp.files:files. Default: storages in pyproject.toml, [tool.sa_attachments].",
        ),
    ):
        run = decorate(run)
    return update_wrapper(run, command)


def found(storages: str) -> Storages:
    """The ``Storages`` at ``module:name``. Raises Failure."""
    module_name, _, path = storages.partition(":")
    if not re.fullmatch(f"{_DOTTED}:{_DOTTED}", storages):
        raise Failure(f"{storages!r} names no Storages: expected module:name, as 'myapp.files:files'")
    module = imported(module_name)
    value: Any = module
    try:
        with redirect_stdout(sys.stderr):
            for name in path.split("."):
                if not hasattr(value, name):
                    raise Failure(f"{module_name!r} has no {path!r}; {_there(module)}")
                value = getattr(value, name)
            if isinstance(value, Storages):
                return value
    except Failure:
        raise
    except Exception as error:  # of a module that makes it when it is asked for, or of a proxy of nothing yet
        raise Failure(f"looking for {path!r} in {module_name!r} failed: {_told(error)}") from error
    raise Failure(f"{storages!r} is {type(value).__name__}, expected Storages; {_there(module)}")


def imported(name: str) -> ModuleType:
    """A module of the application. What goes wrong in it is told with its place. Raises Failure."""
    if not re.fullmatch(_DOTTED, name):
        raise Failure(f"{name!r} names no module: expected a dotted name, as 'myapp.models'")
    try:
        with redirect_stdout(sys.stderr):
            return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            here = str(Path.cwd())
            raise Failure(f"there is no module {error.name!r} in {here!r} or among what is installed") from error
        raise Failure(f"importing {name!r} failed: {_told(error)}") from error
    except (Exception, SystemExit) as error:
        raise Failure(f"importing {name!r} failed: {_told(error)}") from error


@contextmanager
def _io() -> Iterator[None]:
    """The system's errors are failures; not those of our own output, which nobody may read."""
    try:
        yield
    except OSError as error:
        raise Failure(str(error) or type(error).__name__) from error


def _told(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {one_line(str(error))}{where}"


def _there(module: ModuleType) -> str:
    # By its type: a proxy of something else, as Flask has them, may raise if it is asked what it is.
    names = [name for name, value in vars(module).items() if issubclass(type(value), Storages)]
    return f"that module has {listing(names)}" if names else "that module has no Storages"


def _missing(what: str, example: str) -> str:
    return (
        f"no {what}: say --{what} {example}, set SA_ATTACHMENTS_{what.upper()}, or put {what} = {example!r} under "
        "[tool.sa_attachments] into pyproject.toml"
    )
