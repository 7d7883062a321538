"""The fixtures of the scenarios, whose worlds have two-phase sessions here."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import pytest
from sqlalchemy.orm import Session

from tests.engines import MARIADB
from tests.sampling import leave, take_out
from tests.scenarios.conftest import pytest_pyfunc_call, world
from tests.scenarios.test_engines_in_sessions import binds, pair
from tests.scenarios.test_given_paths import folders, path
from tests.scenarios.test_settling import storage
from tests.scenarios.world import World

__all__ = ["binds", "folders", "pair", "path", "pytest_pyfunc_call", "storage", "world"]

DATABASES = ["postgres", "asyncpg", *(["mariadb"] if MARIADB else [])]
"""Those of the scenarios that know two phases, by a driver that does."""
SAMPLE = 16
"""By default, one of so many scenarios is run."""
ELSEWHERE = {
    "autocommit__the_session_can_be_used_afterwards": "a connection in AUTOCOMMIT begins no two-phase transaction",
    "binds__": "SQLite, which follows there, knows no two phases",
    "hooks_after_commit__": "they make a world of their own",
    "given_paths__it_stays_where_the_server_rolled_back_silently": "test_outcomes: it is not silent here",
    "concurrent__a_deadlock_rolls_back_on_the_server_and_the_application_goes_on": "XA goes on with nothing",
    "queries__a_statement_is_compiled_once": "those of XA are in the same cache",
    "retries__the_same_object_after_the_server_rolled_back_silently": "test_outcomes: it is not silent here",
    "transactions__a_commit_that_the_database_refuses_deletes_what_was_stored": "test_outcomes: it refuses to prepare",
    "transactions__a_commit_that_the_server_turns_into_a_rollback": "test_outcomes: it refuses to prepare",
    "transactions__a_lost_acknowledgement_of_commit_loses_no_file": "test_outcomes: there are two to be lost",
    "transactions__a_commit_in_raw_sql_is_believed": "no statement may end a two-phase transaction",
}
"""What is another thing with two phases, by the beginnings of names."""


class TwoPhaseWorld(World):
    def session(self, **options: Any) -> Session:
        return Session(self.engine, **{"twophase": True, **options})


@pytest.fixture
def world_class() -> type[World]:
    return TwoPhaseWorld


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """By default some of the scenarios run, on PostgreSQL; the torture runs them all, wherever there are two phases."""
    scenarios = [
        item for item in items if item.path.parent.name == "twophase" and item.path.name == "test_scenarios.py"
    ]
    take_out(config, items, [item for item in scenarios if not _is_possible(item)])
    leave(item for item in scenarios if _is_possible(item) and not _is_in_sample(item))


def _is_possible(item: pytest.Item) -> bool:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    here = not item.name.removeprefix("test_").startswith(tuple(ELSEWHERE))
    return here and parameters.get("world") in DATABASES


def _is_in_sample(item: pytest.Item) -> bool:
    on_postgres = item.callspec.params["world"] == "postgres"  # type: ignore[attr-defined]
    return on_postgres and crc32(item.name.encode()) % SAMPLE == 0
