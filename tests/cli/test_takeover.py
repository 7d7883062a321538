from __future__ import annotations

import pytest

from .shop import AT_ONCE, Shop


@pytest.fixture
def foreign(shop: Shop) -> Shop:
    """The place of its storage belongs to another database."""
    shop.sell(b"named")
    (shop.folder / "files" / ".sa-attachments-place").write_text("d2a5a5a0-0000-0000-0000-000000000000")
    assert shop.run("sweep").exit_code == 1
    return shop


def test_makes_a_place_this_databases_own(foreign: Shop) -> None:
    lost = foreign.lose(b"lost")
    result = foreign.run("takeover", "--yes")
    assert result.exit_code == 0
    assert "The place of 'default' belongs to" in result.stdout
    assert foreign.run("sweep", *AT_ONCE).exit_code == 0
    assert not lost.exists()


def test_follows_an_alias(foreign: Shop) -> None:
    assert foreign.json("takeover", "photos", "--yes") == {"ok": True, "storage": "default"}
    assert foreign.run("sweep").exit_code == 0


def test_asks_first(foreign: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sa_attachments.cli.takeover._is_answered", lambda: True)
    refused = foreign.run("takeover", input="n\n")
    assert refused.exit_code == 1
    assert foreign.run("sweep").exit_code == 1
    assert "Is no other database using it?" in refused.stderr
    assert foreign.run("takeover", input="y\n").exit_code == 0
    assert foreign.run("sweep").exit_code == 0


def test_does_not_ask_nobody(foreign: Shop) -> None:
    result = foreign.run("takeover")
    assert result.exit_code == 2
    assert "nobody is there to ask: say --yes" in result.stderr
    assert foreign.run("sweep").exit_code == 1


def test_names_the_storages_that_there_are(shop: Shop) -> None:
    result = shop.run("takeover", "avatars", "--yes")
    assert result.exit_code == 2
    assert "there is no storage 'avatars'; configured are 'default', 'photos'" in result.stderr
