"""Recipe: the steps that make a derived file, and the digest by which one tells that they changed.

>>> def stamp(attachment): ...
>>> digest([stamp]) == digest([stamp]), digest([stamp]) == digest([stamp, stamp])
(True, False)
>>> digest([lambda attachment: None])
Traceback (most recent call last):
sa_attachments.errors.BadConfiguration: <function <lambda> at ...> has no name that is the same tomorrow: ...

The digest is the same in every process as long as the steps say the same of themselves:

- a step with an attribute ``digest`` (text) says that: change it when the step makes other files than before;
- a function is its module and name, whatever it does: give it a ``digest`` too, or another name, when it changes;
- ``functools.partial`` is its function with the arguments;
- any other object is its class, and its ``repr``, as dataclasses and the steps of this library have it: without sets of
  text, whose order is another one in each process.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterable
from functools import partial
from typing import Any

from ..errors import BadConfiguration
from .steps import Step

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def digest(steps: Iterable[Step]) -> str:
    """16 hex digits. Raises BadConfiguration for a step that can't be told from others, as a lambda."""
    told = "\n".join(map(_told, steps))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _told(step: Any) -> str:
    own = getattr(step, "digest", None)
    if isinstance(own, str):
        return f"{_name(step)}:{own}"
    if isinstance(step, partial):
        keywords = dict(sorted(step.keywords.items()))
        return f"partial({_told(step.func)}, {_checked(step, repr(step.args))}, {_checked(step, repr(keywords))})"
    if inspect.ismethod(step):
        return f"{_told(step.__self__)}.{step.__name__}"
    if inspect.isroutine(step) or isinstance(step, type):
        return _checked(step, _name(step))
    return f"{_name(step)}:{_checked(step, repr(step))}"


def _name(step: Any) -> str:
    named = step if hasattr(step, "__qualname__") else type(step)
    home = str(named.__module__)
    # Ours may move from one module to another.
    return f"{'sa_attachments' if home.startswith('sa_attachments.') else home}.{named.__qualname__}"


def _checked(step: Any, text: str) -> str:
    if _ADDRESS.search(text) or "<lambda>" in text:
        raise BadConfiguration(
            f"{step!r} has no name that is the same tomorrow: give it an attribute 'digest' or a __repr__ that tells "
            "what it does, or make it a function with a name"
        )
    return text
