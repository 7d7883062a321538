"""Paths become attachments, by copying, by linking, or where they are; none leaves its root."""

from __future__ import annotations

import io
import json
import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from sa_attachments import AdoptionFailed, AttachmentWarning, BadConfiguration, Storages
from sa_attachments.adoption.taking import NOTES
from sa_attachments.ledger import Ledger
from sa_attachments.places import MARKER
from sa_attachments.storages.local import UNFINISHED, LocalStorage
from sa_attachments.storages.memory import MemoryStorage
from sa_attachments.storages.s3 import S3Storage
from tests.engines import ENGINES
from tests.seaweed import ACCESS_KEY, SECRET_KEY

from .museum import Museum

SERVERS = [name for name in ENGINES if name in ("sqlite", "postgres", "mariadb")]
MODES: list[tuple[str, dict[str, Any]]] = [
    ("copy", {}),
    ("link", {}),
    ("in_place", {"storage": "old"}),
]


@pytest.fixture
def museum(engine: Engine, tmp_path: Path) -> Museum:
    return Museum(engine, tmp_path).open()


here = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


def adopted(museum: Museum, mode: str = "copy", **options: Any) -> Any:
    root = options.pop("root", museum.root)
    return museum.migrate(lambda op: op.adopt_path_column("docs", "path", "file", root=root, mode=mode, **options))


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
@pytest.mark.parametrize(("mode", "options"), MODES)
def test_paths_become_attachments(museum: Museum, mode: str, options: Any) -> None:
    for number in range(120):
        museum.lay(f"{number % 3}/f {number}.txt", b"content %d" % number)
    museum.insert(*({"id": n, "path": f"{n % 3}/f {n}.txt"} for n in range(119)), {"id": 200, "path": None})
    museum.insert({"id": 119, "path": f"{museum.root}/2/f 119.txt"})  # absolute, and below the root
    report = adopted(museum, mode, **options)
    assert (report.ok, report.rows, report.files) == (True, 120, 120)
    assert museum.problems() == []
    assert set(museum.lines().values()) == {("owned", True)}
    facts = museum.facts()
    assert facts[7]["filename"] == "f 7.txt"
    assert facts[7]["content_type"] == "text/plain"
    assert len(museum.stored("default")) == (0 if mode == "in_place" else 120)
    assert len(museum.stored("old")) == 120
    shares = (museum.folder / facts[7]["storage"] / facts[7]["key"]).samefile(museum.root / "1/f 7.txt")
    assert shares == (mode != "copy")
    if mode == "in_place":
        assert facts[119]["key"] == "2/f 119.txt"
    with Session(museum.engine) as session:
        assert session.get_one(museum.Doc, 7).file.read() == b"content 7"  # type: ignore[union-attr]


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_a_file_that_another_run_gives_to_another_row_at_this_moment(
    museum: Museum, monkeypatch: pytest.MonkeyPatch
) -> None:
    museum.lay("a", b"a")
    museum.insert({"id": 1, "path": "a"})
    adopted(museum, "in_place", storage="old")
    museum.insert({"id": 2, "path": "a"})
    states, calls = Ledger.states, iter(range(100))

    def too_early(self: Ledger, connection: Any, files: Any, **options: Any) -> dict[tuple[str, str], str]:
        return {} if next(calls) in (1, 2) else states(self, connection, files, **options)

    monkeypatch.setattr(Ledger, "states", too_early)
    report = adopted(museum, "in_place", storage="old", fallback="copy")
    assert (report.ok, report.rows) == (True, 1)
    assert museum.problems() == []


@here
def test_finished_under_another_name(museum: Museum) -> None:
    museum.lay("a", b"a")
    museum.insert({"id": 1, "path": "a"})
    adopted(museum)
    with museum.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE docs RENAME TO papers")
    report = museum.migrate(lambda op: op.finish_adoption("papers", "file"))
    assert (report.rows, report.files, report.size) == (1, 1, 1)
    assert set(museum.lines().values()) == {("owned", False)}


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
@pytest.mark.parametrize(("mode", "options"), MODES)
def test_held_until_it_is_finished(museum: Museum, mode: str, options: Any) -> None:
    for name in ("a", "b"):
        museum.lay(name, name.encode())
    museum.insert({"id": 1, "path": "a"}, {"id": 2, "path": "b"})
    adopted(museum, mode, **options)
    place = options.get("storage", "default")
    with Session(museum.engine) as session:
        session.delete(session.get_one(museum.Doc, 1))
        session.commit()
    assert museum.sweep().ok
    assert len(museum.stored(place)) == 2, "held: the old column may still name it"
    assert sorted(museum.lines().values()) == [("condemned", True), ("owned", True)]
    report = museum.migrate(lambda op: op.finish_adoption("docs", "file", source="path"))
    assert report.files == 2
    assert museum.sweep().ok
    assert set(museum.lines().values()) == {("owned", False)}
    assert len(museum.stored(place)) == 1
    assert museum.stored("old") == ({"b"} if mode == "in_place" else {"a", "b"})
    museum.migrate(lambda op: op.hold_adoption("docs", "file"))
    assert set(museum.lines().values()) == {("owned", True)}


