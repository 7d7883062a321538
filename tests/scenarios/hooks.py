"""Hooks: listeners of mappers, for as long as a test wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from .models import Doc


@contextmanager
def hook(name: str, function: Callable[[Any], None], *, early: bool = True, model: type = Doc) -> Iterator[None]:
    """Listen as code below the class does (``early``), or as code that runs once mappers are configured."""

    def listen(mapper: object, connection: object, target: Any) -> None:
        function(target)

    event.listen(model, name, listen, insert=early)
    try:
        yield
    finally:
        event.remove(model, name, listen)
