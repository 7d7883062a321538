"""Schema: what pydantic is told of attachments, so that they can be fields of models, of SQLModel's too.

A field takes attachments as they are and nothing else, above all no JSON: storage and key are capabilities. As JSON it
is what a client may know:

>>> from sa_attachments import Attachment
>>> shown(Attachment.upload(b"hello", "hello.txt", "text/plain"))
{'filename': 'hello.txt', 'content_type': 'text/plain', 'size': None}

Both schemas are plain dicts, so that pydantic need not be there.
"""

from __future__ import annotations

from typing import Any


def core_schema(cls: type[Any], source: Any, handler: Any) -> dict[str, Any]:
    """For ``__get_pydantic_core_schema__``."""
    return {
        "type": "is-instance",
        "cls": cls,
        "serialization": {"type": "function-plain", "function": shown, "when_used": "json"},
    }


def json_schema(cls: type[Any], schema: Any, handler: Any) -> dict[str, Any]:
    """For ``__get_pydantic_json_schema__``."""
    text = {"type": "string"}
    size = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
    properties = {"filename": text, "content_type": text, "size": size}
    return {"type": "object", "properties": properties, "required": list(properties), "readOnly": True}


def shown(attachment: Any) -> dict[str, Any]:
    """An attachment as JSON for clients: ``size`` in bytes, None while it is not stored."""
    size = attachment.size if attachment.is_stored else None
    return {"filename": attachment.filename, "content_type": attachment.content_type, "size": size}
