"""Rules about deleting and listing files."""

from __future__ import annotations

from datetime import timedelta

from sa_attachments.errors import FileMissing
from sa_attachments.key import mint
from sa_attachments.storage import Storage

from .probes import listed, put, raises, read, together


class DeleteAndKeys:
    # Deleting

    def test_deletes_many(self, storage: Storage) -> None:
        """``delete`` takes any number of keys, leaves all others, and reports no failure."""
        keys = [put(storage, mint(), b"x") for _ in range(6)]
        absent = [mint() for _ in range(1200)]
        assert not storage.delete([keys[0], *absent[:600], keys[1], *absent[600:], keys[2]])
        assert listed(storage) == sorted(keys[3:])
        assert not storage.delete([])

    def test_deleting_again_is_fine(self, storage: Storage) -> None:
        """A missing file is no failure, whether it was deleted before, never put, or only a part of another's key."""
        key = put(storage, "a/b/c", b"x")
        assert not storage.delete(["a/b", "a", "a/b/c/d", "z"])
        assert read(storage, key) == b"x"
        assert not storage.delete([key, key])
        assert not storage.delete([key])

    def test_leaves_no_place_behind_that_is_in_the_way(self, storage: Storage) -> None:
        """Where the last file under ``a/`` was deleted, ``a`` is free to be a key."""
        storage.delete([put(storage, "a/b/c", b"x")])
        put(storage, "a", b"y")
        assert listed(storage) == ["a"]

    def test_puts_beside_what_is_being_deleted(self, storage: Storage) -> None:
        """A put is not disturbed by the deletion of its neighbours at the same time."""

        def work(number: int) -> list[str]:
            kept = []
            for turn in range(25):
                key = put(storage, f"2026/01/01/{turn % 3:02}/{number}-{turn}", b"x")
                if turn % 5 == 4:
                    kept.append(key)
                else:
                    assert not storage.delete([key])
            return kept

        kept = [key for keys in together(4, work) for key in keys]
        assert listed(storage) == sorted(kept)

    # Listing

    def test_lists_in_the_order_of_code_points(self, storage: Storage) -> None:
        """``keys`` is sorted by the whole key as text, slashes being characters like others."""
        keys = ["B", "a!b", "a-b/c", "a.b", "a/b", "a/c!", "a/c/d", "a/c/e/f", "a/c0", "a0", "ab/c", "b"]
        for key in reversed(keys):
            put(storage, key, b"x")
        assert sorted(keys) == keys
        assert listed(storage) == keys

    def test_lists_between_bounds(self, storage: Storage) -> None:
        """``after`` and ``before`` are excluded, and may be any text, a key or not."""
        keys = ["2025/12/31/23/z", "2026/01/01/00/a", "2026/01/01/00/b", "2026/01/01/01/a", "2026/02/01/00/a", "2026-x"]
        keys.sort()
        for key in keys:
            put(storage, key, b"x")
        bounds = [
            None,
            "",
            "0",
            "2026",
            "2026/",
            "2026/01/01/00",
            "2026/01/01/00/aa",
            "2026/01/01/0~",
            "2026/02",
            "~",
            *keys,
        ]
        for after in bounds:
            for before in bounds:
                expected = [key for key in keys if key > (after or "") and (before is None or key < before)]
                assert [key for key, _ in storage.keys(after, before)] == expected, (
                    f"after {after!r}, before {before!r}"
                )

    def test_lists_times(self, storage: Storage) -> None:
        """``keys`` gives for each file the time that ``stat`` gives."""
        key = put(storage, mint(), b"x")
        [(name, modified)] = storage.keys()
        assert name == key
        assert modified.utcoffset() == timedelta(0)
        assert abs(modified - storage.stat(key).modified) < timedelta(seconds=1)

    def test_lists_lazily(self, storage: Storage) -> None:
        """``keys`` is an iterator: one may stop early, and files that come and go meanwhile do no harm."""
        keys = sorted(put(storage, f"2026/01/01/{hour:02}/a", b"x") for hour in range(8))
        listing = storage.keys()
        assert iter(listing) is listing, "not an iterator"
        assert next(listing)[0] == keys[0]
        storage.delete(keys[:6])
        put(storage, "2026/01/01/08/a", b"x")
        rest = [key for key, _ in listing]
        assert rest == sorted(set(rest))
        assert {keys[6], keys[7]} <= set(rest)

    def test_does_not_list_hidden_files(self, storage: Storage) -> None:
        """A key with a segment that begins with a dot is put, read and deleted as any other, and never listed."""
        for key in (".place", "a/.b/c", "a/.d"):
            put(storage, key, b"x")
            assert read(storage, key) == b"x"
        assert listed(storage) == []
        assert not storage.delete([".place", "a/.b/c", "a/.d"])
        with raises(FileMissing):
            storage.stat(".place")
