from sa_attachments.chunks import chunked


def test_chunked() -> None:
    assert list(chunked(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(chunked([], 2)) == []
    assert [len(chunk) for chunk in chunked(range(1001))] == [500, 500, 1]
