"""Descriptors survive the round trip, keep what they do not know, and complain of damage only where it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sa_attachments import Attachment, BadSource, DescriptorDamaged, Storages
from sa_attachments.descriptor import VERSION, Named, decode, encode, frozen, named, split, thawed

on = pytest.mark.parametrize

FACTS: dict[str, Any] = {
    "v": 1,
    "storage": "default",
    "key": "2026/01/02/03/k",
    "filename": "a.txt",
    "content_type": "text/plain",
    "size": 5,
    "sha256": "00",
    "stored_at": "2026-01-02T03:04:05.678000+00:00",
    "metadata": {},
    "variants": {},
}
REQUIRED = ["storage", "key", "filename", "content_type", "size", "sha256", "stored_at"]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(text, json_values, max_size=4)
descriptors = st.fixed_dictionaries(
    {
        **dict.fromkeys(REQUIRED, text),
        "key": st.sampled_from(["2026/01/02/03/k", "a", "old files/a.b"]),
        "size": st.integers(0, 2**62),
        "v": st.integers(1, 9),
        "metadata": objects,
        "variants": st.sampled_from([None, {}, {"thumb": {"key": "t", "size": 2}}]),
        "claimed_content_type": text | st.none(),
    }
)


@given(descriptors, objects)
def test_what_is_encoded_is_decoded(facts: dict[str, Any], more: dict[str, Any]) -> None:
    whole = {**more, **facts}
    assert decode(encode(whole), "docs.file") == whole
    assert decode(json.dumps(whole), "docs.file") == whole
    assert split(encode([whole, whole])) == [whole, whole]


def test_is_compact_and_readable() -> None:
    assert encode({"a": ["größe", 1]}) == '{"a":["größe",1]}'


@given(objects)
@example({"claimed_content_type": "image/png"})
def test_an_attachment_passes_on_what_it_does_not_know(more: dict[str, Any]) -> None:
    if not isinstance(more.get("claimed_content_type"), str | None):  # which it knows
        more = {}
    newer = {**more, **FACTS, "v": VERSION + 1, "novel": {"by": ["a", "later", "version"]}}
    attachment = Storages("memory:").bind(encode(newer))
    assert json.loads(attachment.to_json()) == newer
    replaced = json.loads(attachment.replace(filename="b", metadata={"n": 1}).to_json())
    assert replaced == {**newer, "filename": "b", "metadata": {"n": 1}}


def test_what_is_stored_now_says_which_version_it_is() -> None:
    facts = json.loads(Storages("memory:").stage(Attachment.upload(b"hello", "a.txt")).to_json())
    assert facts["v"] == VERSION == 1
    assert set(facts) == set(FACTS)
    claimed = json.loads(Storages("memory:").stage(Attachment.upload(b"hello", "a.txt", "text/csv")).to_json())
    assert set(claimed) == {*FACTS, "claimed_content_type"}


# Damage

DAMAGED = [
    "",
    "nonsense",
    "null",
    "true",
    "17",
    '"text"',
    "[]",
    "{}",
    encode(FACTS)[:-1],
    encode([FACTS]),
    "[" * 100_000,
    '{"a":' * 100_000,
    *(encode({name: value for name, value in FACTS.items() if name != missing}) for missing in REQUIRED),
    *(encode({**FACTS, name: None}) for name in REQUIRED),
    *(encode({**FACTS, name: [1]}) for name in REQUIRED),
    encode({**FACTS, "size": "5"}),
    encode({**FACTS, "metadata": ["text"]}),
    encode({**FACTS, "metadata": "text"}),
    encode({**FACTS, "key": 5}),
    *(
        encode({**FACTS, "key": key})
        for key in ("../../etc/passwd", "/etc/passwd", "a/./b", "a//b", "a\\b", "ä", "", "a/")
    ),
    *(encode({**FACTS, "size": size}) for size in (-5, True, False, 5.0)),
    *(encode({**FACTS, "claimed_content_type": claimed}) for claimed in (7, ["text/plain"], True)),
    *(encode({**FACTS, "variants": variants}) for variants in ([1], "text", 0, False)),
]


@on("value", DAMAGED)
def test_damage_names_the_column_and_the_values_start(value: str) -> None:
    with pytest.raises(DescriptorDamaged) as caught:
        decode(value, "docs.file")
    assert str(caught.value) == f"docs.file holds {value[:80]!r}, which does not describe an attachment"


@given(st.text())
@example("\ud800")
def test_any_other_text_is_damage_and_nothing_else(value: str) -> None:
    with pytest.raises(DescriptorDamaged):
        decode(value, "docs.file")


@on("value", DAMAGED)
def test_a_damaged_attachment_complains_when_it_is_touched_and_can_be_shown(value: str) -> None:
    from sa_attachments.attachment import make

    attachment = make(Attachment, value, None)
    assert repr(attachment) == "<damaged Attachment>"
    assert attachment.is_stored
    for ask in ("filename", "key", "size", "metadata", "content_type"):
        with pytest.raises(DescriptorDamaged, match="an unbound attachment holds"):
            getattr(attachment, ask)
    with pytest.raises(DescriptorDamaged):
        attachment.read()


@on("value", ["", "yesterday", "2026-13-01", "x" * 1000])
def test_a_time_that_is_none_is_found_when_it_is_asked_for(value: str) -> None:
    attachment = Storages("memory:").bind(encode({**FACTS, "stored_at": value}))
    assert attachment.size == 5
    with pytest.raises(DescriptorDamaged, match=r"an attachment holds .* where a time is due") as caught:
        _ = attachment.stored_at
    assert len(str(caught.value)) < 200


@on("absent", ["variants", "claimed_content_type"])
def test_what_need_not_be_there_may_be_null(absent: str) -> None:
    for facts in ({**FACTS, absent: None}, {name: value for name, value in FACTS.items() if name != absent}):
        attachment = Storages("memory:").bind(encode(facts))
        assert (attachment.claimed_content_type, dict(attachment.variants)) == (None, {})


@on("metadata", [None, {}, {"a": 1}])
def test_metadata_may_be_missing_or_null(metadata: Any) -> None:
    facts = {**FACTS, "metadata": metadata}
    assert Storages("memory:").bind(encode(facts)).metadata == (metadata or {})
    del facts["metadata"]
    assert Storages("memory:").bind(encode(facts)).metadata == {}


@on("value", [text for text in DAMAGED if text not in ("[]", encode([FACTS]))])
def test_a_list_that_is_none_is_one_damaged_item(value: str) -> None:
    assert split(value) == [value]


def test_one_damaged_item_of_a_list_leaves_the_others_whole() -> None:
    bad = {"key": "k"}
    assert split(encode([FACTS, bad, 17, FACTS])) == [FACTS, '{"key":"k"}', "17", FACTS]
    assert split("[]") == []


# What it names


def test_names_itself_and_its_variants() -> None:
    variants = {
        "thumb": {"key": "t", "size": 2},
        "far": {"key": "f", "storage": "other", "size": 3},
        "unsized": {"key": "u"},
        "odd": "text",
        "keyless": {"size": 4},
        "numbered": {"key": 7},
    }
    assert list(named({**FACTS, "variants": variants})) == [
        Named("default", FACTS["key"], 5),
        Named("default", "t", 2),
        Named("other", "f", 3),
        Named("default", "u", 0),
    ]


@on("variants", [None, [], "text", 7, [{"key": "k"}]])
def test_variants_that_are_none(variants: Any) -> None:
    assert list(named({**FACTS, "variants": variants})) == [Named("default", FACTS["key"], 5)]


def test_metadata_names_nothing() -> None:
    """Hole 2: a user who writes somebody's key into metadata must not touch their file."""
    victim = {"key": "victim", "storage": "default", "size": 1, "variants": {"a": {"key": "victim"}}}
    assert [name.key for name in named({**FACTS, "metadata": victim})] == [FACTS["key"]]


# Metadata


@given(objects)
def test_frozen_and_thawed_are_each_others_inverse(metadata: dict[str, Any]) -> None:
    assert thawed(frozen(metadata)) == metadata
    assert frozen(frozen(metadata)) == frozen(metadata)
    assert json.loads(json.dumps(thawed(frozen(metadata)))) == metadata


def plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return isinstance(value, MappingProxyType) and all(map(plain, value.values()))
    return all(map(plain, value)) if isinstance(value, tuple) else not isinstance(value, list | dict)


@given(objects)
def test_frozen_is_frozen_all_the_way_down(metadata: dict[str, Any]) -> None:
    assert plain(frozen(metadata))


def test_none_is_an_empty_mapping() -> None:
    assert frozen(None) == {}


def test_what_is_no_json_is_named_shortly() -> None:
    with pytest.raises(BadSource) as caught:
        frozen({"x" * 10_000: object()})
    assert len(str(caught.value)) < 300
    with pytest.raises(BadSource, match="metadata is a mapping, not list"):
        frozen([1])  # type: ignore[arg-type]
