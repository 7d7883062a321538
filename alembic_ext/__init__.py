"""The Alembic side of sa_attachments: migrations of tables that hold attachments.

It is an Alembic plugin (entry point ``alembic.plugins``): with the package installed, migrations have the operations,
and ``alembic revision --autogenerate`` renders attachment columns as plain JSON. One line in ``env.py`` lets it see to
the triggers, too:

    context.configure(..., autogenerate_plugins=["alembic.autogenerate.*", "sa_attachments"])

See ``docs/migrations.md``. Alembic before 1.18 knows no plugins: ``import alembic_ext`` in ``env.py`` is all there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
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


class _WithoutPlugins:
    """What Alembic before 1.18 has instead: comparators that are always on."""

    def add_autogenerate_comparator(self, compare: Callable[[Any, Any], None], target: str, **options: Any) -> None:
        comparators: Any = import_module("alembic.autogenerate").comparators

        def compare_schema(autogen_context: Any, upgrade_ops: Any, schemas: Any) -> None:
            compare(autogen_context, upgrade_ops)

        comparators.dispatch_for("schema")(compare_schema)


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
if find_spec("alembic.runtime.plugins") is None:
    setup(_WithoutPlugins())
