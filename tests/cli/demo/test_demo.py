"""The command, as people run it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from sa_attachments.cli.demo.scenes import SCENES
from sa_attachments.storages.local import LocalStorage
from tests.cli.shop import run

HELD = f"All {len(SCENES)} scenes hold"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


def sa_attachments(*arguments: str | Path, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    command = [sys.executable, "-P", "-m", "sa_attachments.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, encoding="utf-8", **options)


def contents(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_plays_on_the_files_that_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    began = time.monotonic()
    result = run("demo")
    assert result.exit_code == 0, result.output
    assert time.monotonic() - began < 60
    assert HELD in result.stdout
    assert result.stderr == ""
    for number, scene in enumerate(SCENES, 1):
        assert f"{number}/{len(SCENES)} {scene.title}" in result.stdout
        assert f"def {scene.function}(" in result.stdout
    assert "✘" not in result.stdout
    assert "\x1b" not in result.stdout
    assert list(tmp_path.iterdir()) == []  # nothing is left


def test_shows_what_lies_on_disk_and_in_the_ledger(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    scenes = re.split(r"^\d/7 .*\n", run("demo", str(tmp_path / "a.png")).stdout, flags=re.MULTILINE)
    _, commit, rollback, _, replace, _, kill, sweep = scenes
    (key,) = re.findall(r"(…\w{8})  a\.png  108 bytes", commit)
    assert re.search(rf"{key} +owned +documents 1", commit)
    assert re.search(rf"{key} +owned +documents 1", rollback)
    assert re.search(rf"{key} +condemned, purged in 30 days +-", replace)
    (stray,) = re.findall(r"(…\w{8})  nobody knows it  108 bytes", kill)
    assert re.search(rf"{stray} +unknown +-", kill)
    assert re.search(rf"{stray} +gone +-", sweep)
    assert "nobody knows it" not in sweep


def test_is_told_as_json(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    result = run("demo", str(tmp_path / "a.png"), "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["ok"], told["kept"]) == (True, None)
    assert [scene["title"] for scene in told["scenes"]] == [scene.title for scene in SCENES]
    assert all(scene["ok"] and all(check["holds"] for check in scene["checks"]) for scene in told["scenes"])
    assert list(told["scenes"][0]["inventory"]["disk"].values()) == [len(PNG)]


def test_leaves_the_result_to_look_at(tmp_path: Path) -> None:
    kept = tmp_path / "new" / "?x=1#é [b] %41"
    result = run("demo", "--keep", str(kept))
    assert result.exit_code == 0
    assert "documents.py, documents.db and files" in result.stdout
    files = {path for path in contents(kept) if path.startswith("files/")}
    assert contents(kept) - files == {"documents.py", "documents.db", "pyproject.toml"}
    assert len(files) == 6  # five files, and the marker of the place
    for command in ("stats", "sweep", "verify"):
        done = sa_attachments(command, "--json", cwd=kept)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["ok"] is True
    assert json.loads(sa_attachments("verify", "--checksums", "--json", cwd=kept).stdout)["files"] == 4


HOSTILE = [
    b"empty",
    b"-rf",
    b"..\\..\\etc\\passwd",
    b"a\nb\x1b[31mred\x07.txt",
    b"\xff\xfe.bin",
    "\u202egnp.exe".encode(),
    b"[bold]x[/bold].txt",
    b"?a=b#c%41.txt",
    b"CON",
    "öäü 😀.md".encode(),
    b"x" * 255,
    b" ",
]


@pytest.fixture
def hostile(tmp_path: Path) -> list[str]:
    folder = tmp_path / "hostile"
    folder.mkdir()
    paths = [os.path.join(os.fsencode(folder), name.replace(b"/", b"")) for name in HOSTILE]  # noqa: PTH118
    for path in paths:
        Path(os.fsdecode(path)).write_bytes(b"" if path.endswith(b"empty") else path)
    return [os.fsdecode(path) for path in paths]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_takes_files_with_hostile_names(hostile: list[str], tmp_path: Path, encoding: str) -> None:
    before = {path: Path(path).read_bytes() for path in hostile}
    done = sa_attachments("demo", "--", *hostile, cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": encoding})
    assert (done.returncode, done.stderr) == (0, "")
    assert HELD in done.stdout
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", done.stdout)  # nothing that moves a terminal's cursor
    assert {path: Path(path).read_bytes() for path in hostile} == before


def test_takes_a_relative_path_that_looks_like_an_option(hostile: list[str], tmp_path: Path) -> None:
    assert sa_attachments("demo", "--", "-rf", cwd=tmp_path / "hostile").returncode == 0


@pytest.mark.parametrize("name", ["empty", "sample"])
def test_takes_one_file_alone(tmp_path: Path, name: str) -> None:
    from sa_attachments.cli import demo

    sample = Path(demo.__file__ or "").parents[2] / "samples" / "invoice.pdf"
    (tmp_path / name).write_bytes(b"" if name == "empty" else sample.read_bytes())
    assert HELD in run("demo", name).stdout


def test_takes_the_same_file_twice(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    assert HELD in run("demo", "a", "a").stdout


def test_shows_some_of_many_files_and_those_that_changed(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.txt").write_bytes(b"%d" % number)
    result = run("demo", *[f"{number}.txt" for number in range(30)])
    assert result.exit_code == 0
    assert "30 rows were committed" in result.stdout
    assert "… and 18 more" in result.stdout
    assert "condemned, purged in 30 days" in result.stdout
    assert "nobody knows it" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope.pdf"], "there is no file '{}/nope.pdf'"),
        (["here.pdf", "nope.pdf"], "there is no file '{}/nope.pdf'"),
        (["folder"], "'{}/folder' is a directory, expected a file"),
        ([""], "'{}' is a directory, expected a file"),
        (["here.pdf/x"], "'{}/here.pdf/x' can't be read: Not a directory"),
        (["/dev/zero"], "'/dev/zero' is no regular file, and may never end"),
        (["x" * 300], "can't be read: File name too long"),
        (["no\udcffpe"], "there is no file '{}/no\\udcffpe'"),
        (["--keep", "here.pdf"], "'here.pdf' can't be used: File exists"),
        (["--keep", "folder"], "'folder' is not empty: name a folder that is, or a new one"),
        (["--keep", "here.pdf/x"], "'here.pdf/x' can't be used: Not a directory"),
    ],
)
def test_says_what_it_can_not_use(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "here.pdf").write_bytes(b"here")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    result = run("demo", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert said.format(tmp_path) in line
    assert contents(tmp_path) == {"here.pdf"}


def test_says_that_a_file_is_not_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    opened = Path.open  # root may read everything, so that a mode of 0 would show nothing

    def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
        if self.name == "secret":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert "secret' can't be read: Permission denied" in run("demo", "secret").stderr


@pytest.mark.parametrize("columns", [10, 40])
def test_fits_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    result = run("demo")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= columns


@pytest.mark.parametrize(("no_color", "colours"), [("", True), ("1", False)])
def test_is_in_colour_unless_nobody_wants_that(monkeypatch: pytest.MonkeyPatch, no_color: str, colours: bool) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", no_color)
    shown = run("demo", color=True).stdout
    assert bool(re.search(r"\x1b\[[\d;]*3[0-7]m", shown)) is colours
    assert HELD in re.sub(r"\x1b\[[\d;]*m", "", shown)


def test_fails_when_something_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalStorage, "delete", lambda self, keys: {})
    result = run("demo")
    assert result.exit_code == 1
    assert "Scenes 2, 3, 7 of 7 did not hold." in result.stdout
    assert "✘ after it the file is gone" in result.stdout
    assert HELD not in result.stdout
    result = run("demo", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert [told["ok"], *(scene["ok"] for scene in told["scenes"])] == [False, True, False, False, *[True] * 3, False]


def test_fails_when_its_process_can_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys; sys.stderr.write('no\\n'); sys.stderr.flush(); os._exit(3)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = run("demo")
    assert result.exit_code == 1
    assert "✘ RuntimeError: the process stored nothing: no" in result.stdout


def test_fails_in_a_process_whose_files_do_not_go(tmp_path: Path) -> None:
    """Sabotage from outside: the system's unlink does nothing."""
    (tmp_path / "sitecustomize.py").write_text("import os; os.unlink = lambda *_, **__: None")
    done = sa_attachments("demo", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)})
    assert done.returncode == 1
    assert "Scenes 2, 3, 7 of 7 did not hold." in done.stdout
