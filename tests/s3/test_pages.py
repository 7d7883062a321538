"""A sweep costs what the new files cost, however many old ones there are: its requests are counted.

A million keys take the test's server too long; 2,200 are three pages of a listing, 100,000 a hundred.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Engine, insert

from sa_attachments import Attachment
from sa_attachments.key import mint
from sa_attachments.ledger import OWNED
from sa_attachments.storages.s3 import S3Storage
from tests.faults.site import Site
from tests.seaweed import Seaweed
from tests.storages.test_s3 import count_requests

from .conftest import Make

LONG_AGO = 1_760_000_000_000
FEW, MANY, NEW = 200, 2_200, 40


def sweep_over(engine: Engine, make: Make, seaweed: Seaweed, old: int) -> Counter[str]:
    """The requests of a sweep over so many old files and ``NEW`` new ones, half of which nobody owns."""
    name = f"old-{old}"
    storage = make(prefix=f"{name}-{uuid4().hex}")
    site = Site(engine, {"default": name, name: storage})
    _fill(site, seaweed, storage, name, old)
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


def _fill(site: Site, seaweed: Seaweed, storage: S3Storage, name: str, count: int) -> None:
    """Files of an application that is old, as its ledger knows them."""
    keys = [mint(LONG_AGO + 1000 * number) for number in range(count)]
    client, bucket = seaweed.client(), storage._bucket.name
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=storage.prefix + key, Body=b""), keys))
    lines = site.files.ledger_of(site.Doc.__table__).lines
    with site.engine.begin() as connection:
        for first in range(0, count, 1000):
            some = [{"storage": name, "key": key} for key in keys[first : first + 1000]]
            values = {"state": OWNED, "since": LONG_AGO, "owner_table": "docs", "owner_column": "file"}
            connection.execute(insert(lines).values(values), some)


def test_a_sweep_asks_for_pages_of_new_keys_only(postgres: Engine, make: Make, seaweed: Seaweed) -> None:
    few = sweep_over(postgres, make, seaweed, FEW)
    many = sweep_over(postgres, make, seaweed, MANY)
    assert many == few
    assert many["list_objects_v2"] == 1


@pytest.mark.torture
@pytest.mark.timeout(3600)
def test_a_sweep_over_very_many_old_keys(postgres: Engine, make: Make, seaweed: Seaweed) -> None:
    few = sweep_over(postgres, make, seaweed, FEW)
    assert sweep_over(postgres, make, seaweed, 100_000) == few
