from collections.abc import Iterable
from datetime import datetime

class Response:
    headers: dict[str, str]
    def __init__(
        self,
        *,
        app_iter: Iterable[bytes] = ...,
        conditional_response: bool = ...,
        content_type: str = ...,
        content_length: int = ...,
        content_disposition: str = ...,
        accept_ranges: str = ...,
        etag: str = ...,
        last_modified: datetime = ...,
    ) -> None: ...
