"""The fixtures of the scenarios, whose worlds have sessions that zope.sqlalchemy manages here."""

from __future__ import annotations

import os
from typing import Any
from zlib import crc32

import pytest

from tests.engines import ASYNC_ENGINES
from tests.scenarios.conftest import world  # noqa: F401
from tests.scenarios.test_binds import follower  # noqa: F401
from tests.scenarios.test_given_paths import path  # noqa: F401
from tests.scenarios.test_settling import storage  # noqa: F401
from tests.scenarios.world import World

from .sessions import ZopeSession


class ZopeWorld(World):
    keep_session = True

    def session(self, **options: Any) -> ZopeSession:
        return ZopeSession(self.engine, keep_session=self.keep_session, **options)


class ClosingWorld(ZopeWorld):
    """zope.sqlalchemy closes its sessions when a transaction ended."""

    keep_session = False


@pytest.fixture(params=[ZopeWorld, ClosingWorld], ids=["kept", "closed"])
def world_class(request: pytest.FixtureRequest) -> type[ZopeWorld]:
    chosen: type[ZopeWorld] = request.param
    return chosen


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """By default each scenario runs once, on SQLite or PostgreSQL and with a ``keep_session`` as its name picks; the
    torture runs them all.
    """
    is_whole = os.environ.get("SA_ATTACHMENTS_TORTURE") == "1"
    scenarios = [item for item in items if item.path.name == "test_scenarios.py" and item.path.parent.name == "zope"]
    possible = [item for item in scenarios if _is_for_zope(item)]
    by_function: dict[str, list[pytest.Item]] = {}
    for item in possible:
        by_function.setdefault(item.name.partition("[")[0], []).append(item)
    picked = possible if is_whole else [_picked(name, group) for name, group in by_function.items()]
    chosen = set(map(id, picked))
    left_out = [item for item in scenarios if id(item) not in chosen]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(map(id, left_out))
        items[:] = [item for item in items if id(item) not in gone]


def _is_for_zope(item: pytest.Item) -> bool:
    """Not those of asyncio, of which zope.sqlalchemy knows nothing, nor what it forbids: to prepare a session."""
    parameters = getattr(item, "callspec", None) and item.callspec.params  # type: ignore[attr-defined]
    if not parameters or "world" not in parameters or parameters["world"] in ASYNC_ENGINES:
        return False
    return not str(parameters.get("end")).startswith("prepare")


def _picked(name: str, items: list[pytest.Item]) -> pytest.Item:
    usual = [item for item in items if item.callspec.params["world"] in ("sqlite", "postgres")] or items  # type: ignore[attr-defined]
    return usual[crc32(name.encode()) % len(usual)]
