"""Failure: what stops a command, as one line that says what is wrong and what to do; never a traceback.

>>> from sa_attachments import StorageFailed, UnknownStorage
>>> explained(UnknownStorage("there is no storage 'x'")).exit_code
2
>>> explained(StorageFailed("no answer", storage="default", operation="list")).exit_code
1
"""

from __future__ import annotations

import click
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sa_attachments import (
    AttachmentError,
    BadConfiguration,
    LedgerMissing,
    MissingExtra,
    UnknownStorage,
    UnknownVariant,
)

EXIT_CODES = "Exit codes: 0 all is well; 1 something is wrong; 2 it could not do its work."

_NOT_DONE = (BadConfiguration, LedgerMissing, MissingExtra, UnknownStorage, UnknownVariant)


class Failure(click.ClickException):
    """The command could not do its work, and ends with this line."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class Trouble(Failure):
    """The command did its work, and something is wrong."""

    exit_code = 1


def explained(error: AttachmentError | SQLAlchemyError) -> Failure:
    """The failure that a library's error stands for."""
    if isinstance(error, AttachmentError):
        return Failure(str(error)) if isinstance(error, _NOT_DONE) else Trouble(str(error))
    if isinstance(error, DBAPIError) and error.orig is not None:
        # The driver's own words, without the statement, its parameters and SQLAlchemy's link.
        return Failure(f"the database: {one_line(str(error.orig)) or type(error.orig).__name__}")
    return Failure(f"{type(error).__name__}: {error}")


def one_line(text: str) -> str:
    """
    >>> one_line("connection failed\\n  Is the server running?\\n")
    'connection failed Is the server running?'
    """
    return " ".join(text.split())
