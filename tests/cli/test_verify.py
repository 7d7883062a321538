from __future__ import annotations

import json

import pytest

from sa_attachments.cli import verify

from .shop import AT_ONCE, Shop, run


def test_finds_nothing_where_all_is_well(shop: Shop) -> None:
    shop.sell(b"one", b"two")
    result = shop.run("verify")
    assert result.exit_code == 0
    assert result.stdout == "2 rows, 2 files, 2 lines of the ledger: all is well\n"


def test_finds_a_missing_file(shop: Shop) -> None:
    one, _ = shop.sell(b"one", b"two")
    one.unlink()
    result = shop.run("verify")
    assert result.exit_code == 1
    shown = "".join(result.stdout.split())
    assert "missing" in shown
    assert "products.photo(1,)" in shown
    assert shown.endswith("2rows,2files,2linesoftheledger:1missing")
    found = shop.json("verify", exit_code=1)
    assert (found["ok"], found["rows"], found["counts"]) == (False, 2, {"missing": 1})
    assert found["findings"][0]["key"] == one.relative_to(shop.folder / "files").as_posix()


def test_reads_the_bytes_with_checksums_only(shop: Shop) -> None:
    (one,) = shop.sell(b"one")
    one.write_bytes(b"eno")
    assert shop.run("verify").exit_code == 0
    assert shop.json("verify", "--checksums", exit_code=1)["counts"] == {"damaged": 1}


def test_repairs_what_can_be_repaired(shop: Shop) -> None:
    shop.sell(b"one", b"two")
    shop.execute("DELETE FROM attachment_ledger")
    assert shop.json("verify", exit_code=1)["counts"] == {"unowned": 2}
    result = shop.run("verify", "--repair")
    assert result.exit_code == 0
    assert "unowned, repaired" in result.stdout
    assert shop.run("verify").exit_code == 0


def test_changes_nothing_without_repair(shop: Shop) -> None:
    (one,) = shop.sell(b"one")
    shop.execute("DELETE FROM products")
    assert shop.json("verify", exit_code=1)["counts"] == {"unnamed": 1}
    assert shop.json("sweep", *AT_ONCE)["storages"][0]["purged"] == 0
    assert shop.json("verify", "--repair")["findings"][0]["repaired"] is True
    assert shop.json("sweep", *AT_ONCE)["storages"][0]["purged"] == 1
    assert not one.exists()


def test_prints_some_of_many_findings_and_all_as_json(shop: Shop) -> None:
    shop.sell(*[b"%d" % number for number in range(verify.SHOWN + 3)])
    shop.execute("DELETE FROM attachment_ledger")
    assert "and 3 more; --json lists all" in shop.run("verify").stdout
    assert len(shop.json("verify", exit_code=1)["findings"]) == verify.SHOWN + 3


def test_wants_the_models_even_where_the_ledger_is_given(sqlite_shop: Shop) -> None:
    source = (
        "from sqlalchemy import MetaData; from sa_attachments import Storages\n"
        "files = Storages('memory:', ledger=MetaData())"
    )
    (sqlite_shop.folder / "bare.py").write_text(source)
    database = ["--database", sqlite_shop.url]
    result = run("verify", "--storages", "bare:files", *database, "--json")
    assert result.exit_code == 2
    assert "name the modules with the models by --import" in json.loads(result.stdout)["error"]
    assert run("stats", "--storages", "bare:files", *database).exit_code == 0


def test_tells_of_models_that_were_not_imported(shop: Shop) -> None:
    shop.sell(b"one", b"three")
    shop.execute("CREATE TABLE orders (scan TEXT)")
    shop.execute("UPDATE attachment_ledger SET owner_table = 'orders', owner_column = 'scan' WHERE size = 5")
    shop.execute("DELETE FROM products WHERE id = 2")
    result = shop.run("verify", "--repair")
    assert result.exit_code == 1
    assert "orders.scan: not compared, as it is not mapped here; the ledger has 1 files of it" in result.stdout
    assert "by --import" in result.stdout
    assert shop.json("verify", exit_code=1)["unmapped"] == {"orders.scan": 1}


def test_tells_of_tables_that_were_dropped(shop: Shop) -> None:
    (one,) = shop.sell(b"one")
    shop.execute("DROP TABLE products")
    result = shop.run("verify")
    assert result.exit_code == 1
    assert "ledger, for products.photo, which is not in the database" in result.stdout
    assert shop.json("verify", exit_code=1)["counts"] == {"ownerless": 1}
    assert shop.json("verify", "--repair")["findings"][0]["repaired"] is True
    assert shop.json("sweep", *AT_ONCE)["storages"][0]["purged"] == 1
    assert not one.exists()


def test_tells_of_rows_that_may_be_hidden(shop: Shop) -> None:
    (one,) = shop.sell(b"one")
    shop.execute("ALTER TABLE products RENAME TO all_products")
    shop.execute("CREATE VIEW products AS SELECT * FROM all_products WHERE id > 1")
    result = shop.run("verify", "--repair")
    assert result.exit_code == 1
    assert "products.photo: nobody can tell whether rows name all of its files, as" in result.stdout
    assert shop.json("verify", exit_code=1)["counts"] == {}
    shop.json("sweep", *AT_ONCE)
    assert one.exists()


def test_tells_of_a_place_of_somebody_else(shop: Shop) -> None:
    shop.sell(b"one")
    shop.execute("UPDATE attachment_storage SET fingerprint = 'another'")
    result = shop.run("verify")
    assert result.exit_code == 1
    assert "default: the place of storage 'default' belongs to another database" in result.stdout
    assert result.stderr == ""
    assert "sa-attachments takeover" in shop.json("verify", exit_code=1)["problems"]["default"]


def test_tries_out_storages(shop: Shop) -> None:
    result = shop.run("verify", "--probe")
    assert (result.exit_code, result.stdout) == (0, "default: works\n")
    shop.module.files.configure({"default": "memory:", "photos": "nonsense:x"})
    result = shop.run("verify", "--probe")
    assert result.exit_code == 1
    assert "default: works\nphotos: storage 'photos': there is no backend 'nonsense'" in result.stdout
    assert list(shop.json("verify", "--probe", exit_code=1)["problems"]) == ["photos"]


@pytest.mark.parametrize("option", ["--repair", "--checksums"])
def test_what_tries_out_storages_neither_repairs_nor_reads_files(sqlite_shop: Shop, option: str) -> None:
    sqlite_shop.sell(b"one")
    sqlite_shop.execute("DELETE FROM attachment_ledger")
    result = sqlite_shop.run("verify", option, "--probe")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--probe compares nothing: leave out --repair and --checksums" in result.stderr
