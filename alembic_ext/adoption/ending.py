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

from ..counting.counter import LEDGER
from ..script import literal, quoter


def unended(dialect: Dialect, plan: Plan, kind: str) -> str:
    """The condition that ``kind``, ``finish`` or ``hold``, has something to do."""
    named = {"postgresql": _named_postgresql, "sqlite": _named_sqlite}.get(dialect.name, _named_mysql)
    quote = quoter(dialect)

    def at(schema: str | None, name: str) -> str:
        return quote(name) if schema is None else f"{quote(schema)}.{quote(name)}"

    ledger = f"{at(plan.ledger_schema, LEDGER)} AS line"
    items, is_its, lay_there = named(f"doc.{quote(plan.into)}")
    # The ledger last: a lateral table sees those that stand before it.
    rows = f"SELECT 1 FROM {at(plan.schema, plan.table)} AS doc, {items} AS item, {ledger} WHERE {is_its}"
    if kind == "hold":
        return f"EXISTS ({rows} AND {lay_there} AND NOT line.held)"
    owner = " AND ".join(
        f"line.{column} = {literal(dialect, value)}"
        for column, value in (("owner_table", plan.fullname), ("owner_column", plan.into))
    )
    return f"(EXISTS (SELECT 1 FROM {ledger} WHERE line.held AND {owner}) OR EXISTS ({rows} AND line.held))"


# Of a value of the column: a table of its descriptors; that a line is one's; that one was adopted from where it lay


def _named_postgresql(value: str) -> tuple[str, str, str]:
    value = f"CAST({value} AS JSONB)"
    items = (
        f"jsonb_array_elements(CASE jsonb_typeof({value}) WHEN 'array' THEN {value}"
        f" WHEN 'object' THEN jsonb_build_array({value}) ELSE '[]' END)"
    )
    about = "CASE jsonb_typeof(item -> 'adopted') WHEN 'object' THEN item -> 'adopted' ELSE '{}' END"
    return (
        items,
        "line.key = item ->> 'key' AND line.storage = item ->> 'storage'",
        f"({about}) - 'row' <> CAST('{{}}' AS JSONB)",
    )


def _named_sqlite(value: str) -> tuple[str, str, str]:
    items = (
        f"json_each(CASE WHEN NOT json_valid({value}) THEN '[]' WHEN json_type({value}) = 'array' THEN {value}"
        f" WHEN json_type({value}) = 'object' THEN json_array(json({value})) ELSE '[]' END)"
    )
    item = "CASE item.type WHEN 'object' THEN item.value ELSE '{}' END"
    about = f"json_extract({item}, '$.adopted')"
    return (
        items,
        f"line.key = json_extract({item}, '$.key') AND line.storage = json_extract({item}, '$.storage')",
        f"json_type({item}, '$.adopted') = 'object' AND json_remove({about}, '$.row') <> '{{}}'",
    )


def _named_mysql(value: str) -> tuple[str, str, str]:
    items = f"IF(JSON_VALID({value}), IF(JSON_TYPE({value}) = 'ARRAY', {value}, CONCAT('[', {value}, ']')), '[]')"
    columns = (
        "n FOR ORDINALITY, k VARCHAR(255) PATH '$.key' NULL ON EMPTY NULL ON ERROR,"
        " s VARCHAR(100) PATH '$.storage' NULL ON EMPTY NULL ON ERROR"
    )
    # MariaDB before 10.6.15 gives no part of a document as a column.
    about = f"JSON_EXTRACT({items}, CONCAT('$[', item.n - 1, '].adopted'))"
    return (
        f"JSON_TABLE({items}, '$[*]' COLUMNS ({columns}))",
        f"line.`key` = {_binary('item.k')} AND line.storage = {_binary('item.s')}",
        f"JSON_TYPE({about}) = 'OBJECT' AND JSON_LENGTH(JSON_REMOVE({about}, '$.row')) > 0",
    )


def _binary(value: str) -> str:
    return f"CONVERT({value} USING utf8mb4) COLLATE utf8mb4_bin"
