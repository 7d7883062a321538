"""Imports go downward only, heavy dependencies stay in the one module that needs them, modules stay small.

The imports are read from the sources, those inside of functions and under TYPE_CHECKING among them.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up; a name stands for the module and for everything below it. A module may import from its own row and
# from the rows under it.
LAYERS: list[tuple[str, ...]] = [
    ("errors",),
    (
        "filename",
        "key",
        "lock",
        "storage",
        "pulls",
        "source",
        "intake",
        "descriptor",
        "binding",
        "integrity",
        "upload",
        "content",
        "schema",
        "attachment",
    ),
    ("processing", "storages"),
    ("serving",),
    ("birth", "chunks", "claims", "clock", "flights", "frames", "offload", "queries", "tables", "watch"),
    ("ledger",),
    ("comparator", "home", "column", "naming"),
    ("references",),
    ("access", "conflicts", "mapped", "places", "patience", "pools", "scope", "wants", "staging"),
    ("custody", "drops", "recovery", "slots", "undo"),
    ("habits", "keyset"),
    ("rows",),
    ("review", "sight"),
    (
        "bulk",
        "dml",
        "flush",
        "inserts",
        "moving",
        "settling",
        "statements",
        "statistics",
        "sweep",
        "takeover",
        "verify",
    ),
    ("making", "rebuilding"),
    ("reports",),
    ("hooks", "workshop"),
    ("desk", "tracker"),
    ("care",),
    ("files",),
    ("adoption",),
]
# Nobody imports an edge, except its own family.
EDGES: list[tuple[str, ...]] = [
    ("cli", "demo"),
    ("testing", "pytest_plugin"),
    ("integrations",),
    ("alembic_ext",),
]
# SQLAlchemy begins where the rows are; only the storage inside of a database needs it below.
PURE: tuple[str, ...] = ("errors", *LAYERS[1], *LAYERS[2], *LAYERS[3], "birth", "frames")
OF_ROWS = ("storages.database", "storages.pieces")
THIRD_PARTY: dict[str, tuple[str, ...]] = {
    "click": ("cli", "demo"),
    "rich": ("cli", "demo"),
    "puremagic": ("processing.sniffing",),
    "PIL": ("processing.images",),
    "boto3": ("storages.s3",),
    "botocore": ("storages.s3",),
    "urllib3": ("storages.s3",),
    "gridfs": ("storages.gridfs",),
    "pymongo": ("storages.gridfs",),
    "bson": ("storages.gridfs",),
    "obstore": ("storages.objectstore",),
    "starlette": ("integrations",),
    "litestar": ("integrations",),
    "werkzeug": ("integrations",),
    "zope": ("integrations",),
    "transaction": ("integrations",),
    "pytest": ("testing", "pytest_plugin"),
    "alembic": ("alembic_ext",),
}
# Modules without a test file of their own, and where they are tested.
TESTED: dict[str, str] = {
    "sa_attachments": "test_quickstart.py",
    **dict.fromkeys(
        (
            f"sa_attachments.adoption{module}"
            for module in (
                "",
                ".adopting",
                ".blobs",
                ".columns",
                ".finishing",
                ".passes",
                ".plan",
                ".report",
                ".survey",
            )
        ),
        "alembic_ext/test_adopt_blobs.py",
    ),
    **dict.fromkeys(
        (f"sa_attachments.adoption.{module}" for module in ("foreign", "libraries")),
        "alembic_ext/test_adopt_libraries.py",
    ),
    "sa_attachments.adoption.folder": "alembic_ext/test_adopt_paths.py",
    "sa_attachments.adoption.ground": "alembic_ext/test_adopt_ground.py",
    "sa_attachments.adoption.spot": "alembic_ext/test_adopt_ground.py",
    "sa_attachments.adoption.paths": "alembic_ext/test_adopt_paths.py",
    "sa_attachments.adoption.restoring": "alembic_ext/test_adopt_back.py",
    "sa_attachments.adoption.rows": "alembic_ext/test_adopt_blobs.py",
    "sa_attachments.adoption.taking": "alembic_ext/test_adopt_paths.py",
    "sa_attachments.adoption.workplace": "alembic_ext/test_adopt_blobs.py",
    "sa_attachments.access": "test_recovery.py",
    "sa_attachments.binding": "test_attachment.py",  # a protocol
    "sa_attachments.bulk": "scenarios/",
    "sa_attachments.claims": "core_only/",
    "sa_attachments.care": "test_files.py",
    "sa_attachments.conflicts": "scenarios/",
    "sa_attachments.custody": "core_only/",
    "sa_attachments.desk": "core_only/",
    "sa_attachments.dml": "scenarios/",
    "sa_attachments.flush": "scenarios/",
    "sa_attachments.naming": "core_only/",
    "sa_attachments.patience": "test_recovery.py",
    "sa_attachments.scope": "scenarios/test_schemas.py",
    "sa_attachments.review": "scenarios/",
    "sa_attachments.slots": "scenarios/",
    "sa_attachments.staging": "scenarios/",
    "sa_attachments.statistics": "test_files.py",
    "sa_attachments.storages.pieces": "storages/test_database.py",
    "sa_attachments.storages.probe": "storages/test_mirror.py",
    "sa_attachments.storages.s3.bucket": "storages/test_s3.py",
    "sa_attachments.storages.s3.direct": "storages/test_s3.py",
    "sa_attachments.storages.s3.errors": "storages/test_s3.py",
    "sa_attachments.storages.s3.reading": "s3/test_reading.py",
    "sa_attachments.storages.s3.upload": "storages/test_s3.py",
    "sa_attachments.reports": "test_public_docs.py",  # a door
    "sa_attachments.habits": "test_moving.py",
    "sa_attachments.keyset": "test_moving.py",
    "sa_attachments.home": "test_files.py",  # a protocol
    "sa_attachments.hooks": "scenarios/test_hooks_after_commit.py",
    "sa_attachments.inserts": "scenarios/",
    "sa_attachments.takeover": "faults/test_places.py",
    "sa_attachments.undo": "scenarios/",
    "sa_attachments.wants": "scenarios/",
    "sa_attachments.workshop": "test_making.py",
    "sa_attachments.watch": "scenarios/",
    "sa_attachments.storage": "test_testing.py",  # protocols, and the contract is their executable form
}
NO_NOUNS = {"utils", "util", "helpers", "helper", "common", "base", "misc", "compat", "types", "core"}
MOST_LINES = 350
LONGER: dict[str, str] = {  # module: why it is one noun all the same
    "sa_attachments.attachment": "one class, and what makes it; its reading is in content, its new life in upload",
}


def sources(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict([*sources("sa_attachments"), *sources("alembic_ext")])


def imports_of(source: str, module: str, is_package: bool, modules: set[str]) -> set[str]:
    """The full names of all that is imported: modules where they are ours, else what stands in the source."""
    found: set[str] = set()
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found.update(name.name for name in names)
            case ast.ImportFrom(module=name, names=names, level=level):
                if level:
                    above = package.split(".")[: len(package.split(".")) - (level - 1)]
                    name = ".".join([*above, name] if name else above)
                assert name is not None
                for each in names:
                    submodule = f"{name}.{each.name}"
                    found.add(submodule if submodule in modules else name)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=args,
                keywords=keywords,
            ):
                said: dict[str | None, ast.expr] = dict(zip(("name", "package"), args, strict=False))
                said |= {keyword.arg: keyword.value for keyword in keywords}
                match said.get("name"), said.get("package"):
                    case ast.Constant(str(name)), ast.Constant(str(anchor)):
                        found.add(resolve_name(name, anchor))
                    case ast.Constant(str(name)), _:  # __package__, if anything
                        found.add(resolve_name(name, package))
            case _:
                pass
    return found


IMPORTS = {
    module: imports_of(path.read_text(), module, path.name == "__init__.py", set(MODULES))
    for module, path in MODULES.items()
}


def within(module: str, names: tuple[str, ...]) -> bool:
    short = module.removeprefix("sa_attachments.")
    return any(short == name or short.startswith(f"{name}.") for name in names)


def row_of(module: str) -> int | None:
    """Its row in LAYERS; edges stand above all rows; None if nobody said where it belongs."""
    if module == "sa_attachments" or any(within(module, family) for family in EDGES):
        return len(LAYERS)
    return next((number for number, names in enumerate(LAYERS) if within(module, names)), None)


def objections(module: str, imported: str) -> str | None:
    """Why ``module`` may not import ``imported``, both ours."""
    for family in EDGES:
        if within(imported, family) and not within(module, family):
            return f"{imported} is an edge, which nobody imports"
    if imported == "sa_attachments" and not any(within(module, family) for family in EDGES):
        return "the package's own door is for users: import the module that defines the name"
    here, there = row_of(module), row_of(imported)
    if here is not None and there is not None and there > here:
        return f"{imported} lies above {module}"
    return None


def is_ours(name: str) -> bool:
    return name.split(".")[0] in ("sa_attachments", "alembic_ext")


@pytest.mark.parametrize("module", MODULES)
def test_has_a_place_in_the_layers(module: str) -> None:
    assert row_of(module) is not None, f"say in LAYERS or EDGES where {module} belongs"


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_downward(module: str) -> None:
    ours = sorted(name for name in IMPORTS[module] if is_ours(name))
    assert [objection for name in ours if (objection := objections(module, name))] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {name for name in names if is_ours(name) and name != module}
        for module, names in IMPORTS.items()
        if module != "sa_attachments"
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("module", MODULES)
def test_third_parties_are_imported_only_where_they_belong(module: str) -> None:
    strangers = {name.split(".")[0] for name in IMPORTS[module] if not is_ours(name)} - sys.stdlib_module_names
    for stranger in sorted(strangers):
        if stranger == "sqlalchemy":
            assert not within(module, PURE) or within(module, OF_ROWS), f"{module} is below SQLAlchemy"
        else:
            allowed = THIRD_PARTY.get(stranger)
            assert allowed is not None, f"{stranger} is no dependency of ours: say in THIRD_PARTY who may import it"
            assert within(module, allowed), f"only {allowed} may import {stranger}"


@pytest.mark.parametrize("module", MODULES)
def test_is_named_after_a_noun_and_is_small(module: str) -> None:
    assert module.rpartition(".")[2] not in NO_NOUNS
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= MOST_LINES or module in LONGER, f"{lines} lines; split it, or say in LONGER why it is one noun"


@pytest.mark.parametrize("module", [module for module in MODULES if not any(within(module, edge) for edge in EDGES)])
def test_has_tests_where_one_looks_for_them(module: str) -> None:
    *packages, name = module.split(".")
    mirror = Path(*packages[1:], f"test_{name}.py")
    is_package = MODULES[module].name == "__init__.py" and not (ROOT / "tests" / mirror).exists()
    place = ROOT / "tests" / (TESTED.get(module) or (Path(*packages[1:], name) if is_package else mirror))
    assert place.exists(), f"no {place.relative_to(ROOT)}: write it, or say in TESTED where {module} is tested"
    assert module not in TESTED or not (ROOT / "tests" / mirror).exists(), f"{module} has a test file of its own"


@pytest.mark.parametrize("module", MODULES)
def test_begins_with_its_manual(module: str) -> None:
    assert ast.get_docstring(ast.parse(MODULES[module].read_text())), f"{module} has no docstring"


def test_importing_the_package_loads_nothing_but_sqlalchemy() -> None:
    program = "import sys; before = set(sys.modules); import sa_attachments; print(*sorted(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "sa_attachments.attachment" in loaded
    owners = packages_distributions()
    distributions = {owner for name in loaded for owner in owners.get(name.split(".")[0], ())}
    # The last two are what SQLAlchemy brings along by itself.
    assert distributions <= {"sa-attachments", "SQLAlchemy", "typing_extensions", "greenlet"}


# The reading of imports and the rules themselves, on sources that break them.


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import click", "click"),
        ("def f():\n    from ..files import verify", "sa_attachments.files"),
        ("if TYPE_CHECKING:\n    from .. import tracker", "sa_attachments.tracker"),
        ("from . import url", "sa_attachments.storages.url"),
        ("from . import checked", "sa_attachments.storages"),
        ("from .url import StorageURL", "sa_attachments.storages.url"),
        ("from sa_attachments import Attachment", "sa_attachments"),
        ("importlib.import_module('boto3')", "boto3"),
        ("import_module('boto3')", "boto3"),
        ("__import__('boto3')", "boto3"),
        ("def f():\n    import_module('..tracker', __package__)", "sa_attachments.tracker"),
        ("importlib.import_module('.url', package=__package__)", "sa_attachments.storages.url"),
        ("importlib.import_module(name='.tracker', package='sa_attachments')", "sa_attachments.tracker"),
        ("import_module('.', __package__)", "sa_attachments.storages"),
    ],
)
def test_finds_imports_wherever_they_stand(source: str, expected: str) -> None:
    ours = {"sa_attachments.tracker", "sa_attachments.files", "sa_attachments.storages.url"}
    assert imports_of(source, "sa_attachments.storages.memory", False, ours) == {expected}


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("sa_attachments.errors", "sa_attachments.key"),
        ("sa_attachments.attachment", "sa_attachments.storages.local"),
        ("sa_attachments.processing.steps", "sa_attachments.column"),
        ("sa_attachments.ledger", "sa_attachments.tracker"),
        ("sa_attachments.files", "sa_attachments.cli"),
        ("sa_attachments.cli", "sa_attachments.testing"),
        ("sa_attachments.files", "sa_attachments"),
        ("sa_attachments", "sa_attachments.testing"),
        ("sa_attachments", "alembic_ext"),
    ],
)
def test_objects_to_an_upward_import(module: str, imported: str) -> None:
    assert objections(module, imported)


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("sa_attachments", "sa_attachments.files"),
        ("sa_attachments.files", "sa_attachments.errors"),
        ("sa_attachments.cli", "sa_attachments.demo.files"),
        ("sa_attachments.cli", "sa_attachments"),
        ("alembic_ext.operations", "sa_attachments.column"),
        ("sa_attachments.attachment", "sa_attachments.descriptor"),
    ],
)
def test_accepts_a_downward_import(module: str, imported: str) -> None:
    assert objections(module, imported) is None
