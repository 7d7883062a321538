"""Rendering: in a migration, an attachment column is plain JSON. A migration never imports the application.

Where ``env.py`` has a ``render_item``, it is asked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from alembic.autogenerate.render import renderers
from alembic.operations import ops

from sa_attachments.column import ColumnType

Renderer = Callable[[Any, Any], Any]


def register() -> None:
    """Let the renderers of whatever holds a column know our types."""
    for op in (ops.CreateTableOp, ops.AddColumnOp, ops.AlterColumnOp, ops.DropColumnOp):
        renderer = _knowing_ours(renderers.dispatch(op))
        renderers._registry.pop((op, "default"))  # Alembic before 1.17.2 can't replace one otherwise.
        renderers.dispatch_for(op)(renderer)


def _knowing_ours(renderer: Renderer) -> Renderer:
    def render(autogen_context: Any, op: Any) -> Any:
        with _plain_types(autogen_context):
            return renderer(autogen_context, op)

    return render


@contextmanager
def _plain_types(autogen_context: Any) -> Iterator[None]:
    opts: dict[str, Any] = autogen_context.opts
    given = opts.get("render_item")

    def render_item(kind: str, item: Any, context: Any) -> Any:
        rendered = given(kind, item, context) if given else False
        if rendered is False and kind == "type" and isinstance(item, ColumnType):
            # Alembic's own way names a type, Text, that the migration does not import.
            context.imports.add("from sqlalchemy.dialects import postgresql")
            prefix = opts.get("sqlalchemy_module_prefix") or ""
            return f'{prefix}JSON().with_variant(postgresql.JSONB(), "postgresql")'
        return rendered

    opts["render_item"] = render_item
    try:
        yield
    finally:
        opts["render_item"] = given
