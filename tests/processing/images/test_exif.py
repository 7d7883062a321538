"""Of EXIF, what was asked for is kept, and nothing else; the time is read as cameras write it."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from sa_attachments import Attachment
from sa_attachments.processing.images import Convert, Dimensions, Fit
from sa_attachments.processing.images.exif import kept, taken_at
from sa_attachments.processing.steps import run

from .samples import QUARTERS, chart, corners, opened, similar, written

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><note>me</note></x:xmpmeta>'


def camera() -> Image.Exif:
    """As phones write it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera & Co"
    exif[ExifTags.Base.Artist] = "Ann Onymous"
    exif[ExifTags.Base.Copyright] = "All mine"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.ImageWidth] = 4000
    exif[ExifTags.Base.DateTime] = "2026:01:02 03:04:05"
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    inner[ExifTags.Base.DateTimeOriginal] = "2025:07:08 09:10:11"
    inner[ExifTags.Base.OffsetTimeOriginal] = "+02:00"
    inner[ExifTags.Base.FNumber] = TiffImagePlugin.IFDRational(28, 10)
    inner[ExifTags.Base.MakerNote] = b"where you were"
    inner[ExifTags.Base.ExifImageWidth] = 4000
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    place[ExifTags.GPS.GPSLatitudeRef] = "N"
    place[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    return exif


def again(data: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    if data:
        exif.load(data)
    return exif


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("target", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
def test_nothing_is_kept_unless_asked_for(kind: str, target: str) -> None:
    data = written(chart(), kind, exif=camera().tobytes())
    done = run([Convert(target)], Attachment.upload(data), "").read()
    image = opened(done)
    assert dict(image.getexif()) == {}
    for secret in (b"Onymous", b"Camera", b"2025", b"where you were"):
        assert secret in data
        assert secret not in done


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("target", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("keep", [("copyright",), ("exif",), ("gps",), ("gps", "copyright"), ("exif", "gps")])
def test_what_is_asked_for_is_kept(kind: str, target: str, keep: tuple[str, ...]) -> None:
    data = written(chart(), kind, exif=camera().tobytes())
    found = opened(run([Convert(target, keep=keep)], Attachment.upload(data), "").read()).getexif()
    inner, place = found.get_ifd(ExifTags.IFD.Exif), found.get_ifd(ExifTags.IFD.GPSInfo)
    everything = "exif" in keep
    assert found.get(ExifTags.Base.Make) == ("Camera & Co" if everything else None)
    assert found.get(ExifTags.Base.Artist) == ("Ann Onymous" if everything or "copyright" in keep else None)
    assert found.get(ExifTags.Base.Copyright) == ("All mine" if everything or "copyright" in keep else None)
    assert inner.get(ExifTags.Base.DateTimeOriginal) == ("2025:07:08 09:10:11" if everything else None)
    assert inner.get(ExifTags.Base.FNumber) == (2.8 if everything else None)
    assert place.get(ExifTags.GPS.GPSLatitude) == ((52.0, 31.0, 12.0) if "gps" in keep else None)
    # What was true of the old file only
    assert found.get(ExifTags.Base.Orientation, 1) == 1
    assert ExifTags.Base.ImageWidth not in found or kind == "TIFF"
    assert ExifTags.Base.MakerNote not in inner
    assert ExifTags.Base.ExifImageWidth not in inner


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("target", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_xmp_is_kept_as_it_is(kind: str, target: str) -> None:
    data = _with_xmp(kind)
    assert XMP in data
    done = run([Convert(target, keep="xmp")], Attachment.upload(data), "").read()
    assert opened(done).info["xmp"] == XMP
    assert XMP not in run([Convert(target)], Attachment.upload(data), "").read()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
def test_xmp_that_is_kept_does_not_turn_the_picture_once_more(kind: str) -> None:
    said = XMP.replace(b"<note>", b'<note tiff:Orientation="6">')
    lying = chart().transpose(Image.Transpose.ROTATE_90)
    kept = run([Convert("JPEG", keep="xmp"), Dimensions()], Attachment.upload(_with_xmp(kind, said, lying)), "")
    assert opened(kept.read()).info["xmp"] == said.replace(b"6", b"1")
    assert (kept.metadata["width"], kept.metadata["height"]) == lying.size[::-1]
    again = opened(run([Fit(32, 32, format="PNG")], kept, "").read())
    assert again.size == (32, 24)
    assert similar(corners(again), QUARTERS, 40)


def _with_xmp(kind: str, xmp: bytes = XMP, image: Image.Image | None = None) -> bytes:
    options: dict[str, Any] = {"xmp": xmp}
    if kind == "PNG":
        from PIL import PngImagePlugin

        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    elif kind == "TIFF":
        options = {"tiffinfo": {700: xmp}}
    return written(image or chart(), kind, **options)


def test_exif_that_says_by_which_rules_it_was_written_is_kept() -> None:
    """Its interoperability, of which the offset alone is known."""
    exif = camera()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.IFD.Interop] = {1: "R98"}
    data = written(chart(), "JPEG", exif=exif.tobytes())
    found = opened(run([Convert("JPEG", keep="exif")], Attachment.upload(data), "").read()).getexif()
    assert found.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] == 2.8
    assert ExifTags.IFD.Interop not in found.get_ifd(ExifTags.IFD.Exif)


def test_nothing_is_left_of_nothing() -> None:
    assert kept(Image.Exif(), ("exif", "gps", "copyright")) is None
    assert kept(camera(), ()) is None
    assert kept(camera(), ("xmp", "icc")) is None


def test_what_cannot_be_written_again_is_left_out() -> None:
    class Broken(Image.Exif):
        def get_ifd(self, tag: int) -> dict[int, Any]:
            raise SyntaxError("not a TIFF file")

    assert kept(Broken(), ("gps",)) is None
    assert taken_at(Broken()) is None


def at(outer: dict[int, Any], inner: dict[int, Any]) -> str | None:
    exif = Image.Exif()
    exif.update(outer)
    exif.get_ifd(ExifTags.IFD.Exif).update(inner)
    return taken_at(again(exif.tobytes()))


TIME, ORIGINAL, DIGITIZED = ExifTags.Base.DateTime, ExifTags.Base.DateTimeOriginal, ExifTags.Base.DateTimeDigitized
OFFSET, ORIGINAL_OFFSET = ExifTags.Base.OffsetTime, ExifTags.Base.OffsetTimeOriginal


def test_the_time_is_when_it_was_taken() -> None:
    early, late, later = "2025:07:08 09:10:11", "2025:08:08 09:10:11", "2026:01:01 00:00:00"
    assert at({TIME: later}, {ORIGINAL: early, DIGITIZED: late}) == "2025-07-08T09:10:11"
    assert at({TIME: later}, {DIGITIZED: late}) == "2025-08-08T09:10:11"
    assert at({TIME: later}, {}) == "2026-01-01T00:00:00"
    assert at({}, {}) is None


def test_an_offset_is_taken_with_its_own_time() -> None:
    early = "2025:07:08 09:10:11"
    assert at({}, {ORIGINAL: early, ORIGINAL_OFFSET: "-03:30"}) == "2025-07-08T09:10:11-03:30"
    assert at({}, {ORIGINAL: early, OFFSET: "-03:30"}) == "2025-07-08T09:10:11"
    assert at({}, {ORIGINAL: early, ORIGINAL_OFFSET: "   :  "}) == "2025-07-08T09:10:11"


NO_TIMES = [
    "    :  :     :  :  ",
    "0000:00:00 00:00:00",
    "2025:13:01 00:00:00",
    "2025-07-08 09:10:11",
    "2025:07:08 09:10:11Z",
    "yesterday",
    "",
]


@pytest.mark.parametrize("time", NO_TIMES)
def test_what_is_no_time_is_passed_over(time: str) -> None:
    assert at({TIME: "2026:01:01 00:00:00"}, {ORIGINAL: time}) == "2026-01-01T00:00:00"
    assert at({}, {ORIGINAL: time}) is None
