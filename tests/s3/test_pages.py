"""A sweep costs what the new files cost, however many old ones there are: its requests are counted.

2,200 keys are three pages of a listing, a million a thousand.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine, insert

from sa_attachments import Attachment
from sa_attachments.key import mint
from sa_attachments.queries import OWNED
from sa_attachments.storages.s3 import S3Storage
from tests.faults.site import Site
from tests.seaweed import Seaweed
from tests.storages.test_s3 import count_requests

from .conftest import Make

LONG_AGO = 1_760_000_000_000
OLD_LINE = {"state": OWNED, "since": LONG_AGO, "owner_table": "docs", "owner_column": "file"}
FEW, MANY, NEW = 200, 2_200, 40


def sweep_over(engine: Engine, make: Make, seaweed: Seaweed, folder: Path, old: int) -> Counter[str]:
    """The requests of a sweep over so many old files and ``NEW`` new ones, half of which nobody owns."""
    name = f"old-{old}"
    storage = make(prefix=f"{name}-{uuid4().hex}")
    site = Site(engine, {"default": name, name: storage})
    keys = _fill(seaweed, storage, folder, old)
    lines = [{"storage": name, "key": key, **OLD_LINE} for key in keys]
    with engine.begin() as connection:
        connection.execute(insert(site.files.ledger_of(site.Doc.__table__).lines), lines)
    site.add(b"the first one")
    assert site.sweep(stranger_retain=timedelta(hours=1))[name].listed >= old
    for number in range(NEW // 2):
        site.add(b"%d" % number)
        site.files.stage(Attachment.upload(b"nobody's"))
    asked = count_requests(storage)
    report = site.sweep(full=False, stranger_retain=timedelta(hours=1))[name]
    assert (report.strangers, report.problem) == (NEW // 2, None)
    assert NEW <= report.listed < NEW + 3
    return Counter(asked)


def _fill(seaweed: Seaweed, storage: S3Storage, folder: Path, count: int) -> list[str]:
    """The keys of files that an application stored long ago."""
    keys = [mint(LONG_AGO + 1000 * number) for number in range(count)]
    bucket, paths = storage._bucket.name, [storage.prefix + key for key in keys]
    by_hand = paths if count <= MANY else paths[:1]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: seaweed.client().put_object(Bucket=bucket, Key=path, Body=b""), by_hand))
    if count > MANY:
        seaweed.multiply(bucket, paths[0], paths[1:], folder)
    return keys


def test_a_sweep_asks_for_pages_of_new_keys_only(
    postgres: Engine, make: Make, seaweed: Seaweed, tmp_path: Path
) -> None:
    few = sweep_over(postgres, make, seaweed, tmp_path, FEW)
    many = sweep_over(postgres, make, seaweed, tmp_path, MANY)
    assert many == few
    assert many["list_objects_v2"] == 1


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_sweep_over_a_million_old_keys(postgres: Engine, make: Make, seaweed: Seaweed, tmp_path: Path) -> None:
    few = sweep_over(postgres, make, seaweed, tmp_path, FEW)
    assert sweep_over(postgres, make, seaweed, tmp_path, 1_000_000) == few
