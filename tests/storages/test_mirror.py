from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import (
    Attachment,
    AttachmentType,
    AttachmentWarning,
    BadConfiguration,
    FileMissing,
    StorageFailed,
    Storages,
    UnknownStorage,
)
from sa_attachments.key import mint
from sa_attachments.places import MARKER
from sa_attachments.storages import StorageURL
from sa_attachments.storages.local import LocalStorage
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.storages.mirror import MirrorStorage
from sa_attachments.testing import Faulty, StorageContract
from sa_attachments.testing.probes import listed, put, raises, read
from tests.faults.site import Site

NOW = timedelta(0)


class TestMirror(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> MirrorStorage:
        local = LocalStorage(tmp_path, durable=False)
        return MirrorStorage({"memory": MemoryStorage(), "local": local, "other": MemoryStorage()})


@pytest.fixture
def a() -> Faulty:
    return Faulty(MemoryStorage())


@pytest.fixture
def b() -> Faulty:
    return Faulty(MemoryStorage())


@pytest.fixture
def mirror(a: Faulty, b: Faulty) -> MirrorStorage:
    return MirrorStorage({"a": a, "b": b})


def test_a_put_that_one_member_refuses_is_undone_in_the_others(mirror: MirrorStorage, a: Faulty, b: Faulty) -> None:
    b.fail("put", error=OSError("disk full"))
    with raises(OSError):
        put(mirror, mint(), b"x")
    assert listed(a.inner) == listed(b.inner) == []


def test_reading_passes_over_members_that_lost_the_file_or_fail(mirror: MirrorStorage, a: Faulty, b: Faulty) -> None:
    key = put(mirror, mint(), b"x")
    a.inner.delete([key])
    assert read(mirror, key) == b"x"
    assert mirror.stat(key).size == 1
    a.fail("open").fail("stat")
    assert read(mirror, key) == b"x"
    b.fail("open", error=OSError("b is down"))
    a.heal()
    with pytest.raises(OSError, match="b is down"):  # a does not have it, but b may
        mirror.open(key)


def test_a_delete_counts_when_all_members_did_it(mirror: MirrorStorage, a: Faulty, b: Faulty) -> None:
    key, other = put(mirror, mint(), b"x"), put(mirror, mint(), b"y")
    b.at("delete", 1, lambda: None)
    assert not mirror.delete([key])
    b.inner.readonly = True
    assert list(mirror.delete([other])) == [other]


def test_lists_each_file_once_wherever_it_is(mirror: MirrorStorage, a: Faulty, b: Faulty) -> None:
    keys = sorted(put(mirror, mint(), b"x") for _ in range(4))
    a.inner.delete([keys[0], keys[2]])
    b.inner.delete([keys[1]])
    assert listed(mirror) == keys


def test_copies_what_a_member_lost_too(mirror: MirrorStorage, a: Faulty, b: Faulty) -> None:
    source = put(mirror, mint(), b"x")
    b.inner.delete([source])
    key = mint()
    mirror.copy(source, key)
    assert read(a, key) == read(b, key) == b"x"


def test_comes_from_a_url() -> None:
    files = Storages({"a": "memory:", "b": "memory:", "default": "mirror:a, b", "alias": "a"})
    put(files.resolve("default"), "key", b"x")
    assert read(files.resolve("a"), "key") == read(files.resolve("b"), "key") == b"x"
    assert files.parts() == {"a", "b"}


def test_mistakes() -> None:
    for wrong in ("mirror:", "mirror:a", "mirror:a,a"):
        with pytest.raises(BadConfiguration, match="expected two or more names"):
            Storages({"a": "memory:", "default": wrong}).resolve()
    with pytest.raises(BadConfiguration, match="one of these names stands for another one"):
        Storages({"a": "memory:", "b": "a", "default": "mirror:a,b"}).resolve()
    with pytest.raises(UnknownStorage, match="no storage 'c'"):
        Storages({"a": "memory:", "default": "mirror:a,c"}).resolve()
    with pytest.raises(BadConfiguration, match="a part of itself"):
        Storages({"a": "memory:", "default": "mirror:a,default"}).resolve()
    with pytest.raises(BadConfiguration, match="only where there are several"):
        MirrorStorage.from_url(StorageURL("mirror:a,b"))


files = Storages()


class Base(DeclarativeBase):
    pass


class Doc(Base):
    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    file: Mapped[Attachment | None] = mapped_column(AttachmentType(files))


@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)
def test_verify_finds_and_heals_what_members_lost(engine: Engine, a: Faulty, b: Faulty) -> None:
    Base.metadata.create_all(engine)
    with files.override({"a": a, "b": b, "default": "mirror:a,b"}):
        with Session(engine) as session:
            doc = Doc(file=b"one")
            session.add_all([doc, Doc(file=b"two"), Doc(file=b"three")])
            session.commit()
            assert doc.file is not None
            key = doc.file.key
        b.inner.delete([key])
        [finding] = files.verify(engine).findings
        assert (finding.kind, finding.key, finding.repaired) == ("incomplete", key, False)
        assert finding.where.endswith("lacking in 'b'")
        assert files.verify(engine, repair=True).ok
        assert files.verify(engine).findings == []
        assert read(b.inner, key) == b"one"
        assert [each.name for each in files.sweep(engine, grace=NOW, stranger_retain=NOW).storages] == ["default"]
        with Session(engine) as session:
            session.get_one(Doc, 1).file = None
            session.commit()
        files.settled(20)
        assert len(listed(a.inner)) == len(listed(b.inner)) == 2


@pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)
def test_a_file_that_was_purged_meanwhile_does_not_come_back(
    engine: Engine, a: Faulty, b: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files._settler, "_budget", 0.5)  # within it the purge begins, on a busy machine, too
    Base.metadata.create_all(engine)
    with files.override({"a": a, "b": b, "default": "mirror:a,b"}):
        with Session(engine) as session:
            session.add(Doc(file=b"one"))
            session.commit()
        [key] = listed(a.inner)
        b.inner.delete([key])

        def drop() -> None:
            a.hang("delete")  # the purge is claimed, and under way
            with Session(engine) as session:
                session.get_one(Doc, 1).file = None
                session.commit()
            assert a.wait_for_hang()

        b.at("stat", 1, drop)  # after the verification met the file, before it heals
        report = files.verify(engine, repair=True)
        assert ("incomplete", False) in [(finding.kind, finding.repaired) for finding in report.findings]
        a.release()
        assert files.settled(20)
        files.sweep(engine, grace=NOW, stranger_retain=NOW)
        assert listed(a.inner) == listed(b.inner) == []


# Whose place it is


def a_mirror(engine: Engine, a: Faulty, b: Faulty) -> Site:
    return Site(engine, {"a": a, "b": b, "default": "mirror:a,b"})


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_member_that_belongs_to_another_database_is_not_touched(engine: Engine, a: Faulty, b: Faulty) -> None:
    """Although the place of the other member is this database's."""
    other = Site(create_engine("sqlite://"), {"default": b})
    other.add(b"of the other database")
    alone = Site(engine, {"default": a})
    alone.add(b"kept")
    gone = alone.add(b"gone")
    site = a_mirror(engine, a, b)
    with pytest.warns(AttachmentWarning, match="belongs to another database"):
        site.remove(gone)
    for _ in range(2):
        with pytest.warns(AttachmentWarning, match="belongs to another database"):
            assert not site.sweep().ok
    assert other.read() == [b"of the other database"]
    assert sorted(site.lines()) == ["condemned", "owned"]


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_member_that_is_not_mounted_or_was_added_is_no_place_to_delete_in(
    engine: Engine, a: Faulty, b: Faulty
) -> None:
    site = a_mirror(engine, a, b)
    site.add(b"kept")
    gone = site.add(b"gone")
    empty = Faulty(MemoryStorage())
    site = a_mirror(engine, a, empty)
    with pytest.warns(AttachmentWarning, match="another one than before"):
        site.remove(gone)
    with pytest.warns(AttachmentWarning, match="another one than before"):
        assert not site.sweep().ok
    with pytest.warns(AttachmentWarning, match="another one than before"):
        assert not site.files.verify(engine, repair=True).ok
    assert listed(empty.inner) == [], "the disk below the mount point is filled"
    # Mounted again, it is as it was; or if the other one is meant:
    assert a_mirror(engine, a, b).sweep()["default"].purged == 1
    site.files.takeover(engine)
    assert site.files.verify(engine, repair=True).ok
    assert site.sweep().ok
    assert site.files.verify(engine).findings == []
    assert listed(a.inner) == listed(empty.inner)


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_a_member_whose_volume_left_since_the_place_was_checked_keeps_the_line(
    engine: Engine, tmp_path: Path, a: Faulty
) -> None:
    """Its file was gone for the ledger, and nobody's when the volume was back: too old for any sweep but a full one."""
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    site = Site(engine, {"a": a, "b": f"local:{here}", "default": "mirror:a,b"})
    site.remove(site.add(b"when the place is checked"))
    gone = site.add(b"gone")
    assert site.files.settled(20)
    here.rename(elsewhere)
    here.mkdir()
    site.remove(gone)
    assert site.files.settled(20)
    assert site.lines() == ["purging"]
    here.rmdir()
    elsewhere.rename(here)
    assert site.sweep(full=False)["default"].purged == 1
    assert listed(a.inner) == listed(LocalStorage(here)) == []