@here
def test_dropped_by_the_application_and_adopted_once_more(museum: Museum) -> None:
    """Its old column still says so, and a backfill may run again."""
    museum.lay("a", b"a")
    museum.insert({"id": 1, "path": "a"})
    adopted(museum, "in_place", storage="old")
    with Session(museum.engine) as session:
        session.get_one(museum.Doc, 1).file = None
        session.commit()
    assert museum.files.settled(20)
    assert set(museum.lines().values()) == {("condemned", True)}
    assert adopted(museum, "in_place", storage="old").rows == 1
    assert set(museum.lines().values()) == {("owned", True)}
    assert museum.problems() == []


@here
def test_finished_where_variants_are_damaged(museum: Museum) -> None:
    museum.lay("a", b"a")
    museum.insert({"id": 1, "path": "a"})
    adopted(museum)
    with museum.engine.begin() as connection:
        connection.execute(museum.docs.update().values(file=museum.facts()[1] | {"variants": [1]}))
    assert museum.migrate(lambda op: op.finish_adoption("docs", "file")).files == 1


@here
def test_not_finished_before_all_is_adopted(museum: Museum) -> None:
    museum.lay("a", b"a")
    museum.insert({"id": 1, "path": "a"}, {"id": 2, "path": "gone"})
    adopted(museum, policy="skip")
    said = r"^docs\.path: 1 row not adopted, adopt or empty it first: row \(2,\)$"
    with pytest.raises(AdoptionFailed, match=said):
        museum.migrate(lambda op: op.finish_adoption("docs", "file", source="path"))
    museum.insert(*({"id": number, "path": "gone"} for number in (3, 4, 5)))
    said = r"4 rows not adopted, adopt or empty them first: row \(2,\); row \(3,\); row \(4,\) and 1 more$"
    with pytest.raises(AdoptionFailed, match=said):
        museum.migrate(lambda op: op.finish_adoption("docs", "file", source="path"))
    assert set(museum.lines().values()) == {("owned", True)}


def bad_rows(museum: Museum) -> dict[int, str]:
    """One row of each kind that can't be adopted, and a good one."""
    outside = museum.folder / "secret"
    outside.write_bytes(b"secret")
    museum.lay("good.txt", b"good")
    museum.lay("inside/deep.txt", b"deep")
    (museum.root / "way out").symlink_to(outside)
    (museum.root / "folder out").symlink_to(museum.folder)
    os.mkfifo(museum.root / "pipe")
    values = {
        1: ("gone.txt", "missing"),
        2: ("../secret", "outside"),
        3: (str(outside), "outside"),
        4: ("way out", "outside"),
        5: ("folder out/secret", "outside"),
        6: ("  ", "empty"),
        7: ("inside", "unreadable"),
        8: ("pipe", "unreadable"),
        9: ("inside/../../secret", "outside"),
        10: ("https://host/good.txt", "outside"),
        11: ("good.txt/x", "missing"),
    }
    museum.insert({"id": 0, "path": "good.txt"}, *({"id": n, "path": value} for n, (value, _) in values.items()))
    return {n: kind for n, (_, kind) in values.items()}


@here
@pytest.mark.parametrize(("mode", "options"), MODES)
def test_what_cannot_be_adopted_fails_before_anything_is_changed(museum: Museum, mode: str, options: Any) -> None:
    expected = bad_rows(museum)
    with pytest.raises(AdoptionFailed, match=r"nothing was changed.*and 8 more") as caught:
        adopted(museum, mode, **options)
    assert {each.row[0]: each.kind for each in caught.value.report.unadopted} == expected
    assert museum.facts() == {}
    assert museum.lines() == {}
    assert museum.stored("default") == set()


