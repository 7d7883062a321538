from __future__ import annotations

import pytest

from sa_attachments.errors import BadConfiguration
from sa_attachments.storages.url import StorageURL


@pytest.mark.parametrize(
    ("text", "scheme", "rest", "host", "path"),
    [
        ("memory:", "memory", "", "", ""),
        ("local:./files", "local", "./files", "", "./files"),
        ("local:/srv/files?durable=false", "local", "/srv/files", "", "/srv/files"),
        ("local:///srv/files", "local", "///srv/files", "", "/srv/files"),
        ("local:a%20b%3Fc", "local", "a%20b%3Fc", "", "a b?c"),
        ("  Local:a  ", "local", "a", "", "a"),
        ("s3://bucket/prefix/x?region=y", "s3", "//bucket/prefix/x", "bucket", "/prefix/x"),
        ("s3://bucket", "s3", "//bucket", "bucket", ""),
        ("s3://me:pw@buck%65t/a", "s3", "//me:pw@buck%65t/a", "bucket", "/a"),
        ("x-y+z.1:a:b", "x-y+z.1", "a:b", "", "a:b"),
    ],
)
def test_is_taken_apart(text: str, scheme: str, rest: str, host: str, path: str) -> None:
    url = StorageURL(text)
    assert (url.scheme, url.rest, url.host, url.path) == (scheme, rest, host, path)


@pytest.mark.parametrize("text", ["", "files", "./files", ":x", "1a:x", "ä:x", "a b:x"])
def test_needs_a_scheme(text: str) -> None:
    with pytest.raises(BadConfiguration, match="expected scheme:rest"):
        StorageURL(text)


@pytest.mark.parametrize("query", ["readonly", "a=1&b", "&", "a=1&&b=2"])
def test_options_need_names_and_values(query: str) -> None:
    with pytest.raises(BadConfiguration, match="name=value"):
        StorageURL(f"memory:?{query}")


def test_a_plus_is_a_plus() -> None:
    """As in keys of Amazon and Azure, which are pasted as they are."""
    url = StorageURL("s3://b?secret_access_key=a+b/c%2B%20d")
    assert url.text("secret_access_key", None) == "a+b/c+ d"


def test_an_option_is_given_once() -> None:
    with pytest.raises(BadConfiguration, match="given twice"):
        StorageURL("memory:?a=1&a=2")


@pytest.mark.parametrize(("value", "expected"), [("true", True), ("YES", True), ("on", True), ("1", True)])
def test_flags_are_true(value: str, expected: bool) -> None:
    assert StorageURL(f"memory:?f={value}").flag("f", False) is expected


@pytest.mark.parametrize("value", ["false", "No", "off", "0"])
def test_flags_are_false(value: str) -> None:
    assert StorageURL(f"memory:?f={value}").flag("f", True) is False


def test_options_have_defaults() -> None:
    url = StorageURL("memory:")
    assert (url.flag("a", True), url.number("b", 3), url.mode("c", None), url.text("d", "x")) == (True, 3, None, "x")
    url.done()


def test_numbers_modes_and_texts() -> None:
    url = StorageURL("memory:?n=12&zero=0&m=640&o=0o2750&t=a%20b%26c")
    assert (url.number("n", 1), url.number("zero", 1, least=0), url.mode("m", None), url.mode("o", None)) == (
        12,
        0,
        0o640,
        0o2750,
    )
    assert url.text("t", None) == "a b&c"
    url.done()


@pytest.mark.parametrize(
    ("getter", "value", "expected"),
    [
        ("flag", "maybe", "true or false"),
        ("flag", "", "true or false"),
        ("number", "0", "a whole number from 1"),
        ("number", "-1", "a whole number from 1"),
        ("number", "1.5", "a whole number from 1"),
        ("number", "²", "a whole number from 1"),
        ("mode", "9", "an octal mode"),
        ("mode", "rw-r--r--", "an octal mode"),
        ("text", "", "some text"),
    ],
)
def test_says_what_is_wrong_with_an_option(getter: str, value: str, expected: str) -> None:
    url = StorageURL(f"memory:?option={value}")
    with pytest.raises(BadConfiguration) as raised:
        getattr(url, getter)("option", None)
    assert f"option is {value!r}, expected {expected}" in str(raised.value)
    assert str(url) in str(raised.value)


def test_names_unknown_options_and_the_known_ones() -> None:
    url = StorageURL("memory:?readnly=1&b=2&a=3")
    url.flag("readonly", False)
    url.text("b", None)
    with pytest.raises(BadConfiguration) as raised:
        url.done()
    assert "no option 'a', 'readnly'; there are 'b', 'readonly'" in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "db:postgresql://me:hunter2@host/db",
        "db:postgresql://me:a/hunter2@b@host/db?x=y",
        "db:postgresql://:hunter2@host/db",
        "s3://bucket?secret_key=hunter2",
        "s3://bucket?access_key=hunter2&a=b",
        "s3://bucket?session_Token=hunter2",
        "db:x?password=hunter2",
        "az://c?sas=hunter2",
        "mirror:?to=s3://key:hunter2@bucket/x",
        "gridfs:mongodb://db/files%3FtlsCertificateKeyFilePassword=hunter2%26tls=true?parallel=2",
        "db:x%3Ftls=true%26authToken=hunter2",
        "db:x%3FauthToken%3Dhunter2",
        "db:postgresql://me:hunter2?x=1@host/db",
        "db://me:hunter2",
        "db:postgresql:me:hunter2@host/db",
    ],
)
def test_never_shows_a_password(text: str) -> None:
    url = StorageURL(text)
    shown = [repr(url), str(url), str(url.mistake("x"))]
    for name in ("secret_key", "access_key", "session_Token", "password", "sas", "to"):  # none of them is a number
        try:
            url.number(name, 1)
        except BadConfiguration as error:
            shown.append(str(error))
    assert [text for text in shown if "hunter2" in text] == []


def test_shows_what_is_no_password() -> None:
    for text in (
        "db:postgresql://host:5432/db",
        "gridfs:mongodb://a:1,b:2/db",
        "s3://b?endpoint_url=http://[::1]:9000",
    ):
        assert str(StorageURL(text)) == text


@pytest.mark.parametrize(
    "text",
    ["//me:hunter2@host/db", "db:postgresql://me:hunter2?x@host/db", "./files?password=hunter2", "s 3://b?key=hunter2"],
)
def test_never_shows_a_password_of_what_is_no_url(text: str) -> None:
    with pytest.raises(BadConfiguration) as raised:
        StorageURL(text)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("query", ["key=hunter2&x", "key=hunter2&key=hunter2"])
def test_never_shows_a_password_among_broken_options(query: str) -> None:
    with pytest.raises(BadConfiguration) as raised:
        StorageURL(f"s3://b?{query}")
    assert "hunter2" not in str(raised.value)


def test_a_password_is_there_for_the_backend() -> None:
    assert "hunter2" in StorageURL("db:postgresql://me:hunter2@host/db").rest
    assert StorageURL("s3://b?secret_key=hunter2").text("secret_key", None) == "hunter2"
