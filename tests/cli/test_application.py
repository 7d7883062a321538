"""How commands find the application, and what they say when they don't."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from sa_attachments.storages.local import LocalStorage
from tests.engines import with_driver

from .shop import Shop, run


def fails(*arguments: str) -> str:
    """What a command says that could not do its work, in one line."""
    result = run("stats", *arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line.removeprefix("Error: ")


# Where it is told


def test_by_options(shop: Shop) -> None:
    shop.sell(b"one")
    assert "owned" in run("stats", *shop.options).stdout


def test_by_the_environment(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SA_ATTACHMENTS_STORAGES", f"{shop.name}:files")
    monkeypatch.setenv("SA_ATTACHMENTS_DATABASE", shop.url)
    assert run("stats").exit_code == 0


def test_the_environment_names_several_modules_separated_by_blanks(
    sqlite_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("models_one", "models_two"):
        (sqlite_shop.folder / f"{name}.py").touch()
    monkeypatch.setenv("SA_ATTACHMENTS_IMPORT", " models_one  models_two\n")
    assert run("stats", *sqlite_shop.options).exit_code == 0
    assert {"models_one", "models_two"} <= set(sys.modules)
    monkeypatch.setenv("SA_ATTACHMENTS_IMPORT", "models_one,models_two")
    assert fails(*sqlite_shop.options).startswith("'models_one,models_two' names no module: expected a dotted name")
    assert "the variable takes several, separated by blanks" in " ".join(run("stats", "--help").stdout.split())


def test_by_a_parents_pyproject(sqlite_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite_shop.sell(b"one")
    (sqlite_shop.folder / "pyproject.toml").write_text(
        f'[tool.sa_attachments]\nstorages = "{sqlite_shop.name}:files"\ndatabase = "sqlite:///shop.db"'
    )
    inside = sqlite_shop.folder / "src" / "deep"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert "owned" in run("stats").stdout


def test_options_come_before_the_environment_and_that_before_pyproject(
    sqlite_shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = '[tool.sa_attachments]\nstorages = "no_table:files"\ndatabase = "sqlite:///shop.db"'
    (sqlite_shop.folder / "pyproject.toml").write_text(table)
    assert "'no_table'" in fails()
    monkeypatch.setenv("SA_ATTACHMENTS_STORAGES", "no_environment:files")
    assert "'no_environment'" in fails()
    assert "'no_option'" in fails("--storages", "no_option:files")
    assert run("stats", "--storages", f"{sqlite_shop.name}:files").exit_code == 0


def test_works_by_an_asyncio_driver(shop: Shop) -> None:
    driver = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}[make_url(shop.url).get_backend_name()]
    shop.sell(b"named")
    lost = shop.lose(b"lost")
    shop.url = with_driver(shop.url, driver).render_as_string(hide_password=False)
    assert shop.json("sweep", "--grace", "0", "--stranger-retain", "0")["storages"][0]["purged"] == 1
    assert not lost.exists()
    assert shop.json("verify", "--checksums")["ok"]
    assert shop.json("stats")["stats"][-1]["state"] == "owned"
    assert shop.json("takeover", "--yes")["ok"]


def test_in_a_process_of_its_own(shop: Shop) -> None:
    shop.sell(b"one")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "sa_attachments.cli", "verify", *shop.options],
        cwd=shop.folder,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1 rows, 1 files, 1 lines of the ledger: all is well\n"


@pytest.mark.parametrize("command", [["sweep"], ["verify"], ["verify", "--probe"]], ids=" ".join)
def test_what_the_application_prints_is_no_part_of_the_answer(
    sqlite_shop: Shop, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (sqlite_shop.folder / "chatty.py").write_text(f"print('hello'); from {sqlite_shop.name} import files")
    keys = LocalStorage.keys

    def chatty(self: LocalStorage, *bounds: str | None) -> object:
        print("working")
        return keys(self, *bounds)

    monkeypatch.setattr(LocalStorage, "keys", chatty)
    sqlite_shop.sell(b"one")
    result = run(*command, "--json", "--storages", "chatty:files", "--database", sqlite_shop.url)
    assert json.loads(result.stdout)["ok"] is True
    assert set(result.stderr.split()) == {"hello", "working"}


# What is missing or wrong


def test_no_storages() -> None:
    said = fails("--database", "sqlite://")
    assert said.startswith("no storages: say --storages myapp.files:files, set SA_ATTACHMENTS_STORAGES, or put")


def test_no_database(sqlite_shop: Shop) -> None:
    said = fails("--storages", f"{sqlite_shop.name}:files")
    assert said.startswith("no database: say --database postgresql+psycopg:///app, set SA_ATTACHMENTS_DATABASE, or put")


@pytest.mark.parametrize(
    ("storages", "said"),
    [
        ("nothing_here:files", "there is no module 'nothing_here' in "),
        ("nothing_here.files:files", "there is no module 'nothing_here' in "),
        ("shop.nothing:files", "there is no module 'shop.nothing' in "),
        ("shop", "'shop' names no Storages: expected module:name, as 'myapp.files:files'"),
        ("shop:", "'shop:' names no Storages"),
        (":files", "':files' names no Storages"),
        ("../shop:files", "'../shop:files' names no Storages"),
        ("shop:file", "'shop' has no 'file'; that module has 'files'"),
        ("shop:files.default", "'shop' has no 'files.default'; that module has 'files'"),
        ("shop:nothing", "'shop:nothing' is int, expected Storages; that module has 'files'"),
        ("json:dumps", "'json:dumps' is function, expected Storages; that module has no Storages"),
    ],
)
def test_storages_that_are_not_there(sqlite_shop: Shop, storages: str, said: str) -> None:
    name = sqlite_shop.name
    assert fails("--storages", storages.replace("shop", name), "--database", sqlite_shop.url).startswith(
        said.replace("shop", name)
    )


LAZY = """
from shop import files
class Proxy:
    @property
    def __class__(self):
        raise RuntimeError("nobody asks")
    def __getattr__(self, name):
        raise RuntimeError("nobody asks")
