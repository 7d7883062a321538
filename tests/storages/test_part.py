from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_attachments.storages.part import part

DATA = bytes(range(256)) * 100


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("part") / "data"
    path.write_bytes(DATA)
    return path


@given(
    start=st.integers(0, 30_000),
    end=st.none() | st.integers(0, 30_000),
    moves=st.lists(
        st.tuples(st.sampled_from([0, 1, 2]), st.integers(-300, 30_000), st.integers(-1, 20_000)), max_size=5
    ),
)
def test_behaves_as_a_file_of_these_bytes(
    path: Path, start: int, end: int | None, moves: list[tuple[int, int, int]]
) -> None:
    model = io.BytesIO(DATA[start : max(start, len(DATA) if end is None else end)])
    with part(path.open("rb"), start, end) as file:
        for whence, offset, size in moves:
            base = (0, model.tell(), len(model.getvalue()))[whence]
            offset = max(offset, -base)
            assert file.seek(offset, whence) == model.seek(offset, whence)
            assert file.read(size) == model.read(size)
            assert file.tell() == model.tell()
        file.seek(0)
        assert file.read() == model.getvalue()


def test_closes_the_file(path: Path) -> None:
    inner = path.open("rb")
    file = part(inner, 1, 2)
    assert not inner.closed
    file.close()
    assert inner.closed
    with pytest.raises(ValueError):
        file.read()


def test_cannot_be_written(path: Path) -> None:
    with part(path.open("rb"), 1, 2) as file:
        assert not file.writable()


def test_has_no_position_before_its_beginning(path: Path) -> None:
    with part(path.open("rb"), 1, 5) as file:
        for offset, whence in ((-1, io.SEEK_SET), (-2, io.SEEK_CUR), (-5, io.SEEK_END)):
            file.seek(1)
            with pytest.raises(ValueError, match="negative"):
                file.seek(offset, whence)
            assert file.tell() == 1
