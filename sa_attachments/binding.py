"""Binding: what an attachment knows of the column, or the storages, that it belongs to.

It is neither stored nor compared, and is bound again when a value is loaded, set, merged or unpickled.
"""

from __future__ import annotations

from typing import Any, Protocol

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

    def derived(self, attachment: Any, name: str) -> Any:
        """The variant of that name of an attachment that does not hold it. UnknownVariant, VariantMissing."""
        ...

    async def aderived(self, attachment: Any, name: str) -> Any:
        """The same without blocking the event loop."""
        ...
