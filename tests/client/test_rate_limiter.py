"""No window ever holds more requests than the limit, whoever asks, in however many processes."""

import asyncio
import fcntl
import logging
import os
import stat
import subprocess
import sys
import threading
from array import array
from bisect import bisect_right
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.client import RateLimiter, shared_state_path
from later_reporting_dagster.client import rate_limiter as limiter_module
from later_reporting_dagster.client.rate_limiter import Rate, _Ledger, next_slot
from tests.client.service import FakeTime

START = 1_750_000_000.0


def most_in_a_window(instants: list[float], window_seconds: float) -> int:
    """The most instants that any window (t, t + window] holds."""
    ordered = sorted(instants)
    return max(bisect_right(ordered, instant + window_seconds) - place for place, instant in enumerate(ordered))


def limiter_at(time: FakeTime, *, requests: int, window_seconds: float = 60.0, state_path: Path | None = None):
    return RateLimiter(
        requests=requests, window_seconds=window_seconds, state_path=state_path, clock=time, sleep=time.sleep
    )


async def instants_of(limiter: RateLimiter, time: FakeTime, count: int) -> list[float]:
    instants = []
    for _ in range(count):
        await limiter.acquire()
        instants.append(time.now)
    return instants


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.integers(1, 10), st.floats(0.1, 20))
def test_the_next_slot_keeps_to_the_limit_in_every_window_and_is_no_later_than_needed(gaps, limit, window_seconds):
    now, reserved = START, []
    for gap in gaps:
        now += gap
        slot = next_slot(reserved, now, limit=limit, window_seconds=window_seconds)
        assert slot >= now
        assert not reserved or slot >= reserved[-1]
        # Earlier than the slot there is no room: it is now, or behind another, or a whole window after one.
        earlier = {now, *reserved[-1:], *(instant + window_seconds for instant in reserved[-limit:][:1])}
        assert slot in earlier
        reserved.append(slot)
    for place, slot in enumerate(reserved[limit:]):
        assert slot >= reserved[place] + window_seconds


@given(st.lists(st.floats(0, 10), min_size=1, max_size=80), st.integers(1, 8), st.integers(1, 8), st.floats(0.5, 30))
def test_no_window_holds_more_than_what_the_user_or_the_service_allows(gaps, allowed, learned, learned_window):
    async def scenario() -> list[float]:
        time = FakeTime()
        limiter = limiter_at(time, requests=allowed)
        limiter.learn(limit=learned, window_seconds=learned_window)
        instants = []
        for gap in gaps:
            time.now += gap
            instants += await instants_of(limiter, time, 1)
        return instants

    instants = asyncio.run(scenario())
    assert most_in_a_window(instants, 60.0) <= allowed
    assert most_in_a_window(instants, learned_window) <= learned


def test_a_wait_is_told_before_it_begins(time):
    limiter, told = limiter_at(time, requests=1), []
    for _ in range(2):
        asyncio.run(limiter.acquire(on_wait=lambda seconds: told.append((seconds, list(time.sleeps)))))
    ((seconds, sleeps),) = told
    assert 60 < seconds < 62
    assert sleeps == []


def test_turns_come_in_the_order_of_asking(time):
    async def scenario() -> list[int]:
        limiter, order = limiter_at(time, requests=2), []

        async def ask(number: int) -> None:
            await limiter.acquire()
            order.append(number)

        await asyncio.gather(*(ask(number) for number in range(9)))
        return order

    assert asyncio.run(scenario()) == list(range(9))


@pytest.mark.parametrize(
    ("limit", "window_seconds"), [(0, 60), (-1, 60), (5, 0), (5, -1), (5, float("nan")), (5, float("inf")), (5, 1e9)]
)
def test_a_limit_without_sense_is_not_learned_and_not_accepted(time, limit, window_seconds):
    limiter = limiter_at(time, requests=3)
    limiter.learn(limit=limit, window_seconds=window_seconds)
    assert limiter.window_seconds == 60
    assert asyncio.run(instants_of(limiter, time, 3)) == [START] * 3
    with pytest.raises(ValueError, match="a rate limit is at least 1 request"):
        RateLimiter(requests=limit, window_seconds=window_seconds)


