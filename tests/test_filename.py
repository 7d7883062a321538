"""Whatever a client calls a file, what is kept can be shown, sent in a header and saved under."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sa_attachments.filename import MAX_BYTES, clean, extension


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Paths are cut down to their last part.
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\system32\\cmd.exe", "cmd.exe"),
        ("C:\\fakepath\\photo.jpg", "photo.jpg"),
        ("/", "unnamed"),
        ("folder/", "unnamed"),
        # Characters that end strings or lines, turn text around, or can't be encoded.
        ("cv.pdf\x00.exe", "cv.pdf.exe"),
        ("a\r\nSet-Cookie: b=c.txt", "aSet-Cookie_ b=c.txt"),
        ("photo\u202egpj.exe", "photogpj.exe"),
        ("\u200fabc\u2066\u2069.txt", "abc.txt"),
        ("\ufeffbom.txt", "bom.txt"),
        ("line\u2028paragraph\u2029.txt", "lineparagraph.txt"),
        ("half\ud800.txt", "half.txt"),
        ("tab\there\x7f\x85.txt", "tabhere.txt"),
        # Nothing left.
        ("", "unnamed"),
        ("   ", "unnamed"),
        (".", "unnamed"),
        ("..", "unnamed"),
        ("... .. .", "unnamed"),
        ("\u200b\u200d", "unnamed"),
        # What Windows can't, or shouldn't, save under.
        ("CON", "_CON"),
        ("con.txt", "_con.txt"),
        ("Aux .tar.gz", "_Aux .tar.gz"),
        ("COM1", "_COM1"),
        ("lpt¹.txt", "_lpt¹.txt"),
        ("CONIN$", "_CONIN$"),
        ("console.log", "console.log"),
        ("common.py", "common.py"),
        ("trailing. . ", "trailing"),
        ("a.txt:evil", "a.txt_evil"),
        ("C:evil.txt", "C_evil.txt"),
        ("a.txt::$DATA", "a.txt__$DATA"),
        # What is fine stays.
        ("Übergrößenträger.pdf", "Übergrößenträger.pdf"),
        ("u\u0308ber.txt", "über.txt"),
        ("日本語 ファイル.txt", "日本語 ファイル.txt"),
        ("Screenshot 9.41.00\u202fAM.png", "Screenshot 9.41.00 AM.png"),
        (".bashrc", ".bashrc"),
        ("a'b\"c;d=e%20(1).txt", "a'b\"c;d=e%20(1).txt"),
        ("👩.png", "👩.png"),
        # Joiners are letters' business: without them, Persian is misspelt and families fall apart.
        ("می\u200cخواهم.txt", "می\u200cخواهم.txt"),
        ("👨\u200d👩\u200d👧.png", "👨\u200d👩\u200d👧.png"),
        ("\u200c\u200da\u200d. \u200c", "a"),
        ("\u200e\u2067می\u200cخواهم\u2069.txt", "می\u200cخواهم.txt"),
    ],
)
def test_is_cleaned(name: str, expected: str) -> None:
    assert clean(name) == expected


@pytest.mark.parametrize(
    ("name", "length", "ending"),
    [
        ("x" * 4096, 255, "x"),
        ("x" * 4096 + ".tar.gz", 255, "x.gz"),
        ("ä" * 300 + ".pdf", 255 - 1, "ä.pdf"),  # no half of a character
        ("x" * 300 + "." + "e" * 300, 255, "x"),
        ("x" * 254 + " y" * 20, 254, "x"),
        ("İ" * 200 + ".İİ", 255, "İ.İİ"),  # longer in lower case
    ],
)
def test_is_shortened_to_255_bytes_with_its_extension(name: str, length: int, ending: str) -> None:
    cleaned = clean(name)
    assert len(cleaned.encode()) == length
    assert cleaned.endswith(ending)


def test_takes_no_time_even_where_somebody_means_harm() -> None:
    started = time.perf_counter()
    assert len(clean("a" + "\u0315\u0300" * 500_000 + ".txt").encode()) <= MAX_BYTES
    assert time.perf_counter() - started < 20  # character by character it would be hours


names = st.text() | st.text(alphabet="./\\:. \u0301\u0300\u200d\u202eaeCONcon1é\ud800\u00a0$", max_size=600)


@given(names)
@example("e\u200d\u0301")  # composes only without the joiner
@example("x" * 254 + " .")
@example("a." + "\u0301" * 300)
def test_is_idempotent_printable_and_short(name: str) -> None:
    cleaned = clean(name)
    assert clean(cleaned) == cleaned
    assert cleaned.translate(dict.fromkeys(map(ord, "\u200c\u200d"))).isprintable()
    assert 0 < len(cleaned.encode()) <= MAX_BYTES
    assert cleaned == cleaned.strip() == unicodedata.normalize("NFC", cleaned)
    assert not set(cleaned) & set("/\\:")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photo.JPG", ".jpg"),
        ("archive.tar.gz", ".gz"),
        ("README", ""),
        (".bashrc", ""),
        (".a.b", ".b"),
        ("dot.", "."),
        ("", ""),
        (None, ""),
    ],
)
def test_extension(name: str | None, expected: str) -> None:
    assert extension(name) == expected
