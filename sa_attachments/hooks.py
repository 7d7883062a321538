"""Hooks: functions of the application that hear which rows got new files, once those are committed.

They hang on the column's type, and get primary keys: a task finds the row by them, in whatever state it is by then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from .column import ColumnType, Hook
from .errors import BadConfiguration
from .frames import Frame

log = logging.getLogger("sa_attachments")

H = TypeVar("H", bound=Hook)


def hook(attribute: Any, files: object) -> Callable[[H], H]:
    """A decorator: call a function after commits that gave rows new files of an attribute. BadConfiguration."""
    column_type = getattr(attribute, "type", None)
    if not isinstance(column_type, ColumnType) or column_type.files is not files:
        raise BadConfiguration(f"{attribute} holds no attachments of these Storages: expected one as User.avatar")

    def hear(function: H) -> H:
        column_type.hooks.append(function)
        return function

    return hear


def announce(frame: Frame, files: object) -> None:
    """Tell the hooks of a committed transaction. Raises nothing."""
    keys: dict[Any, dict[Any, None]] = {}
    for column_type, identity in frame.stored if frame.marked else ():
        if column_type.files is files:
            keys.setdefault(column_type, {})[identity[0] if len(identity) == 1 else identity] = None
    for column_type, found in keys.items():
        for each in column_type.hooks:
            try:
                each(list(found))
            except Exception:
                log.exception("a hook of %s failed, after the commit of rows %s", column_type.label, list(found))
