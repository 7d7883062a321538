"""Steps: what a new attachment goes through before it is stored.

A step is any callable that takes a new attachment. A validator returns None, or raises ``Refused``; a transform returns
another new attachment, which is stored instead:

>>> def no_drafts(attachment):
...     if "draft" in attachment.filename:
...         raise ValueError("drafts stay at home")
>>> def shout(attachment):
...     return Attachment.upload(attachment.read().upper(), filename="LOUD.txt")
>>> done = run([no_drafts, shout], Attachment.upload(b"hello", "a.txt", metadata={"lang": "en"}), "Note.file")
>>> done.read(), done.filename, done.content_type, dict(done.metadata)
(b'HELLO', 'LOUD.txt', 'text/plain', {'lang': 'en'})
>>> run([no_drafts], Attachment.upload(b"hello", "draft.txt"), "Note.file")
Traceback (most recent call last):
sa_attachments.errors.Refused: Note.file: drafts stay at home

A step may read the attachment: that reads its source, which can be read again by the steps after it. Steps run in
worker threads, those of several attachments at the same time: as many as the storage takes files, or as there are
processors if a step has a true attribute ``keeps_busy``. What a transform does not say of its result (filename, the
client's claim, metadata) stays as it was; where it is stored was decided before. A file that a transform gives away,
``Attachment.upload(path, move=True)``, is removed when it is not needed any more.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..attachment import Attachment, binding_of, body_of, make
from ..errors import AttachmentError, BadConfiguration, Refused
from ..source import Source
from ..upload import Upload
from .sniffing import HEAD, content_type

A = TypeVar("A", bound=Attachment)
T = TypeVar("T")
R = TypeVar("R")


class Step(Protocol):
    """A validator or a transform."""

    def __call__(self, attachment: Attachment, /) -> Attachment | None:
        """Return None to let ``attachment`` pass, another new one to be stored instead, or raise ``Refused``.

        Its ``content_type`` is what the bytes say; ``filename`` and ``claimed_content_type`` are what the client said.
        Any ValueError is turned into ``Refused``, with the step's name as its rule. After an error nothing is stored.
        """
        ...


def as_steps(steps: Iterable[Step]) -> tuple[Step, ...]:
    """What a column or a recipe is given. Raises BadConfiguration for what is no step, as a class without arguments.

    >>> as_steps([str])
    Traceback (most recent call last):
    sa_attachments.errors.BadConfiguration: the class 'str' is no step: make one of it, as str(...)
    """
    if callable(steps):
        raise BadConfiguration(f"steps are a list, as [{steps!r}]")
    found = tuple(steps)
    for step in found:
        if isinstance(step, type):
            name = step.__name__
            raise BadConfiguration(f"the class {name!r} is no step: make one of it, as {name}(...)")
        if not callable(step):
            raise BadConfiguration(f"{step!r} is no step: expected something to call, as MaxSize(5_000_000)")
    return found


def run(steps: Iterable[Step], attachment: A, label: str) -> A:
    """Find out the type of a new attachment and take it through the steps; the result is to be stored.

    Raises Refused, which names ``label``, and whatever else reading the source or a step raises.
    """
    attachment = _typed(attachment, upload_of(attachment))
    for step in steps:
        attachment = _through(step, attachment, label)
    body = upload_of(attachment)
    if not body.guards:
        return attachment
    guards = tuple(partial(_refusing, guard, label, body.filename, _name(guard)) for guard in body.guards)
    return changed(attachment, guards=guards)


def check(steps: Iterable[Step], attachment: Attachment, label: str) -> None:
    """Run the steps without storing anything; the attachment can be stored afterwards. Raises Refused."""
    checked = run(steps, attachment.copy() if attachment.is_stored else attachment, label)
    if upload_of(checked).guards:
        checked.open().close()  # spools, under the eyes of the guards, what has not been read so far


def _through(step: Step, attachment: A, label: str) -> A:
    result: object = _refusing(step, label, attachment.filename, _name(step), attachment)
    if result is None or result is attachment:
        return attachment
    if not isinstance(result, Attachment) or result.is_stored:
        raise TypeError(f"step {_name(step)} returned {result!r}, expected None or a new attachment")
    before, after = upload_of(attachment), upload_of(result)
    source = _of_a_step(after, before)
    kept = dataclasses.replace(
        after,
        source=source,
        move=before.move if source is before.source else after.move,  # it can't give away what is not its own
        filename=after.filename or before.filename,
        claimed_content_type=after.claimed_content_type or before.claimed_content_type,
        metadata=after.metadata or before.metadata,
        storage=before.storage,
    )
    return _typed(make(type(attachment), kept, binding_of(attachment)), kept)


def _of_a_step(after: Upload, before: Upload) -> Source:
    """The source of a step's result. A file that the step gave away is removed when nothing reads it any more: after a
    rollback the steps make another one.
    """
    path = after.source.path()
    if path is not None and path == before.source.path():
        return before.source
    if path is not None and after.move:
        weakref.finalize(after.source, _remove, path)
    return after.source


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _typed(attachment: A, body: Upload) -> A:
    if body.content_type is not None:
        return attachment
    found = content_type(body.source.head(HEAD), body.filename, body.claimed_content_type)
    return make(type(attachment), body.typed(found), binding_of(attachment))


def upload_of(attachment: Attachment) -> Upload:
    """What a new attachment is. TypeError if it is stored."""
    body = body_of(attachment)
    if not isinstance(body, Upload):
        raise TypeError(f"{attachment!r} is stored already: steps are for new attachments")
    return body


def changed(attachment: A, **fields: Any) -> A:
    """A new attachment with other fields of its upload."""
    return make(type(attachment), dataclasses.replace(upload_of(attachment), **fields), binding_of(attachment))


def _refusing(check: Callable[[T], R], label: str, filename: str | None, rule: str, value: T) -> R:
    try:
        return check(value)
    except Refused as refused:
        refused.target, refused.filename = refused.target or label, refused.filename or filename
        raise
    except AttachmentError:
        raise
    except ValueError as error:
        refusal = Refused(str(error) or type(error).__name__, rule=rule)
        refusal.target, refusal.filename = label, filename
        raise refusal from error


def _name(step: Callable[..., object]) -> str:
    while isinstance(step, partial):
        step = step.func
    return getattr(step, "__name__", None) or type(step).__name__
