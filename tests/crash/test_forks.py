"""A process forks after it has used attachments, as pre-forking servers do: parent and children don't get in each
other's way.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from .application import Application
from .forks import ForkServer


def test_forked_children_mint_different_keys() -> None:
    with ForkServer() as server:
        server.prepare("tests.crash.scenes:keys", 10)
        minted = [key for _ in range(5) for key in server.run("tests.crash.scenes:keys", 1000).result]
    assert len(set(minted)) == 5000


@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)
def test_a_child_cleans_although_its_parent_hangs(engine: Engine, tmp_path: Path) -> None:
    """The parent's worker thread does not exist in the child, which starts its own."""
    app = Application(engine, tmp_path)
    app.create()
    url = engine.url.render_as_string(hide_password=False)
    with ForkServer() as server:
        server.prepare("tests.crash.scenes:hang", url, str(tmp_path))
        for child in (1, 2):
            assert server.run("tests.crash.scenes:replace_in_child", child).result == 1
            assert app.state()[f"{child}.file"] == ["new"]
    # The parent never finished; what it had begun, a sweep does.
    assert app.sweep()["default"].purged == 1
    assert app.problems(swept=True) == []
