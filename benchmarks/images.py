"""Contest of photos: 60 of 12 megapixels in one commit, with one variant of 400 pixels each.

The floor is a bare Pillow loop on all cores: open, ``thumbnail``, save, and nothing else: it keeps neither the photos
nor any row. Beside it stand a loop that keeps the photos durably too, as the library does, and DEPOT and
sqlalchemy-file, where they are installed, with their own defaults.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from contest import Contest, Run
from floor import Floor
from PIL import Image
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sa_attachments import Attachment, AttachmentType, Storages
from sa_attachments.processing import Limit

SIZE = (4000, 3000)
SIDE = 400
QUALITY = 85
DIFFERENT = 6
"""Photos that differ; each is there several times."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def contests(rounds: int, where: Path | None, scale: float = 1.0) -> Iterable[Contest]:
    """The one row of this group."""
    count = max(8, int(60 * scale))
    with TemporaryDirectory(prefix="bench-", dir=where) as folder:
        photos = [photo(Path(folder, f"photo-{number}.jpg"), number) for number in range(min(DIFFERENT, count))]
        paths = [photos[number % len(photos)] for number in range(count)]
        contest = Contest("photos of 12 MP, one 400 px variant each", f"{count} in one commit", 1.1)
        sides: dict[str, Callable[[Path], Run]] = {
            "ours": partial(ours, paths),
            "floor": partial(bare, paths),
            "a loop that keeps the photos": partial(keeping, paths),
            **{name: partial(side, paths) for name, side in others().items()},
        }
        contest.hold(sides, rounds, where)
        yield contest


