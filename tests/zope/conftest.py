"""The fixtures of the scenarios, whose worlds have sessions that zope.sqlalchemy manages here."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

import pytest

from tests import scenarios
from tests.engines import ASYNC_ENGINES
from tests.sampling import leave, take_out
from tests.scenarios.conftest import world  # noqa: F401
from tests.scenarios.world import World

from .sessions import ZopeSession

SCENARIOS = Path(__file__).with_name("test_scenarios.py")
SAMPLE = 4


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


class ScenarioModule(pytest.Module):
    """One module of scenarios, with the fixtures of its own."""

    def _getobj(self) -> ModuleType:
        original = importlib.import_module(f"{scenarios.__name__}.{self.name}")
        copy = ModuleType(original.__name__)  # pytest looks for fixtures only once in each module
        vars(copy).update(vars(original))
        return copy


class Scenarios(pytest.Module):
    def collect(self) -> Iterable[pytest.Collector]:
        for each in sorted(Path(scenarios.__file__ or "").parent.glob("test_*.py")):
            nodeid = f"{self.nodeid}::{each.stem}"
            yield ScenarioModule.from_parent(self, path=self.path, name=each.stem, nodeid=nodeid)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    return Scenarios.from_parent(parent, path=module_path) if module_path == SCENARIOS else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """By default one of ``SAMPLE`` scenarios runs, once: on SQLite or PostgreSQL, with a ``keep_session``, as its name
    picks; the torture runs them all.
    """
    found = [item for item in items if item.path == SCENARIOS]
    take_out(config, items, [item for item in found if not _is_for_zope(item)])
    by_function: dict[str, list[pytest.Item]] = {}
    for item in filter(_is_for_zope, found):
        by_function.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for name, group in by_function.items():
        picked = _picked(name, group) if crc32(name.encode()) % SAMPLE == 1 else None
        leave(item for item in group if item is not picked)


def _is_for_zope(item: pytest.Item) -> bool:
    """Not those of asyncio, of which zope.sqlalchemy knows nothing, nor what it forbids: to prepare a session."""
    parameters = getattr(item, "callspec", None) and item.callspec.params  # type: ignore[attr-defined]
    if not parameters or "world" not in parameters or parameters["world"] in ASYNC_ENGINES:
        return False
    return not str(parameters.get("end")).startswith("prepare")


def _picked(name: str, items: list[pytest.Item]) -> pytest.Item:
    usual = [item for item in items if item.callspec.params["world"] in ("sqlite", "postgres")] or items  # type: ignore[attr-defined]
    return usual[crc32(name.encode()) // SAMPLE % len(usual)]
