from __future__ import annotations

from datetime import timedelta

import pytest

from sa_attachments.cli.duration import LONGEST, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", timedelta(0)),
        ("250ms", timedelta(milliseconds=250)),
        ("1.5h", timedelta(minutes=90)),
        (" 2W1D ", timedelta(days=15)),
        ("1h30m", timedelta(minutes=90)),
        ("36500d", LONGEST),
    ],
)
def test_is_read(text: str, expected: timedelta) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1", "h", "-1h", "1 h", "1y", "1h,2m", "٣h", "1e3s", "9" * 5000 + "d", "1h" * 5000 + "x"]
)
def test_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration: expected a number and a unit"):
        parse(text)


@pytest.mark.parametrize("text", ["36501d", "999999999999w", "9999999999w" * 50])
def test_is_too_long(text: str) -> None:
    with pytest.raises(ValueError, match="is longer than 36500d"):
        parse(text)
