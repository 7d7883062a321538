from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(folder: Path, test: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on a file with this source, the plugin being loaded by name as an entry point would be."""
    (folder / "test_it.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(folder)]
    return subprocess.run(
        [*command, *arguments, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


def test_overrides_until_the_test_ends(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "import pytest\n"
        "from sa_attachments.storages.memory import MemoryStorage\n"
        "from sa_attachments.storages.registry import Registry\n"
        "from sa_attachments.testing.probes import listed, put\n"
        "\n"
        "files, others = Registry(MemoryStorage()), Registry({'default': 'memory:', 'scans': 'memory:'})\n"
        "real = files.resolve()\n"
        "\n"
        "@pytest.mark.parametrize('turn', [1, 2])\n"
        "def test_memory(override_storages, turn):\n"
        "    override_storages(files)\n"
        "    override_storages(others)\n"
        "    assert files.resolve() is not real\n"
        "    assert listed(files.resolve()) == []\n"
        "    put(files.resolve(), 'a', b'x')\n"
        "\n"
        "def test_target(override_storages, tmp_path):\n"
        "    override_storages(files, f'local:{tmp_path}')\n"
        "    override_storages(others, {'default': real})\n"
        "    assert files.resolve().root == tmp_path\n"
        "    assert others.resolve() is real\n"
        "\n"
        "def test_nothing_is_left():\n"
        "    assert files.resolve() is real\n"
        "    assert listed(real) == []\n"
        "    assert others.names() == ['default', 'scans']\n",
        "-p",
        "sa_attachments.pytest_plugin",
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_lifts_the_override_of_a_failing_test(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "from sa_attachments.storages.registry import Registry\n"
        "files = Registry()\n"
        "def test_fails(override_storages):\n"
        "    override_storages(files)\n"
        "    assert files.names() == []\n"
        "def test_next():\n"
        "    assert not files.matches('default')\n",
        "-p",
        "sa_attachments.pytest_plugin",
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr


def test_explains_its_fixture(tmp_path: Path) -> None:
    done = run(tmp_path, "", "-p", "sa_attachments.pytest_plugin", "--fixtures")
    assert "until the test ends, every name has a fresh storage" in done.stdout, done.stdout + done.stderr


def test_the_plugin_by_itself_imports_nothing_but_pytest() -> None:
    """The package's own door is left out: what it imports is its own affair."""
    program = (
        "import sys, types, pytest\n"
        f"package = types.ModuleType('sa_attachments'); package.__path__ = [{str(ROOT / 'sa_attachments')!r}]\n"
        "sys.modules['sa_attachments'] = package\n"
        "before = set(sys.modules)\n"
        "import sa_attachments.pytest_plugin\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert loaded == {"sa_attachments.pytest_plugin"}


def test_is_found_by_pytest(pytestconfig: pytest.Config) -> None:
    if not pytestconfig.pluginmanager.hasplugin("sa_attachments"):
        pytest.skip("the package is not installed, or without its entry points")
    assert pytestconfig.pluginmanager.get_plugin("sa_attachments").__name__ == "sa_attachments.pytest_plugin"  # type: ignore[union-attr]


def test_the_usual_fixture_as_the_page_has_it(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "testing.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (fixtures,) = (block for block in blocks if "join_transaction_mode" in block)
    (recipe,) = (block for block in blocks if "BEGIN" in block)
    (tmp_path / "myapp.py").write_text(
        "".join(example.source for example in doctest.DocTestParser().get_examples(recipe))
        + "from datetime import timedelta\n"
        "from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column\n"
        "from sa_attachments import Attachment, AttachmentType, Storages\n"
        "\n"
        "files = Storages('local:/nowhere', budget=timedelta(seconds=20))\n"  # else a busy machine leaves it to a sweep
        "\n"
        "class Base(DeclarativeBase): ...\n"
        "\n"
        "class Doc(Base):\n"
        "    __tablename__ = 'docs'\n"
        "    id: Mapped[int] = mapped_column(primary_key=True)\n"
        "    file: Mapped[Attachment] = mapped_column(AttachmentType(files))\n"
        "\n"
        "Base.metadata.create_all(engine)\n"
    )
    done = run(
        tmp_path,
        "import pytest, myapp\n"
        "from sqlalchemy import select\n"
        "from sqlalchemy.orm import Session\n" + fixtures + "\n"
        "@pytest.mark.parametrize('turn', [1, 2])\n"
        "def test_commits(session, turn):\n"
        "    assert session.scalars(select(myapp.Doc)).all() == []\n"
        "    session.add(myapp.Doc(id=1, file=b'one'))\n"
        "    session.commit()\n"
        "    session.get_one(myapp.Doc, 1).file = b'two'\n"
        "    session.commit()\n"
        "    assert session.get_one(myapp.Doc, 1).file.read() == b'two'\n"
        "    assert list(myapp.files.resolve().keys()) != []\n"
        "\n"
        "def test_nothing_is_left():\n"
        "    assert myapp.files.settled()\n"
        "    assert list(myapp.files.resolve().keys()) == []\n"
        "    assert myapp.files.stats(myapp.engine) == []\n",
        "-W",
        "error",
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr
