"""Columns that filedepot, sqlalchemy-file and advanced-alchemy wrote, by the real packages, are adopted where their
files are, and given back to them.
"""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from PIL import Image
from sqlalchemy import Engine, Text, cast, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import (
    AdoptionFailed,
    Attachment,
    AttachmentListType,
    AttachmentType,
    AttachmentWarning,
    UnknownStorage,
)
from sa_attachments.places import MARKER
from sa_attachments.storages.memory import MemoryStorage
from tests.engines import ENGINES, open_engine

from .museum import DESCRIPTOR, Museum, files_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs
    from advanced_alchemy.types.file_object import FileObject, StoredObject
    from advanced_alchemy.types.file_object import storages as backends
    from advanced_alchemy.types.file_object.backends.obstore import ObstoreBackend
    from depot.fields.filters.thumbnails import WithThumbnailFilter
    from depot.fields.specialized.image import UploadedImageWithThumb
    from depot.fields.sqlalchemy import UploadedFileField
    from depot.manager import DepotManager
    from libcloud.storage.drivers.local import LocalStorageDriver
    from obstore.store import LocalStore
    from sqlalchemy_file import File, FileField, ImageField
    from sqlalchemy_file.storage import StorageManager

SERVERS = [name for name in ENGINES if name in ("sqlite", "postgres", "mariadb")]


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40 + number, 30), (number * 20 % 255, 10, 10)).save(file, "PNG")
    return file.getvalue()


def file_height(attachment: Attachment) -> int:
    return int(Image.open(io.BytesIO(attachment.read())).height)


class World:
    """A table that one library wrote, with its files in ``old``, and the same table mapped with attachments."""

    kind: str
    column = "theirs"
    plural_column: str | None = None

    def __init__(self, museum: Museum) -> None:
        self.museum = museum
        self.name = f"place-{uuid4().hex[:8]}"
        self.storages = {self.name: "old"}
        self.Theirs = self.model()
        self.Theirs.metadata.create_all(museum.engine)
        museum.ledger.lines.create(museum.engine)
        museum.ledger.places.create(museum.engine)
        museum.docs = self.Theirs.__table__

        class Base(DeclarativeBase):
            pass

        class Doc(Base):
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
            file: Mapped[Attachment | None] = mapped_column(AttachmentType(museum.files, "old"))
            pages: Mapped[list[Attachment]] = mapped_column(AttachmentListType(museum.files, "old"))

        self.Doc = Doc

    def base(self) -> Any:
        class Base(DeclarativeBase):
            pass

        return Base

    def model(self) -> Any:
        raise NotImplementedError

    def write(self, session: Session, number: int) -> None:
        raise NotImplementedError

    def read(self, row: Any) -> list[bytes]:
        """All that the library reads of a row, thumbnails included."""
        raise NotImplementedError

    def adopt(self, verb: str = "adopt", **options: Any) -> Any:
        options = {"storages": self.storages, **options}
        return self.museum.migrate(
            lambda op: getattr(op, f"{verb}_{self.kind}_column")("docs", self.column, "file", **options)
        )

    def adopt_lists(self, verb: str = "adopt", **options: Any) -> Any:
        options = {"storages": self.storages, **options}
        return self.museum.migrate(
            lambda op: getattr(op, f"{verb}_{self.kind}_column")("docs", self.plural_column, "pages", **options)
        )

    def all(self) -> dict[int, list[bytes]]:
        with Session(self.museum.engine) as session:
            return {row.id: self.read(row) for row in session.query(self.Theirs).order_by(self.Theirs.id)}


