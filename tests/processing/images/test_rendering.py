"""Transforms on real files of every format: upright, in the right colours, still or moving, under the right name."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image, ImageOps

from sa_attachments import Attachment
from sa_attachments.processing.images import Convert, Cover, Fit, Limit, Thumbnail, Transform
from sa_attachments.processing.images.rendering import GAP
from sa_attachments.processing.steps import run

from .samples import QUARTERS, Colour, chart, corners, fli, opened, samples, similar, written

TARGETS = ["JPEG", "PNG", "WEBP", "AVIF", "GIF"]


def render(step: Transform, data: bytes, filename: str | None = None) -> Image.Image:
    return opened(run([step], Attachment.upload(data, filename), "Photo.image").read())


# Every format, every transform


@pytest.mark.parametrize("name", samples())
def test_each_format_comes_out_as_it_looks(name: str) -> None:
    sample = samples()[name]
    size = (768, 512) if sample.kind == "PCD" else (64, 48)
    for step in (
        Fit(32, 24, format="PNG"),
        Cover(24, 24, format="PNG"),
        Limit(32, 24, format="PNG"),
        Thumbnail(32, 24, format="PNG"),
        Convert("PNG"),
    ):
        done = render(step, sample.data)
        assert done.format == "PNG"
        assert done.size == step.plan(size).size
        assert similar(corners(done), sample.expected, sample.tolerance), step


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "name", ["JPEG-CMYK", "PNG-P", "PNG-I;16", "PNG-LA", "GIF-P", "WEBP-RGBA", "TIFF-LAB", "BMP-1"]
)
def test_each_format_becomes_each_other(name: str, target: str) -> None:
    sample = samples()[name]
    done = render(Fit(32, 24, format=target), sample.data)
    assert (done.format, done.size) == (target, (32, 24))
    assert similar(corners(done), sample.expected, 40)
    assert not set(done.info) & {"exif", "icc_profile", "xmp", "comment", "dpi"}


@pytest.mark.parametrize("name", samples())
def test_a_format_that_browsers_show_stays_and_others_become_png(name: str) -> None:
    sample = samples()[name]
    done = run([Fit(10, 10)], Attachment.upload(sample.data), "")
    kind = sample.kind if sample.kind in TARGETS else "PNG"
    assert done.content_type == f"image/{kind.lower()}"
    assert opened(done.read()).format == kind


# Upright

TURNED = {  # how a camera that was held so stores the picture
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def turned(image: Image.Image, orientation: int, kind: str, **options: Any) -> bytes:
    way = TURNED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return written(image.transpose(way) if way is not None else image, kind, exif=exif, **options)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP", "AVIF"])
def test_the_picture_stands_upright_pixel_by_pixel(kind: str, orientation: int) -> None:
    image = chart((60, 44))
    image.putpixel((1, 2), (0, 0, 0))
    lossless: dict[str, dict[str, Any]] = {
        "WEBP": {"lossless": True},
        "JPEG": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100},
    }
    data = turned(image, orientation, kind, **lossless.get(kind, {}))
    done = render(Convert("PNG"), data)
    assert done.size == image.size
    exact = ImageOps.exif_transpose(opened(data)).convert("RGB")
    assert done.convert("RGB").tobytes() == exact.tobytes()
    if kind in ("PNG", "TIFF", "WEBP"):
        assert done.convert("RGB").tobytes() == image.tobytes()
    assert similar(corners(done), QUARTERS, 10)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("step", [Fit(30, 30), Cover(30, 20), Cover(20, 30), Limit(30), Thumbnail(30, 30)], ids=repr)
def test_to_turn_and_resize_is_to_resize_what_was_turned(step: Transform, orientation: int) -> None:
    image = chart((120, 90))
    done = render(Convert("PNG"), run([step], Attachment.upload(turned(image, orientation, "PNG")), "").read())
    expected = render(Convert("PNG"), run([step], Attachment.upload(written(image, "PNG")), "").read())
    assert done.size == expected.size
    pairs = zip(done.convert("RGB").tobytes(), expected.convert("RGB").tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= (2 if step.format is None else 12)


# Large photos


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    "step", [Fit(100, 100), Cover(100, 100), Cover(30, 100), Fit(1000, 1000), Fit(3000, 3000)], ids=repr
)
def test_a_draft_looks_like_the_whole(step: Transform, orientation: int) -> None:
    """Decoded at an eighth of its size, what remains shows the same part of the picture."""
    lines, rings = (each.resize((2000, 1500)) for each in (Image.linear_gradient("L"), Image.radial_gradient("L")))
    image = Image.merge("RGB", [lines, rings, rings.rotate(180)])
    data = turned(image, orientation, "JPEG", quality=95)
    done = render(step, data).convert("RGB")
    plan = step.plan((2000, 1500))
    whole = ImageOps.exif_transpose(opened(data)).convert("RGB").resize(plan.size, Image.Resampling.BICUBIC, plan.box)
    pairs = zip(done.resize((40, 40)).tobytes(), whole.resize((40, 40)).tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= 6


@pytest.mark.parametrize(
    ("size", "decoded"), [(400, (1000, 750)), (501, (2000, 1500)), (1500, (4000, 3000)), (200, (500, 375))]
)
def test_no_more_is_decoded_than_is_needed(
    size: int, decoded: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    load = Image.Image.load

    def watched(image: Image.Image) -> Any:
        seen.append(image.size)
        return load(image)

    data = written(Image.new("RGB", (4000, 3000)), "JPEG")
    monkeypatch.setattr(Image.Image, "load", watched)
    render(Fit(size, size), data)
    assert max(seen) == (decoded if decoded[0] >= size * GAP else (4000, 3000))


# Still and moving

PLAYED = {"GIF": 10, "PNG": 10, "WEBP": 10, "AVIF": 10}
FRAMES: list[Colour] = [(230, 20, 20), (20, 210, 20), (20, 20, 230), (200, 200, 40)]
DURATIONS = [100, 200, 300, 400]


def film(kind: str, mode: str = "RGB", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    """Frames of one colour each."""
    frames = [Image.new("RGB", size, colour).convert(mode) for colour in FRAMES]
    return written(frames[0], kind, save_all=True, append_images=frames[1:], duration=DURATIONS, **options)


def played(image: Image.Image) -> list[tuple[Colour, float]]:
    """The colour and the duration of each frame."""
    found = []
    for number in range(getattr(image, "n_frames", 1)):
        image.seek(number)
        image.load()
        pixel: Any = image.convert("RGBA").getpixel((image.width // 2, image.height // 2))
        found.append((pixel[:3], image.info.get("duration", 0)))
    return found


@pytest.mark.parametrize("source", PLAYED)
@pytest.mark.parametrize("target", PLAYED)
def test_what_moves_goes_on_moving_if_asked(source: str, target: str) -> None:
    done = render(Cover(16, 16, format=target, animated=True), film(source))
    assert (done.format, done.size, done.n_frames) == (target, (16, 16), 4)  # type: ignore[attr-defined]
    shown = played(done)
    assert similar([colour for colour, _ in shown], FRAMES, 40)
    assert [duration for _, duration in shown] == DURATIONS


@pytest.mark.parametrize("source", PLAYED)
@pytest.mark.parametrize("target", TARGETS)
def test_what_moves_stands_still_unless_asked(source: str, target: str) -> None:
    done = render(Fit(16, 16, format=target), film(source))
    assert getattr(done, "n_frames", 1) == 1
    assert similar(corners(done), [FRAMES[0]] * 4, 40)


@pytest.mark.parametrize("source", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("target", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize("times", [0, 1, 3])
def test_it_is_played_as_often_as_before(source: str, target: str, times: int) -> None:
    """GIF tells how often it is repeated after the first time, the others how often it is played at all."""
    said: dict[str, Any] = {"loop": times}
    if source == "GIF":
        said = {} if times == 1 else {"loop": max(times - 1, 0)}
    loop = render(Fit(16, 16, format=target, animated=True), film(source, **said)).info.get("loop")
    expected: int | None = times
    if target == "GIF":
        expected = None if times == 1 else max(times - 1, 0)
    assert loop == expected


def test_pages_are_no_frames() -> None:
    others = [chart(colours=QUARTERS[::-1]), chart(colours=QUARTERS[1:] + QUARTERS[:1])]
    pages = written(chart(), "TIFF", save_all=True, append_images=others)
    assert getattr(render(Fit(16, 16, format="PNG", animated=True), pages), "n_frames", 1) == 1


def test_a_film_of_an_old_kind_becomes_one_of_today() -> None:
    film = [chart(), chart(colours=QUARTERS[::-1]), chart()]
    done = render(Fit(32, 24, animated=True), fli(film))
    assert (done.format, done.n_frames) == ("PNG", 3)  # type: ignore[attr-defined]
    done.seek(1)
    assert similar(corners(done), QUARTERS[::-1], 20)


def test_a_png_that_shows_something_else_first_shows_it_where_it_stands_still() -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in FRAMES]
    data = written(chart((40, 30)), "PNG", save_all=True, append_images=frames, default_image=True, duration=100)
    assert similar(corners(render(Fit(16, 12), data)), QUARTERS, 20)
    moving = render(Fit(16, 12, animated=True), data)
    assert similar([colour for colour, _ in played(moving)], FRAMES, 4)


@pytest.mark.parametrize("target", ["GIF", "WEBP", "PNG", "AVIF"])
def test_frames_that_only_tell_what_changed_are_put_together(target: str) -> None:
    frames = [chart((160, 120))]
    for number in range(3):
        after = frames[-1].copy()
        after.paste((0, 0, 0), (40 * number, 70, 40 * number + 30, 100))
        frames.append(after)
    palette = [frame.quantize(8) for frame in frames]
    data = written(palette[0], "GIF", save_all=True, append_images=palette[1:], duration=100, disposal=1)
    done = render(Convert(target, animated=True), data)
    assert done.n_frames == 4  # type: ignore[attr-defined]
    for number, frame in enumerate(frames):
        done.seek(number)
        found = [tuple(done.convert("RGB").getpixel((x, 85))) for x in (15, 55, 100, 140)]  # type: ignore[arg-type]
        assert similar(found, [tuple(frame.getpixel((x, 85))) for x in (15, 55, 100, 140)], 40)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["GIF", "WEBP", "PNG", "AVIF"])
def test_see_through_frames_do_not_pile_up(target: str) -> None:
    frames = []
    for number in range(3):
        frame = Image.new("RGBA", (30, 10), (0, 0, 0, 0))
        frame.paste((200, 0, 0, 250), (10 * number, 0, 10 * number + 10, 10))
        frames.append(frame)
    data = written(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=100)
    done = render(Convert(target, animated=True), data)
    for number in range(3):
        done.seek(number)
        shown: list[Any] = [done.convert("RGBA").getpixel((x, 5)) for x in (5, 15, 25)]
        assert [pixel[3] > 128 for pixel in shown] == [place == number for place in range(3)]


# Names and descriptions


@pytest.mark.parametrize(
    ("filename", "target", "expected"),
    [
        ("me.jpeg", None, "me.jpeg"),
        ("me.JPG", "JPEG", "me.JPG"),
        ("me.jpg", "WEBP", "me.webp"),
        ("me", "WEBP", "me.webp"),
        ("me.and.you", "WEBP", "me.and.you.webp"),
        ("archive.tar.jpg", "PNG", "archive.tar.png"),
        (".jpg", "PNG", ".jpg.png"),
        ("me.tiff", None, "me.jpg"),
    ],
)
def test_the_name_fits_what_it_became(filename: str, target: str | None, expected: str) -> None:
    done = run([Fit(10, 10, format=target)], Attachment.upload(samples()["JPEG-RGB"].data, filename), "")
    assert done.filename == expected


def test_what_has_no_name_gets_none() -> None:
    from sa_attachments.attachment import body_of

    done = run([Fit(10, 10, format="WEBP")], Attachment.upload(samples()["JPEG-RGB"].data), "")
    assert body_of(done).filename is None  # type: ignore[union-attr]


def test_what_was_said_of_the_picture_stays() -> None:
    class Photo(Attachment):
        __slots__ = ()

    photo = Photo.upload(samples()["JPEG-RGB"].data, "a.jpg", "image/jpeg", {"caption": "Me"}, "archive")
    done = run([Fit(10, 10, format="WEBP")], photo, "")
    assert type(done) is Photo
    assert (dict(done.metadata), done.claimed_content_type, done.content_type) == (
        {"caption": "Me"},
        "image/jpeg",
        "image/webp",
    )


# Polyglots


def test_only_pixels_come_through() -> None:
    """An HTML page that is also a GIF, with a comment that browsers of old ran, becomes a GIF and nothing else."""
    page = b"<html><script>alert(document.domain)</script></html>"
    gif = written(chart().quantize(8), "GIF", comment=page) + page
    assert page in gif
    for target in TARGETS:
        done = run([Convert(target)], Attachment.upload(gif, "a.html"), "").read()
        assert b"<script" not in done
        assert similar(corners(opened(done)), QUARTERS, 40)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP"])
def test_what_hangs_on_behind_is_left_behind(kind: str) -> None:
    archive = b"PK\3\4" + b"a ZIP of anything" * 10
    data = written(chart(), kind) + archive
    done = run([Convert(kind if kind in TARGETS else None)], Attachment.upload(data), "").read()
    assert b"a ZIP" not in done
    assert similar(corners(opened(done)), QUARTERS, 40)
    assert io.BytesIO(done).read(4) != b"PK\3\4"
