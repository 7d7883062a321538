from __future__ import annotations

import pytest
from sqlalchemy import text

from sa_attachments.storages.local import LocalStorage

from .shop import AT_ONCE, Shop


def test_leaves_what_is_young_or_named_alone(shop: Shop) -> None:
    (kept,) = shop.sell(b"named")
    young = shop.lose(b"young")
    result = shop.run("sweep")
    assert result.exit_code == 0
    assert kept.read_bytes() == b"named"
    assert young.read_bytes() == b"young"


def test_purges_what_nobody_will_ever_own(shop: Shop) -> None:
    (kept,) = shop.sell(b"named")
    lost = shop.lose(b"lost")
    swept = shop.json("sweep", *AT_ONCE)
    assert swept["ok"] is True
    (storage,) = swept["storages"]
    numbers = {"listed": 2, "strangers": 1, "skipped": 0, "purged": 1, "failed": 0, "unfinished": 0}
    assert storage.items() >= {"name": "default", "problem": None, **numbers}.items()
    assert not lost.exists()
    assert kept.read_bytes() == b"named"


def test_condemns_first_and_purges_when_the_time_has_come(shop: Shop) -> None:
    lost = shop.lose(b"lost")
    shop.sell(b"named")  # the place is known
    (first,) = shop.json("sweep", "--grace", "0", "--stranger-retain", "1h")["storages"]
    assert (first["strangers"], first["purged"], lost.exists()) == (1, 0, True)
    shop.execute("UPDATE attachment_ledger SET purge_after = 0 WHERE state = 'condemned'")
    (second,) = shop.json("sweep")["storages"]
    assert (second["strangers"], second["purged"], lost.exists()) == (0, 1, False)


def test_looks_again_at_old_files_with_full(shop: Shop) -> None:
    shop.sell(b"named")
    known = "UPDATE attachment_storage SET watermark = 99999999999999"
    shop.execute(known)
    lost = shop.lose(b"lost")
    assert shop.json("sweep", *AT_ONCE)["storages"][0]["listed"] == 0
    shop.execute(known)
    assert shop.json("sweep", "--full", *AT_ONCE)["storages"][0]["purged"] == 1
    assert not lost.exists()


def test_deletes_nothing_in_a_place_of_somebody_else(shop: Shop) -> None:
    shop.sell(b"named")
    lost = shop.lose(b"lost")
    shop.execute("UPDATE attachment_storage SET fingerprint = 'another'")
    result = shop.run("sweep", *AT_ONCE)
    assert result.exit_code == 1
    assert "nothing was deleted" in " ".join(result.stdout.split())
    assert "sa-attachments takeover" in " ".join(result.stdout.split())
    assert lost.exists()
    assert "belongs to another database" in shop.json("sweep", exit_code=1)["storages"][0]["problem"]


def test_leaves_the_rest_to_the_next_one_where_somebody_is_in_the_way(shop: Shop) -> None:
    shop.sell(b"named")
    lost = shop.lose(b"lost")
    with shop.engine.connect() as connection:
        connection.execute(text("UPDATE attachment_storage SET watermark = NULL"))  # a lock, until it is rolled back
        result = shop.run("sweep", *AT_ONCE)
    assert result.exit_code == 0
    assert "default: somebody's transaction was in the way: the next sweep does the rest" in result.stdout
    assert shop.json("sweep", *AT_ONCE)["storages"][0]["waiting"] is False
    assert not lost.exists()


def test_counts_what_could_not_be_deleted(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.sell(b"named")
    shop.lose(b"lost")
    monkeypatch.setattr(LocalStorage, "delete", lambda self, keys: {key: OSError("stuck") for key in keys})
    result = shop.run("sweep", *AT_ONCE)
    assert result.exit_code == 1
    assert "1 could not be deleted; sweep again later" in result.stdout
    monkeypatch.undo()
    assert shop.json("sweep")["storages"][0]["purged"] == 1


def test_says_which_storage_can_not_be_listed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(self: LocalStorage, *_: object) -> None:
        raise OSError("no answer")

    shop.sell(b"named")
    monkeypatch.setattr(LocalStorage, "keys", keys)
    result = shop.run("sweep")
    assert result.exit_code == 1
    assert "storage 'default' failed to list: OSError: no answer" in " ".join(result.output.split())
    assert "OSError: no answer" in str(shop.json("sweep", exit_code=1))


def test_prints_a_table(shop: Shop) -> None:
    shop.sell(b"named")
    header, line = shop.run("sweep", "--grace", "0").stdout.splitlines()
    assert header.split() == ["storage", "listed", "strangers", "skipped", "purged", "failed", "unfinished"]
    assert line.split() == ["default", "1", "0", "0", "0", "0", "0"]


def test_refuses_what_is_no_duration(shop: Shop) -> None:
    result = shop.run("sweep", "--grace", "soon")
    assert result.exit_code == 2
    assert "'soon' is no duration: expected a number and a unit" in result.stderr
    assert "--grace" in result.stderr