@here
@pytest.mark.parametrize(("mode", "options"), MODES)
def test_what_cannot_be_adopted_is_skipped(museum: Museum, mode: str, options: Any) -> None:
    expected = bad_rows(museum)
    before = museum.column("path")
    report = adopted(museum, mode, policy="skip", report=museum.folder / "left.jsonl", **options)
    assert (report.rows, {each.row[0]: each.kind for each in report.unadopted}) == (1, expected)
    assert [json.loads(line)["row"] for line in (museum.folder / "left.jsonl").read_text().splitlines()] == [
        [n] for n in expected
    ]
    assert museum.problems() == []
    assert museum.column("path") == before


@here
def test_what_cannot_be_adopted_is_emptied(museum: Museum) -> None:
    expected = bad_rows(museum)
    before = museum.column("path")
    report = adopted(museum, policy="null", report=museum.folder / "left.jsonl")
    assert dict(report.counts) == {"outside": 6, "missing": 2, "unreadable": 2, "empty": 1}
    assert museum.column("path") == {0: "good.txt", **dict.fromkeys(expected, None)}
    lines = [json.loads(line) for line in (museum.folder / "left.jsonl").read_text().splitlines()]
    assert {line["row"][0]: line["value"] for line in lines} == {n: before[n] for n in expected}
    museum.migrate(lambda op: op.finish_adoption("docs", "file", source="path"))


@here
def test_two_rows_that_share_a_path(museum: Museum) -> None:
    museum.lay("a", b"a")
    museum.insert({"id": 1, "path": "a"}, {"id": 2, "path": "a"}, {"id": 3, "path": "./a"})
    with pytest.raises(AdoptionFailed, match=r"nothing was changed.*2 rows name 'a'"):
        adopted(museum, "in_place", storage="old")
    report = adopted(museum, "in_place", storage="old", policy="skip")
    assert (report.rows, dict(report.counts)) == (1, {"shared": 2})
    report = adopted(museum, "in_place", storage="old", fallback="copy")
    assert (report.ok, report.rows) == (True, 2)
    facts = museum.facts()
    assert [facts[n]["key"] == "a" for n in (1, 2, 3)] == [True, False, False]
    assert museum.problems() == []
    with Session(museum.engine) as session:
        assert [session.get_one(museum.Doc, n).file.read() for n in (1, 2, 3)] == [b"a"] * 3  # type: ignore[union-attr]


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
@pytest.mark.parametrize("place", ["sub", "twin"])
@pytest.mark.parametrize("dropped", [False, True])
def test_a_file_that_another_row_has_by_another_storage(museum: Museum, place: str, dropped: bool) -> None:
    """Whose folder is the same, or lies in the other; the file is one, and would go with either row."""
    known = {name: museum.files.resolve(name) for name in ("default", "old")}
    below = museum.root / ("sub" if place == "sub" else "")
    museum.files.configure({**known, "place": LocalStorage(below, durable=False)})
    museum.lay("sub/a.txt", b"precious")
    museum.insert({"id": 1, "path": "sub/a.txt"})
    adopted(museum, "in_place", storage="old")
    if dropped:
        with Session(museum.engine) as session:
            session.delete(session.get_one(museum.Doc, 1))
            session.commit()
    museum.insert({"id": 2, "path": "a.txt" if place == "sub" else "sub/a.txt"})
    about: dict[str, Any] = {"root": below, "storage": "place"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AttachmentWarning)  # that nothing is deleted by the other name of a place
        with pytest.raises(AdoptionFailed, match="say fallback='copy'"):
            adopted(museum, "in_place", **about)
        assert adopted(museum, "in_place", fallback="copy", **about).rows == 1
    museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    with Session(museum.engine) as session:
        if not dropped:
            session.delete(session.get_one(museum.Doc, 1))
            session.commit()
        assert museum.files.settled(20)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AttachmentWarning)
            museum.sweep()
        assert session.get_one(museum.Doc, 2).file.read() == b"precious"  # type: ignore[union-attr]


@here
@pytest.mark.parametrize(("mode", "options"), MODES[:2])
def test_copies_and_links_of_a_shared_path(museum: Museum, mode: str, options: Any) -> None:
    museum.lay("a", b"a")
    museum.insert({"id": 1, "path": "a"}, {"id": 2, "path": "a"})
    assert adopted(museum, mode).rows == 2
    assert museum.problems() == []


