"""Adoption: operations that turn what other columns hold into attachments."""

from __future__ import annotations


def register() -> None:
    """Tell Alembic of the operations."""