def photo(path: Path, seed: int) -> Path:
    """Some 4 MB that are as hard to decode as those of a camera: soft colours, edges and a little noise."""
    noise = Image.effect_noise(SIZE, 24)
    waves = Image.effect_mandelbrot((SIZE[0] // 4, SIZE[1] // 4), (-1.6 + seed / 50, -1.2, 0.6, 1.2), 60).resize(SIZE)
    light = Image.linear_gradient("L").resize(SIZE).rotate(90 * seed)
    channels = [Image.blend(Image.blend(waves, light, 0.2 + 0.2 * number), noise, 0.25) for number in range(3)]
    Image.merge("RGB", channels).save(path, "JPEG", quality=90)
    return path


def ours(paths: list[Path], folder: Path) -> Run:
    """A model with a variant."""
    files = Storages(f"local:{folder}/files")

    class Base(DeclarativeBase):
        pass

    class Photo(Base):
        __tablename__ = "photos"
        id: Mapped[int] = mapped_column(primary_key=True)
        image: Mapped[Attachment] = mapped_column(AttachmentType(files, variants={"small": Limit(SIDE, SIDE)}))

    run = Run()
    engine = create_engine(f"sqlite:///{folder}/rows.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session, run.timed():
        session.add_all([Photo(image=Attachment.upload(path)) for path in paths])
        session.commit()
    with Session(engine) as session:
        for row in session.query(Photo):
            check(row.image.variants["small"].read())
    assert files.settled(60)
    engine.dispose()
    return run


def thumbnail(path: Path, target: Path) -> None:
    """All that the floor does for a photo."""
    with Image.open(path) as image:
        image.thumbnail((SIDE, SIDE))
        image.save(target, "JPEG", quality=QUALITY)


def bare(paths: list[Path], folder: Path) -> Run:
    """Thumbnails of photos that lie there."""
    run, targets = Run(), [folder / f"{number}.jpg" for number in range(len(paths))]
    with run.timed(), ThreadPoolExecutor(CORES) as pool:
        list(pool.map(thumbnail, paths, targets))
    for target in targets:
        check(target.read_bytes())
    return run


def keeping(paths: list[Path], folder: Path) -> Run:
    """Thumbnails, and the photos copied, with checksums, both flushed to the disk."""
    floor, run = Floor(folder / "files"), Run()

    def work(path: Path) -> dict[str, Any]:
        with path.open("rb", buffering=0) as file:
            floor.copy(file, path.name)
        small = io.BytesIO()
        with Image.open(path) as image:
            image.thumbnail((SIDE, SIDE))
            image.save(small, "JPEG", quality=QUALITY)
        return floor.store(small.getvalue(), path.name)

    with run.timed(), ThreadPoolExecutor(CORES) as pool:
        stored = list(pool.map(work, paths))
    for each in stored:
        check((folder / "files" / each["key"]).read_bytes())
    return run


def others() -> dict[str, Callable[[list[Path], Path], Run]]:
    """The libraries that are here."""
    found: dict[str, Callable[[list[Path], Path], Run]] = {}
    try:
        import depot  # noqa: F401

        found["DEPOT"] = by_depot
    except ImportError:
        pass
    try:
        import sqlalchemy_file  # noqa: F401

        found["sqlalchemy-file"] = by_sqlalchemy_file
    except ImportError:
        pass
    return found


def by_depot(paths: list[Path], folder: Path) -> Run:
    from depot.fields.filters.thumbnails import WithThumbnailFilter
    from depot.fields.sqlalchemy import UploadedFileField
    from depot.manager import DepotManager

    name = uuid4().hex
    DepotManager._clear()
    DepotManager.configure(name, {"depot.storage_path": str(folder / "files")})
    DepotManager.set_default(name)
    DepotManager.make_middleware(lambda environ, start: [])  # without one it can't make thumbnails

    def rows(base: type[DeclarativeBase]) -> Callable[[Any], Any]:
        class Photo(base):  # type: ignore[misc, valid-type]
            __tablename__ = "photos"
            id: Mapped[int] = mapped_column(primary_key=True)
            image: Mapped[Any] = mapped_column(
                UploadedFileField(filters=[WithThumbnailFilter((SIDE, SIDE))])  # its JPEG fails
            )

        return Photo

    return _others(paths, folder, rows)


def by_sqlalchemy_file(paths: list[Path], folder: Path) -> Run:
    from libcloud.storage.drivers.local import LocalStorageDriver
    from sqlalchemy_file import ImageField
    from sqlalchemy_file.processors import ThumbnailGenerator
    from sqlalchemy_file.storage import StorageManager

    (folder / "files").mkdir()
    driver = LocalStorageDriver(str(folder))
    StorageManager._clear()
    StorageManager.add_storage("default", driver.get_container("files"))

    def rows(base: type[DeclarativeBase]) -> Callable[[Any], Any]:
        class Photo(base):  # type: ignore[misc, valid-type]
            __tablename__ = "photos"
            id: Mapped[int] = mapped_column(primary_key=True)
            image: Mapped[Any] = mapped_column(ImageField(processors=[ThumbnailGenerator((SIDE, SIDE), "JPEG")]))

        return Photo

    return _others(paths, folder, rows)


def _others(paths: list[Path], folder: Path, rows: Callable[[type[DeclarativeBase]], Callable[..., Any]]) -> Run:
    class Base(DeclarativeBase):
        pass

    photo, run = rows(Base), Run()
    engine = create_engine(f"sqlite:///{folder}/rows.db")
    Base.metadata.create_all(engine)
    with Session(engine) as session, run.timed():
        opened = [path.open("rb") for path in paths]
        session.add_all([photo(image=file) for file in opened])
        session.commit()
        for file in opened:
            file.close()
    engine.dispose()
    files = [path for path in (folder / "files").rglob("*") if path.is_file() and path.suffix != ".json"]
    assert len(files) >= 2 * len(paths), f"{len(files)} files of {len(paths)} photos"
    return run


def check(small: bytes) -> None:
    """It is a thumbnail."""
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.size) == ("JPEG", (SIDE, SIDE * SIZE[1] // SIZE[0]))
        image.load()