class DepotWorld(World):
    kind = "depot"

    def model(self) -> Any:
        DepotManager.configure(self.name, {"depot.storage_path": str(self.museum.root)})
        if DepotManager._middleware is None:
            DepotManager.make_middleware(None)

        class Doc(self.base()):  # type: ignore[misc]
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
            theirs = mapped_column(
                UploadedFileField(
                    upload_storage=self.name,
                    upload_type=UploadedImageWithThumb,
                    filters=(WithThumbnailFilter((12, 12)),),
                )
            )
            file = mapped_column(DESCRIPTOR)
            pages = mapped_column(DESCRIPTOR)

        return Doc

    def write(self, session: Session, number: int) -> None:
        upload = io.BytesIO(picture(number))
        upload.name = f"bild {number}.png"  # type: ignore[attr-defined]
        session.add(self.Theirs(id=number, theirs=upload))

    def read(self, row: Any) -> list[bytes]:
        if row.theirs is None:
            return []
        found = [row.theirs.file.read()]
        if "thumb_id" in row.theirs:
            found += [row.theirs.thumb_file.read(), DepotManager.get_file(row.theirs.thumb_12x12_path).read()]
        assert row.theirs.file.filename == row.theirs.filename
        return found


class SQLAlchemyFileWorld(World):
    kind = "sqlalchemy_file"
    plural_column = "their_pages"

    def model(self) -> Any:
        driver = LocalStorageDriver(str(self.museum.folder))
        StorageManager.add_storage(self.name, driver.get_container("old"))

        class Doc(self.base()):  # type: ignore[misc]
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
            theirs = mapped_column(ImageField(upload_storage=self.name, thumbnail_size=(8, 8)))
            their_pages = mapped_column(FileField(upload_storage=self.name, multiple=True))
            file = mapped_column(DESCRIPTOR)
            pages = mapped_column(DESCRIPTOR)

        return Doc

    def write(self, session: Session, number: int) -> None:
        cover = File(content=io.BytesIO(picture(number)), filename=f"bild {number}.png", content_type="image/png")
        pages = [
            File(content=b"page %d" % n, filename=f"{n}.txt", extra={"meta_data": {"n": n}}) for n in range(number % 3)
        ]
        session.add(self.Theirs(id=number, theirs=cover, their_pages=pages or None))

    def read(self, row: Any) -> list[bytes]:
        found = []
        if row.theirs is not None:
            found.append(row.theirs.file.read())
            assert row.theirs.file.filename == row.theirs["filename"]
            if row.theirs.get("thumbnail"):
                found.append(StorageManager.get_file(row.theirs["thumbnail"]["path"]).read())
        return found + [page.file.read() for page in row.their_pages or ()]


class AdvancedAlchemyWorld(World):
    kind = "advanced_alchemy"
    plural_column = "their_pages"

    def model(self) -> Any:
        backends.register_backend(ObstoreBackend(self.name, LocalStore(self.museum.root)))

        class Doc(self.base()):  # type: ignore[misc]
            __tablename__ = "docs"
            id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
            theirs: Mapped[FileObject | None] = mapped_column(StoredObject(backend=self.name))
            their_pages: Mapped[list[FileObject] | None] = mapped_column(StoredObject(backend=self.name, multiple=True))
            file = mapped_column(DESCRIPTOR)
            pages = mapped_column(DESCRIPTOR)

        return Doc

    def write(self, session: Session, number: int) -> None:
        def saved(path: str, content: bytes) -> FileObject:
            return FileObject(backend=self.name, filename=path, metadata={"number": number}, content=content).save()

        cover = saved(f"covers/bild {number}.png", picture(number))
        pages = [saved(f"pages/{number}/{n}.txt", b"page %d" % n) for n in range(number % 3)]
        session.add(self.Theirs(id=number, theirs=cover, their_pages=pages))

    def read(self, row: Any) -> list[bytes]:
        found = [row.theirs.get_content()] if row.theirs is not None else []
        return found + [page.get_content() for page in row.their_pages or ()]


WORLDS = [DepotWorld, SQLAlchemyFileWorld, AdvancedAlchemyWorld]
PLURAL = WORLDS[1:]


@pytest.fixture
def world(engine: Engine, tmp_path: Path) -> Iterator[Callable[[type[World]], World]]:
    def make(cls: type[World]) -> World:
        made = cls(Museum(engine, tmp_path))
        with Session(engine) as session:
            for number in range(12):
                made.write(session, number)
            session.commit()
        return made

    yield make
    StorageManager._clear()


Make = Callable[[type[World]], World]
on_servers = pytest.mark.parametrize("engine", SERVERS, indirect=True)
here = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
on_two = pytest.mark.parametrize("engine", ["sqlite", "postgres"], indirect=True)