def test_whoever_marks_a_mirror_at_the_same_moment_or_was_killed_is_not_in_the_way(
    mirror: MirrorStorage, a: Faulty, b: Faulty
) -> None:
    put(mirror, MARKER, b"mine")
    b.inner.delete([MARKER])  # what a kill between two members leaves
    with raises(FileMissing):
        read(mirror, MARKER)
    with raises(FileExistsError):
        put(mirror, MARKER, b"somebody else's")
    with raises(FileMissing):
        read(b, MARKER)
    put(mirror, MARKER, b"mine")
    assert read(mirror, MARKER) == read(b, MARKER) == b"mine"
    with raises(FileExistsError):
        put(mirror, MARKER, b"mine")
    assert read(mirror, MARKER) == b"mine"


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
def test_verify_goes_on_while_a_member_is_down_or_full(engine: Engine, a: Faulty, b: Faulty) -> None:
    site = a_mirror(engine, a, b)
    site.add(b"one")
    site.add(b"two")
    b.fail("stat", error=OSError("b is down"))
    report = site.files.verify(engine, repair=True)
    assert (report.findings, report.files) == ([], 2)
    assert "b is down" in report.problems["default"]
    assert len([call for call in b.calls if call.verb == "stat"]) == 1
    b.heal()
    b.inner.delete(listed(b.inner))
    b.fail("put", error=OSError("disk full"))
    report = site.files.verify(engine, repair=True)
    assert [(finding.kind, finding.repaired) for finding in report.findings] == [("incomplete", False)] * 2
    assert report.findings[0].where.endswith("OSError: disk full")
    with pytest.raises(StorageFailed):
        site.add(b"three")


@pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
@pytest.mark.parametrize("member", ["a", "b"])
def test_verify_finds_what_members_damaged(engine: Engine, a: Faulty, b: Faulty, member: str) -> None:
    site = a_mirror(engine, a, b)
    for data in (b"same size", b"too short"):
        site.add(data)
    same, short = listed(a.inner)
    victim, other = (a, b) if member == "a" else (b, a)
    for key, data in ((same, b"size same"), (short, b"short")):
        victim.inner.delete([key])
        put(victim.inner, key, data)
    found = {finding.key: finding for finding in site.files.verify(engine, repair=True).findings}
    assert {key: (finding.kind, finding.repaired) for key, finding in found.items()} == {short: ("damaged", False)}
    assert found[short].where == f"docs.file (2,), in {member!r}"
    found = {finding.key: finding for finding in site.files.verify(engine, checksums=True).findings}
    assert {finding.kind for finding in found.values()} == {"damaged"}
    assert set(found) == {same, short}
    # What is damaged is not copied to where the file lacks.
    other.inner.delete([short])
    found = [each for each in site.files.verify(engine, repair=True).findings if each.key == short]
    assert [(each.kind, each.repaired) for each in found] == [("damaged", False), ("incomplete", False)]
    assert listed(other.inner) == [same]


def test_a_probe_tells_what_does_not_work(a: Faulty, b: Faulty, tmp_path: Path) -> None:
    c = Faulty(MemoryStorage())
    readonly = MemoryStorage(readonly=True)
    tried = Storages({"a": a, "b": b, "c": c, "readonly": readonly, "unknown": "nonsense:x", "alias": "a"})
    a.fail("delete", error=OSError("no right"))
    b.at("open", 2, lambda: b.inner.delete(listed(b.inner)))
    found = tried.probe()
    assert found["c"] is None
    assert found["readonly"] is None
    assert "failed to delete" in str(found["a"])
    assert "there is no" in str(found["b"])
    assert "no backend 'nonsense'" in str(found["unknown"])
    assert listed(c.inner) == []
