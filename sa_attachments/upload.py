"""Upload: what a new attachment is made of, until its bytes are stored.

>>> from sa_attachments.source import BytesSource
>>> upload = Upload(BytesSource(b"hello"), "hello.txt", "text/plain", frozen({"caption": "Hi"}))
>>> upload.filename, upload.content_type, upload.source.size(), dict(upload.metadata)
('hello.txt', None, 5, {'caption': 'Hi'})
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .descriptor import frozen, thawed
from .source import Guards, PathSource, Source


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """The body of a new attachment: the source, and what was said about it."""

    source: Source
    filename: str | None = None
    claimed_content_type: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: frozen(None))
    storage: str | None = None
    move: bool = False
    content_type: str | None = None
    """What the bytes say; found out before the steps run."""
    guards: Guards = ()
    """They watch while the bytes are stored, or spooled to be read before that."""

    def typed(self, content_type: str) -> Upload:
        """The same, now that it is known what the bytes say."""
        said = self.source, self.filename, self.claimed_content_type, self.metadata, self.storage, self.move
        return Upload(*said, content_type, self.guards)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return _upload, ({**fields, "metadata": thawed(self.metadata)},)


def given(body: object) -> PathSource | None:
    """The local file that a new attachment gives away, if it does."""
    if isinstance(body, Upload) and body.move and isinstance(body.source, PathSource):
        return body.source
    return None


def _upload(fields: dict[str, Any]) -> Upload:
    return Upload(**{**fields, "metadata": frozen(fields["metadata"])})