@on_servers
@pytest.mark.parametrize("cls", WORLDS)
def test_adopted_in_place_and_read_back(world: Make, cls: type[World]) -> None:
    theirs = world(cls)
    museum, before = theirs.museum, theirs.all()
    lying = museum.stored("old")
    report = theirs.adopt()
    assert (report.ok, report.rows) == (True, 12)
    assert museum.stored("old") == lying, "not a byte was copied"
    assert museum.stored("default") == set()
    assert museum.problems() == []
    assert set(museum.lines().values()) == {("owned", True)}
    with Session(museum.engine) as session:
        for number in range(12):
            file = session.get_one(theirs.Doc, number).file
            assert file is not None
            assert file.read() == picture(number)
            assert (file.filename, file.content_type) == (f"bild {number}.png", "image/png")
            assert [each.read() for each in file.variants.values()] == before[number][1 : 1 + len(file.variants)]
            for each in file.variants.values():
                assert each.content_type == "image/png"
                assert cls is not SQLAlchemyFileWorld or each.metadata == {"width": 8, "height": file_height(each)}
    for number, facts in museum.facts().items():
        variants = {(museum.root / each["key"]).read_bytes() for each in list(files_of(facts))[1:]}
        assert variants == (
            set(before[number][1:]) if cls is DepotWorld else set(before[number][1:2]) if variants else set()
        )
        assert set(facts["variants"]) == {"depot": {"thumb", "thumb_12x12"}, "sqlalchemy_file": {"thumbnail"}}.get(
            cls.kind, set()
        )
    verified = museum.files.verify(museum.engine, checksums=True)
    assert verified.ok, verified.findings
    assert museum.sweep().ok
    assert museum.stored("old") == lying, "no sweep takes them for strangers"
    assert theirs.all() == before


@on_two
@pytest.mark.parametrize("cls", WORLDS)
def test_dropped_files_go_once_it_is_finished(world: Make, cls: type[World]) -> None:
    theirs = world(cls)
    museum = theirs.museum
    theirs.adopt()
    if theirs.plural_column:
        theirs.adopt_lists()
    with Session(museum.engine) as session:
        session.delete(session.get_one(theirs.Doc, 3))
        one, other = session.get_one(theirs.Doc, 5), session.get_one(theirs.Doc, 6)
        one.file, other.file = None, one.file  # its line forgets what lies beside it
        session.commit()
    lying = museum.stored("old")
    assert museum.sweep().ok
    assert museum.stored("old") == lying, "held"
    for column in ("file", "pages"):
        museum.migrate(lambda op, column=column: op.finish_adoption("docs", column))
    with Session(museum.engine) as session:
        session.delete(session.get_one(theirs.Doc, 4))
        session.commit()
    assert museum.sweep().ok
    with Session(museum.engine) as session:
        docs = session.query(theirs.Doc).all()
        kept = {
            each["key"]
            for doc in docs
            for f in [doc.file, *doc.pages]
            if f
            for each in files_of(json.loads(f.to_json()))
        }
    assert museum.stored("old") == kept, "files of others, thumbnails and what lay beside are gone, and only these"
    assert len(docs) == 10


@on_two
@pytest.mark.parametrize("cls", PLURAL)
def test_lists(world: Make, cls: type[World]) -> None:
    theirs = world(cls)
    museum, before, column = theirs.museum, theirs.all(), theirs.plural_column
    assert column is not None
    report = theirs.adopt_lists()
    assert report.ok
    assert museum.problems("pages") == []
    with Session(museum.engine) as session:
        for number in range(12):
            pages = session.get_one(theirs.Doc, number).pages
            assert [page.read() for page in pages] == [b"page %d" % n for n in range(number % 3)]
            if cls is SQLAlchemyFileWorld:
                assert [page.metadata["n"] for page in pages] == list(range(number % 3))
        doc = session.get_one(theirs.Doc, 5)
        doc.pages = [Attachment.upload(b"new page", "new.txt"), doc.pages[1]]
        session.commit()
    assert theirs.adopt_lists("restore").ok
    after = theirs.all()
    assert after.pop(5)[-2:] == [b"new page", b"page 1"]
    before.pop(5)
    assert after == before
    assert museum.lines() == {}


