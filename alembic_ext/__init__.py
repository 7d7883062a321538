"""The Alembic side of sa_attachments: migrations of tables that hold attachments.

It is an Alembic plugin (entry point ``alembic.plugins``): with the package installed, migrations have the operations,
and ``alembic revision --autogenerate`` renders attachment columns as plain JSON. One line in ``env.py`` lets it see to
the triggers, too:

    context.configure(..., autogenerate_plugins=["alembic.autogenerate.*", "sa_attachments"])

See ``docs/migrations.md``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from sa_attachments.errors import MissingExtra

__all__ = ["setup"]


def setup(plugin: Any) -> None:
    """What Alembic calls with its ``Plugin`` when it is imported."""
    from . import adoption, comparison, indexes, ledger, rendering, triggers

    for part in (rendering, ledger, triggers, indexes, adoption):
        part.register()
    comparison.register(plugin)


class _Plugin(ModuleType):
    """This module, as Alembic 1.18.0 to 1.20.0 want it too: they iterate over what an entry point names."""

    def __iter__(self) -> Iterator[ModuleType]:
        return iter([self])


sys.modules[__name__].__class__ = _Plugin

# Alembic imports us, and we Alembic: it has to be there before one of our modules, whoever is imported first.
try:
    import_module("alembic")
except ModuleNotFoundError as error:
    if error.name != "alembic":
        raise
    raise MissingExtra("alembic_ext needs Alembic: pip install 'sa-attachments[alembic]'") from error
