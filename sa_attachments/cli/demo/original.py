"""Original: a file that the demo stores, and what its bytes are, so that all that is stored can be compared with it.

>>> with ExitStack() as stack:
...     [original.name for original in packaged(stack)]
['invoice.pdf', 'lighthouse.png', 'logbook.md']
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from sa_attachments.cli.failure import Failure
from sa_attachments.filename import clean


@dataclass(frozen=True, slots=True)
class Original:
    """A file to store; ``name`` is what it is shown as."""

    path: Path
    name: str
    size: int
    sha256: str


def of(path: Path) -> Original:
    """The original at a path. Raises Failure if that is no regular file that can be read."""
    path = path.absolute()
    try:
        if path.is_dir():
            raise Failure(f"{str(path)!r} is a directory, expected a file")
        if path.exists() and not path.is_file():
            raise Failure(f"{str(path)!r} is no regular file, and may never end")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return Original(path, clean(path.name), file.tell(), digest)
    except FileNotFoundError as error:
        raise Failure(f"there is no file {str(path)!r}") from error
    except (OSError, ValueError) as error:  # not readable, too long a name, a NUL in it
        why = error.strerror if isinstance(error, OSError) else error
        raise Failure(f"{str(path)!r} can't be read: {why}") from error


def packaged(stack: ExitStack) -> list[Original]:
    """The files that the package brings; they are there until ``stack`` is closed."""
    samples = resources.files("sa_attachments") / "samples"
    names = sorted((each for each in samples.iterdir() if each.is_file()), key=lambda each: each.name)
    return [of(stack.enter_context(resources.as_file(each))) for each in names]


def other_than(first: Original, originals: Sequence[Original]) -> Original:
    """One with other bytes, to replace the first one by."""
    return next((each for each in originals if each.sha256 != first.sha256), first)