@pytest.mark.parametrize("cls", WORLDS)
@pytest.mark.parametrize(
    ("engine", "finished"), [("sqlite", True), ("sqlite", False), ("postgres", False)], indirect=["engine"]
)
def test_given_back(world: Make, cls: type[World], finished: bool) -> None:
    """The library reads what it read before, and what was uploaded since; it has its column as it was."""
    theirs = world(cls)
    museum, before = theirs.museum, theirs.all()
    values = _values(theirs)
    lying = museum.stored("old")
    theirs.adopt()
    if finished:
        museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    with Session(museum.engine) as session:
        session.get_one(theirs.Doc, 3).file = Attachment.upload(b"new", "neu.txt")
        session.get_one(theirs.Doc, 4).file = None
        session.commit()
    assert museum.sweep().ok
    report = theirs.adopt("restore")
    assert (report.ok, report.rows) == (True, 11)
    if finished:  # its file is purged, and its old column still says so
        with museum.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE docs SET theirs = NULL WHERE id = 4")
    museum.files.sweep(museum.engine, grace=timedelta(0), stranger_retain=timedelta(0), full=True)
    after, said = theirs.all(), _values(theirs)
    assert museum.lines() == {}
    assert museum.facts() == {}
    assert after[3][0] == b"new", "no sweep takes it for a file that nobody names"
    for number in before:
        if number not in (3, 4):
            assert after[number] == before[number]
            assert said[number] == values[number]
    if not finished:
        assert after[4] == before[4], "its column still says so, and the file was held"
        assert museum.stored("old") >= {key for key in lying if key in museum.stored("old")}
    with Session(museum.engine) as session:
        row = session.get_one(theirs.Theirs, 3)
        assert (row.theirs["filename"] if cls is not AdvancedAlchemyWorld else "neu.txt") == "neu.txt"


def _values(theirs: World) -> dict[int, Any]:
    """The column as JSON."""
    column = theirs.Theirs.__table__.c.theirs
    with theirs.museum.engine.connect() as connection:
        rows = connection.execute(select(theirs.Theirs.__table__.c.id, cast(column, Text)))
        return {row[0]: json.loads(row[1]) for row in rows if row[1]}


@here
@pytest.mark.parametrize("cls", WORLDS)
def test_copied_on_request(world: Make, cls: type[World]) -> None:
    theirs = world(cls)
    museum, before = theirs.museum, theirs.all()
    lying = museum.stored("old")
    report = theirs.adopt(mode="copy", storage="default")
    assert (report.ok, report.rows) == (True, 12)
    assert museum.problems() == []
    assert len(museum.stored("default")) == report.files
    assert {facts["storage"] for facts in museum.facts().values()} == {"default"}
    assert theirs.adopt("restore", mode="copy", storage="default").ok
    assert theirs.all() == before
    assert museum.stored("default") == set()
    assert museum.stored("old") == lying


@here
@pytest.mark.parametrize("cls", WORLDS)
def test_bytes_that_were_moved_come_back(world: Make, cls: type[World]) -> None:
    """After a move to another storage the library's own place is empty."""
    theirs = world(cls)
    museum, before = theirs.museum, theirs.all()
    theirs.adopt()
    museum.migrate(lambda op: op.finish_adoption("docs", "file"))
    assert museum.files.move(museum.engine, "old", "default", retain=timedelta(0)).ok
    assert museum.sweep().ok
    assert theirs.adopt("restore").ok
    if theirs.plural_column is None:
        assert theirs.all() == before
    assert {n: read[0] for n, read in theirs.all().items()} == {n: read[0] for n, read in before.items()}
    assert museum.stored("default") == set()


@here
def test_two_rows_that_share_a_file(world: Make) -> None:
    theirs = world(DepotWorld)
    museum = theirs.museum
    with museum.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE docs SET theirs = (SELECT d.theirs FROM docs d WHERE d.id = 1) WHERE id = 2")
    before = theirs.all()
    with pytest.raises(AdoptionFailed, match=r"nothing was changed.* 2 rows name"):
        theirs.adopt()
    assert museum.facts() == {}
    assert theirs.adopt(fallback="copy").rows == 12
    assert museum.problems() == []
    assert theirs.adopt("restore", fallback="copy").ok
    assert theirs.all() == before


