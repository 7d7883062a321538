"""Participants: other data managers in a transaction, which fail in a phase: a mail queue, and a file."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any

from repoze.sendmail.delivery import QueuedMailDelivery

from .shelf import Shelf

BEFORE, AFTER = "", "~~~"
"""Sort keys: before and after all others."""
PHASES = ["tpc_begin", "commit", "tpc_vote", "tpc_finish"]


class Fails(Exception):
    """What a participant raises by itself."""


def mail_queue(manager: Any, folder: Path, phase: str, sort: str) -> Callable[[], bool]:
    """repoze.sendmail's queue; in ``tpc_finish`` it is a folder that is gone. Returns whether a mail was queued."""
    queue = folder / "queue"
    message = Message()
    message.set_payload("Hello!")
    QueuedMailDelivery(str(queue), manager).send("a@example.org", ["b@example.org"], message)
    mail = manager.get()._resources[-1]
    mail.sortKey = lambda: sort
    if phase == "tpc_finish":
        vote = mail.tpc_vote

        def tpc_vote(transaction: Any) -> None:
            vote(transaction)
            (queue / "new").rmdir()

        mail.tpc_vote = tpc_vote
    else:

        def fail(transaction: Any) -> None:
            raise Fails(phase)

        setattr(mail, phase, fail)
    return lambda: (queue / "new").exists() and any((queue / "new").iterdir())


def file(manager: Any, folder: Path, phase: str, sort: str) -> Callable[[], bool]:
    """A file that is written in the vote and renamed in ``tpc_finish``. Returns whether it was."""
    shelf = Shelf(folder / "log.json", manager, sort=sort)
    shelf.set("line", "written")

    def at(reached: str) -> None:
        if reached == phase:
            raise Fails(phase)

    shelf.at = at
    return lambda: bool(shelf.committed())


PARTICIPANTS: dict[str, Callable[[Any, Path, str, str], Callable[[], bool]]] = {"mail queue": mail_queue, "file": file}
