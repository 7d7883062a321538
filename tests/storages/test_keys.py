from __future__ import annotations

import pytest

from sa_attachments.storages import checked, hidden, well_formed
from sa_attachments.testing.put_and_open import MALFORMED, ODD

GOOD = "2023/11/14/22/018bcfe5-687b-7a84-ab7d-1f82365bbd23"


@pytest.mark.parametrize("key", ["a", "a/b", ".place", "a/.b", "a.b/c..d", "...", "a" * 255, GOOD, *ODD])
def test_is_a_key(key: str) -> None:
    assert well_formed(key)
    assert checked(key) is key


@pytest.mark.parametrize(
    "text", [*MALFORMED, "a/", "a\x7fb", "a\tb", "a/b\n", "a" * 256, "../" * 20 + "etc/passwd", "\ud800"]
)
def test_is_no_key(text: str) -> None:
    assert not well_formed(text)
    with pytest.raises(ValueError, match="is not a key"):
        checked(text)


def test_long_texts_are_not_repeated_in_messages() -> None:
    with pytest.raises(ValueError) as raised:
        checked("ä" * 1_000_000)
    assert len(str(raised.value)) < 1000


def test_long_texts_are_refused_quickly() -> None:
    assert not well_formed("a/" * 500_000)
    assert well_formed("a/" * 500_000 + "a")


def test_hidden_is_any_segment_with_a_dot_first() -> None:
    assert [key for key in (".a", "a/.b", "a/.b/c", "a.b", "a/b.c", "a./b") if hidden(key)] == [".a", "a/.b", "a/.b/c"]
