"""The bytes decide what a file is; a name or a claim only makes that more specific, and never more dangerous."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import sqlite3
import subprocess
import sys
import tarfile
import wave
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_attachments.processing.mediatype import UNKNOWN, is_active
from sa_attachments.processing.sniffing import HEAD, content_type, has_signature

on = pytest.mark.parametrize

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1"


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def waved() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0\0" * 10)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"))
    return file.getvalue()


def ftyp(brand: bytes, *compatible: bytes) -> bytes:
    """The first box of an ISO base media file (ISO 14496-12, §4.3)."""
    box = b"ftyp" + brand + b"\0\0\0\0" + b"".join(compatible)
    return (len(box) + 4).to_bytes(4, "big") + box + b"\0\0\0\x08free"


SIGNED: list[tuple[bytes, str]] = [
    (PNG, "image/png"),
    (b"\xff\xd8\xff\xe0\0\x10JFIF\0\1", "image/jpeg"),
    (b"\xff\xd8\xff\xe1\0\x10Exif\0\0", "image/jpeg"),
    (b"GIF87a\1\0\1\0", "image/gif"),
    (b"GIF89a\1\0\1\0", "image/gif"),
    (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
    (b"II*\0\x08\0\0\0", "image/tiff"),
    (b"MM\0*\0\0\0\x08", "image/tiff"),
    (b"8BPS\0\1\0\0", "image/vnd.adobe.photoshop"),
    (b"%PDF-1.7\n%\xe2\xe3", "application/pdf"),
    (b"{\\rtf1\\ansi", "application/rtf"),
    (b"%!PS-Adobe-3.0", "application/postscript"),
    (waved(), "audio/wav"),
    (b"ID3\4\0\0\0\0\0\0", "audio/mpeg"),
    (b"fLaC\0\0\0\x22\x10", "audio/flac"),
    (b"\x1f\x8b\x08\0\0\0\0\0", "application/gzip"),
    (gzip.compress(b"x"), "application/gzip"),
    (bz2.compress(b"hello"), "application/x-bzip2"),
    (b"\xfd7zXZ\0\0\4", "application/x-xz"),
    (b"7z\xbc\xaf\x27\x1c\0\4", "application/x-7z-compressed"),
    (b"Rar!\x1a\x07\1\0", "application/vnd.rar"),
    (zipped(a=b"x"), "application/zip"),
    (tarred(), "application/x-tar"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"MZ\x90\0\3\0\0\0\4\0", "application/vnd.microsoft.portable-executable"),
    (b"wOFF\0\1\0\0", "font/woff"),
    (b"wOF2\0\1\0\0", "font/woff2"),
    (b"SQLite format 3\0\x10\0", "application/vnd.sqlite3"),
    (ftyp(b"mp42", b"isom", b"mp42"), "video/mp4"),
    (ftyp(b"isom", b"isom", b"iso2", b"avc1", b"mp41"), "video/mp4"),
    (ftyp(b"iso5", b"iso5"), "video/mp4"),
    (ftyp(b"qt  ", b"qt  "), "video/quicktime"),
    (ftyp(b"3gp5", b"3gp5"), "video/mp4"),
    (ftyp(b"heic", b"mif1", b"heic"), "image/heic"),
    (ftyp(b"mif1", b"mif1"), "image/heif"),
]
# The length of the first box depends on the number of brands in it; puremagic knows some lengths as those of MP4.
SIGNED += [(ftyp(b"avif", *[b"mif1"] * more), "image/avif") for more in range(8)]
SIGNED += [(ftyp(b"M4A ", *[b"M4A "] * more), "audio/mp4") for more in range(8)]
SIGNED += [(ftyp(b"heic", *[b"heic"] * more), "image/heic") for more in range(8)]


# Not made of the bytes, which hold the time: all workers must name the tests alike.
NAMES = [f"{number} {expected}" for number, (_, expected) in enumerate(SIGNED)]


@on(("head", "expected"), SIGNED, ids=NAMES)
def test_a_signature_decides(head: bytes, expected: str) -> None:
    assert content_type(head) == expected


@on(("head", "expected"), SIGNED, ids=NAMES)
@on("lie", [("a.txt", "text/plain"), ("a.html", "text/html"), ("a.svg", "image/svg+xml"), ("a.js", "text/javascript")])
def test_no_lie_changes_it(head: bytes, expected: str, lie: tuple[str, str]) -> None:
    assert content_type(head, *lie) == expected


@on(("filename", "claimed"), [("a.png", None), (None, "image/png"), ("a.png", "image/png"), ("a.jpg", "image/jpeg")])
@on(
    ("head", "expected"),
    [
        (b"hello", "text/plain"),
        (b"%PDF-1.4", "application/pdf"),
        (b"<html>", "text/html"),
        (b"<svg onload=alert(1)>", "image/svg+xml"),
        (b"\0\1\2\3binary", UNKNOWN),
        (b"", UNKNOWN),
        (b"MZ\x90\0\3\0\0\0", "application/vnd.microsoft.portable-executable"),
    ],
)
def test_nothing_is_an_image_because_somebody_says_so(
    head: bytes, expected: str, filename: str | None, claimed: str | None
) -> None:
    assert content_type(head, filename, claimed) == expected


@on(
    ("head", "filename", "claimed", "expected"),
    [
        (zipped(a=b"x"), "a.docx", None, DOCX),
        (zipped(a=b"x"), None, DOCX, DOCX),
        (zipped(a=b"x"), "a.jar", "application/zip", "application/java-archive"),
        (zipped(a=b"x"), "a.epub", None, "application/epub+zip"),
        (
            zipped(mimetype=b"application/vnd.oasis.opendocument.text"),
            None,
            None,
            "application/vnd.oasis.opendocument.text",
        ),
        (zipped(mimetype=b"application/epub+zip"), "a.zip", None, "application/epub+zip"),
        (zipped(mimetype=b"text/html"), "a.html", "text/html", "application/zip"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a.doc", None, "application/msword"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a.xls", None, "application/vnd.ms-excel"),
        (b"OggS\0\2" + b"\0" * 22 + b"\1vorbis", None, "audio/ogg", "audio/ogg"),
        (b"\x1aE\xdf\xa3\x93B\x82\x88matroska", "a.webm", None, "video/webm"),
        (ftyp(b"mp42"), "a.m4a", None, "audio/mp4"),
    ],
    ids=range(12),
)
def test_a_container_is_the_kind_that_is_claimed(
    head: bytes, filename: str | None, claimed: str | None, expected: str
) -> None:
    assert content_type(head, filename, claimed) == expected


@on(
    ("head", "expected"),
    [
        (b"<html>", "text/html"),
        (b"<!DOCTYPE html>\n<p>", "text/html"),
        (b"<!doctype HTML PUBLIC '-//W3C//DTD HTML 4.01//EN'>", "text/html"),
        (b" \n\t<ScRiPt>alert(1)</script>", "text/html"),
        (b"<!-- hello --><html>", "text/html"),
        (b"<!-- " + b"x" * HEAD, "text/html"),  # whatever may follow
        (b"<iframe src=x>", "text/html"),
        (b"\xef\xbb\xbf<html>", "text/html"),
        ("<html>".encode("utf-16"), "text/html"),
        ("\ufeff<html>".encode("utf-16-be"), "text/html"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        (b"<?xml version='1.0'?><!-- x --><svg/>", "image/svg+xml"),
        (b"<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'x'><svg>", "image/svg+xml"),
        (b"<s:svg xmlns:s='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
        (b"<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'>", "application/xhtml+xml"),
        (b"<?xml version='1.0'?><note/>", "application/xml"),
    ],
)
@on(("filename", "claimed"), [(None, None), ("a.txt", "text/plain"), ("a.csv", "text/csv"), ("a.png", "image/png")])
def test_markup_is_what_its_tags_say(head: bytes, expected: str, filename: str | None, claimed: str | None) -> None:
    assert content_type(head, filename, claimed) == expected


def test_xml_is_the_kind_that_is_claimed_unless_that_needs_proof() -> None:
    note = b"<?xml version='1.0'?><note/>"
    assert content_type(note, "a.gpx") == "application/gpx+xml"
    assert content_type(note, "a.svg", "image/svg+xml") == "application/xml"
    assert content_type(note, "a.xhtml") == "application/xml"


@on(
    ("head", "filename", "claimed", "expected"),
    [
        (b"hello", None, None, "text/plain"),
        (b"a,b\n1,2\n", "a.csv", None, "text/csv"),
        (b"{}", None, "application/json", "application/json"),
        (b"alert(1)", "a.js", "text/javascript", "text/plain"),
        (b"p { color: red }", "a.css", "text/css", "text/plain"),
        (b"hello", "a.html", "text/html", "text/plain"),
        (b"a < b", "a.html", "text/html", "text/plain"),
        (b"#!/bin/sh\n", "a.sh", None, "application/x-sh"),
        ("größe 日本".encode(), None, None, "text/plain"),
        ("größe".encode("utf-16"), "a.txt", None, "text/plain"),
        ("größe".encode("latin-1"), "a.txt", None, "text/plain"),
        ("größe".encode("latin-1"), None, None, UNKNOWN),
        (b"<!-- a comment -->\n# A page of Markdown", "a.md", None, "text/markdown"),
        (b"GIF89 is a format", None, None, "text/plain"),
        (b"BMW is a car", None, None, "text/plain"),
        (b"Rar! is a word", None, None, "text/plain"),
        (b"%PDF-1.4", "a.txt", "text/plain", "application/pdf"),
    ],
)
def test_text(head: bytes, filename: str | None, claimed: str | None, expected: str) -> None:
    assert content_type(head, filename, claimed) == expected


def test_a_character_that_the_head_cuts_off_is_no_damage() -> None:
    assert content_type("ö".encode() * (HEAD // 2) + "ö".encode()[:1]) == "text/plain"


def test_short_signatures_need_somebodys_word() -> None:
    bitmap = b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0"
    assert content_type(bitmap, "a.bmp") == "image/bmp"
    assert content_type(bitmap) == UNKNOWN


def test_bytes_without_a_signature_are_what_an_application_says() -> None:
    data = b"\0\1\2\3 binary"
    assert content_type(data, None, "application/vnd.acme") == "application/vnd.acme"
    for claimed in ("video/x-acme", "text/html", "text/plain", "image/svg+xml", "application/pdf", UNKNOWN, "nonsense"):
        assert content_type(data, None, claimed) == UNKNOWN


@given(
    st.binary(max_size=64), st.sampled_from(["a.html", "a.svg", "a.js", "a.css", "a.xml", "a.xhtml", None]), st.text()
)
def test_only_bytes_that_begin_with_a_tag_are_run_by_browsers(head: bytes, filename: str | None, claimed: str) -> None:
    found = content_type(head, filename, claimed)
    assert not is_active(found) or _begins_with_a_tag(head)


def _begins_with_a_tag(head: bytes) -> bool:
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        head = head.decode("utf-16", "ignore").encode()
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<")


@given(st.binary(max_size=200))
def test_any_bytes_have_a_type(head: bytes) -> None:
    assert "/" in content_type(head)


def test_real_files(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert content_type((tmp_path / "a.db").read_bytes()[:HEAD]) == "application/vnd.sqlite3"
    assert content_type(Path(__file__).read_bytes()[:HEAD], "a.py") == "text/x-python"
    assert content_type(Path(sys.executable).resolve().read_bytes()[:HEAD], "a.png", "image/png") == UNKNOWN


@on(("name", "expected"), [("image/x-acme", True), ("application/pdf", True), ("application/vnd.acme", False)])
def test_has_signature(name: str, expected: bool) -> None:
    assert has_signature(name) is expected


WITHOUT = """
import sys
sys.modules["puremagic"] = sys.modules["puremagic.main"] = None
from sa_attachments import MissingExtra
from sa_attachments.processing import Accept, MatchingExtension
from sa_attachments.processing.sniffing import content_type
for head, name in ((b"\\x89PNG\\r\\n", "a.png"), (b"<html>", "a.png"), (b"\\0", "a.html")):
    print(content_type(head, name))
for step in (lambda: Accept("image/*"), MatchingExtension):
    try:
        step()
    except MissingExtra as error:
        print(error)
"""


def test_without_puremagic_the_name_is_believed_unless_browsers_run_it() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        "image/png",
        "text/html",
        "application/octet-stream",
        "Accept needs puremagic, to know files by their bytes: install sa-attachments[sniff]",
        "MatchingExtension needs puremagic, to know files by their bytes: install sa-attachments[sniff]",
    ]
