"""The Alembic side of sa_attachments: migrations of tables that hold attachments.

It is an Alembic plugin (entry point ``alembic.plugins``), so that with the package installed migrations have the
operations, and ``alembic revision --autogenerate`` renders attachment columns as plain JSON:

    sa.Column("avatar", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=True)

Traps
-----
Alembic before 1.18 knows no plugins: write ``import alembic_ext`` in ``env.py`` there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from . import adoption

__all__ = ["setup"]

_PARTS: tuple[Any, ...] = (adoption,)
_done: list[bool] = []


def setup(plugin: Any) -> None:
    """What Alembic calls with its ``Plugin`` when it is imported."""
    _register()


def _register() -> None:
    """Tell Alembic of the operations; once."""
    if not _done:
        _done.append(True)
        for part in _PARTS:
            part.register()


class _Plugin(ModuleType):
    """This module, as Alembic 1.18.0 to 1.20.0 want it too: they iterate over what an entry point names."""

    def __iter__(self) -> Iterator[ModuleType]:
        return iter([self])


sys.modules[__name__].__class__ = _Plugin

_register()
