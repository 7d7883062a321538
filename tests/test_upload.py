"""Upload: what a new attachment is made of."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from types import MappingProxyType

import pytest

from sa_attachments.descriptor import frozen
from sa_attachments.source import BytesSource, PathSource, Source
from sa_attachments.upload import Upload


def test_says_nothing_that_nobody_said() -> None:
    upload = Upload(BytesSource(b"x"))
    assert (upload.filename, upload.claimed_content_type, upload.content_type, upload.storage) == (None,) * 4
    assert (upload.metadata, upload.move, upload.guards) == ({}, False, ())


def test_is_frozen_and_equal_to_nothing_else() -> None:
    upload = Upload(BytesSource(b"x"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        upload.filename = "a"  # type: ignore[misc]
    assert upload != Upload(upload.source)
    assert upload != dataclasses.replace(upload)


@pytest.mark.parametrize("source", [BytesSource(b"x"), PathSource(Path("a"))])
def test_survives_pickling_with_its_metadata_frozen(source: Source) -> None:
    upload = Upload(source, "a.txt", "text/csv", frozen({"a": [1, {"b": 2}]}), "other", True, "text/plain")
    again = pickle.loads(pickle.dumps(upload))
    for field in dataclasses.fields(upload):
        if field.name != "source":
            assert getattr(again, field.name) == getattr(upload, field.name)
    assert isinstance(again.metadata, MappingProxyType)
    assert again.metadata["a"] == (1, {"b": 2})
