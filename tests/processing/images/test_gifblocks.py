"""The blocks of real GIFs tell what Pillow finds out by decoding, and those of broken ones come to an end."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sa_attachments.processing.images.gifblocks import Survey, survey

from .samples import chart, written


def animated(frames: int, **options: object) -> bytes:
    shades = [chart(colours=[(n * 20 % 256, 9, 9)] * 4).quantize(8) for n in range(frames)]
    return written(shades[0], "GIF", save_all=True, append_images=shades[1:], duration=50, **options)


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("options", [{}, {"loop": 0}, {"comment": b"Hello " * 100}, {"interlace": 0}, {"disposal": 2}])
def test_counts_what_pillow_counts(frames: int, options: dict[str, object]) -> None:
    data = animated(frames, **options)
    image: Image.Image = Image.open(io.BytesIO(data))
    assert survey(io.BytesIO(data)) == Survey(image.n_frames, image.size)  # type: ignore[attr-defined]


def test_stops_counting_one_after_the_most() -> None:
    assert survey(io.BytesIO(animated(7)), most=3).frames == 4


def test_a_frame_may_reach_over_the_screen() -> None:
    data = bytearray(animated(2))
    frame = data.rindex(b",", 0, len(data))
    while data[frame + 1 : frame + 5] != bytes(4):  # until it is the beginning of a frame, not of its pixels
        frame = data.rindex(b",", 0, frame)
    data[frame + 5 : frame + 9] = (50_000).to_bytes(2, "little") * 2
    assert survey(io.BytesIO(bytes(data))).size == (50_000, 50_000)


@given(st.binary(max_size=200))
def test_garbage_comes_to_an_end(data: bytes) -> None:
    assert survey(io.BytesIO(b"GIF89a" + data)).frames <= len(data)


@pytest.mark.parametrize("length", range(0, 400, 7))
def test_a_truncated_one_comes_to_an_end(length: int) -> None:
    data = animated(3)
    assert survey(io.BytesIO(data[:length])).frames <= 3


def test_looking_at_a_megabyte_takes_no_time() -> None:
    block = b"!\xfe" + b"\x01x" * 500_000 + b"\0"
    before = time.process_time()
    assert survey(io.BytesIO(b"GIF89a" + bytes(7) + block)).frames == 0
    assert time.process_time() - before < 5
