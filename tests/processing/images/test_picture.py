"""Whatever is no picture, is broken or lies is refused, by every step, in bounded time, and says why; what goes wrong
with the source is not blamed on the picture.
"""

from __future__ import annotations

import gzip
import io
import random
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from PIL import GifImagePlugin, Image, PngImagePlugin

from sa_attachments import Attachment, Refused, SourceConsumed
from sa_attachments.processing import MaxSize, Step
from sa_attachments.processing.images import (
    Capture,
    Convert,
    Cover,
    Dimensions,
    DominantColour,
    Fit,
    Intact,
    Limit,
    MaxDimensions,
    MaxFrames,
    MaxPixels,
    MinDimensions,
    Placeholder,
    Thumbnail,
)
from sa_attachments.processing.images.picture import opened
from sa_attachments.processing.steps import run

from .bombs import BOMBS, PIXELS, gif_that_grows, icon_that_lies, jpeg2000_in_pieces, png, tiff_with_a_tile
from .samples import chart, samples, written

LOOKING: list[Step] = [MaxDimensions(10**6), MinDimensions(1), MaxPixels(10**9), MaxFrames(10), Dimensions(), Capture()]
MAKING: list[Step] = [Fit(20, 20), Cover(20, 20), Limit(20, 20), Thumbnail(20, 20), Convert("PNG")]
DECODING: list[Step] = [*MAKING, Intact(), DominantColour(), Placeholder()]


def by_name(step: object) -> str:
    return type(step).__name__


def refusal(step: Step, data: Any, filename: str = "a.png") -> Refused:
    with pytest.raises(Refused) as refused:
        run([step], Attachment.upload(data, filename), "Photo.image")
    error = refused.value
    assert error.target == "Photo.image"
    assert error.rule == type(step).__name__
    assert error.limit is not None
    assert error.measured is not None
    assert str(error).startswith("Photo.image: ")
    return error


# What is no picture

NO_IMAGES = {
    "nothing": b"",
    "one byte": b"\xff",
    "zeros": bytes(1000),
    "text": b"just text",
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "half a signature": b"\x89PNG\r\n",
    "a signature alone": b"\x89PNG\r\n\x1a\n",
    "HTML": b"<!doctype html><script>alert(1)</script>",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "HTML that begins like a GIF": b"GIF89a/*<html><script>alert(1)</script>*/=1;" * 9,
    "HTML that begins like a BMP": b"BM<html><body onload=alert(1)>" + b" " * 100,
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n",
    "WMF": bytes.fromhex("d7cdc69a00000000000010001000480000000000") + bytes(30),
}