@here
@pytest.mark.parametrize("cls", WORLDS)
def test_files_that_are_not_there_and_values_that_are_none(world: Make, cls: type[World]) -> None:
    theirs = world(cls)
    museum = theirs.museum
    theirs.adopt()
    key = museum.facts()[7]["key"]
    theirs.adopt("restore")
    (museum.root / key).unlink()
    table = theirs.Theirs.__table__
    with museum.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE docs SET theirs = '{\"a\": 1}' WHERE id = 8")
        connection.exec_driver_sql("UPDATE docs SET theirs = '' WHERE id = 9")
    assert table.name == "docs"
    with pytest.raises(AdoptionFailed, match="describes no file"):
        theirs.adopt()
    assert museum.facts() == {}
    report = theirs.adopt(policy="skip")
    assert report.rows == 9
    assert {each.row[0]: each.kind for each in report.unadopted} == {7: "missing", 8: "unreadable", 9: "empty"}
    assert museum.problems() == []


@on_two
@pytest.mark.parametrize(
    ("kind", "damage", "counts"),
    [
        ("sqlalchemy_file", {"extra": {"meta_data": [1]}}, {"unreadable": 1}),
        ("sqlalchemy_file", {"extra": {"meta_data": {"n": float("nan")}}}, {"unreadable": 1}),
        ("advanced_alchemy", {"metadata": "x"}, {"unreadable": 1}),
        ("advanced_alchemy", {"metadata": {"n": "\0"}}, {"unreadable": 1}),
        ("advanced_alchemy", {"last_modified": 1e300}, {}),
        ("advanced_alchemy", {"content_type": "\0"}, {}),
    ],
)
def test_values_that_are_damaged(
    engine: Engine, tmp_path: Path, kind: str, damage: dict[str, Any], counts: dict[str, int]
) -> None:
    museum = Museum(engine, tmp_path).open()
    museum.lay("a", b"a")
    value = {"filename": "a", "backend": "old", "file_id": "a", "path": "old/a", **damage}
    museum.insert({"id": 1, "path": json.dumps(value)})
    about: dict[str, Any] = {"policy": "skip"}
    report = museum.migrate(lambda op: getattr(op, f"adopt_{kind}_column")("docs", "path", "file", **about))
    assert dict(report.counts) == counts
    assert museum.problems() == []


DEPOT = {"depot_name": "old", "file_id": "7", "path": "old/7", "files": ["old/7", "old/8"], "thumb_path": "old/8"}


@pytest.fixture
def depot(engine: Engine, tmp_path: Path) -> Museum:
    """Of one row, whose depot has the name of our storage."""
    museum = Museum(engine, tmp_path).open()
    for name in ("7/file", "7/metadata.json", "8/file", "8/metadata.json"):
        museum.lay(name, name.encode())
    museum.insert({"id": 1, "path": json.dumps(DEPOT)})
    return museum


@here
def test_what_lies_beside_files_stays_in_a_place_of_another_database(depot: Museum, tmp_path: Path) -> None:
    depot.migrate(lambda op: op.adopt_depot_column("docs", "path", "file"))
    shutil.copy(str(depot.engine.url.database), tmp_path / "copy.db")
    copy = Museum(open_engine(f"sqlite:///{tmp_path}/copy.db"), tmp_path)
    before = depot.stored("old")
    with pytest.warns(AttachmentWarning, match="belongs to another database"):
        copy.migrate(lambda op: op.finish_adoption("docs", "file"))
    copy.engine.dispose()
    assert depot.stored("old") == before
    depot.migrate(lambda op: op.finish_adoption("docs", "file"))
    assert depot.stored("old") == {"7/file", "8/file"}


