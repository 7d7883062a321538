"""The page on images shows every transform, in pictures that the code makes today as when they were committed."""

from __future__ import annotations

import importlib.util
import io
import re
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image, ImageChops, ImageStat

from sa_attachments.processing import images

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "images.md").read_text()


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "images" / "pictures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PICTURES = load()


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return dict(PICTURES.pictures(PICTURES.SAMPLE.read_bytes()))


def frames(data: bytes) -> list[Image.Image]:
    image = Image.open(io.BytesIO(data))
    found = []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        found.append(image.convert("RGB"))
    return found


def difference(one: Image.Image, other: Image.Image) -> float:
    """How far the pixels are apart, of 255, on average."""
    return max(ImageStat.Stat(ImageChops.difference(one, other)).rms)


@pytest.mark.parametrize("name", [*PICTURES.SHOWN, *PICTURES.SHEETS])
def test_the_picture_is_what_the_code_makes(name: str, made: dict[str, bytes]) -> None:
    committed = (DOCS / "images" / name).read_bytes()
    assert Image.open(io.BytesIO(made[name])).format == Image.open(io.BytesIO(committed)).format
    ours, theirs = frames(made[name]), frames(committed)
    assert [frame.size for frame in ours] == [frame.size for frame in theirs]
    # Codecs get better; a picture that is turned, cut elsewhere or of other colours is 30 or more away.
    assert max(map(difference, ours, theirs)) < 8


def test_another_picture_would_be_noticed(made: dict[str, bytes]) -> None:
    (fit,) = frames(made["fit.jpg"])
    (cover,) = frames(made["cover.jpg"])
    assert difference(fit, fit.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > 16
    assert difference(fit, cover.resize(fit.size)) > 16
    assert difference(fit, fit.convert("L").convert("RGB")) > 16


@pytest.mark.parametrize(("name", "step"), PICTURES.SHOWN.items(), ids=list(PICTURES.SHOWN))
def test_the_page_shows_it_beside_its_step(name: str, step: object) -> None:
    assert re.search(
        rf"^\| `{re.escape(repr(step))}` \| !\[[^\]]+\]\(images/{re.escape(name)}\) \|", PAGE, re.MULTILINE
    )


@pytest.mark.parametrize("name", PICTURES.SHEETS)
def test_the_page_shows_the_others(name: str) -> None:
    assert f"](images/{name})" in PAGE


def test_no_picture_is_there_for_nothing() -> None:
    there = {path.name for path in (DOCS / "images").iterdir() if path.suffix not in (".py", "")}
    assert there == {"sample.jpg", *PICTURES.SHOWN, *PICTURES.SHEETS}
    assert sum(path.stat().st_size for path in (DOCS / "images").glob("*.*")) < 400_000


@pytest.mark.parametrize("name", images.__all__)
def test_the_page_names_every_step(name: str) -> None:
    assert re.search(rf"\b{name}\b", PAGE)


def test_the_sample_is_drawn_by_the_script() -> None:
    (drawn,), (committed,) = frames(PICTURES.draw()), frames(PICTURES.SAMPLE.read_bytes())
    assert drawn.size == committed.size
    assert difference(drawn.resize((120, 80)), committed.resize((120, 80))) < 8
