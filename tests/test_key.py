"""Keys are unique, ordered by time, and told apart from everything that only looks like one."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sa_attachments.key import floor, is_key, mint, moment

NOW = 1_700_000_000_123
YEAR_9999 = 253_402_300_799_999
times = st.integers(min_value=0, max_value=YEAR_9999)


def test_has_the_form_that_the_manual_gives() -> None:
    key = mint(NOW)
    folder, _, uuid = key.rpartition("/")
    assert folder == "2023/11/14/22"
    assert UUID(uuid).version == 7
    assert UUID(uuid).variant == "specified in RFC 4122"
    assert str(UUID(uuid)) == uuid


def test_is_minted_by_this_machines_clock() -> None:
    before = time.time_ns() // 1_000_000
    minted = moment(mint())
    assert before <= minted <= time.time_ns() // 1_000_000


@given(times)
def test_what_is_minted_is_a_key_of_its_time(ms: int) -> None:
    key = mint(ms)
    assert is_key(key)
    assert moment(key) == ms


@given(times, times)
def test_sorts_by_time(first: int, second: int) -> None:
    if first != second:
        assert (mint(first) < mint(second)) is (first < second)


@given(times, times)
def test_floor_parts_what_was_minted_before_from_what_came_later(ms: int, other: int) -> None:
    assert (mint(other) >= floor(ms)) is (other >= ms)


def test_floor_of_a_time_before_the_epoch_lets_everything_pass() -> None:
    assert floor(-1) == floor(0) <= mint(0)


def test_many_of_one_millisecond_differ() -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(mint, [NOW] * 20_000))
    assert len(set(keys)) == len(keys)


def test_all_74_random_bits_are_used() -> None:
    bits = [UUID(mint(NOW)[14:]).int for _ in range(200)]
    changing = 0
    for value in bits:
        changing |= value ^ bits[0]
    assert changing == (0xFFF << 64) | (2**62 - 1)


def test_forked_processes_never_mint_the_same() -> None:
    mint(NOW)
    children = []
    for _ in range(4):
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            os.write(writer, "\n".join(mint(NOW) for _ in range(50)).encode())
            os._exit(0)
        os.close(writer)
        children.append((child, reader))
    keys = [mint(NOW) for _ in range(50)]
    for child, reader in children:
        with os.fdopen(reader) as file:
            keys += file.read().splitlines()
        os.waitpid(child, 0)
    assert len(set(keys)) == len(keys) == 250


GOOD = (
    "2023/11/14/22/018bcfe5-687b-7a84-ab7d-1f82365bbd23"  # minted once: names of tests must be the same in all workers
)
UUID_PART = GOOD[14:]


@pytest.mark.parametrize(
    "text",
    [
        "",
        UUID_PART,
        f"/{GOOD}",
        f"{GOOD}/",
        f"{GOOD}\n",
        f" {GOOD}",
        f"{GOOD}.tmp",
        f"prefix/{GOOD}",
        GOOD.upper(),
        GOOD.replace("-", ""),
        f"2023/11/14/21/{UUID_PART}",  # the hour before
        f"2023/11/14/2/{UUID_PART}",
        f"2023/11/15/22/{UUID_PART}",
        f"../../../../{UUID_PART}",
        f"2023/11/14/22/{UUID_PART[:14]}4{UUID_PART[15:]}",  # a random UUID, version 4
        f"2023/11/14/22/{UUID_PART[:19]}c{UUID_PART[20:]}",  # another variant
        f"٢٠٢٣/11/14/22/{UUID_PART}",  # digits, but not ASCII
        f"2023/11/14/22/{UUID_PART[:-1]}g",
        "2023/11/14/22/ffffffff-ffff-7fff-bfff-ffffffffffff",  # the year 10889
    ],
)
def test_look_alikes_are_no_keys(text: str) -> None:
    assert not is_key(text)
    with pytest.raises(ValueError, match="is not a key of the form"):
        moment(text)