@here
def test_names_that_cannot_be_keys_and_links(museum: Museum) -> None:
    museum.lay("größe.txt", b"1")
    museum.lay("real", b"2")
    (museum.root / "link").symlink_to("real")
    museum.insert({"id": 1, "path": "größe.txt"}, {"id": 2, "path": "link"})
    with pytest.raises(AdoptionFailed, match="can't be a key"):
        adopted(museum, "in_place", storage="old")
    assert adopted(museum, "in_place", storage="old", fallback="copy").rows == 2
    assert museum.problems() == []
    assert museum.facts()[1]["filename"] == "größe.txt"
    assert museum.stored("old") == {"größe.txt", "real", "link"} | museum.stored("old")


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_names_that_differ_by_case_and_one_that_is_too_long_for_the_ledger(museum: Museum) -> None:
    long = "/".join(["x" * 100] * 3)
    for name in ("a", "A", long):
        museum.lay(name, name.encode())
    museum.insert({"id": 1, "path": "a"}, {"id": 2, "path": "A"})
    assert adopted(museum, "in_place", storage="old").rows == 2
    museum.insert({"id": 3, "path": long})
    with pytest.raises(AdoptionFailed, match="can't be a key"):
        adopted(museum, "in_place", storage="old")
    assert adopted(museum, "in_place", storage="old", fallback="copy").rows == 1
    assert museum.problems() == []


@here
@pytest.mark.parametrize(("mode", "options"), [*MODES, ("in_place", {"storage": "old", "root": None})])
@pytest.mark.parametrize("policy", ["fail", "skip"])
@pytest.mark.filterwarnings("ignore:nothing is deleted")
def test_what_a_storage_keeps_for_itself_is_no_file_of_a_row(
    museum: Museum, mode: str, options: dict[str, Any], policy: str
) -> None:
    museum.lay(MARKER, b"somebody's")
    museum.lay(f"{UNFINISHED}/1-a", b"half")
    museum.lay("good", b"good")
    (museum.root / "link").symlink_to(MARKER)
    names = [MARKER, f"{UNFINISHED}/1-a"] + [f"x/../{MARKER}", "link"] * ("root" not in options)
    museum.insert({"id": 0, "path": "good"}, *({"id": n, "path": name} for n, name in enumerate(names, 1)))
    if policy == "fail":
        with pytest.raises(AdoptionFailed, match="keeps in its place for itself"):
            adopted(museum, mode, **options)
    else:
        report = adopted(museum, mode, policy="skip", **options, fallback="copy")
        assert (report.rows, dict(report.counts)) == (1, {"outside": len(names)})
    assert museum.root.joinpath(MARKER).read_bytes() == b"somebody's"
    assert all(set(facts["key"].split("/")).isdisjoint(NOTES) for facts in museum.facts().values())
    assert UNFINISHED in NOTES


@here
@pytest.mark.parametrize("prefix", ["https://cdn.example/media", "https://cdn.example", "/srv/média"])
def test_a_prefix_without_a_slash_is_no_beginning_of_another_name(museum: Museum, prefix: str) -> None:
    museum.lay("a.txt", b"1")
    others = [f"{prefix}2/a.txt", f"{prefix}.evil/a.txt", f"{prefix}a.txt", prefix]
    museum.insert({"id": 0, "path": f"{prefix}/a.txt"}, *({"id": n, "path": each} for n, each in enumerate(others, 1)))
    report = adopted(museum, prefix=prefix, policy="skip")
    assert (report.rows, dict(report.counts)) == (1, {"outside": 4})
    assert set(museum.facts()) == {0}


@here
def test_urls_below_a_prefix(museum: Museum) -> None:
    museum.lay("a b/ü.txt", b"1")
    museum.insert(
        {"id": 1, "path": "https://cdn.example/media/a%20b/%C3%BC.txt?width=7#x"},
        {"id": 2, "path": "https://cdn.example/media/%2e%2e/secret"},
        {"id": 3, "path": "https://other.example/media/a"},
        {"id": 4, "path": "https://cdn.example/media/a%00b"},
    )
    report = adopted(museum, prefix="https://cdn.example/media/", policy="skip")
    assert (report.rows, dict(report.counts)) == (1, {"outside": 2, "unreadable": 1})
    assert museum.facts()[1]["filename"] == "ü.txt"