def test_after_a_refusal_nobody_starts_before_its_time(time):
    limiter = limiter_at(time, requests=100)
    limiter.penalize(30)
    limiter.penalize(10)
    assert asyncio.run(limiter.acquire()) == 30


def test_a_turn_that_was_waited_for_is_void_when_a_refusal_comes_meanwhile():
    async def scenario() -> tuple[float, float]:
        time = FakeTime()

        async def sleep(seconds: float) -> None:
            if not time.sleeps:
                limiter.penalize(100)
            await time.sleep(seconds)

        limiter = RateLimiter(requests=1, clock=time, sleep=sleep)
        await limiter.acquire()
        waited = await limiter.acquire()
        return waited, time.now

    waited, now = asyncio.run(scenario())
    assert waited >= 100
    assert now >= START + 100


def test_a_sleep_that_ends_early_is_gone_on_with():
    time = FakeTime()

    async def sleep(seconds: float) -> None:
        await time.sleep(min(seconds, 40))

    async def scenario() -> float:
        limiter = RateLimiter(requests=1, clock=time, sleep=sleep)
        await limiter.acquire()
        return await limiter.acquire()

    assert asyncio.run(scenario()) >= 60


def test_a_penalty_has_an_end(time):
    limiter = limiter_at(time, requests=100)
    limiter.penalize(1e12)
    assert asyncio.run(limiter.acquire()) <= 3600
    limiter.penalize(-5)
    assert asyncio.run(limiter.acquire()) == 0


def test_limiters_share_a_file_and_with_it_a_penalty(time, tmp_path):
    path = tmp_path / "deep" / "down" / "rate"
    one, other = (limiter_at(time, requests=3, state_path=path) for _ in range(2))
    one.penalize(500)
    assert asyncio.run(other.acquire()) == 500


def test_the_file_is_for_the_user_alone_and_stays_small(time, tmp_path):
    path = tmp_path / "later-reporting" / "rate"
    limiter = limiter_at(time, requests=10, state_path=path)
    asyncio.run(instants_of(limiter, time, 500))
    assert path.stat().st_size <= 8 * (2 + 2 * 10)
    if os.name == "posix":
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def ledger(reserved: list[float], not_before: float = 0.0) -> bytes:
    return _Ledger(reserved=array("d", reserved), not_before=not_before).to_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\x00" * 64,
        bytes(range(256)) * 16,
        ledger([START] * 5)[:-3],
        ledger([])[:-8],
        ledger([START + 1e6] * 5),  # a clock that was set back since
        ledger([float("nan")] * 5),
        ledger([float("inf")] * 5),
        ledger([START], not_before=START + 1e6),
        ledger([START], not_before=float("nan")),
    ],
)
def test_a_file_that_is_damaged_or_from_the_future_starts_afresh(time, tmp_path, content):
    path = tmp_path / "rate"
    path.write_bytes(content)
    limiter = limiter_at(time, requests=3, state_path=path)
    instants = asyncio.run(instants_of(limiter, time, 4))
    assert instants[:3] == [START] * 3
    assert instants[3] > START + 60