@pytest.mark.parametrize("step", [*LOOKING, *DECODING], ids=by_name)
@pytest.mark.parametrize("data", NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_picture_is_refused(step: Step, data: bytes) -> None:
    refusal(step, data)


def test_a_refusal_tells_what_the_file_is_instead() -> None:
    error = refusal(Fit(20, 20), NO_IMAGES["HTML"], "me.png")
    assert str(error) == "Photo.image: the file is no image that can be read: it is text/html"
    assert error.measured == "text/html"
    assert "JPEG" in error.limit  # type: ignore[operator]


def test_markup_that_pillow_takes_for_a_picture_is_none() -> None:
    """A Photo CD is known by what stands after its first 2,048 bytes, which may be anything."""
    page = b"<html><script>alert(document.domain)</script><!--".ljust(2048)
    photo = page + samples()["PCD"].data[2048:]
    assert Image.open(io.BytesIO(photo)).format == "PCD"
    for step in (*LOOKING, *DECODING):
        error = refusal(step, photo, "a.pcd")
        assert error.measured == "text/html"


# What is broken

STRICT = ["JPEG-RGB", "JPEG-RGB-True", "PNG-RGB", "PNG-P", "GIF-P", "WEBP-RGB", "AVIF-RGB", "TIFF-RGB", "BMP-RGB"]


@pytest.mark.parametrize("step", DECODING, ids=by_name)
@pytest.mark.parametrize("name", STRICT)
def test_half_a_file_is_refused(name: str, step: Step) -> None:
    data = samples()[name].data
    refusal(step, data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it finds odd
@pytest.mark.parametrize("name", samples())
def test_a_file_of_any_length_is_taken_or_refused(name: str) -> None:
    data = samples()[name].data
    for length in sorted({*range(0, 40, 13), *range(0, len(data), max(1, len(data) // 12)), len(data) - 1}):
        _take_or_refuse(data[:length])


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it finds odd
@pytest.mark.parametrize("name", samples())
def test_a_file_with_broken_bytes_is_taken_or_refused(name: str) -> None:
    _damage(name, 12)


@pytest.mark.torture
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it finds odd
@pytest.mark.parametrize("name", samples())
def test_a_file_with_broken_bytes_is_taken_or_refused_many_times(name: str) -> None:
    _damage(name, 1500)


def _damage(name: str, times: int) -> None:
    data, dice = samples()[name].data, random.Random(name)
    for _ in range(times):
        broken = bytearray(data)
        for _ in range(dice.choice([1, 2, 8, 64])):
            # Most of what matters is at the beginning.
            at = dice.randrange(min(len(broken), dice.choice([32, 200, 10**6])))
            broken[at] = dice.choice([0, 255, 127, 128, dice.randrange(256)])
        _take_or_refuse(bytes(broken))


def _take_or_refuse(data: bytes) -> None:
    for step in (Fit(20, 20, animated=True, format="PNG", max_pixels=4_000_000), Dimensions(), Capture()):
        before = time.monotonic()
        with suppress(Refused):
            run([step], Attachment.upload(data), "Photo.image")
        assert time.monotonic() - before < 20


@pytest.mark.parametrize(
    "error", [RuntimeError("codec"), SystemError(), AttributeError("x"), RecursionError(), MemoryError(), EOFError()]
)
def test_whatever_a_codec_raises_is_a_refusal(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise error

    data = samples()["PNG-RGB"].data
    with monkeypatch.context() as patched:
        patched.setattr(PngImagePlugin.PngImageFile, "load_prepare", broken)
        told = refusal(Fit(20, 20), data)
        assert type(error).__name__ in str(told.measured)
        assert told.__cause__ is error
    with monkeypatch.context() as patched:
        patched.setattr(PngImagePlugin.PngImageFile, "_open", broken)
        refusal(Fit(20, 20), data)
    assert run([Fit(20, 20)], Attachment.upload(data), "").content_type == "image/png"


def test_to_be_interrupted_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load_prepare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run([Fit(20, 20)], Attachment.upload(samples()["PNG-RGB"].data), "")


# What lies about its size


@pytest.mark.parametrize("step", [*DECODING, MaxPixels(90_000_000)], ids=by_name)
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_what_it_says(kind: str, step: Step) -> None:
    data = _bomb(kind)
    tracemalloc.start()
    before = time.process_time()
    error = refusal(step, data, "bomb")
    assert time.process_time() - before < 2
    assert tracemalloc.get_traced_memory()[1] < 8_000_000
    tracemalloc.stop()
    pixels = {"WEBP": 16_383**2, "AVIF": 16_000**2}.get(kind, PIXELS)
    limits = [step.limit_pixels if isinstance(step, MaxPixels) else 50_000_000]
    if kind in ("GBR", "WEBP"):  # Pillow's own limit may be asked first
        limits.append(2 * (Image.MAX_IMAGE_PIXELS or 0))
    assert error.limit in limits
    assert error.measured == pixels


_bombs: dict[str, bytes] = {}


def _bomb(kind: str) -> bytes:
    if kind not in _bombs:
        _bombs[kind] = BOMBS[kind]()
    return _bombs[kind]


@pytest.mark.parametrize("step", [*DECODING, MaxPixels(50_000_000)], ids=by_name)
def test_a_gif_that_grows_is_refused_before_it_grows(step: Step) -> None:
    error = refusal(step, gif_that_grows(), "a.gif")
    assert error.measured == PIXELS


@pytest.mark.parametrize("step", [*DECODING, *LOOKING], ids=by_name)
def test_an_icon_that_contains_something_larger_is_refused(step: Step) -> None:
    error = refusal(step, icon_that_lies(png(9_000, 9_000)), "favicon.ico")
    assert (error.limit, error.measured) == (1024, 9_000)


def test_a_small_tiff_of_a_large_tile_is_refused() -> None:
    error = refusal(Fit(20, 20), tiff_with_a_tile(), "a.tiff")
    assert error.measured == PIXELS
    assert "the image has tiles of 50,000 × 50,000 pixels" in str(error)


SMALL_PRECINCTS = b"\x11" * 6
CUT: dict[str, dict[str, Any]] = {
    "precincts": {"precincts": SMALL_PRECINCTS},
    "blocks": {"block": 0},
    "tiles": {"tile": 1},
    "precincts of a tile": {"precincts": SMALL_PRECINCTS, "in_tile": True},
}


@pytest.mark.parametrize("cut", CUT.values(), ids=CUT)
def test_a_jpeg_2000_in_millions_of_pieces_is_refused(cut: dict[str, Any]) -> None:
    """Three hundred bytes for each, before any of them is decoded."""
    error = refusal(Fit(20, 20), jpeg2000_in_pieces(4000, **cut), "a.j2k")
    assert error.limit == 10_000 + 4000 * 4000 // 25
    assert error.measured > 1_000_000  # type: ignore[operator]


@pytest.mark.parametrize("tile", [0, 64, 128, 1024])
def test_a_jpeg_2000_in_as_many_pieces_as_usual_is_taken(tile: int) -> None:
    options = {"tile_size": (tile, tile)} if tile else {}
    data = written(Image.new("RGB", (2048, 2048)), "JPEG2000", num_resolutions=6 if tile != 64 else 4, **options)
    run([Fit(20, 20)], Attachment.upload(data), "")


def test_all_frames_count_together() -> None:
    frames = [chart((400, 300), [(10 * n, 0, 0)] * 4) for n in range(20)]
    data = written(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=50)
    run([Fit(20, 20, animated=True, max_pixels=2_400_000)], Attachment.upload(data), "")
    error = refusal(Fit(20, 20, animated=True, max_pixels=2_399_999), data)
    assert (error.limit, error.measured) == (2_399_999, 20 * 400 * 300)
    assert "the image has 20 frames of 400 × 300 pixels, allowed are 2,399,999 together" in str(error)
    refusal(Intact(2_399_999), data)
    run([Fit(20, 20, max_pixels=120_000)], Attachment.upload(data), "")  # the first frame is all that is decoded


def test_pages_of_other_sizes_count_as_they_are_met() -> None:
    data = written(chart((10, 10)), "TIFF", save_all=True, append_images=[chart((900, 900))])
    error = refusal(Intact(10_000), data, "a.tiff")
    assert error.measured == 810_100


def test_what_would_become_too_large_is_refused_before() -> None:
    error = refusal(Fit(10_000, 10_000), samples()["PNG-L"].data)
    assert "the image becomes 10,000 × 7,500 pixels, allowed are 50,000,000 together" in str(error)
    assert error.measured == 75_000_000


def test_a_limit_may_be_raised() -> None:
    data = written(Image.new("1", (8000, 8000)), "PNG")
    refusal(Fit(20, 20), data)
    run([Fit(20, 20, max_pixels=64_000_000)], Attachment.upload(data), "")


# What keeps a parser busy


def test_more_frames_than_anybody_shows_are_refused() -> None:
    dot = written(Image.new("P", (1, 1)), "GIF")
    frame = dot[dot.index(b",", 13) : -1]
    data = dot[:-1] + frame * 10_001 + b";"
    for step in (Fit(2, 2, animated=True), Intact()):
        error = refusal(step, data, "a.gif")
        assert (error.limit, error.measured) == (10_000, 10_001)
    refusal(MaxFrames(10_000), data)


def test_blocks_without_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sa_attachments.processing.images.picture.HEADER_SECONDS", 0.2)
    data = b"\xff\xd8" + b"\xff\xe5\0\2" * 2_000_000
    before = time.process_time()
    error = refusal(MaxPixels(100), data, "a.jpg")
    assert time.process_time() - before < 3
    assert error.limit == 0.2
    assert "more than 0.2 seconds were spent" in str(error)


def test_a_header_that_is_a_file_of_its_own_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sa_attachments.processing.images.picture.HEADER", 100_000)
    data = b"\xff\xd8" + (b"\xff\xe5" + (60_000).to_bytes(2, "big") + bytes(59_998)) * 3
    error = refusal(MaxPixels(100), data, "a.jpg")
    assert (error.limit, error.measured) == (100_000, "more than 100,000 bytes were read")


def test_fits_that_unpacks_anything_is_not_read() -> None:
    from PIL import FitsImagePlugin

    assert hasattr(FitsImagePlugin, "FitsGzipDecoder")
    cards = [
        "SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0", "END",
        "XTENSION= 'BINTABLE'", "BITPIX  = 8", "NAXIS   = 2", "NAXIS1  = 8", "NAXIS2  = 8", "ZIMAGE  = T",
        "ZCMPTYPE= 'GZIP_1  '", "ZNAXIS  = 2", "ZNAXIS1 = 8", "ZNAXIS2 = 8", "ZBITPIX = 8", "END",
    ]  # fmt: skip
    blocks = ["".join(card.ljust(80) for card in part).ljust(2880) for part in (cards[:4], cards[4:])]
    data = "".join(blocks).encode() + bytes(5760)
    packed = gzip.compress(bytes(8 * 8 * 4))
    name, _, offset, _ = Image.open(io.BytesIO(data)).tile[0]
    assert name == "fits_gzip"
    data = data[:offset] + packed
    assert Image.open(io.BytesIO(data)).load()  # a sound file
    refusal(Fit(20, 20), data, "a.fits")


# What is the source's


class Breaking(io.BytesIO):
    """A file on a disk that fails after so many bytes."""

    left = 10**9

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.left -= len(data)
        if self.left < 0:
            raise ConnectionResetError("the disk is gone")
        return data


@pytest.mark.parametrize("step", DECODING, ids=by_name)
@pytest.mark.parametrize("name", ["JPEG-RGB", "PNG-RGB", "GIF-P", "TIFF-RGB", "XPM", "TGA-RGB"])
def test_an_error_of_the_source_is_not_the_pictures_fault(name: str, step: Step) -> None:
    data = samples()[name].data
    for after in (20, len(data) // 3, len(data) * 2 // 3):
        file = Breaking(data)
        attachment = run([], Attachment.upload(file), "")
        file.left = after
        with pytest.raises(ConnectionResetError, match="the disk is gone"):
            step(attachment)


@pytest.mark.parametrize("error", [IndexError("mine"), TypeError("mine"), SyntaxError("mine")])
def test_an_error_of_the_source_that_pillow_swallows_comes_out_all_the_same(error: Exception) -> None:
    """These are what formats say of files that are not theirs."""

    class Odd(io.BytesIO):
        ready = False

        def read(self, size: int | None = -1, /) -> bytes:
            if self.ready and self.tell() > 0:
                raise error
            return super().read(size)

    file = Odd(written(chart(), "JPEG", comment=bytes(60_000)))
    attachment = run([], Attachment.upload(file), "")
    file.ready = True
    with pytest.raises(type(error), match="mine"):
        Fit(20, 20)(attachment)


def test_a_source_that_is_used_up_is_no_broken_picture() -> None:
    attachment = Attachment.upload(iter([samples()["PNG-RGB"].data]))
    attachment = run([], attachment, "")
    from sa_attachments.attachment import body_of

    body: Any = body_of(attachment)
    body.source.stream().read()
    with pytest.raises(SourceConsumed):
        Fit(20, 20)(attachment)


def test_a_stream_is_spooled_under_the_eyes_of_the_limits_before() -> None:
    data = samples()["BMP-RGB"].data
    stream = iter([data[at : at + 100] for at in range(0, len(data), 100)])
    with pytest.raises(Refused, match="allowed are 8,999") as refused:
        run([MaxSize(8_999), Fit(20, 20)], Attachment.upload(stream), "Photo.image")
    assert refused.value.rule == "MaxSize"


def test_a_picture_is_read_from_its_beginning_wherever_its_file_stands() -> None:
    file = io.BytesIO()
    Image.open(io.BytesIO(samples()["PNG-RGB"].data)).save(file, "PNG")
    assert run([Fit(20, 20)], Attachment.upload(file), "").content_type == "image/png"


# What a picture says


def look(data: bytes, ask: Callable[[Any], Any]) -> Any:
    with opened(Attachment.upload(data), "test", None) as picture:
        return ask(picture)


@pytest.mark.parametrize("name", samples())
def test_each_format_is_known_and_has_its_size(name: str) -> None:
    sample = samples()[name]
    size = (768, 512) if sample.kind == "PCD" else (64, 48)
    assert look(sample.data, lambda picture: (picture.kind.upper(), picture.size)) == (
        {"DIB": "BMP"}.get(sample.kind, sample.kind),
        size,
    )


def test_a_photo_with_a_second_picture_in_it_has_one_frame() -> None:
    """As phones write it, with a preview or a map of the highlights."""
    data = written(chart(), "MPO", save_all=True, append_images=[chart((20, 10))])
    assert look(data, lambda picture: (picture.kind, picture.frames())) == ("JPEG", 1)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
@pytest.mark.parametrize("count", [1, 2, 12])
def test_frames_are_counted_up_to_the_most(kind: str, count: int) -> None:
    frames = [chart((16, 16), [(20 * n, 100, 0)] * 4) for n in range(count)]
    data = written(frames[0], kind, save_all=True, append_images=frames[1:])
    assert look(data, lambda picture: (picture.frames(), picture.frames(12), picture.frames(5))) == (
        count,
        count,
        min(count, 6),
    )


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_no_exif() -> None:
    data = written(chart(), "JPEG", exif=b"Exif\0\0MM\0*garbage" + bytes(20))
    assert look(data, lambda picture: (dict(picture.exif), picture.orientation)) == ({}, 1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_exif_of_any_size_is_not_read(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 1_050_000
    assert look(written(chart(), kind, exif=exif), lambda picture: (dict(picture.exif), picture.size)) == ({}, (64, 48))


def test_exif_of_a_jpeg_is_not_read_before_its_size_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: object, data: bytes) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(Image.Exif, "load", read)
    exif = b"Exif\0\0" + bytes(65_500)
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    plain = written(chart(), "JPEG")
    data = plain[:2] + segment * 17 + plain[20:]  # without JFIF's own, which tells the resolution
    assert look(data, lambda picture: (dict(picture.exif), picture.size)) == ({}, (64, 48))


def test_pngs_exif_is_found_without_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(self: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", decode)
    monkeypatch.setattr(GifImagePlugin.GifImageFile, "load", decode)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert look(written(chart(), "PNG", exif=exif), lambda picture: picture.size) == (48, 64)
    assert look(written(chart(), "PNG"), lambda picture: picture.size) == (64, 48)
