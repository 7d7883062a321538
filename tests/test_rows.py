"""Rows: the parts and the tries that all have in common who work on many of them; the rest is tested by moving."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.util import greenlet_spawn

from sa_attachments import BadConfiguration
from sa_attachments.rows import check_part, tried_again

on = pytest.mark.parametrize


@on("part", [(1, 1), (1, 4), (4, 4)])
def test_knows_a_part(part: tuple[int, int]) -> None:
    check_part(part)


@on("part", [(0, 1), (2, 1), (-1, 4), (1, 0)])
def test_refuses_what_is_no_part(part: tuple[int, int]) -> None:
    with pytest.raises(BadConfiguration, match="makes no sense"):
        check_part(part)


def test_tries_again_only_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sa_attachments.rows.PAGE", 2)
    tried: list[list[int]] = []

    def work(some: list[int]) -> list[int]:
        tried.append(some)
        return [each for each in some if each == 3 and len(tried) < 4]

    assert tried_again([1, 2, 3], work) == []
    assert tried == [[1, 2], [3], [3], [3]]


def test_gives_up_what_somebody_holds_all_the_time() -> None:
    tried: list[list[str]] = []

    def work(some: list[str]) -> list[str]:
        tried.append(some)
        return some

    assert tried_again(["held"], work) == ["held"]
    assert len(tried) == 5


def test_blocks_no_event_loop_while_it_waits() -> None:
    async def main() -> tuple[list[str], int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        left = await greenlet_spawn(tried_again, ["held"], list)
        ticking.cancel()
        return left, ticks

    left, ticks = asyncio.run(main())
    assert left == ["held"]
    assert ticks > 5
