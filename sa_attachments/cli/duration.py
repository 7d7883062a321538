"""Duration: a length of time as people write it on a command line.

>>> [str(parse(text)) for text in ("90s", "24h", "1d12h", "0")]
['0:01:30', '1 day, 0:00:00', '1 day, 12:00:00', '0:00:00']
>>> parse("7 days")
Traceback (most recent call last):
ValueError: '7 days' is no duration: expected a number and a unit, as 30s, 15m, 24h, 7d or 1d12h
"""

from __future__ import annotations

import re
from datetime import timedelta

import click

_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ms|[smhdw])")

LONGEST = timedelta(days=36_500)
"""What is longer is a mistake, and beyond what databases can subtract from their clocks."""


def parse(text: str) -> timedelta:
    """ValueError if it is none, or longer than 100 years."""
    written = text.strip().lower()
    if written == "0":
        return timedelta(0)
    if not re.fullmatch(f"(?:{_PART.pattern})+", written):
        raise ValueError(f"{text!r} is no duration: expected a number and a unit, as 30s, 15m, 24h, 7d or 1d12h")
    try:
        total = sum((float(number) * _UNITS[unit] for number, unit in _PART.findall(written)), timedelta(0))
    except OverflowError:
        total = timedelta.max
    if total > LONGEST:
        raise ValueError(f"{text!r} is longer than {LONGEST.days}d")
    return total


def given(ctx: click.Context, param: click.Parameter, value: str | None) -> timedelta | None:
    """The callback of an option that is a duration."""
    try:
        return None if value is None else parse(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error
