"""The plugin, as any Alembic finds it, whoever is imported first."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import pytest
from alembic.autogenerate import comparators
from alembic.operations import BatchOperations, Operations
from alembic.runtime.plugins import _all_plugins

import alembic_ext

NAMES = [f"{verb}_attachment_{what}" for verb in ("create", "drop") for what in ("ledger", "triggers", "index")]


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)


def test_the_entry_point_is_a_module_and_a_list_of_it() -> None:
    """Alembic 1.18.0 to 1.20.0 iterate over it, later ones warn of what is no module."""
    (entry_point,) = [each for each in entry_points(group="alembic.plugins") if each.name == "sa_attachments"]
    loaded = entry_point.load()
    assert isinstance(loaded, ModuleType)
    assert list(loaded) == [alembic_ext]  # type: ignore[call-overload]


def test_alembic_has_the_operations() -> None:
    assert "sa_attachments" in _all_plugins
    assert all(hasattr(Operations, name) for name in NAMES)
    assert all(hasattr(BatchOperations, name) for name in NAMES if "ledger" not in name)
    for name in [*NAMES, "adopt_blob_column", "restore_blob_column"]:
        assert "proxied" not in getattr(Operations, name).__doc__


@pytest.mark.parametrize("first", ["alembic.config", "alembic_ext.triggers"])
def test_it_does_not_matter_who_is_imported_first(first: str) -> None:
    done = python(f"import {first}; from alembic import op; print(op.create_attachment_ledger.__name__)")
    assert (done.stdout, done.stderr) == ("create_attachment_ledger\n", "")


def test_without_alembic_the_extra_is_named() -> None:
    program = "import sys; sys.modules['alembic'] = None; import alembic_ext"
    assert "MissingExtra: alembic_ext needs Alembic: pip install 'sa-attachments[alembic]'" in python(program).stderr


def test_alembic_without_plugins_compares_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparators, "_registry", defaultdict(list, comparators._registry))
    met: list[Any] = []
    before = dict(comparators._registry)
    alembic_ext._WithoutPlugins().add_autogenerate_comparator(lambda *arguments: met.append(arguments), "autogenerate")
    ((found, _),) = [each for key, group in comparators._registry.items() if key not in before for each in group]
    found("context", "operations", {None})
    assert met == [("context", "operations")]