request = Proxy()
def __getattr__(name):
    print("made")
    if name == "late":
        return files
    raise (RuntimeError if name == "broken" else AttributeError)(name)
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "looking for 'broken' in 'lazy' failed: RuntimeError: broken (LAZY, line 14)"),
        ("request", "looking for 'request' in 'lazy' failed: RuntimeError: nobody asks (LAZY, line 6)"),
        ("request.files", "looking for 'request.files' in 'lazy' failed: RuntimeError: nobody asks (LAZY, line 8)"),
        ("file", "'lazy' has no 'file'; that module has 'files'"),
        ("os", "'lazy' has no 'os'; that module has 'files'"),
    ],
)
def test_a_module_that_makes_what_it_has_when_it_is_asked(sqlite_shop: Shop, name: str, said: str) -> None:
    module = sqlite_shop.folder / "lazy.py"
    module.write_text(LAZY.replace("shop", sqlite_shop.name))
    result = run("stats", "--storages", f"lazy:{name}", "--database", sqlite_shop.url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.removeprefix("made\n") == f"Error: {said.replace('LAZY', str(module))}\n"
    late = run("stats", "--json", "--storages", "lazy:late", "--database", sqlite_shop.url)
    assert json.loads(late.stdout)["ok"] is True


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import not_installed_at_all", "ModuleNotFoundError: No module named 'not_installed_at_all'"),
        ("\n1 / 0", "ZeroDivisionError: division by zero"),
        ("x = (", "SyntaxError: '(' was never closed"),
        ("import sys; sys.exit('no settings')", "SystemExit: no settings"),
    ],
)
def test_an_application_that_can_not_be_imported(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "broken.py").write_text(source)
    failed = fails("--storages", "broken:files", "--database", "sqlite://")
    assert failed.startswith(f"importing 'broken' failed: {said}")
    assert "broken.py" in failed


def test_models_that_were_not_imported(sqlite_shop: Shop) -> None:
    (sqlite_shop.folder / "bare.py").write_text("from sa_attachments import Storages; files = Storages('memory:')")
    models = (
        "from bare import files; from sqlalchemy import *; from sa_attachments import AttachmentType\n"
        "docs = Table('docs', MetaData(), Column('id', Integer, primary_key=True), "
        "Column('file', AttachmentType(files)))"
    )
    (sqlite_shop.folder / "models.py").write_text(models)
    found = ["--storages", "bare:files", "--database", sqlite_shop.url]
    assert fails(*found).startswith(
        "no mapped column uses these Storages: name the modules with the models by --import"
    )
    assert run("stats", *found, "--import", "models").exit_code == 0


def test_storages_that_nobody_configured(sqlite_shop: Shop) -> None:
    (sqlite_shop.folder / "bare.py").write_text("from sa_attachments import Storages; files = Storages()")
    said = fails("--storages", "bare:files", "--database", sqlite_shop.url)
    assert said.startswith("'bare:files' has no storages yet: name the module that calls its configure() by --import")


def test_modules_that_are_not_there(sqlite_shop: Shop) -> None:
    assert "there is no module 'models'" in fails(*sqlite_shop.options, "--import", "models")
    assert "'../models' names no module: expected a dotted name" in fails(*sqlite_shop.options, "--import", "../models")


def test_a_database_without_the_ledger(shop: Shop) -> None:
    shop.execute("DROP TABLE attachment_ledger")
    said = fails(*shop.options)
    assert said.startswith("there is no table 'attachment_ledger': create it with metadata.create_all() or a migration")


def test_a_database_that_does_not_answer(sqlite_shop: Shop) -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/app?connect_timeout=2"
    said = fails("--storages", f"{sqlite_shop.name}:files", "--database", url)
    assert said.startswith("the database: connection failed")
    assert "secret" not in said


@pytest.mark.parametrize("host", ["127.0.0.1:1", "not-there.invalid"])
def test_a_database_that_does_not_answer_to_asyncpg(sqlite_shop: Shop, host: str) -> None:
    """Whose errors of this kind are the system's, and no others."""
    found = ["--storages", f"{sqlite_shop.name}:files", "--database", f"postgresql+asyncpg://me:secret@{host}/app"]
    said = fails(*found)
    assert said.startswith("the database: [Errno")
    result = run("sweep", "--json", *found)
    assert (result.exit_code, json.loads(result.stdout)) == (2, {"ok": False, "error": said})


def test_a_working_directory_that_is_gone(sqlite_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = sqlite_shop.folder / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = run("stats", "--json", *sqlite_shop.options)
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"].startswith("[Errno 2] No such file")
    monkeypatch.chdir(sqlite_shop.folder)


def test_a_file_that_is_no_database(sqlite_shop: Shop) -> None:
    (sqlite_shop.folder / "text.db").write_text("nothing like a database " * 100)
    said = fails("--storages", f"{sqlite_shop.name}:files", "--database", "sqlite:///text.db")
    assert said == "the database: file is not a database"
