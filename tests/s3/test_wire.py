"""Faults on the wire between client and server, at the n-th request: it is tried again, or fails with a clear error,
and in both cases nothing is lost or orphaned.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from botocore.config import Config
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from sa_attachments import Attachment, FileMissing, StorageFailed
from sa_attachments.errors import storage_errors
from sa_attachments.key import mint
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.storages.s3 import MIB, S3Storage
from sa_attachments.testing.probes import listed, put, read
from tests.faults.site import Site

from .conftest import Make, unfinished
from .wire import FAULTS, Fault, Wire

on = pytest.mark.parametrize

SMALL, MEDIUM, LARGE = b"small", os.urandom(MIB), os.urandom(MIB) * 6
PATIENT, IMPATIENT = {"attempts": 4, "read_timeout": 1}, {"attempts": 1, "read_timeout": 1}


# Single verbs


def put_small(storage: S3Storage, there: str) -> None:
    assert read(storage, put(storage, mint(), SMALL)) == SMALL


def put_large(storage: S3Storage, there: str) -> None:
    assert read(storage, put(storage, mint(), LARGE)) == LARGE


def get(storage: S3Storage, there: str) -> None:
    assert read(storage, there) == MEDIUM


def get_range(storage: S3Storage, there: str) -> None:
    with storage.open(there, 7, 900_000) as file:
        assert file.read() == MEDIUM[7:900_000]


def stat(storage: S3Storage, there: str) -> None:
    assert storage.stat(there).size == len(MEDIUM)


def delete(storage: S3Storage, there: str) -> None:
    assert storage.delete([there]) == {}
    assert listed(storage) == []


def keys(storage: S3Storage, there: str) -> None:
    assert listed(storage) == [there]


def copy(storage: S3Storage, there: str) -> None:
    storage.copy(there, key := mint())
    assert storage.stat(key).size == len(MEDIUM)


VERBS: dict[str, tuple[Callable[[S3Storage, str], None], str]] = {
    "put_object": (put_small, "PUT"),
    "upload_part": (put_large, "PUT"),
    "complete_multipart_upload": (put_large, "POST"),
    "get_object": (get, "GET"),
    "get_object of a range": (get_range, "GET"),
    "head_object": (stat, "HEAD"),
    "delete_objects": (delete, "POST"),
    "list_objects_v2": (keys, "GET"),
    "copy_object": (copy, "PUT"),
}
"""What is done, and the method of the request that is spoiled."""

BODIES_DOWN = {"get_object", "get_object of a range", "list_objects_v2", "copy_object", "delete_objects"}


@pytest.fixture
def there(make: Make) -> str:
    """A file."""
    return put(make(), mint(), MEDIUM)


def spoil(wire: Wire, verb: str, fault: Fault, **options: Any) -> None:
    nth = 2 if verb == "complete_multipart_upload" else 1  # after the upload was begun
    wire.spoil(nth, fault, VERBS[verb][1], **options)


slow = pytest.mark.torture  # a second for each attempt that waits


@pytest.mark.sampled("fault")
@on("verb", VERBS)
@on("fault", ["500", "503", "refused", "lost", "truncated", pytest.param("hang", marks=slow)])
def test_a_fault_that_passes_is_not_noticed(make: Make, wire: Wire, there: str, verb: str, fault: Fault) -> None:
    if fault == "truncated" and verb not in BODIES_DOWN:
        pytest.skip("the answer has no body")
    storage = make(endpoint_url=wire.endpoint, **PATIENT)
    spoil(wire, verb, fault)
    VERBS[verb][0](storage, there)
    assert wire.spoiled == 1


@on("verb", ["put_object", "get_object", "list_objects_v2", "delete_objects"])
def test_no_answer_for_once_is_not_noticed(make: Make, wire: Wire, there: str, verb: str) -> None:
    storage = make(endpoint_url=wire.endpoint, **PATIENT)
    spoil(wire, verb, "hang")
    VERBS[verb][0](storage, there)
    assert wire.spoiled == 1


SAID = {"500": "InternalError|500", "503": "asks to slow down .*: lower the option 'parallel'|503"}


@pytest.mark.sampled("fault")
@on("verb", VERBS)
@on("fault", ["500", "503", "refused", pytest.param("hang", marks=slow)])
def test_a_fault_that_stays_is_told(make: Make, wire: Wire, there: str, verb: str, fault: Fault, bucket: str) -> None:
    storage = make(endpoint_url=wire.endpoint, **IMPATIENT)
    spoil(wire, verb, fault, for_good=True)
    said = SAID.get(fault, f"{wire.endpoint} can't be reached")
    operation = verb.partition(" ")[0].replace("copy_object", "copy_object|head_object")
    with pytest.raises(StorageFailed, match=said) as raised, storage_errors("default", "do it in"):
        VERBS[verb][0](storage, there)
    assert bucket in str(raised.value)
    assert any(each in str(raised.value) for each in operation.split("|"))
    wire.heal()
    assert [key for key in listed(make()) if key != there] == []


# Damaged bytes


def sign_no_bodies(storage: S3Storage) -> None:
    """As over TLS: the signature does not cover the body, so that nothing but Content-MD5 can tell."""
    options = {"addressing_style": "path", "payload_signing_enabled": False}
    storage._bucket._config = storage._bucket._config.merge(Config(s3=options))


@on("data", [SMALL, LARGE], ids=["whole", "part"])
def test_a_body_that_is_damaged_on_its_way_is_refused(make: Make, wire: Wire, bucket: str, data: bytes) -> None:
    storage = make(endpoint_url=wire.endpoint, **PATIENT)
    sign_no_bodies(storage)
    wire.spoil(1, "corrupt", "PUT", for_good=True)
    with pytest.raises(OSError, match=f"{bucket}' received other bytes than were sent .*BadDigest"):
        put(storage, mint(), data)
    assert wire.spoiled
    wire.heal()
    assert listed(make()) == []


def test_a_signed_body_that_is_damaged_on_its_way_is_refused(make: Make, wire: Wire, bucket: str) -> None:
    storage = make(endpoint_url=wire.endpoint, **PATIENT)
    wire.spoil(1, "corrupt", "PUT", for_good=True)
    with pytest.raises(OSError, match=bucket):
        put(storage, mint(), SMALL)
    wire.heal()
    assert listed(make()) == []


def test_parts_that_were_refused_are_not_left_behind(make: Make, wire: Wire) -> None:
    storage = make(endpoint_url=wire.endpoint, **IMPATIENT)
    wire.spoil(2, "500", "PUT")
    with pytest.raises(OSError, match="InternalError"):
        put(storage, mint(), LARGE)
    assert unfinished(storage) == []


def test_a_file_is_read_on_where_its_answer_was_cut(make: Make, wire: Wire, there: str) -> None:
    storage = make(endpoint_url=wire.endpoint, **PATIENT)
    wire.spoil(1, "truncated", "GET")
    wire.spoil(2, "truncated", "GET")
    assert read(storage, there) == MEDIUM
    assert len(wire.requests) == 3


def test_an_answer_that_a_file_is_missing_says_so_even_without_its_body(make: Make, wire: Wire) -> None:
    storage = make(endpoint_url=wire.endpoint, **PATIENT)
    wire.spoil(1, "truncated", "GET")
    with pytest.raises(FileMissing):
        storage.open(mint())


# A whole application

Step = Callable[[Site, Session, list[bytes]], list[bytes]]


def step_add(site: Site, session: Session, contents: list[bytes]) -> list[bytes]:
    session.add(site.Doc(id=1, file=Attachment.upload(b"a1"), pages=[Attachment.upload(b"a2")]))
    return [*contents, b"a1", b"a2"]


def step_large(site: Site, session: Session, contents: list[bytes]) -> list[bytes]:
    session.add(site.Doc(id=2, file=Attachment.upload(io.BytesIO(LARGE), "large")))
    return [*contents, LARGE]


def step_replace(site: Site, session: Session, contents: list[bytes]) -> list[bytes]:
    doc = session.get(site.Doc, 1)
    if doc is None:
        return contents
    left = [each for each in contents if each != doc.file.read()]
    doc.file = Attachment.upload(b"b1")
    return [*left, b"b1"]


def step_copy(site: Site, session: Session, contents: list[bytes]) -> list[bytes]:
    doc = session.get(site.Doc, 1)
    if doc is None:
        return contents
    session.add(site.Doc(id=3, file=doc.file))
    return [*contents, doc.file.read()]


def step_abandoned(site: Site, session: Session, contents: list[bytes]) -> list[bytes]:
    session.add(site.Doc(id=4, file=Attachment.upload(b"void")))
    session.flush()
    session.rollback()
    return contents


def step_staged(site: Site, session: Session, contents: list[bytes]) -> list[bytes]:
    site.files.stage(Attachment.upload(b"never owned"))
    return contents


def step_delete(site: Site, session: Session, contents: list[bytes]) -> list[bytes]:
    doc = session.get(site.Doc, 2)
    if doc is None:
        return contents
    session.delete(doc)
    return [each for each in contents if each != LARGE]


STEPS: list[Step] = [step_add, step_large, step_replace, step_copy, step_abandoned, step_staged, step_delete]


def work(site: Site) -> tuple[list[bytes], list[StorageFailed]]:
    """Returns the bytes of the files that committed rows name, and what failed on the way."""
    contents: list[bytes] = []
    failures: list[StorageFailed] = []
    for step in STEPS:
        with site.session() as session:
            try:
                after = step(site, session, contents)
                session.commit()
            except StorageFailed as error:
                failures.append(error)
                session.rollback()
                session.scalar(select(func.count()).select_from(site.Doc))  # usable as it is
            else:
                contents = after
        assert site.files.settled(20)
    return contents, failures


def work_spoiled(
    engine: Engine, make: Make, wire: Wire, fault: Fault, nth: int, *, for_good: bool = False, **options: Any
) -> bool:
    """Work in a new bucket and with an empty database; whether the workload has an ``nth`` request."""
    storage = make(endpoint_url=wire.endpoint, prefix=f"{fault}-{uuid4().hex}", **options)
    site = Site(engine, {"default": storage})
    spoiled = wire.spoiled
    try:
        wire.spoil(nth, fault, for_good=for_good)
        contents, failures = work(site)
        struck = wire.spoiled > spoiled
        wire.heal()
        if options == PATIENT and fault != "corrupt":  # that one is not tried again
            assert failures == []
        report = site.sweep()
        assert report.ok, str(report)
        site.sweep()  # those that the first one found
        site.check()
        assert sorted(site.read()) == sorted(contents)
        assert unfinished(storage) == []
        return struck
    finally:
        wire.heal()
        with engine.begin() as connection:
            for table in reversed(site.Doc.metadata.sorted_tables):
                connection.execute(table.delete())


QUICK = [pytest.param(fault, marks=slow if fault in ("hang", "late") else ()) for fault in FAULTS]


@on("fault", QUICK)
def test_an_application_behind_a_wire_that_is_bad_once(postgres: Engine, make: Make, wire: Wire, fault: Fault) -> None:
    first = 3 + list(FAULTS).index(fault)
    assert work_spoiled(postgres, make, wire, fault, first, **PATIENT)
    assert work_spoiled(postgres, make, wire, fault, first + 10, **IMPATIENT)


@on("fault", QUICK)
def test_an_application_behind_a_wire_that_stays_bad(postgres: Engine, make: Make, wire: Wire, fault: Fault) -> None:
    assert work_spoiled(postgres, make, wire, fault, 6 + list(FAULTS).index(fault), for_good=True, **IMPATIENT)


@pytest.mark.torture
@pytest.mark.timeout(1800)
@on("for_good", [False, True])
@on("options", [PATIENT, IMPATIENT], ids=["patient", "impatient"])
@on("fault", FAULTS)
def test_an_application_behind_a_wire_that_is_bad_at_each_request(
    postgres: Engine, make: Make, wire: Wire, fault: Fault, options: dict[str, int], for_good: bool
) -> None:
    if for_good and options is PATIENT:
        pytest.skip("it would wait very long, to fail in the end as the impatient one does")
    nth = 1
    while work_spoiled(postgres, make, wire, fault, nth, for_good=for_good, **options):
        nth += 1
    assert nth > 20, "the workload makes more requests than that"


@on("fault", ["refused", "500", "lost", "late"])
def test_a_mirror_one_of_whose_members_is_behind_a_bad_wire(
    postgres: Engine, make: Make, wire: Wire, fault: Fault
) -> None:
    here, there = MemoryStorage(), make(endpoint_url=wire.endpoint, **IMPATIENT)
    site = Site(postgres, {"here": here, "there": there, "default": "mirror:here,there"})
    kept, gone = site.add(b"kept"), site.add(b"gone")
    wire.spoil(1, fault, for_good=True)
    with pytest.raises(StorageFailed):
        site.add(b"void")
    site.remove(gone)  # hurts nobody, and is done by the sweep
    assert site.read() == [b"kept"]
    assert site.files.settled(20)
    wire.heal()
    assert site.sweep().ok
    site.sweep()
    site.check("default")
    assert site.read() == [b"kept"]
    with site.session() as session:
        keys = [session.get_one(site.Doc, kept).file.key]
    assert [key for key in listed(here) if key[0] != "."] == keys
    assert [key for key in listed(there) if key[0] != "."] == keys
