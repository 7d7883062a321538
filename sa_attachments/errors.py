"""Everything that sa_attachments raises on its own account.

Each error is an ``AttachmentError``, carries its evidence as attributes, and is also the builtin that a caller would
already catch:

>>> issubclass(FileMissing, FileNotFoundError), issubclass(Refused, ValueError), issubclass(UnknownStorage, LookupError)
(True, True, True)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class AttachmentError(Exception):
    """Base of all errors of this library."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.args, vars(self))


class AttachmentWarning(UserWarning):
    """Something that works, but will not keep every promise until it is mended."""


class BadSource(AttachmentError, TypeError, ValueError):
    """What was assigned can't be read as bytes: text, a closed file, a directory, an object of an unknown kind."""


class Refused(AttachmentError, ValueError):
    """A step did not accept a file; nothing was stored.

    ``reason`` says why, to who uploaded it; the error's text names the attribute, too. ``rule`` names the step,
    ``limit`` what it allows, ``measured`` what it met, ``target`` the attribute, as ``"User.avatar"``, ``filename``
    what the file is called, of several in a list.
    """

    def __init__(self, message: str, *, rule: str, limit: object = None, measured: object = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.limit = limit
        self.measured = measured
        self.target: str | None = None
        self.filename: str | None = None

    @property
    def reason(self) -> str:
        """What was wrong with the file, as "the file has 6,000,000 bytes, allowed are 5,000,000"."""
        return super().__str__()

    def __str__(self) -> str:
        return f"{self.target}: {self.reason}" if self.target else self.reason


class NotStored(AttachmentError, ValueError):
    """A new attachment was asked for something that only a stored one has."""


class SourceConsumed(AttachmentError, ValueError):
    """The source could be read only once, and was: assign a fresh one."""


class FileMissing(AttachmentError, FileNotFoundError):
    """There are no bytes where a file is due."""


class FileDamaged(AttachmentError, OSError):
    """The bytes of a stored file are not those that were stored."""


class UnknownStorage(AttachmentError, LookupError):
    """No storage, or no backend, goes by that name."""


class BadConfiguration(AttachmentError, ValueError):
    """A storage URL, an option or a mapping of storages makes no sense."""


class MissingExtra(AttachmentError, ImportError):
    """An optional dependency is not installed; the message says which extra brings it."""


class StorageFailed(AttachmentError, OSError):
    """A storage could not do what it was asked for; the cause is chained.

    ``storage`` is its name, ``operation`` the verb, ``key`` the file.
    """

    def __init__(self, message: str, *, storage: str, operation: str, key: str | None = None) -> None:
        super().__init__(message)
        self.storage = storage
        self.operation = operation
        self.key = key


class OwnershipLost(AttachmentError):
    """A row may not name this file: it was condemned, purged, or belongs to another row. Upload or copy it again."""


class NoTransaction(AttachmentError):
    """The connection commits by itself after each statement (AUTOCOMMIT), or a table takes part in no transaction
    (MyISAM), so that files can't follow one.
    """


class LedgerMissing(AttachmentError):
    """The table ``attachment_ledger`` does not exist in the database of the rows."""


class AdoptionFailed(AttachmentError, ValueError):
    """Rows stand in the way of an adoption, or of its reverse; ``report`` has them."""

    def __init__(self, message: str, *, report: Any = None) -> None:
        super().__init__(message)
        self.report = report


class NoUrl(AttachmentError):
    """The storage has no address to give."""


class UnknownVariant(AttachmentError, LookupError):
    """The column of an attachment declares no variant of that name."""


class VariantMissing(AttachmentError, LookupError):
    """A variant that is declared is not there, and can't be made here and now; the message says why."""


class VariantFailed(VariantMissing):
    """Making a variant failed; its attachment is fine. It can be made again: ``Storages.make``, or ``rebuild``.

    ``variant`` is its name, ``reason`` what went wrong.
    """

    def __init__(self, message: str, *, variant: str, reason: str) -> None:
        super().__init__(message)
        self.variant = variant
        self.reason = reason


class DescriptorDamaged(AttachmentError, ValueError):
    """A column holds something that does not describe an attachment."""


@contextmanager
def storage_errors(storage: str, operation: str, key: str | None = None) -> Iterator[None]:
    """Failures of a storage become StorageFailed; errors of this library pass."""
    try:
        yield
    except AttachmentError:
        raise
    except Exception as error:
        about = f" {key!r}" if key else ""
        raise StorageFailed(
            f"storage {storage!r} failed to {operation}{about}: {type(error).__name__}: {error}",
            storage=storage,
            operation=operation,
            key=key,
        ) from error


def _again(cls: type[AttachmentError], args: tuple[Any, ...], evidence: dict[str, Any]) -> AttachmentError:
    # Not by calling the class: some take more than the message.
    error = cls.__new__(cls)
    error.args = args
    vars(error).update(evidence)
    return error


def listing(names: Iterable[str]) -> str:
    """Names for a message: sorted, quoted, or ``none``.

    >>> listing(["b", "a"])
    "'a', 'b'"
    """
    return ", ".join(repr(name) for name in sorted(names)) or "none"
