from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import sa_attachments
from sa_attachments.cli.demo import playground as module
from sa_attachments.cli.demo.playground import Playground


@pytest.fixture
def playground(tmp_path: Path) -> Iterator[Playground]:
    folder = tmp_path / "playground"
    folder.mkdir()
    playground = Playground(folder)
    yield playground
    playground.close()


def test_the_process_is_killed_and_leaves_its_file(playground: Playground, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    assert playground.kill(tmp_path / "file") == -9
    now = playground.take_stock()
    assert list(now.disk.values()) == [7]
    assert (now.lines, now.rows) == ({}, {})


def test_the_process_imports_what_we_import_wherever_it_runs(
    playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "sa_attachments.py").write_text("raise SystemExit('hostile working directory')")
    monkeypatch.chdir(tmp_path)
    assert playground.kill(tmp_path / "file") == -9


def test_the_process_imports_what_we_are_rather_than_what_is_installed(
    playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "elsewhere" / "sa_attachments"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the one from elsewhere')")
    monkeypatch.setattr(sa_attachments, "__file__", str(package / "__init__.py"))
    with pytest.raises(RuntimeError, match="the process stored nothing: the one from elsewhere"):
        playground.kill(tmp_path / "file")


def test_a_process_that_hangs_is_ended(playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (playground.folder / "documents.py").write_text("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    monkeypatch.setattr(module, "PATIENCE", 1)
    with pytest.raises(RuntimeError, match="the process stored nothing"):
        playground.kill(tmp_path / "file")


def test_two_playgrounds_do_not_meet(playground: Playground, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "file").write_bytes(b"content")
    other = Playground(tmp_path / "other")
    other.application.commit([tmp_path / "file"])
    assert len(other.take_stock().rows) == 1
    assert len(playground.take_stock().rows) == 0
    other.close()


def test_watches_what_appears_before_an_event(playground: Playground, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    playground.application.commit([tmp_path / "file"])
    with playground.watching("rollback") as appeared:
        playground.application.rollback(tmp_path / "file")
    assert list(appeared.values()) == ["ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"]
    with playground.watching("rollback") as appeared:
        playground.application.commit([tmp_path / "file"])
    assert appeared == {}


def test_leaves_no_bytecode_and_no_module(playground: Playground) -> None:
    import sys

    assert sorted(os.listdir(playground.folder)) == ["documents.db", "documents.py", "pyproject.toml"]  # noqa: PTH208
    assert "documents" not in sys.modules
