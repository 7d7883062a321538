"""Without Pillow, or without a codec, one is told so where the column is declared, and how to get it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from PIL import Image, features

from sa_attachments import BadConfiguration, MissingExtra
from sa_attachments.processing import images
from sa_attachments.processing.images.pillow import READABLE, WRITABLE, initialized, require

from .samples import samples

STEPS = {
    "AspectRatio": "'1:1'",
    "Capture": "",
    "Convert": "'JPEG'",
    "Cover": "10, 10",
    "Dimensions": "",
    "DominantColour": "",
    "Fit": "10, 10",
    "Intact": "",
    "Limit": "10, 10",
    "MaxDimensions": "10, 10",
    "MaxFrames": "1",
    "MaxPixels": "10",
    "MinDimensions": "10, 10",
    "Placeholder": "",
    "Thumbnail": "10, 10",
}

WITHOUT = """
import sys
sys.modules["PIL"] = None  # as if it were not installed: importing it raises ImportError
from sa_attachments import AttachmentType, MissingExtra, Storages
from sa_attachments import processing
from sa_attachments.processing import MaxSize

files = Storages("memory:")
AttachmentType(files, steps=[MaxSize(3)])
for step in sys.argv[1:]:
    try:
        AttachmentType(files, steps=[eval("processing." + step)])
    except MissingExtra as error:
        print(error)
    else:
        print("no error for", step)
"""


def test_without_pillow_each_step_names_the_extra() -> None:
    calls = [f"{name}({arguments})" for name, arguments in STEPS.items()]
    done = subprocess.run([sys.executable, "-c", WITHOUT, *calls], capture_output=True, text=True, check=True)
    expected = [f"{name} needs Pillow: install sa-attachments[images]" for name in STEPS]
    assert done.stdout.splitlines() == expected


def test_every_step_is_in_that_test() -> None:
    assert {*STEPS, "Transform", "Plan"} == set(images.__all__)


@pytest.mark.parametrize("codec", ["WEBP", "AVIF"])
def test_a_codec_that_pillow_was_built_without_is_missed_at_once(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda name: name != codec.lower())
    with pytest.raises(
        MissingExtra, match=f"the installed Pillow was built without {codec}, which Convert is to write"
    ):
        images.Convert(codec)


@pytest.mark.parametrize("kind", ["TIFF", "webpp", ""])
def test_what_nobody_shows_is_not_written(kind: str) -> None:
    with pytest.raises(BadConfiguration, match="Fit writes 'AVIF', 'GIF', 'JPEG', 'PNG', 'WEBP', not"):
        images.Fit(10, 10, format=kind)


def test_there_is_a_sample_of_all_that_is_read_or_written() -> None:
    kinds = {sample.kind for sample in samples().values()}
    assert kinds | {"HEIF"} == set(READABLE)
    assert set(WRITABLE) <= kinds


def test_pillow_knows_these_formats() -> None:
    initialized()
    require("this test", "AVIF")
    assert set(READABLE) - {"HEIF"} <= set(Image.OPEN)


def test_nothing_global_to_the_process_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's own use of Pillow keeps its limits, and ours does not depend on them."""
    from sa_attachments import Attachment
    from sa_attachments.processing.steps import run

    before: dict[str, Any] = {"MAX_IMAGE_PIXELS": Image.MAX_IMAGE_PIXELS}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    run([images.Fit(10, 10)], Attachment.upload(samples()["PNG-RGB"].data, "a.png"), "Photo.image")
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.undo()
    assert before["MAX_IMAGE_PIXELS"] == Image.MAX_IMAGE_PIXELS


HEIF = """
import io
import pillow_heif
from PIL import Image
from sa_attachments import Attachment, Refused
from sa_attachments.processing import Dimensions, Fit
from sa_attachments.processing.steps import run
from tests.processing.images.samples import QUARTERS, chart, corners, opened, similar

data = io.BytesIO()
exif = Image.Exif()
exif[0x0112] = 6
pillow_heif.from_pillow(chart((80, 60))).save(data, exif=exif)
phone = Attachment.upload(data.getvalue(), "IMG_1.HEIC")
try:
    run([Fit(40, 40)], phone, "Photo.image")
except Refused as refused:
    print(refused)
pillow_heif.register_heif_opener()
done = run([Dimensions(), Fit(40, 40, format="JPEG")], phone, "Photo.image")
image = opened(done.read())
print(done.filename, done.content_type, done.metadata["width"], done.metadata["height"], image.size)
try:
    run([Fit(40, 40, max_pixels=4799)], phone, "Photo.image")
except Refused as refused:
    print(refused)
try:
    run([Fit(40, 40)], Attachment.upload(data.getvalue()[:-100]), "Photo.image")
except Refused as refused:
    print(refused.rule)
"""


def test_pictures_of_iphones_are_read_where_their_format_is_registered() -> None:
    """In a process of its own, since to register it is to register it for all."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", HEIF], capture_output=True, text=True, check=True)
    missing, found, large, broken = done.stdout.splitlines()
    assert missing == "Photo.image: the file is no image that can be read: it is image/heic"
    assert found.startswith("IMG_1.jpg image/jpeg ")
    assert found.endswith(("80 60 (40, 30)", "60 80 (30, 40)"))  # as the phone held it, or as it was turned already
    assert "pixels, allowed are 4,799 together" in large
    assert broken == "Fit"