@here
def test_a_root_in_another_storage(museum: Museum) -> None:
    place = museum.folder / "remote.db"
    remote = f"db:sqlite:///{place}?create=true"
    source = Storages(remote)
    source.resolve().put("a/b.txt", io.BytesIO(b"hello"), size=5, content_type="text/plain")
    museum.insert({"id": 1, "path": "a/b.txt"}, {"id": 2, "path": "a/c.txt"}, {"id": 3, "path": "../a"})
    report = adopted(museum, root=remote, policy="skip")
    assert (report.rows, dict(report.counts)) == (1, {"missing": 1, "name": 1})
    assert museum.problems() == []


def listed(storage: Any) -> list[str]:
    found = storage.keys()
    return [key for key, _ in found]


@here
@pytest.mark.parametrize("place", ["memory", "db", "s3", "mirror"])
def test_in_place_in_a_storage_that_is_no_folder(museum: Museum, place: str, request: pytest.FixtureRequest) -> None:
    """Keys that are not of our form: read, verified, swept past, moved, and purged when they are dropped."""
    storage: Any = f"db:sqlite:///{museum.folder}/files.db?create=true"
    if place == "memory":
        storage = MemoryStorage()
    elif place == "s3":
        credentials = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
        bucket = request.getfixturevalue("bucket")
        storage = S3Storage(bucket, endpoint_url=request.getfixturevalue("seaweed").endpoint, **credentials)
    folders = {name: f"local:{museum.folder}/{name}?durable=false" for name in ("one", "two")}
    museum.files.configure(
        {"default": "mirror:one,two" if place == "mirror" else storage, "new": MemoryStorage(), **folders}
    )
    made = museum.files.resolve("default")
    names = ["x/a.txt", "7", "x/B (1).txt", "2020/01/01/a", "UPPER/lower.png"]
    for name in names:
        made.put(name, io.BytesIO(name.encode()), size=len(name), content_type="text/plain")
    made.put("nobody's", io.BytesIO(b"no row"), size=6, content_type="text/plain")
    museum.insert(*({"id": n, "path": f"/media/{name}"} for n, name in enumerate(names)))
    assert adopted(museum, "in_place", root=None, prefix="/media/").rows == len(names)
    assert [facts["key"] for facts in museum.facts().values()] == names
    with Session(museum.engine) as session:
        assert [session.get_one(museum.Doc, n).file.read().decode() for n in range(5)] == names  # type: ignore[union-attr]
    assert museum.sweep().ok
    verified = museum.files.verify(museum.engine, checksums=True)
    assert (verified.ok, verified.files) == (True, 5), verified.findings
    museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    with Session(museum.engine) as session:
        session.delete(session.get_one(museum.Doc, 0))
        session.commit()
    assert museum.sweep().ok
    assert sorted(listed(made)) == sorted([*names[1:], "nobody's"])
    assert museum.files.move(museum.engine, "default", "new", retain=timedelta(0)).files == 4
    assert museum.sweep().ok
    assert listed(made) == ["nobody's"]
    report = museum.migrate(
        lambda op: op.restore_path_column("docs", "path", "file", root=None, mode="in_place", prefix="/media/")
    )
    assert report.rows == 4
    assert museum.column("path") == {n: f"/media/{name}" for n, name in enumerate(names) if n}
    assert sorted(listed(made)) == sorted([*names[1:], "nobody's"])
    assert list(museum.files.resolve("new").keys()) == []
    made.delete([*names, "nobody's", MARKER])


@here
@pytest.mark.parametrize(
    ("mode", "options", "said"),
    [
        ("copy", {"root": "/nowhere"}, "there is no folder '/nowhere'"),
        ("copy", {"root": None}, "needs the root"),
        ("in_place", {}, "is not inside of storage 'default'"),
        ("move", {}, "mode 'move': expected 'copy', 'in_place', 'link'"),
        ("link", {"storage": "memory"}, "needs folders of this machine"),
        ("link", {"root": "s3://bucket/x"}, "leave out root"),
        ("in_place", {"storage": "memory"}, "is no folder of this machine"),
        ("copy", {"fallback": "link"}, "fallback 'link'"),
    ],
)
def test_mistakes(museum: Museum, mode: str, options: Any, said: str) -> None:
    museum.files.configure({"default": museum.files.resolve("default"), "memory": MemoryStorage()})
    museum.insert({"id": 1, "path": "a"})
    with pytest.raises(BadConfiguration, match=said):
        adopted(museum, mode, **options)