@here
def test_what_lies_beside_a_dropped_file_goes_with_it_on_the_way_back(depot: Museum) -> None:
    depot.migrate(lambda op: op.adopt_depot_column("docs", "path", "file"))
    with Session(depot.engine) as session:
        session.delete(session.get_one(depot.Doc, 1))
        session.commit()
    assert depot.sweep().ok
    assert len(depot.stored("old")) == 4, "held"
    depot.migrate(lambda op: op.restore_depot_column("docs", "path", "file"))
    assert depot.stored("old") == set()
    assert depot.lines() == {}


@here
def test_a_thumbnail_that_could_not_be_made_anew(depot: Museum) -> None:
    depot.migrate(lambda op: op.adopt_depot_column("docs", "path", "file"))
    facts = depot.facts()[1]
    facts["variants"]["thumb"] = {"error": "no such picture", "recipe": "0"}
    with depot.engine.begin() as connection:
        connection.execute(depot.docs.update().values(file=facts))
        lines = depot.ledger.lines
        connection.execute(lines.update().where(lines.c.key == "8/file").values(state="condemned", purge_after=0))
    assert depot.migrate(lambda op: op.restore_depot_column("docs", "path", "file")).ok
    assert json.loads(depot.column("path")[1]) == DEPOT
    assert {"7/file", "8/file"} < depot.stored("old")


@here
def test_another_file_of_the_same_size_is_not_taken_for_it(depot: Museum) -> None:
    about: dict[str, Any] = {"storages": {"old": "old"}, "mode": "copy", "storage": "default"}
    depot.migrate(lambda op: op.adopt_depot_column("docs", "path", "file", **about))
    depot.lay("7/file", b"7/FILE")
    assert depot.migrate(lambda op: op.restore_depot_column("docs", "path", "file", **about)).ok
    identity = json.loads(depot.column("path")[1])["file_id"]
    assert (depot.root / identity / "file").read_bytes() == b"7/file"
    assert (depot.root / "7/file").read_bytes() == b"7/FILE"


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
def test_a_list_that_the_old_application_wrote_since_is_not_lost(engine: Engine, tmp_path: Path) -> None:
    museum = Museum(engine, tmp_path).open()
    for name in "abc":
        museum.lay(name, name.encode())
    values = [{"filename": name, "backend": "old"} for name in "abc"]
    museum.insert({"id": 1, "path": json.dumps(values[:2])}, {"id": 2, "path": "[]"})
    museum.migrate(lambda op: op.adopt_advanced_alchemy_column("docs", "path", "pages"))
    with museum.engine.begin() as connection:
        connection.execute(museum.docs.update().where(museum.docs.c.id == 1).values(path=json.dumps(values)))
    with pytest.raises(AdoptionFailed, match=r"docs\.path says .* since it was adopted"):
        museum.migrate(lambda op: op.restore_advanced_alchemy_column("docs", "path", "pages"))
    assert json.loads(museum.column("path")[1]) == values
    museum.migrate(lambda op: op.finish_adoption("docs", "pages", source="path"))


@here
@pytest.mark.parametrize("cls", WORLDS)
def test_a_storage_that_is_not_named(world: Make, cls: type[World]) -> None:
    theirs = world(cls)
    theirs.storages = {}
    with pytest.raises(UnknownStorage, match=f"docs.theirs names files in '{theirs.name}', say which storage"):
        theirs.adopt(policy="skip")
    assert theirs.museum.facts() == {}


@here
def test_a_place_that_is_no_folder(world: Make) -> None:
    """In a bucket, DEPOT calls a file by its id alone."""
    theirs = world(DepotWorld)
    museum = theirs.museum
    bucket = MemoryStorage()
    for path in museum.root.rglob("file"):
        key = str(path.parent.relative_to(museum.root))
        bucket.put(key, io.BytesIO(path.read_bytes()), size=None, content_type="image/png")
    museum.files.configure({"default": bucket, "old": "default"})
    assert theirs.adopt().rows == 12
    assert all("/" not in facts["key"] for facts in museum.facts().values())
    with Session(museum.engine) as session:
        session.get_one(theirs.Doc, 3).file = Attachment.upload(b"new", "neu.txt")
        session.commit()
    assert museum.sweep().ok
    report = museum.files.verify(museum.engine, checksums=True)
    assert report.ok, report.findings
    values = _values(theirs)
    assert theirs.adopt("restore").ok
    said = _values(theirs)
    assert bucket.open(said[3]["file_id"]).read() == b"new"
    assert {n: v for n, v in said.items() if n != 3} == {n: v for n, v in values.items() if n != 3}


