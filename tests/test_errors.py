"""Errors carry their evidence, are builtins that callers already catch, and survive being sent to another process."""

from __future__ import annotations

import copy
import pickle

import pytest

from sa_attachments import errors
from sa_attachments.errors import AttachmentError, Refused, StorageFailed, VariantFailed, listing

ERRORS = [
    error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, AttachmentError) and error is not AttachmentError
]
BUILTINS: dict[str, tuple[type[Exception], ...]] = {
    "BadSource": (TypeError, ValueError),
    "Refused": (ValueError,),
    "NotStored": (ValueError,),
    "SourceConsumed": (ValueError,),
    "FileMissing": (FileNotFoundError,),
    "FileDamaged": (OSError,),
    "UnknownStorage": (LookupError,),
    "BadConfiguration": (ValueError,),
    "MissingExtra": (ImportError,),
    "StorageFailed": (OSError,),
    "OwnershipLost": (AttachmentError,),
    "NoTransaction": (AttachmentError,),
    "LedgerMissing": (AttachmentError,),
    "NoUrl": (AttachmentError,),
    "DescriptorDamaged": (ValueError,),
    "AdoptionFailed": (ValueError,),
    "UnknownVariant": (LookupError,),
    "VariantMissing": (LookupError,),
    "VariantFailed": (LookupError,),
}


def made(error: type[AttachmentError]) -> AttachmentError:
    if error is Refused:
        return Refused("too large", rule="MaxSize", limit=10, measured=11)
    if error is StorageFailed:
        return StorageFailed("no answer", storage="avatars", operation="put", key="k")
    if error is VariantFailed:
        return VariantFailed("it failed", variant="thumb", reason="ValueError: no picture")
    return error("what happened")


@pytest.mark.parametrize("error", ERRORS)
def test_is_also_the_builtin_that_callers_catch(error: type[AttachmentError]) -> None:
    for builtin in BUILTINS[error.__name__]:
        with pytest.raises(builtin):
            raise made(error)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_survives_with_its_message_and_evidence(error: type[AttachmentError], again: object) -> None:
    first = made(error)
    second = again(first)  # type: ignore[operator]
    assert type(second) is error
    assert str(second) == str(first)
    assert vars(second) == vars(first)


def test_refused_names_the_attribute_once_it_is_known() -> None:
    refused = Refused("too large", rule="MaxSize", limit=10, measured=11)
    assert str(refused) == "too large"
    refused.target = "User.avatar"
    assert (str(refused), refused.reason) == ("User.avatar: too large", "too large")
    assert (refused.rule, refused.limit, refused.measured) == ("MaxSize", 10, 11)


def test_storage_failed_says_where_and_what() -> None:
    failed = StorageFailed("no answer", storage="avatars", operation="put", key="k")
    assert (failed.storage, failed.operation, failed.key, str(failed)) == ("avatars", "put", "k", "no answer")


@pytest.mark.parametrize(("names", "expected"), [((), "none"), (("b", "a"), "'a', 'b'")])
def test_listing(names: tuple[str, ...], expected: str) -> None:
    assert listing(names) == expected
