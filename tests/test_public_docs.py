"""Everything public is explained: by a docstring, and on a page or in an example that runs.

Public is what the ``__all__`` of these modules names, and the public methods of the classes among it. What these
return is public too: who writes annotations has to import it from somewhere.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PUBLIC = [
    "sa_attachments",
    "sa_attachments.adoption",
    "sa_attachments.integrations.zope",
    "sa_attachments.processing",
    "sa_attachments.processing.images",
    "sa_attachments.reports",
    "sa_attachments.storage",
    "sa_attachments.storages",
    "sa_attachments.testing",
]
INSIDE = {
    "Ledger": "what columns and sessions ask their Storages for",
    "Override": "what with and async with take",
}


def exports(module: ModuleType) -> Iterator[tuple[str, object]]:
    """("Attachment", …), ("Attachment.open", …), … for all that the module exports."""
    for name in getattr(module, "__all__", ()):
        exported = getattr(module, name)
        yield name, exported
        if inspect.isclass(exported):
            for method, member in methods(exported):
                yield f"{name}.{method}", member


def methods(cls: type) -> Iterator[tuple[str, object]]:
    """Public methods and properties that classes of ours define, each once, the nearest definition of each."""
    seen = set()
    for owner in cls.__mro__:
        if not owner.__module__.startswith("sa_attachments"):
            continue
        for name, member in vars(owner).items():
            is_method = inspect.isroutine(member) or isinstance(member, property | classmethod | staticmethod)
            if is_method and not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, member


def docstring(name: str, exported: object, module: ModuleType) -> str | None:
    """Its own, or for a method the one of the protocol or base class that it carries out."""
    owner, _, method = name.partition(".")
    if method:
        return inspect.getdoc(getattr(getattr(module, owner), method)) or promised(method)
    if inspect.isclass(exported):
        own = vars(exported).get("__doc__")
        # Dataclasses and named tuples without a docstring get their signature as one.
        return None if own and own.startswith(f"{exported.__name__}(") else own
    if callable(exported):
        return exported.__doc__
    return "a value"  # a constant or an alias has no docstring: the pages must name it


def promised(method: str) -> str | None:
    """Promises of storages are written once, on the protocols: whoever offers such a verb need not repeat them."""
    storage = importlib.import_module("sa_attachments.storage")
    for protocol in vars(storage).values():
        if inspect.isclass(protocol) and getattr(protocol, "_is_protocol", False) and method in vars(protocol):
            return inspect.getdoc(vars(protocol)[method])
    return None


def answers(exported: object) -> Iterator[type]:
    """Classes of ours that a function or method returns, or that are in the fields of a class."""
    if inspect.isclass(exported):
        scope, fields = vars(sys.modules[exported.__module__]), inspect.get_annotations(exported)
        said = [str(annotation) for name, annotation in fields.items() if not name.startswith("_")]
    else:
        function = exported.fget if isinstance(exported, property) else inspect.unwrap(exported)  # type: ignore[arg-type]
        function = getattr(function, "__func__", function)
        scope = getattr(function, "__globals__", {})
        said = [str(getattr(function, "__annotations__", {}).get("return"))]
    for dotted in re.findall(r"[A-Za-z_][\w.]*", " ".join(said)):
        name, *attributes = dotted.split(".")
        found = scope.get(name)
        for attribute in attributes:
            found = getattr(found, attribute, None)
        if inspect.isclass(found) and found.__module__.startswith("sa_attachments"):
            yield found


@cache
def pages() -> str:
    """Text of the pages, and the examples of all docstrings."""
    texts = [path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if path.exists()]
    for path in sorted((ROOT / "sa_attachments").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (ast.get_docstring(node) or "").splitlines()
                texts += [line for line in lines if line.lstrip().startswith((">>> ", "... "))]
    return "\n".join(texts)


def is_on_a_page(name: str, text: str) -> bool:
    """A class or function by its name, a method as code: ``x.method`` or ``method(``."""
    _, _, method = name.partition(".")
    pattern = rf"\.{method}\b|`{method}(?:\(|`)" if method else rf"\b{name}\b"
    return re.search(pattern, text) is not None


FOUND = [importlib.import_module(name) for name in PUBLIC if importlib.util.find_spec(name)]
EXPORTS = [
    pytest.param(name, exported, module, id=f"{module.__name__}:{name}")
    for module in FOUND
    for name, exported in exports(module)
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_modules_say_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__all__
    assert len(set(module.__all__)) == len(module.__all__)
    for exported in module.__all__:
        assert hasattr(module, exported), f"{name}.__all__ names {exported!r}, which is not there"


@pytest.mark.parametrize(("name", "exported", "module"), EXPORTS)
def test_has_a_docstring(name: str, exported: object, module: ModuleType) -> None:
    assert docstring(name, exported, module), f"{module.__name__}.{name} has no docstring"


@pytest.mark.parametrize(("name", "exported", "module"), EXPORTS)
def test_gives_only_what_is_public(name: str, exported: object, module: ModuleType) -> None:
    public = [exported for each in FOUND for _, exported in exports(each)]
    hidden = {cls.__qualname__ for cls in answers(exported) if cls not in public and cls.__name__ not in INSIDE}
    assert not hidden, f"{module.__name__}.{name} gives {hidden}: name it in the __all__ of a public module"


@pytest.mark.skipif(not (ROOT / "docs" / "reference.md").exists(), reason="docs/reference.md is not written yet")
@pytest.mark.parametrize(("name", "exported", "module"), EXPORTS)
def test_is_on_a_page_or_in_an_example(name: str, exported: object, module: ModuleType) -> None:
    assert is_on_a_page(name, pages()), f"neither README.md, docs/ nor an example mentions {module.__name__}.{name}"


# The tests above, on a module that breaks them.


class _Documented:
    """A class."""

    def explained(self) -> None:
        """Explained."""

    def silent(self) -> None: ...

    def put(self) -> None: ...

    def report(self) -> list[_Signature]:
        """A report."""
        raise NotImplementedError

    @property
    def reports(self) -> dict[str, _Silent]:
        """More."""
        raise NotImplementedError


class _Silent(Exception): ...


@dataclass
class _Signature:
    size: int
    whose: _Documented | None
    _hidden: _Silent | None = None


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("sa_attachments.invented")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for cls in (_Documented, _Silent, _Signature):
        monkeypatch.setattr(cls, "__module__", module.__name__)
        setattr(module, cls.__name__, cls)
    module.__dict__["__all__"] = ["_Documented", "_Silent", "_Signature"]
    return module


def test_finds_what_has_no_docstring(module: ModuleType) -> None:
    silent = [name for name, exported in exports(module) if not docstring(name, exported, module)]
    assert silent == ["_Documented.silent", "_Silent", "_Signature"]


def test_finds_what_is_returned(module: ModuleType) -> None:
    found = {name: [cls.__name__ for cls in answers(exported)] for name, exported in exports(module)}
    assert {name: classes for name, classes in found.items() if classes} == {
        "_Documented.report": ["_Signature"],
        "_Documented.reports": ["_Silent"],
        "_Signature": ["_Documented"],
    }


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("Attachment", "An `Attachment` is …", True),
        ("Attachment", "AttachmentType", False),
        ("Attachment.open", "with user.avatar.open() as f", True),
        ("Attachment.open", "`open(start, end)`", True),
        ("Attachment.open", "an open transaction", False),
    ],
)
def test_prose_does_not_count_as_documentation(name: str, text: str, expected: bool) -> None:
    assert is_on_a_page(name, text) is expected
