"""Memory and time stay within bounds, measured from outside, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .bombs import BOMBS, PIXELS, gif_that_grows, icon_that_lies, jpeg2000_in_pieces, png, tiff_with_a_tile
from .samples import written

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells peaks of memory")

MB = 1 << 20
ROOT = Path(__file__).parents[3]

PROGRAM = """
import json, sys, time, warnings
from pathlib import Path
from sa_attachments import Attachment, Refused
from sa_attachments.processing import *
from sa_attachments.processing.steps import run

warnings.simplefilter("ignore")

def memory(name):
    found = dict(line.split(":") for line in open("/proc/self/status"))
    return int(found[name].split()[0]) * 1024

small = Attachment.upload(Path(sys.argv[2]))
run([eval(sys.argv[1])], small, "")  # so that everything is loaded
answers = []
for path in sys.argv[3:]:
    Path("/proc/self/clear_refs").write_text("5")
    before, begun = memory("VmRSS"), time.process_time()
    try:
        run([eval(sys.argv[1])], Attachment.upload(Path(path)), "Photo.image")
        answer = None
    except Refused as refused:
        answer = [str(refused), refused.measured]
    answers.append([memory("VmHWM") - before, memory("VmHWM"), time.process_time() - begun, answer])
print(json.dumps(answers))
"""


def measure(step: str, folder: Path, *files: bytes) -> list[Any]:
    paths = []
    for number, data in enumerate((written(Image.new("RGB", (9, 9)), "PNG"), *files)):
        paths.append(folder / f"{number}.image")
        paths[-1].write_bytes(data)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    run = [sys.executable, "-c", PROGRAM, step, *map(str, paths)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("step", ["Fit(400, 400, animated=True)", "Intact()", "Placeholder()", "MaxPixels(50_000_000)"])
def test_a_bomb_takes_no_memory_and_no_time(step: str, tmp_path: Path) -> None:
    files = {kind: bomb() for kind, bomb in BOMBS.items()}
    files["a GIF that grows"] = gif_that_grows()
    files["an icon"] = icon_that_lies(png(12_000, 12_000))
    if "MaxPixels" not in step:  # which looks at the header alone
        files["a TIFF of one tile"] = tiff_with_a_tile(20_000)
        files["a JPEG 2000 in pieces"] = jpeg2000_in_pieces(4000, precincts=b"\x11" * 6)
    for name, (grown, _, seconds, answer) in zip(files, measure(step, tmp_path, *files.values()), strict=True):
        assert answer is not None, f"{name} was let in"
        assert grown < 8 * MB, name
        assert seconds < 2, name


def test_the_whole_process_stays_below_64_mb_more_than_it_had(tmp_path: Path) -> None:
    """A PNG with 2,500,000,000 pixels that are all there, in a megabyte."""
    ((grown, _, _, answer),) = measure("Fit(400, 400)", tmp_path, png())
    assert grown < 64 * MB
    assert answer[1] == PIXELS


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"]


def test_a_picture_takes_so_many_bytes_for_each_pixel(tmp_path: Path) -> None:
    size = (3000, 2000)
    files = [written(Image.new(mode, size), "TIFF", compression="tiff_adobe_deflate") for mode in MODES]
    files += [written(Image.new(mode, size), "WEBP") for mode in ("RGB", "RGBA")]
    found = measure("Fit(400, 400, max_pixels=6_000_000, format='PNG')", tmp_path, *files)
    for mode, (grown, _, _, answer) in zip([*MODES, "WEBP", "WEBP with alpha"], found, strict=True):
        assert answer is None, answer
        assert grown < 16 * size[0] * size[1] + 16 * MB, mode


def test_a_large_photo_is_never_there_in_whole(tmp_path: Path) -> None:
    photo = written(Image.new("RGB", (8000, 6000)), "JPEG")
    ((grown, _, _, answer),) = measure("Fit(400, 400)", tmp_path, photo)
    assert answer is None
    assert grown < 16 * MB


def test_many_frames_take_the_memory_of_what_is_made(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (800, 600), (n * 4, 0, 0)) for n in range(60)]
    film = written(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=50)
    ((grown, _, _, answer),) = measure("Fit(80, 60, animated=True)", tmp_path, film)
    assert answer is None
    assert grown < 24 * MB
