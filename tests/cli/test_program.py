from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import click
import pytest

from sa_attachments.cli import main
from sa_attachments.cli.program import program, run

from .shop import Shop

COMMANDS = sorted(program.commands)
WITHOUT = "import sys; sys.modules[{!r}] = None; from sa_attachments.cli import main; sys.exit(main(sys.argv[1:]))"


def python(program: str, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


def test_is_what_the_script_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (script,) = entry_points(group="console_scripts", name="sa-attachments")
    assert script.load() is main
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sa-attachments, version {version('sa-attachments')}\n"


def test_has_the_commands() -> None:
    assert COMMANDS == ["adopt", "demo", "move", "stats", "sweep", "takeover", "variants", "verify"]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_suffices(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"sa-attachments {name}" in said.partition("Examples:")[2]
    assert "Exit codes: 0 all is well; 1 something is wrong; 2 it could not do its work." in said
    assert "--json" in said
    if name != "demo":
        for told in ("SA_ATTACHMENTS_STORAGES", "SA_ATTACHMENTS_DATABASE", "pyproject.toml", "myapp.files:files"):
            assert told in said
    for parameter in program.commands[name].params:
        assert not isinstance(parameter, click.Option) or parameter.help, f"{parameter.name} is not explained"


@pytest.mark.parametrize("arguments", [[], ["nope"], ["sweep", "--nope"], ["stats", "surplus"], ["demo", "--keep"]])
def test_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "sweep --grace soon --json",
            "Invalid value for '--grace': 'soon' is no duration: expected a number and a unit",
        ),
        ("sweep --json --bogus", "No such option"),
        ("--bogus sweep --json", "No such option"),
        ("nope --json", "No such command"),
        ("stats surplus --json", "Got unexpected extra argument"),
        ("move --from a --json", "Missing option '--to'"),
        ("verify --json --storages", "Option '--storages' requires an argument"),
    ],
)
def test_usage_is_told_in_the_document_too(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments.split()) == 2
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert told["ok"] is False
    assert told["error"].startswith(said)
    assert "Error: " in printed.err


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_says_which_extra_to_install(missing: str) -> None:
    done = python(WITHOUT.format(missing), "--help")
    assert done.returncode == 2
    assert done.stderr == f"sa-attachments needs the module {missing!r}: pip install 'sa-attachments[cli]'\n"


def test_other_missing_modules_are_not_blamed_on_the_extra() -> None:
    done = python(WITHOUT.format("sqlalchemy"), "--help")
    assert "sa-attachments[cli]" not in done.stderr
    assert "ModuleNotFoundError" in done.stderr


def test_greenlet_is_needed_only_for_asyncio_drivers(tmp_path: Path) -> None:
    without = WITHOUT.format("greenlet")
    kept = python(without, "demo", "--keep", str(tmp_path / "kept"))
    assert (kept.returncode, kept.stderr) == (0, "")
    driver = ["--database", "sqlite+aiosqlite:///documents.db"]
    done = python("import sys; sys.path.remove(''); " + without, "stats", *driver, cwd=tmp_path / "kept")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: 'sqlite+aiosqlite' is for asyncio: pip install 'sa-attachments[asyncio]'")


def test_can_be_imported_where_there_is_no_unix() -> None:
    """As on Windows: no fcntl, no SIGKILL, no statvfs."""
    bare = "import os, signal, sys; sys.modules['fcntl'] = None; del signal.SIGKILL, os.statvfs, os.O_NOFOLLOW; "
    call = "from sa_attachments.cli import main; sys.exit(main(sys.argv[1:]))"
    assert python(bare + call, "--help").returncode == 0
    done = python(bare + call, "demo")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: the demo needs the storage 'local:'")


@pytest.mark.parametrize("arguments", [["--help"], ["demo"], ["demo", "--json"]])
def test_a_reader_that_had_enough_is_no_traceback(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "sa_attachments.cli", *arguments], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("arguments", [["--help"], ["demo"], ["demo", "--json"]])
def test_a_full_disk_under_the_output_is_told(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "sa_attachments.cli", *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: [Errno 28]")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_works_without_anywhere_to_write_to(sqlite_shop: Shop, closed: str) -> None:
    sqlite_shop.sell(b"one")
    command = [sys.executable, "-P", "-m", "sa_attachments.cli", "verify", *sqlite_shop.options]
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
    done = subprocess.run(shell, cwd=sqlite_shop.folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("all is well" in done.stdout) == ("1" not in closed)
