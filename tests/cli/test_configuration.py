from __future__ import annotations

import gc
from pathlib import Path

import pytest

from sa_attachments.cli.configuration import Table, read
from sa_attachments.cli.failure import Failure


def write(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(text)


def test_reads_the_nearest_table(tmp_path: Path) -> None:
    write(tmp_path, '[tool.sa_attachments]\nstorages = "above:files"')
    write(
        tmp_path / "a", '[tool.sa_attachments]\nstorages = "a:files"\ndatabase = "sqlite://"\nimport = ["a.b", "a.c"]'
    )
    assert read(tmp_path / "a" / "b") == Table("a:files", "sqlite://", ("a.b", "a.c"), tmp_path / "a")


def test_passes_over_files_without_the_table(tmp_path: Path) -> None:
    write(tmp_path, '[tool.sa_attachments]\nimport = "models"')
    write(tmp_path / "a", "[tool.other]")
    write(tmp_path / "a" / "b", "tool = 1")
    assert read(tmp_path / "a" / "b") == Table(imports=("models",), folder=tmp_path)


def test_is_empty_without_a_table(tmp_path: Path) -> None:
    write(tmp_path, "[tool]")
    assert read(tmp_path) == Table()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.sa_attachments", "can't be read"),
        ("[tool]\nsa_attachments = 1", "expected a table"),
        ("[tool.sa_attachments]\nstorage = 'a:b'", "no key 'storage'; there are 'database', 'import', 'storages'"),
        ("[tool.sa_attachments]\nstorages = 1", "storages is 1, expected a text"),
        ("[tool.sa_attachments]\nimport = [1]", "import is [1], expected a list of module names"),
    ],
)
def test_says_what_is_wrong_and_where(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, text)
    with pytest.raises(Failure) as failure:
        read(tmp_path)
    assert said in failure.value.message
    assert repr(str(tmp_path / "pyproject.toml")) in failure.value.message


def test_says_that_tables_are_nested_too_deeply(tmp_path: Path) -> None:
    write(tmp_path, "a = " + 10_000 * "[")
    gc.collect()  # else what other tests left may be collected, and fail, where the stack ends
    with pytest.raises(Failure, match=r"pyproject.toml' can't be read"):
        read(tmp_path)


def test_says_that_a_file_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Failure, match=r"pyproject.toml' can't be read"):
        read(tmp_path)
