"""Media types have one name each, the same on every machine."""

from __future__ import annotations

import mimetypes

import pytest

from sa_attachments.processing import mediatype
from sa_attachments.processing.mediatype import (
    UNKNOWN,
    canonical,
    extensions,
    is_active,
    is_kind_of,
    is_textual,
    of_filename,
)

on = pytest.mark.parametrize


@on(
    ("name", "expected"),
    [
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        (" image/png ; charset=x", "image/png"),
        ("image/jpg", "image/jpeg"),
        ("application/x-javascript", "text/javascript"),
        ("text/xml", "application/xml"),
        ("application/vnd.api+json", "application/vnd.api+json"),
        (UNKNOWN, UNKNOWN),
        ("", None),
        (None, None),
        ("nonsense", None),
        ("image/", None),
        ("/png", None),
        ("image/png/x", None),
        ("image/*", None),
        ("image/p ng", None),
        ("image/png\x00", None),
        ("image/png\r\nX: y", None),
        ("ımage/png", None),
        ("a/" + "b" * 128, None),
        (";", None),
    ],
)
def test_canonical(name: str | None, expected: str | None) -> None:
    assert canonical(name) == expected


def test_no_alias_leads_to_another_alias() -> None:
    aliases = mediatype._ALIASES
    assert {name: aliases[target] for name, target in aliases.items() if target in aliases} == {}
    assert all(canonical(name) == target for name, target in aliases.items())


def test_all_names_in_the_tables_are_canonical() -> None:
    names = {*mediatype._KINDS, *mediatype._ACTIVE, *mediatype._TEXTUAL, *mediatype._EXTENSIONS.values()}
    assert {name for name in names if canonical(name) != name} == set()


@on(
    ("filename", "expected"),
    [
        ("a.png", "image/png"),
        ("a.PNG", "image/png"),
        ("a.jpeg", "image/jpeg"),
        ("a.tar.gz", "application/gzip"),
        ("a.svg", "image/svg+xml"),
        ("a.js", "text/javascript"),
        ("a.md", "text/markdown"),
        ("a.heic", "image/heic"),
        ("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a.nonsense", None),
        ("README", None),
        (".png", None),
        ("a.", None),
        ("", None),
        (None, None),
    ],
)
def test_of_filename(filename: str | None, expected: str | None) -> None:
    assert of_filename(filename) == expected


def test_what_the_machine_believes_of_an_extension_does_not_matter() -> None:
    mimetypes.add_type("text/html", ".png")
    try:
        assert of_filename("a.png") == "image/png"
    finally:
        mimetypes.init()


def test_extensions() -> None:
    assert extensions("image/jpeg") == {".jfif", ".jpe", ".jpeg", ".jpg"}
    assert extensions("nonsense/x") == frozenset()


@on(
    ("name", "kind", "expected"),
    [
        ("image/png", "image/png", True),
        ("application/epub+zip", "application/zip", True),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "application/zip", True),
        ("application/zip", "application/epub+zip", False),
        ("image/svg+xml", "application/xml", True),
        ("audio/mp4", "video/mp4", True),
        ("image/png", "application/zip", False),
        ("text/html", "application/zip", False),
    ],
)
def test_kinds(name: str, kind: str, expected: bool) -> None:
    assert is_kind_of(name, kind) is expected


def test_no_kind_of_a_container_is_run_by_browsers_unless_it_is_markup() -> None:
    """What a claim can make of bytes must stay harmless."""
    for kind in mediatype._KINDS:
        for pattern in mediatype._KINDS[kind]:
            assert not is_active(pattern.replace("*", "x")) or kind in ("application/xml", "text/html")


@on(
    "name",
    ["text/html", "image/svg+xml", "application/xhtml+xml", "text/javascript", "application/atom+xml", "text/css"],
)
def test_what_browsers_run(name: str) -> None:
    assert is_active(name)
    assert not is_textual(name)


@on("name", ["text/plain", "text/csv", "application/json", "application/ld+json", "application/yaml"])
def test_text_that_nothing_runs(name: str) -> None:
    assert is_textual(name)
    assert not is_active(name)


@on("name", ["image/png", UNKNOWN, "application/pdf", "application/zip"])
def test_neither(name: str) -> None:
    assert not is_textual(name)
    assert not is_active(name)
