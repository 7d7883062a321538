from collections.abc import Iterator
from typing import IO

class FileIter:
    file: IO[bytes]
    def __init__(self, file: IO[bytes]) -> None: ...
    def __iter__(self) -> Iterator[bytes]: ...
