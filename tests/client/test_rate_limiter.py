"""Tests of the rate limiter: no window holds more requests than the limit, over all processes."""

import asyncio
import fcntl
import logging
import stat
import sys
import threading
from bisect import bisect_right
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.client import RateLimiter
from later_reporting_dagster.client.rate_limit_stores import (
    FallbackRateLimitStore,
    FileRateLimitStore,
    rate_limit_state_path,
    rate_limit_store,
)
from later_reporting_dagster.client.rate_limiter import Ledger, Rate
from tests.client.scripted_api import FakeTime

START = 1_750_000_000.0


def max_per_window(times: list[float], window_seconds: float) -> int:
    """Return the maximum number of times in any window (t, t + window]."""
    ordered = sorted(times)
    return max(bisect_right(ordered, time + window_seconds) - index for index, time in enumerate(ordered))


def new_limiter(time: FakeTime, *, requests: int, window_seconds: float = 60.0, state_path: Path | None = None):
    store = (
        FallbackRateLimitStore(FileRateLimitStore(state_path, clock=time), "processes", time) if state_path else None
    )
    return RateLimiter(requests=requests, window_seconds=window_seconds, store=store, clock=time, sleep=time.sleep)


async def acquire_times(limiter: RateLimiter, time: FakeTime, count: int) -> list[float]:
    """Acquire `count` slots; return the time of each."""
    times = []
    for _ in range(count):
        await limiter.acquire()
        times.append(time.now)
    return times


@given(st.lists(st.floats(0, 10), min_size=1, max_size=80), st.integers(1, 8), st.integers(1, 8), st.floats(0.5, 30))
def test_acquire_keeps_the_limits_of_the_user_and_of_the_api(gaps, user_limit, api_limit, api_window):
    async def scenario() -> list[float]:
        time = FakeTime()
        limiter = new_limiter(time, requests=user_limit)
        limiter.set_stated_limit(limit=api_limit, window_seconds=api_window)
        instants = []
        for gap in gaps:
            time.now += gap
            instants += await acquire_times(limiter, time, 1)
        return instants

    instants = asyncio.run(scenario())
    assert max_per_window(instants, 60.0) <= user_limit
    assert max_per_window(instants, api_window) <= api_limit


def test_acquire_returns_in_the_order_of_the_calls(time):
    async def scenario() -> list[int]:
        limiter, order = new_limiter(time, requests=2), []

        async def acquire(number: int) -> None:
            await limiter.acquire()
            order.append(number)

        await asyncio.gather(*(acquire(number) for number in range(9)))
        return order

    assert asyncio.run(scenario()) == list(range(9))


@pytest.mark.parametrize(
    ("limit", "window_seconds"), [(0, 60), (-1, 60), (5, 0), (5, -1), (5, float("nan")), (5, float("inf")), (5, 1e9)]
)
def test_invalid_limit_is_ignored_from_the_api_and_rejected_from_the_user(time, limit, window_seconds):
    limiter = new_limiter(time, requests=3)
    limiter.set_stated_limit(limit=limit, window_seconds=window_seconds)
    assert limiter.window_seconds == 60
    assert asyncio.run(acquire_times(limiter, time, 3)) == [START] * 3
    with pytest.raises(ValueError, match="a rate limit must be at least 1 request"):
        RateLimiter(requests=limit, window_seconds=window_seconds)


def test_pause_delays_every_request_by_the_longest_pause(time):
    limiter = new_limiter(time, requests=100)
    asyncio.run(limiter.pause(30))
    asyncio.run(limiter.pause(10))
    assert asyncio.run(acquire_times(limiter, time, 1)) == [START + 30]


def test_pause_during_a_wait_voids_the_slot(time):
    async def sleep(seconds: float) -> None:
        if not time.sleeps:
            await limiter.pause(100)
        await time.sleep(seconds)

    limiter = RateLimiter(requests=1, clock=time, sleep=sleep)
    assert asyncio.run(acquire_times(limiter, time, 2))[1] >= START + 100


def test_acquire_sleeps_again_after_an_early_wake_up(time):
    async def sleep(seconds: float) -> None:
        await time.sleep(seconds if seconds < 1 else seconds / 2)

    limiter = RateLimiter(requests=1, clock=time, sleep=sleep)
    assert asyncio.run(acquire_times(limiter, time, 2))[1] >= START + 60


def test_limiters_of_one_host_share_a_pause_by_default(time, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "folders"))
    stores = (rate_limit_store("", base_url="https://a", clock=time) for _ in range(2))
    one, other = (RateLimiter(requests=3, store=store, clock=time, sleep=time.sleep) for store in stores)
    asyncio.run(one.pause(500))
    assert asyncio.run(acquire_times(other, time, 1)) == [START + 500]


def test_file_is_private_and_stays_small(time, tmp_path):
    path = tmp_path / "later-reporting" / "rate"
    limiter = new_limiter(time, requests=10, state_path=path)
    asyncio.run(acquire_times(limiter, time, 500))
    assert path.stat().st_size <= 9 * (5 + 2 * 10)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("rate", "delay"), [(Rate(40, 5.0), 0.45), (Rate(120, 60.0), 0.45), (Rate(10, 1.0), 0.15)])
def test_no_window_holds_more_arrivals_than_the_limit_although_requests_are_delayed(rate, delay):
    ledger = Ledger()
    slots = [ledger.reserve(START, user_rate=rate) for _ in range(4 * rate.limit)]
    # At worst, only the first request of a window is delayed.
    gaps = [later - (slot + delay) for slot, later in zip(slots, slots[rate.limit :], strict=False)]
    assert min(gaps) > rate.window_seconds


