"""Columns: what those of an adoption have to be, and when they say nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, LargeBinary, String, and_, func
from sqlalchemy.dialects.postgresql import MONEY
from sqlalchemy.types import NullType, TypeEngine, _Binary

from ..errors import BadConfiguration
from .plan import Blobs, Plan


def check_key(plan: Plan, types: Mapping[str, TypeEngine[Any]]) -> None:
    """Refuse a primary key that rows can't be found by, of columns by name. BadConfiguration."""
    if not types:
        raise BadConfiguration(f"table {plan.fullname!r} has no primary key to know its rows by")
    for name, kind in types.items():
        if isinstance(kind, MONEY):  # it is read as a text, with which PostgreSQL does not compare it
            raise BadConfiguration(f"{plan.fullname}.{name} is {kind}: no primary key to know rows by")


def check_types(plan: Plan, dialect: str, source: TypeEngine[Any], into: TypeEngine[Any]) -> None:
    """Refuse types that can't hold what they should. On SQLite any can. BadConfiguration."""
    if dialect == "sqlite":
        return
    if not isinstance(into, JSON) and not (dialect in ("mysql", "mariadb") and isinstance(into, String)):
        raise BadConfiguration(f"{plan.fullname}.{plan.into} is {into}: expected JSON, as attachment columns are")
    is_binary = isinstance(source, _Binary | LargeBinary) and not isinstance(source, JSON)
    if is_binary != isinstance(plan.origin, Blobs) and not isinstance(source, NullType):
        expected = "a column of text or JSON" if is_binary else "a column of bytes"
        raise BadConfiguration(f"{plan.label} is {source}: expected {expected}")


def check_writable(plan: Plan, found: Mapping[str, Any], back: bool) -> None:
    """Refuse columns that can't be written or emptied, of those that were found by name. BadConfiguration."""
    for name in (plan.into, *([plan.source] if back or plan.policy == "null" else [])):
        if found[name].get("computed"):
            raise BadConfiguration(f"{plan.fullname}.{name} is generated: nothing can be written into it")
    if plan.policy == "null" and not back and not found[plan.source]["nullable"]:
        raise BadConfiguration(f"policy 'null' can't empty {plan.label}: it is NOT NULL")
    if back and not found[plan.into]["nullable"]:
        raise BadConfiguration(f"{plan.fullname}.{plan.into} is NOT NULL: alter it first, so that it can be emptied")


def names_something(document: Any) -> Any:
    """The condition that a JSON text is no null, and no list without items, or of nulls only.

    >>> from sqlalchemy import create_engine, literal, select
    >>> texts = ["null", " null ", "[]", "[ null, null ]", "[{}]", ""]
    >>> with create_engine("sqlite://").connect() as connection:
    ...     [bool(connection.scalar(select(names_something(literal(each))))) for each in texts]
    [False, False, False, False, True, True]
    """
    for space in " \n":  # what JSON is indented by
        document = func.replace(document, space, "")
    items = func.replace(func.replace(document, "null", ""), ",", "")
    return and_(document != "null", items != "[]")


def is_text(value: str) -> bool:
    """Whether it is any: SQLite keeps all bytes as text, and those that are no UTF-8 are read as surrogates.

    >>> is_text("a"), is_text(bytes([255]).decode(errors="surrogateescape"))
    (True, False)
    """
    return not any("\ud800" <= each <= "\udfff" for each in value)
