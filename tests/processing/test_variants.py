from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from sa_attachments import Attachment, BadConfiguration, Refused, Storages
from sa_attachments.descriptor import named, variant_of, variants_of
from sa_attachments.processing import MaxSize, Variant
from sa_attachments.processing.variants import declared, derived, entry, failed, held, holding, is_current, is_there


def shout(attachment: Attachment) -> Attachment:
    return Attachment.upload(attachment.read().upper())


def named_loud(attachment: Attachment) -> Attachment:
    assert dict(attachment.metadata) == {}
    return Attachment.upload(b"x", "loud.txt", metadata={"n": 1})


def stored(data: bytes = b"la", **options: Any) -> Attachment:
    return Storages("memory:").stage(Attachment.upload(data, "la.txt", **options))


class TestDeclaring:
    def test_steps_recipes_and_variants(self) -> None:
        variants = declared({"a": shout, "b": [shout, MaxSize(3)], "c": (shout,), "d": Variant(shout, lazy=True)})
        assert [(len(each.steps), each.lazy) for each in variants.values()] == [
            (1, False),
            (2, False),
            (1, False),
            (1, True),
        ]
        assert variants["a"] == variants["c"]
        assert variants["a"] != variants["d"]
        assert len({each.digest for each in variants.values()}) == 2
        assert declared(None) == {}

    def test_they_can_not_be_changed(self) -> None:
        variants: Any = declared({"a": shout})
        with pytest.raises(TypeError):
            variants["b"] = shout

    @pytest.mark.parametrize("variants", [["thumb"], shout, {"a"}])
    def test_they_have_names(self, variants: Any) -> None:
        with pytest.raises(BadConfiguration, match="variants are recipes by name"):
            declared(variants)

    @pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "-a", "x" * 65, 'a"b'])
    def test_names_are_plain(self, name: str) -> None:
        with pytest.raises(BadConfiguration, match="is no name for a variant"):
            declared({name: shout})

    def test_recipes_are_steps(self) -> None:
        wrong: Any
        for wrong in ([], [1], "shout", [shout, None], MaxSize, [shout, MaxSize]):
            with pytest.raises(BadConfiguration, match=r"Variant takes steps|is no step: "):
                declared({"a": wrong})
        with pytest.raises(BadConfiguration, match="no name that is the same tomorrow"):
            declared({"a": lambda attachment: None})
        assert declared({"a": partial(shout)})


class TestDeriving:
    def test_what_the_recipe_does_not_say_is_as_it_was(self) -> None:
        new = Attachment.upload(b"la", "la.txt", "text/x-song", metadata={"by": "me"})
        made = derived(Variant(shout), new, "label")
        assert (made.read(), made.filename, made.claimed_content_type) == (b"LA", "la.txt", "text/x-song")
        assert dict(made.metadata) == {}

    def test_what_it_says_is_the_variants_own(self) -> None:
        made = derived(Variant(named_loud), Attachment.upload(b"la", "la.txt", metadata={"by": "me"}), "label")
        assert (made.filename, dict(made.metadata)) == ("loud.txt", {"n": 1})

    def test_of_what_is_stored(self) -> None:
        assert derived(Variant(shout), stored().copy(), "label").read() == b"LA"

    def test_refusals_name_the_label(self) -> None:
        with pytest.raises(Refused, match="label: the file has 2 bytes"):
            derived(Variant(MaxSize(1)), Attachment.upload(b"la"), "label")


class TestEntries:
    def test_of_a_file(self) -> None:
        variant = Variant(shout)
        facts = entry(stored(b"LA"), variant)
        assert (is_there(facts), is_current(facts, variant), is_current(facts, Variant(named_loud))) == (
            True,
            True,
            False,
        )
        assert not {"v", "variants"} & set(facts)
        attachment = holding(stored(), {"loud": facts})
        assert held(attachment) == {"loud": facts}
        assert attachment.variants["loud"].sha256 == facts["sha256"]
        assert attachment.variant("loud").filename == "la.txt"
        assert set(attachment.replace(filename="b").variants) == {"loud"}
        assert dict(attachment.variants["loud"].variants) == {}

    def test_of_a_failure(self) -> None:
        variant = Variant(shout)
        facts = failed(ValueError("no"), variant)
        assert facts == {"error": "ValueError: no", "recipe": variant.digest}
        assert (is_there(facts), is_current(facts, variant)) == (False, True)
        assert failed(ValueError(), variant)["error"] == "ValueError"
        assert failed(Refused("no", rule="MaxSize"), variant)["error"] == "MaxSize: no"
        attachment = holding(stored(), {"loud": facts})
        assert dict(attachment.variants) == {}

    def test_what_others_wrote_is_named_and_not_trusted(self) -> None:
        attachment = stored()
        facts = {"storage": "default", "key": "k", "size": 1, "sha256": "", "filename": "f"}
        odd = holding(attachment, {"thin": facts, "none": None, "text": "x"})  # type: ignore[dict-item]
        assert set(variants_of(vars_of(odd))) == {"thin"}
        assert variant_of(vars_of(odd), "thin") is None
        assert [file.key for file in named(vars_of(odd))] == [attachment.key, "k"]
        assert dict(odd.variants) == {}


def vars_of(attachment: Attachment) -> dict[str, Any]:
    return attachment._facts()