def test_a_place_that_cannot_be_written_costs_a_warning_and_not_the_limit(time, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    limiter = limiter_at(time, requests=2, state_path=tmp_path / "file" / "rate")
    instants = asyncio.run(instants_of(limiter, time, 5))
    assert most_in_a_window(instants, 60.0) == 2
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage().startswith(
        f"the rate limit is not shared with other processes: {tmp_path / 'file' / 'rate'}: [Errno "
    )


def test_the_event_loop_runs_on_while_another_holds_the_file(time, tmp_path):
    path = tmp_path / "rate"
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            held.set()
            release.wait(60)

    async def scenario() -> None:
        turn = asyncio.create_task(limiter_at(time, requests=5, state_path=path).acquire())
        for _ in range(5):
            await asyncio.sleep(0.005)
        assert not turn.done()
        release.set()
        assert await turn == 0

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    asyncio.run(scenario())
    thread.join()


# A process whose clock stands still but for its own waits: what two of them reserve is decided by the shared file
# alone, and takes no time.
PROCESS = """
import asyncio, sys
from pathlib import Path
from later_reporting_dagster.client.rate_limiter import RateLimiter
from tests.client.service import FakeTime

async def main():
    time = FakeTime()
    limiter = RateLimiter(requests=20, state_path=Path(sys.argv[1]), clock=time, sleep=time.sleep)
    for count in sys.stdin:
        for _ in range(int(count)):
            await limiter.acquire()
            print(repr(time.now), flush=True)

asyncio.run(main())
"""


def limited_process(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS, str(path)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def start_turns(process: subprocess.Popen[str], count: int) -> None:
    """Let a process take that many turns, each of which it prints."""
    assert process.stdin is not None
    process.stdin.write(f"{count}\n")
    process.stdin.flush()


def next_turn(process: subprocess.Popen[str]) -> float:
    assert process.stdout is not None
    return float(process.stdout.readline())


def test_two_processes_at_once_stay_under_one_limit_and_both_come_to_their_turns(tmp_path):
    processes = [limited_process(tmp_path / "rate") for _ in range(2)]
    taken = [[], []]
    # Neither has to wait for the other to be done.
    for number in (0, 1, 0, 1):
        start_turns(processes[number], 1)
        taken[number].append(next_turn(processes[number]))
    for process in processes:
        start_turns(process, 498)
    for process, turns in zip(processes, taken, strict=True):
        turns += [float(line) for line in process.communicate(timeout=120)[0].split()]
    one, other = taken
    assert [len(one), len(other)] == [500, 500]
    assert most_in_a_window([*one, *other], 60.0) == 20
    # No turn was lost: 1000 requests at 20 a window are 50 windows, the first of which begins at once.
    assert max(*one, *other) - START == pytest.approx(49 * Rate(20, 60.0).padded_window_seconds)


def test_a_killed_process_wastes_only_its_turns(tmp_path, time):
    path = tmp_path / "rate"
    victim = limited_process(path)
    start_turns(victim, 10**6)
    taken = [next_turn(victim) for _ in range(50)]
    victim.kill()
    taken += [float(line) for line in victim.communicate()[0].split("\n")[:-1]]
    time.now = taken[-1]
    instants = asyncio.run(instants_of(limiter_at(time, requests=20, state_path=path), time, 40))
    assert most_in_a_window([*taken, *instants], 60.0) <= 20
    assert instants[0] - taken[-1] < 2 * 62


def test_the_shared_file_is_one_for_each_host(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = shared_state_path("https://reporting.api.later.com")
    assert path == shared_state_path("https://reporting.api.later.com/")
    assert path != shared_state_path("https://other.example.com")
    assert path != shared_state_path("http://localhost:1")
    assert "reporting" not in path.name
    if sys.platform == "linux":
        assert path.parent == tmp_path / "later-reporting"


@pytest.mark.parametrize(
    ("platform", "environment", "place"),
    [
        ("linux", {"XDG_CACHE_HOME": "/cache"}, Path("/cache")),
        ("linux", {"XDG_CACHE_HOME": ""}, Path("/home/me/.cache")),
        ("linux", {}, Path("/home/me/.cache")),
        ("darwin", {"XDG_CACHE_HOME": "/cache"}, Path("/home/me/Library/Caches")),
    ],
)
def test_the_shared_file_lies_where_the_system_keeps_caches(monkeypatch, platform, environment, place):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/me"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert shared_state_path("https://a").parent == place / "later-reporting"


def test_a_file_that_stays_locked_costs_a_warning_and_not_the_limit(time, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(limiter_module, "LOCK_TIMEOUT_SECONDS", 0.05)
    limiter = limiter_at(time, requests=2, state_path=tmp_path / "rate")
    with (tmp_path / "rate").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        limiter.penalize(30)
        assert f"{tmp_path / 'rate'} stays locked: this process counts only itself" in caplog.text
        instants = asyncio.run(instants_of(limiter, time, 5))
    assert instants[0] == START + 30
    assert most_in_a_window(instants, 60.0) == 2
