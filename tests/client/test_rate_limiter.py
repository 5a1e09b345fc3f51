"""Tests of the rate limiter: no window holds more requests than the limit, over all processes."""

import asyncio
import fcntl
import logging
import stat
import subprocess
import sys
import threading
from bisect import bisect_right
from pathlib import Path
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.client import RateLimiter
from later_reporting_dagster.client.rate_limiter import Ledger, Rate, rate_limit_path
from tests.client.scripted_api import FakeTime

START = 1_750_000_000.0


def max_per_window(times: list[float], window_seconds: float) -> int:
    """Return the maximum number of times in any window (t, t + window]."""
    ordered = sorted(times)
    return max(bisect_right(ordered, time + window_seconds) - index for index, time in enumerate(ordered))


def new_limiter(time: FakeTime, *, requests: int, window_seconds: float = 60.0, path: Path | None = None):
    return RateLimiter(requests=requests, window_seconds=window_seconds, path=path, clock=time, sleep=time.sleep)


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


def test_limiters_of_one_host_share_a_pause_by_default(time, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new" / "folders"))
    one, other = (new_limiter(time, requests=3, path=rate_limit_path("https://a")) for _ in range(2))
    asyncio.run(one.pause(500))
    assert asyncio.run(acquire_times(other, time, 1)) == [START + 500]


def test_file_is_private_and_stays_small(time, tmp_path):
    path = tmp_path / "later-reporting" / "rate"
    limiter = new_limiter(time, requests=10, path=path)
    asyncio.run(acquire_times(limiter, time, 500))
    assert path.stat().st_size <= 9 * (5 + 2 * 10)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("rate", "delay"), [(Rate(40, 5.0), 0.45), (Rate(120, 60.0), 0.45), (Rate(10, 1.0), 0.15)])
def test_no_window_holds_more_arrivals_than_the_limit_although_requests_are_delayed(rate, delay):
    ledger = Ledger()
    slots = [ledger.reserve(START, rate) for _ in range(4 * rate.limit)]
    # At worst, only the first request of a window is delayed.
    gaps = [later - (slot + delay) for slot, later in zip(slots, slots[rate.limit :], strict=False)]
    assert min(gaps) > rate.window_seconds


def test_new_process_keeps_the_limit_that_the_api_stated_to_another(time, tmp_path):
    one, other = (new_limiter(time, requests=10**6, path=tmp_path / "rate") for _ in range(2))
    asyncio.run(one.acquire())
    one.set_stated_limit(limit=3, window_seconds=5)
    instants = [START, *asyncio.run(acquire_times(one, time, 2)), *asyncio.run(acquire_times(other, time, 4))]
    assert max_per_window(instants, 5.0) == 3
    assert instants[3] > START + 5


def test_limit_that_the_api_stated_last_replaces_earlier_ones_of_all_processes(time, tmp_path):
    one, other = (new_limiter(time, requests=10**6, path=tmp_path / "rate") for _ in range(2))
    for limiter, limit in ((one, 2), (other, 5)):
        time.now += 1
        limiter.set_stated_limit(limit=limit, window_seconds=60)
        asyncio.run(limiter.acquire())
    begin = time.now
    # The first process does not store its own limit of 2 again, which is older.
    assert asyncio.run(acquire_times(one, time, 3)) == [begin] * 3
    assert asyncio.run(acquire_times(one, time, 1))[0] > begin + 58


def test_limit_that_the_api_stated_expires_after_a_day():
    def wait_of_second(age: float) -> float:
        ledger = Ledger(stated=Rate(1, 60.0, START))
        first, second = (ledger.reserve(START + age, Rate(100, 60.0)) for _ in range(2))
        return second - first

    assert wait_of_second(86_000) > 60
    assert wait_of_second(87_000) == 0


def checked(data: bytes) -> bytes:
    return crc32(data).to_bytes(4) + data


def stored(**fields: object) -> bytes:
    return checked(msgspec.msgpack.encode(Ledger(**fields)))