@here
@pytest.mark.parametrize("mode", ["in_place", "copy"])
@pytest.mark.filterwarnings("ignore:nothing is deleted")
def test_what_a_storage_keeps_for_itself_is_no_file_of_a_library(engine: Engine, tmp_path: Path, mode: str) -> None:
    museum = Museum(engine, tmp_path).open()
    museum.lay(MARKER, b"somebody's")
    museum.insert({"id": 1, "path": json.dumps({"filename": MARKER, "backend": "old"})})
    about: dict[str, Any] = {"mode": mode}
    with pytest.raises(AdoptionFailed, match="keeps in its place for itself"):
        museum.migrate(lambda op: op.adopt_advanced_alchemy_column("docs", "path", "file", **about))
    about["policy"] = "skip"
    report = museum.migrate(lambda op: op.adopt_advanced_alchemy_column("docs", "path", "file", **about))
    assert dict(report.counts) == {"outside": 1}


@pytest.mark.parametrize("engine", ["postgres"], indirect=True)
@pytest.mark.parametrize("kind", ["depot", "sqlalchemy_file", "advanced_alchemy"])
def test_what_the_old_column_is_too_small_for_leaves_no_orphan(engine: Engine, tmp_path: Path, kind: str) -> None:
    museum = Museum(engine, tmp_path).open()
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE docs ALTER path TYPE VARCHAR(20)")
    with Session(engine) as session:
        session.add(museum.Doc(id=1, file=Attachment.upload(b"new", "a.txt")))
        session.commit()
    about: dict[str, Any] = {"storages": {"old": "old"}, "policy": "skip"}
    report = museum.migrate(lambda op: getattr(op, f"restore_{kind}_column")("docs", "path", "file", **about))
    assert dict(report.counts) == {"unreadable": 1}
    assert museum.stored("old") == set()
    assert museum.problems() == []


@here
def test_a_list_of_which_a_file_is_lost_leaves_no_orphan(engine: Engine, tmp_path: Path) -> None:
    museum = Museum(engine, tmp_path).open()
    with Session(engine) as session:
        session.add(museum.Doc(id=1, pages=[Attachment.upload(b"1", "a.txt"), Attachment.upload(b"2", "b.txt")]))
        session.commit()
    (museum.folder / "default" / museum.facts("pages")[1][1]["key"]).unlink()
    about: dict[str, Any] = {"storages": {"old": "old"}, "policy": "skip"}
    report = museum.migrate(lambda op: op.restore_sqlalchemy_file_column("docs", "path", "pages", **about))
    assert dict(report.counts) == {"missing": 1}
    assert museum.stored("old") == set()


@pytest.mark.parametrize("engine", SERVERS, indirect=True)
@pytest.mark.parametrize("kind", ["depot", "sqlalchemy_file", "advanced_alchemy"])
def test_values_that_name_no_file_are_none(engine: Engine, tmp_path: Path, kind: str) -> None:
    museum = Museum(engine, tmp_path).open()
    nothing = ["[null]", "[ ]", "[]", "null", " null\n", "[ null,\n  null ]", None]
    museum.insert(*({"id": n, "path": value} for n, value in enumerate(nothing)))
    report = museum.migrate(lambda op: getattr(op, f"adopt_{kind}_column")("docs", "path", "pages"))
    assert (report.ok, report.rows) == (True, 0)
    museum.migrate(lambda op: op.finish_adoption("docs", "pages", source="path"))
    museum.insert({"id": 10, "path": "[{}]"}, {"id": 11, "path": '{"null": null}'}, {"id": 12, "path": ""})
    report = museum.migrate(lambda op: getattr(op, f"adopt_{kind}_column")("docs", "path", "pages", policy="skip"))
    assert {each.row[0] for each in report.unadopted} == {10, 11, 12}
    assert museum.facts("pages") == {}
