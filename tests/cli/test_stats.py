from __future__ import annotations

from .shop import Shop


def test_counts_by_storage_and_state(shop: Shop) -> None:
    shop.sell(b"one", b"three")
    shop.execute("UPDATE attachment_ledger SET state = 'condemned', purge_after = 99999999999999 WHERE size = 3")
    shop.execute("UPDATE attachment_ledger SET held = (1 = 1) WHERE size = 5")
    assert shop.json("stats") == {
        "ok": True,
        "stats": [
            {"storage": "default", "state": "condemned", "files": 1, "size": 3, "held": 0},
            {"storage": "default", "state": "owned", "files": 1, "size": 5, "held": 1},
        ],
    }
    header, *lines = shop.run("stats").stdout.splitlines()
    assert header.split() == ["storage", "state", "files", "size", "held"]
    assert [line.split() for line in lines] == [
        ["default", "condemned", "1", "3", "bytes", "0"],
        ["default", "owned", "1", "5", "bytes", "1"],
    ]


def test_says_that_there_is_nothing(shop: Shop) -> None:
    assert shop.run("stats").stdout == "the ledger has no files\n"
    assert shop.json("stats") == {"ok": True, "stats": []}