LATER = START + 3600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(range(256)) * 16,
        stored(reserved=[START] * 5)[:-3],
        stored(reserved=[START] * 5) + b"\0",
        stored(reserved=[START + 30] * 5).replace(b"\xcb", b"\xcc", 1),
        checked(msgspec.msgpack.encode([[START], "of another version"])),
        # Written before the clock was set back by an hour.
        stored(reserved=[LATER] * 5, updated_at=LATER),
        stored(reserved=[LATER], updated_at=LATER, not_before=LATER + 20),
        stored(reserved=[LATER - 600], updated_at=LATER - 600, not_before=LATER - 580),
    ],
)
def test_file_that_is_damaged_or_from_the_future_is_ignored(time, tmp_path, content):
    path = tmp_path / "rate"
    path.write_bytes(content)
    limiter = new_limiter(time, requests=3, path=path)
    instants = asyncio.run(acquire_times(limiter, time, 4))
    assert instants[:3] == [START] * 3
    assert 60 < instants[3] - START < 61


def test_clock_that_is_set_back_makes_no_wait_longer_than_a_window(time, tmp_path):
    one, other = (new_limiter(time, requests=2, path=tmp_path / "rate") for _ in range(2))
    one.set_stated_limit(limit=2, window_seconds=60)
    asyncio.run(acquire_times(one, time, 5))
    asyncio.run(one.pause(500))
    time.now -= 3600
    sleeps_before = len(time.sleeps)
    for limiter in (other, one, other, one):
        asyncio.run(limiter.acquire())
    assert max(time.sleeps[sleeps_before:]) < 61


def test_folder_of_another_user_is_not_used(time, tmp_path, caplog):
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    asyncio.run(new_limiter(time, requests=2, path=folder / "rate").acquire())
    assert caplog.messages == [
        f"the rate limit is not shared with other processes: {folder}/rate: its folder must belong to this user and not"
        " be writable by others"
    ]
    assert list(folder.iterdir()) == []


def test_limit_is_kept_without_sharing_if_the_file_cannot_be_written(time, tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    limiter = new_limiter(time, requests=2, path=tmp_path / "file" / "rate")
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

    monkeypatch.setattr("later_reporting_dagster.client.rate_limiter.time.sleep", poll)

    async def scenario() -> None:
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            acquired = asyncio.create_task(new_limiter(time, requests=5, path=path).acquire())
            assert await asyncio.to_thread(polled.wait, 60)
            assert not acquired.done()
        await acquired
        assert time.now == START

    asyncio.run(scenario())
    assert threading.main_thread() not in threads


def test_limiters_that_share_a_file_neither_exceed_the_limit_nor_waste_a_slot(time, tmp_path):
    limiters = [new_limiter(time, requests=20, path=tmp_path / "rate") for _ in range(4)]
    instants = []
    for number in range(300):
        instants += asyncio.run(acquire_times(limiters[number % 4], time, 1))
    assert max_per_window(instants, 60.0) == 20
    # 300 requests at 20 per window take 15 windows, and the first one starts at once.
    assert instants[-1] - START == pytest.approx(14 * Rate(20, 60.0).padded_window_seconds)


ACQUIRE = """
import asyncio, sys
from pathlib import Path
from later_reporting_dagster.client import RateLimiter

async def acquire() -> None:
    limiter = RateLimiter(requests=1000, window_seconds=3600, path=Path(sys.argv[1]))
    await asyncio.gather(*(limiter.acquire() for _ in range(50)))

asyncio.run(acquire())
"""


def test_processes_lose_no_slot_of_each_other(tmp_path):
    path = tmp_path / "rate"
    processes = [subprocess.Popen([sys.executable, "-c", ACQUIRE, str(path)]) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    assert len(msgspec.msgpack.decode(path.read_bytes()[4:], type=Ledger).reserved) == 4 * 50


@pytest.mark.parametrize(("cache", "folder"), [("/cache", "/cache"), ("", "/home/me/.cache")])
def test_file_is_in_the_cache_folder_of_the_user(monkeypatch, cache, folder):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert rate_limit_path("https://a").parent == Path(folder, "later-reporting")


def test_user_without_a_folder_is_warned(monkeypatch, caplog):
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert rate_limit_path("https://a") is None
    assert caplog.messages == [
        "the rate limit is not shared with other processes: no cache folder; set HOME or XDG_CACHE_HOME"
    ]
