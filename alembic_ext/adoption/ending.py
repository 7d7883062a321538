"""Ending: what the ledger says, in SQL, as long as ``adopt finish``, or ``adopt hold``, was not run.

>>> from sa_attachments.adoption.plan import Blobs
>>> from sqlalchemy.dialects import postgresql
>>> condition = unended(postgresql.dialect(), Plan("docs", "", "file", Blobs(), ledger_schema="app"), "finish")
>>> condition[:95]
'(EXISTS (SELECT 1 FROM "app"."attachment_ledger" AS line WHERE line.held AND line.owner_table ='

The rules are those of ``sa_attachments.adoption.finishing``: ``finish`` lets go of the lines of the column, and of what
its rows name, as a line may know table and column by names that they had before; ``hold`` holds what rows name that was
adopted from where it lay. What was adopted from bytes, or uploaded since, is never held.
"""

from __future__ import annotations

from sqlalchemy import Dialect

from sa_attachments.adoption.plan import Plan

from ..counting import mysql, postgresql, sqlite
from ..counting.counter import LEDGER
from ..script import literal, placed, quoter


def unended(dialect: Dialect, plan: Plan, kind: str) -> str:
    """The condition that ``kind``, ``finish`` or ``hold``, has something to do."""
    named = {"postgresql": _named_postgresql, "sqlite": _named_sqlite}.get(dialect.name, _named_mysql)
    quote = quoter(dialect)
    ledger = f"{placed(quote, plan.ledger_schema, LEDGER)} AS line"
    items, is_its, lay_there = named(f"doc.{quote(plan.into)}")
    # The ledger last: a lateral table sees those that stand before it.
    rows = f"SELECT 1 FROM {placed(quote, plan.schema, plan.table)} AS doc, {items} AS item, {ledger} WHERE {is_its}"
    if kind == "hold":
        return f"EXISTS ({rows} AND {lay_there} AND NOT line.held)"
    owner = " AND ".join(
        f"line.{column} = {literal(dialect, value)}"
        for column, value in (("owner_table", plan.fullname), ("owner_column", plan.into))
    )
    return f"(EXISTS (SELECT 1 FROM {ledger} WHERE line.held AND {owner}) OR EXISTS ({rows} AND line.held))"


# Of a value of the column: a table of its descriptors; that a line is one's; that one was adopted from where it lay


def _named_postgresql(value: str) -> tuple[str, str, str]:
    about = "CASE jsonb_typeof(item -> 'adopted') WHEN 'object' THEN item -> 'adopted' ELSE '{}' END"
    return (
        postgresql.items(f"CAST({value} AS JSONB)"),
        "line.key = item ->> 'key' AND line.storage = item ->> 'storage'",
        f"({about}) - 'row' <> CAST('{{}}' AS JSONB)",
    )


def _named_sqlite(value: str) -> tuple[str, str, str]:
    item = sqlite.ITEM
    about = f"json_extract({item}, '$.adopted')"
    return (
        sqlite.items(value),
        f"line.key = json_extract({item}, '$.key') AND line.storage = json_extract({item}, '$.storage')",
        f"json_type({item}, '$.adopted') = 'object' AND json_remove({about}, '$.row') <> '{{}}'",
    )


def _named_mysql(value: str) -> tuple[str, str, str]:
    items = mysql.items(value)
    columns = f"n FOR ORDINALITY, k {mysql.KEY}, s {mysql.STORAGE}"
    # MariaDB before 10.6.15 gives no part of a document as a column.
    about = f"JSON_EXTRACT({items}, CONCAT('$[', item.n - 1, '].adopted'))"
    return (
        f"JSON_TABLE({items}, '$[*]' COLUMNS ({columns}))",
        f"line.`key` = {mysql.binary('item.k')} AND line.storage = {mysql.binary('item.s')}",
        f"JSON_TYPE({about}) = 'OBJECT' AND JSON_LENGTH(JSON_REMOVE({about}, '$.row')) > 0",
    )