@pytest.mark.parametrize(("rate", "slower"), [(Rate(120, 60.0), 1.01), (Rate(40, 5.0), 1.1), (Rate(10, 1.0), 1.2)])
def test_requests_take_little_longer_than_the_least_time(rate, slower):
    ledger = Ledger()
    slots = [ledger.reserve(START, user_rate=rate) for _ in range(10 * rate.limit)]
    assert slots[-1] - slots[0] <= 9 * rate.window_seconds * slower


def test_new_process_keeps_the_limit_that_the_api_stated_to_another(time, tmp_path):
    one, other = (new_limiter(time, requests=10**6, state_path=tmp_path / "rate") for _ in range(2))
    asyncio.run(one.acquire())
    one.set_stated_limit(limit=3, window_seconds=5)
    instants = [START, *asyncio.run(acquire_times(one, time, 2)), *asyncio.run(acquire_times(other, time, 4))]
    assert max_per_window(instants, 5.0) == 3
    assert instants[3] > START + 5


def test_limit_that_the_api_stated_last_replaces_earlier_ones_of_all_processes(time, tmp_path):
    one, other = (new_limiter(time, requests=10**6, state_path=tmp_path / "rate") for _ in range(2))
    for limiter, limit in ((one, 2), (other, 5)):
        time.now += 1
        limiter.set_stated_limit(limit=limit, window_seconds=60)
        asyncio.run(limiter.acquire())
    begin = time.now
    # The first process does not store its own limit of 2 again, which is older.
    assert asyncio.run(acquire_times(one, time, 3)) == [begin] * 3
    assert asyncio.run(acquire_times(one, time, 1))[0] > begin + 58


def test_stated_limit_is_kept_by_the_file_and_expires_after_a_day():
    def wait_of_second(age: float) -> float:
        ledger = Ledger.from_bytes(Ledger(stated_rate=Rate(1, 60.0), stated_at=START).to_bytes())
        first, second = (ledger.reserve(START + age, user_rate=Rate(100, 60.0)) for _ in range(2))
        return second - first

    assert wait_of_second(86_000) > 60
    assert wait_of_second(87_000) == 0


def ledger(*fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(range(256)) * 16,
        ledger([START] * 5)[:-3],
        ledger([])[:-8],
        b"LATER\x00\x00\x02" + bytes(48),  # of version 1.0.0
        ledger([START + 1e6] * 5),  # written before the clock was set back
        ledger([START], START + 1e6),
        ledger([START + 1e6, START, START]),
        ledger([], 0.0, Rate(0, 60.0), START),
        ledger([START], 0.0, Rate(1, 1e9), START),
    ],
)
def test_file_that_is_damaged_or_from_the_future_is_ignored(time, tmp_path, content):
    path = tmp_path / "rate"
    path.write_bytes(content)
    limiter = new_limiter(time, requests=3, state_path=path)
    instants = asyncio.run(acquire_times(limiter, time, 4))
    assert instants[:3] == [START] * 3
    assert instants[3] > START + 60


def test_limit_is_kept_without_sharing_if_the_file_cannot_be_written(time, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    limiter = new_limiter(time, requests=2, state_path=tmp_path / "file" / "rate")
    instants = asyncio.run(acquire_times(limiter, time, 5))
    assert max_per_window(instants, 60.0) == 2
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage().startswith(
        f"the rate limit is not shared with other processes: {tmp_path / 'file' / 'rate'}: [Errno "
    )


def test_acquire_does_not_block_the_event_loop_while_the_file_is_locked(time, tmp_path, monkeypatch):
    path, polled = tmp_path / "rate", threading.Event()
    threads: list[threading.Thread] = []

    def poll(seconds: float) -> None:
        threads.append(threading.current_thread())
        polled.set()
        threading.Event().wait(seconds)

    monkeypatch.setattr("later_reporting_dagster.client.rate_limit_stores.time.sleep", poll)

    async def scenario() -> None:
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            acquired = asyncio.create_task(new_limiter(time, requests=5, state_path=path).acquire())
            assert await asyncio.to_thread(polled.wait, 60)
            assert not acquired.done()
        await acquired
        assert time.now == START

    asyncio.run(scenario())
    assert threading.main_thread() not in threads


def test_limiters_that_share_a_file_neither_exceed_the_limit_nor_waste_a_slot(tmp_path):
    def acquire(_: int) -> list[float]:
        # A clock that advances by its own waits only. While one thread waits for the CPU, the clock of the other runs
        # ahead of its own: by 15 windows at most, because it would take 20 for a clock that was set back.
        time = FakeTime()
        limiter = new_limiter(time, requests=20, state_path=tmp_path / "rate")
        return asyncio.run(acquire_times(limiter, time, 150))

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(acquire, range(2))
    assert max_per_window([*one, *other], 60.0) == 20
    # 300 requests at 20 per window take 15 windows, and the first one starts at once.
    assert max(*one, *other) - START == pytest.approx(14 * Rate(20, 60.0).padded_window_seconds)


@pytest.mark.parametrize(
    ("platform", "environment", "folder"),
    [
        ("linux", {"XDG_CACHE_HOME": "/cache"}, Path("/cache")),
        ("linux", {"XDG_CACHE_HOME": ""}, Path("/home/me/.cache")),
        ("linux", {}, Path("/home/me/.cache")),
        ("darwin", {"XDG_CACHE_HOME": "/cache"}, Path("/home/me/Library/Caches")),
    ],
)
def test_state_path_is_in_the_cache_folder_of_the_system(monkeypatch, platform, environment, folder):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rate_limit_state_path("https://a").parent == folder / "later-reporting"
