"""Variants: files derived from an attachment by a recipe, under names that its column declares.

>>> from sa_attachments.attachment import Attachment
>>> def shout(attachment): return Attachment.upload(attachment.read().upper())
>>> def whisper(attachment): return Attachment.upload(attachment.read().lower())
>>> variants = declared({"loud": shout, "odd": [shout, whisper], "soft": Variant(whisper, lazy=True)})
>>> {name: (len(variant.steps), variant.lazy) for name, variant in variants.items()}
{'loud': (1, False), 'odd': (2, False), 'soft': (1, True)}
>>> made = derived(variants["loud"], Attachment.upload(b"Hello", "hello.txt"), "Doc.file, variant 'loud'")
>>> made.read(), made.filename
(b'HELLO', 'hello.txt')

*Eager* ones are made with the upload, in its transaction; *lazy* ones when they are asked for the first time. What a
recipe says of its result's metadata is the variant's own; that of the attachment is not shown to it, and not copied.

In the descriptor of an attachment, a variant is a descriptor of its own with the digest of its recipe, or the reason
why it could not be made:

>>> failed(ValueError("no such\\0 colour"), variants["loud"])["error"]
'ValueError: no such colour'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from ..attachment import Attachment, binding_of, facts_of, make
from ..descriptor import Facts, frozen, variants_of
from ..errors import BadConfiguration, Refused
from .recipe import digest
from .steps import Step, as_steps, changed, run

A = TypeVar("A", bound=Attachment)

REASON = 500
"""Characters that are kept of the reason why a variant failed."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, init=False)
class Variant:
    """A recipe, and when it is carried out: ``Variant(Fit(400, 400), lazy=True)``.

    A lazy one is made when it is asked for the first time, others with the upload. ``digest`` tells whether a file was
    made by this recipe or by a former one; see ``sa_attachments.processing.recipe``.
    """

    steps: tuple[Step, ...] = field(compare=False)
    lazy: bool
    digest: str

    def __init__(self, *steps: Step, lazy: bool = False) -> None:
        """Raises BadConfiguration without steps, and for those that can't be told from others, as a lambda."""
        if not steps:
            raise BadConfiguration("Variant takes steps, as in Variant(Fit(400, 400))")
        steps = as_steps(steps)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "lazy", lazy)
        object.__setattr__(self, "digest", digest(steps))


Recipe: TypeAlias = Variant | Step | Iterable[Step]
"""What a column takes for a variant: one step, several, or a ``Variant``."""


def declared(variants: Mapping[str, Recipe] | None) -> Mapping[str, Variant]:
    """The variants of a column, by name. Raises BadConfiguration."""
    found: dict[str, Variant] = {}
    if not isinstance(variants, Mapping | None):
        raise BadConfiguration(f"variants are recipes by name, as {{'thumb': Thumbnail(200, 200)}}, not {variants!r}")
    for name, recipe in (variants or {}).items():
        if not _NAME.fullmatch(name):
            raise BadConfiguration(
                f"{name!r} is no name for a variant: expected up to 64 letters, digits, '_', '.' and '-', as 'thumb'"
            )
        if isinstance(recipe, Variant):
            found[name] = recipe
        else:
            found[name] = Variant(recipe) if callable(recipe) else Variant(*recipe)
    return MappingProxyType(found)


def derived(variant: Variant, attachment: A, label: str) -> A:
    """Carry out the recipe on a new attachment; the result is to be stored. Raises what a step raises."""
    return run(variant.steps, changed(attachment, metadata=frozen(None), move=False), label)


def entry(stored: Attachment, variant: Variant) -> Facts:
    """What the descriptor of the attachment is to hold of a variant that was stored."""
    facts = facts_of(stored)
    return {name: value for name, value in facts.items() if name not in ("v", "variants")} | {"recipe": variant.digest}


def failed(error: Exception, variant: Variant) -> Facts:
    """The same of one that could not be made."""
    # A refusal tells its target, which is where the reason is kept.
    said = f"{error.rule}: {error.args[0]}" if isinstance(error, Refused) else f"{type(error).__name__}: {error}"
    reason = said.rstrip(": ")
    # Databases refuse NUL and halves of surrogate pairs.
    plain = "".join(c for c in reason if c != "\0" and not "\ud800" <= c <= "\udfff")
    return {"error": plain[:REASON], "recipe": variant.digest}


def is_there(entry: Mapping[str, Any]) -> bool:
    """Whether the entry of a variant names a file."""
    return isinstance(entry.get("key"), str)


def is_current(entry: Mapping[str, Any], variant: Variant) -> bool:
    """Whether the entry of a variant was made by this recipe, with or without success."""
    return bool(entry.get("recipe") == variant.digest)


def held(attachment: Attachment) -> dict[str, Facts]:
    """The entries of a stored attachment's variants."""
    return variants_of(facts_of(attachment))


def holding(attachment: A, entries: Mapping[str, Facts]) -> A:
    """A stored attachment with other entries."""
    return make(type(attachment), {**facts_of(attachment), "variants": dict(entries)}, binding_of(attachment))
