"""A shop, on each database that commands must work on; and nothing of the surroundings counts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy.engine import URL, make_url

from .shop import Shop


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working directory, no configuration, a terminal of 80 columns without colour."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    for name in ("STORAGES", "DATABASE", "IMPORT"):
        monkeypatch.delenv(f"SA_ATTACHMENTS_{name}", raising=False)
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(params=["sqlite", "postgres"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    yield from _shop(
        tmp_path,
        request.getfixturevalue("postgres_url")
        if request.param == "postgres"
        else make_url(f"sqlite:///{tmp_path}/shop.db"),
    )


@pytest.fixture
def sqlite_shop(tmp_path: Path) -> Iterator[Shop]:
    yield from _shop(tmp_path, make_url(f"sqlite:///{tmp_path}/shop.db"))


def _shop(folder: Path, url: URL) -> Iterator[Shop]:
    sys.path.insert(0, str(folder))
    shop = Shop(folder, f"shop_{uuid4().hex[:8]}", url)
    sys.path.remove(str(folder))  # commands must find it in the working directory
    del sys.modules[shop.name]
    sys.modules[shop.name] = shop.module
    yield shop
    shop.engine.dispose()
