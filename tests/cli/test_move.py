from __future__ import annotations

import pytest

from sa_attachments.storages.local import LocalStorage

from .shop import AT_ONCE, Shop


@pytest.fixture
def two(shop: Shop) -> Shop:
    """A shop with files, whose application knows a second storage since."""
    shop.sell(b"one", b"two", b"three")
    local = LocalStorage(shop.folder / "files")
    shop.module.files.configure({"default": local, "photos": "default", "new": LocalStorage(shop.folder / "new")})
    return shop


def test_moves_files(two: Shop) -> None:
    report = two.json("move", "--from", "default", "--to", "new", "--retain", "0")
    expected = {"ok": True, "dry_run": False, "rows": 3, "files": 3, "size": 11}
    assert report == {**expected, "overtaken": 0, "busy": 0, "failed": []}
    assert two.json("sweep", *AT_ONCE)["ok"]
    assert two.json("verify")["ok"]
    assert sorted(path.name[0] for path in two.folder.joinpath("files").rglob("*") if path.is_file()) == ["."]
    assert [line["storage"] for line in two.json("stats")["stats"]] == ["new"]


def test_keeps_the_source_for_a_week(two: Shop) -> None:
    result = two.run("move", "--from", "photos", "--to", "new")
    assert result.exit_code == 0
    assert result.stdout == "moved 3 files (11 bytes) of 3 rows from 'photos' to 'new'\n"
    two.json("sweep", *AT_ONCE)
    assert len([path for path in two.folder.joinpath("files", "20*").parent.rglob("*") if path.is_file()]) == 4


def test_counts_only_in_a_dry_run(two: Shop) -> None:
    result = two.run("move", "--from", "default", "--to", "new", "--dry-run")
    assert result.stdout == "would move 3 files (11 bytes) of 3 rows from 'default' to 'new'\n"
    assert not two.folder.joinpath("new").exists()


def test_shares_the_work(two: Shop) -> None:
    parts = [two.json("move", "--from", "default", "--to", "new", "--part", f"{n}/2")["files"] for n in (1, 2)]
    assert sum(parts) == 3


def test_tells_what_could_not_be_moved(two: Shop) -> None:
    next(path for path in two.folder.joinpath("files").rglob("*") if path.is_file() and path.name[0] != ".").unlink()
    result = two.run("move", "--from", "default", "--to", "new")
    assert result.exit_code == 1
    assert "moved 2 files" in result.stdout
    assert "not moved: products.photo (" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "default", "--to", "photos"], "can't be moved to itself"),
        (["--from", "default", "--to", "elsewhere"], "there is no storage 'elsewhere'"),
        (["--from", "default", "--to", "new", "--part", "3/2"], "'3/2' is no part"),
        (["--from", "default"], "Missing option '--to'"),
    ],
)
def test_mistakes(two: Shop, arguments: list[str], said: str) -> None:
    result = two.run("move", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