@here
def test_linked_files_come_back_from_a_storage_that_nothing_can_be_linked_into(museum: Museum) -> None:
    museum.lay("a.txt", b"a")
    museum.insert({"id": 1, "path": "a.txt"})
    kept = f"local:{museum.folder / 'kept'}"
    museum.files.configure({"default": museum.files.resolve("default"), "kept": kept, "elsewhere": MemoryStorage()})
    adopted(museum, "link", storage="kept")
    assert museum.files.move(museum.engine, "kept", "elsewhere").files == 1
    (museum.root / "a.txt").unlink()
    back = {"root": str(museum.root), "mode": "link", "storage": "elsewhere"}
    museum.migrate(lambda op: op.restore_path_column("docs", "path", "file", **back))
    assert (museum.root / "a.txt").read_bytes() == b"a"
    assert museum.column("path") == {1: "a.txt"}


@here
def test_a_table_without_rows_links_nothing(museum: Museum) -> None:
    museum.files.configure({"default": MemoryStorage()})
    assert adopted(museum, "link").rows == 0


@here
def test_adopted_files_live_on_beside_new_ones(museum: Museum) -> None:
    """A sweep takes none for a stranger, verify knows them, and they can be moved to another storage."""
    for number in range(30):
        museum.lay(f"{number}.txt", b"%d" % number)
    museum.lay("nobody's.txt", b"not in any row")
    museum.insert(*({"id": n, "path": f"{n}.txt"} for n in range(30)))
    adopted(museum, "in_place", storage="old")
    assert museum.sweep().ok
    assert len(museum.stored("old")) == 31
    report = museum.files.verify(museum.engine, checksums=True)
    assert (report.ok, report.files) == (True, 30), report.findings
    museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    moved = museum.files.move(museum.engine, "old", "default")
    assert (moved.ok, moved.files) == (True, 30)
    assert museum.facts()[7]["adopted"] == {"path": "7.txt", "row": ["7"]}
    with Session(museum.engine) as session:
        assert session.get_one(museum.Doc, 7).file.read() == b"7"  # type: ignore[union-attr]


@here
def test_a_folder_that_becomes_a_link_meanwhile(museum: Museum, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking and opening, somebody lets the path lead elsewhere."""
    (museum.folder / "elsewhere").mkdir()
    (museum.folder / "elsewhere" / "a").write_bytes(b"secret")
    museum.lay("sub/a", b"fine")
    museum.insert({"id": 1, "path": "sub/a"})
    original = os.open

    def swap(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("/sub/a"):
            (museum.root / "sub").rename(museum.root / "was")
            (museum.root / "sub").symlink_to(museum.folder / "elsewhere")
            monkeypatch.setattr(os, "open", original)
        return original(path, *arguments, **options)

    monkeypatch.setattr(os, "open", swap)
    report = adopted(museum, policy="skip")
    assert (report.rows, dict(report.counts)) == (0, {"outside": 1})
    assert museum.stored("default") == set()


@here
@pytest.mark.parametrize("kind", ["path", "depot"])
def test_a_text_that_is_no_text(museum: Museum, kind: str) -> None:
    """SQLite keeps any bytes in a column of text."""
    museum.lay("7/file", b"a")
    value = "7/file" if kind == "path" else json.dumps({"depot_name": "old", "file_id": "7", "path": "old/7"})
    museum.insert({"id": 1, "path": value}, {"id": 2, "path": "x"}, {"id": 3, "path": "x"})
    with museum.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE docs SET path = CAST(x'ff2e747874' AS TEXT) WHERE id > 1")
    options: dict[str, Any] = {"root": museum.root} if kind == "path" else {}

    def call(verb: str, **more: Any) -> Any:
        about = {**options, **more}
        return museum.migrate(lambda op: getattr(op, f"{verb}_{kind}_column")("docs", "path", "file", **about))

    with pytest.raises(AdoptionFailed, match=r"nothing was changed.*udcff.txt"):
        call("adopt")
    report = call("adopt", policy="skip")
    assert (report.rows, dict(report.counts)) == (1, {"unreadable": 2})
    assert call("restore", policy="skip").rows == 1
    written = museum.folder / "left.jsonl"
    report = call("adopt", policy="null", report=written)
    assert (report.rows, dict(report.counts)) == (1, {"unreadable": 2})
    assert [json.loads(line)["value"] for line in written.read_text().splitlines()] == ["\udcff.txt"] * 2
    assert museum.column("path") == {1: value, 2: None, 3: None}
