"""Binding: what an attachment knows of the column, or the storages, that it belongs to.

It is neither stored nor compared, and is bound again when a value is loaded, set, merged or unpickled.
"""

from __future__ import annotations

from typing import Protocol

from .storage import Storage


class Binding(Protocol):
    """What an attachment needs to know of the column, or the storages, that it belongs to."""

    @property
    def label(self) -> str:
        """For messages: ``"users.avatar"``."""
        ...

    def resolve(self, name: str) -> Storage:
        """The storage of that name; UnknownStorage if there is none."""
        ...
