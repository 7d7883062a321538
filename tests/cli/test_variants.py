from __future__ import annotations

import pytest

from sa_attachments import Attachment
from sa_attachments.processing.variants import Variant, declared

from .shop import AT_ONCE, Shop


def small(attachment: Attachment) -> Attachment:
    data = attachment.read()
    if b"bad" in data:
        raise ValueError("no such size")
    return Attachment.upload(data[:1])


def tiny(attachment: Attachment) -> Attachment:
    return Attachment.upload(attachment.read()[:0])


def declare(shop: Shop, **variants: object) -> None:
    """The application is deployed with other recipes."""
    column_type = shop.module.Product.photo.type
    column_type.variants = declared(variants)  # type: ignore[arg-type]


@pytest.fixture
def shop(shop: Shop) -> Shop:
    """One with files, whose application declares a variant since."""
    shop.sell(b"one", b"two", b"three")
    declare(shop, small=small, odd=Variant(tiny, lazy=True))
    return shop


NOTHING = {"current": 0, "missing": 0, "stale": 0, "undeclared": 0, "made": 0, "dropped": 0}
NOTHING |= {"overtaken": 0, "busy": 0}


def test_counts(shop: Shop) -> None:
    report = shop.json("variants", exit_code=1)
    expected = {"ok": False, "rebuild": False, **NOTHING, "attachments": 3, "missing": 3, "failed": []}
    assert report == expected
    result = shop.run("variants")
    assert result.stdout == "variants of 3 files: 0 current, 3 missing, 0 stale, 0 undeclared\n"


def test_makes_what_is_missing(shop: Shop) -> None:
    result = shop.run("variants", "--rebuild")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "variants of 3 files: 0 current, 3 missing, 0 stale, 0 undeclared",
        "made 3, dropped 0",
    ]
    assert shop.json("variants")["current"] == 3
    assert shop.json("verify")["files"] == 6


def test_replaces_what_is_stale_and_drops_what_is_undeclared(shop: Shop) -> None:
    shop.json("variants", "--rebuild", "--lazy")
    declare(shop, small=tiny)
    report = shop.json("variants", "--rebuild")
    assert report == {
        "ok": True,
        "rebuild": True,
        **NOTHING,
        "attachments": 3,
        "failed": [],
        "stale": 3,
        "undeclared": 3,
        "made": 3,
        "dropped": 3,
    }
    assert shop.json("sweep", *AT_ONCE)["ok"]
    assert shop.json("verify")["files"] == 6
    assert len([path for path in (shop.folder / "files").glob("20*/**/*") if path.is_file()]) == 6


def test_shares_the_work_and_does_what_is_named(shop: Shop) -> None:
    declare(shop, small=small, other=tiny)
    parts = [shop.json("variants", "--rebuild", "--variant", "other", "--part", f"{n}/2")["made"] for n in (1, 2)]
    assert sum(parts) == 3
    assert shop.json("variants", exit_code=1)["missing"] == 3


def test_tells_what_could_not_be_made(shop: Shop) -> None:
    shop.sell(b"bad")
    result = shop.run("variants", "--rebuild")
    assert result.exit_code == 1
    assert "made 3, dropped 0" in result.stdout
    assert "not made: products.photo (4,), variant 'small': small: no such size" in result.stdout


def test_mistakes(shop: Shop) -> None:
    result = shop.run("variants", "--variant", "smal")
    assert result.exit_code == 2
    assert "no column declares a variant 'smal'; declared are 'odd', 'small'" in " ".join(result.stderr.split())
    result = shop.run("variants", "--part", "3/2")
    assert result.exit_code == 2
