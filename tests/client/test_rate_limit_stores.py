"""The store of the rate limit that machines share. Tests with a real PostgreSQL server are marked `services`."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest

from later_reporting_dagster.client import RateLimiter
from later_reporting_dagster.client.rate_limit_stores import (
    FallbackRateLimitStore,
    FileRateLimitStore,
    rate_limit_store,
    shared_rate_limit_store,
)
from later_reporting_dagster.client.rate_limiter import Ledger, Rate, RateLimitStore, StoreUnavailable
from tests.client.scripted_api import FakeTime
from tests.services import free_port, running_postgres

API = "https://reporting.api.later.com"
ROOT = Path(__file__).parents[2]
LIMIT, WINDOW_SECONDS = 20, 1.0


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with running_postgres() as url:
        yield url


@pytest.fixture
def store_url(postgres_url: str) -> str:
    """The URL of a server without a ledger."""
    sql(postgres_url, "DROP TABLE IF EXISTS later_reporting_rate_limit")
    return postgres_url


def sql(url: str, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def stored_ledger(url: str) -> bytes:
    """Return the stored bytes, read without the stores."""
    ((data,),) = sql(url, "SELECT ledger FROM later_reporting_rate_limit WHERE host = 'reporting.api.later.com'")
    assert isinstance(data, memoryview)
    return bytes(data)


@pytest.mark.services
def test_machines_with_wrong_clocks_share_one_limit_and_none_starves(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    times: dict[float, list[float]] = {clock_error: [] for clock_error in (0.0, 7200.0, -30.0)}

    async def run_machine(clock_error: float) -> None:
        def clock() -> float:
            return time.time() + clock_error

        async def acquire() -> None:
            await limiter.acquire()
            times[clock_error].append(time.monotonic())

        store = rate_limit_store(store_url, base_url=API, clock=clock)
        limiter = RateLimiter(requests=LIMIT, window_seconds=WINDOW_SECONDS, store=store, clock=clock)
        for _ in range(4):
            await asyncio.gather(*(acquire() for _ in range(8)))
        limiter.close()

    async def run_machines() -> None:
        await asyncio.gather(*map(run_machine, times))

    started = time.monotonic()
    asyncio.run(run_machines())
    # The last of 96 slots is in the fifth window; alone, each machine would need two.
    assert max(each[-1] for each in times.values()) - started > 4 * WINDOW_SECONDS
    # Nobody has a second batch while another one still waits for its first: the queue is in the order of arrival.
    assert max(each[7] for each in times.values()) <= min(each[-1] for each in times.values())
    # None had to use its file.
    assert not list(tmp_path.rglob("rate-*"))
    assert len(stored_ledger(store_url)) <= 9 * (5 + 2 * LIMIT)


@pytest.mark.services
def test_machines_that_create_the_table_at_once_all_share_it(store_url: str) -> None:
    async def acquire(store: RateLimitStore) -> None:
        await RateLimiter(requests=8, store=store).acquire()
        store.close()

    async def acquire_by_machines() -> None:
        await asyncio.gather(*(acquire(shared_rate_limit_store(store_url, base_url=API)) for _ in range(8)))

    # In most rounds, some lose the race; PostgreSQL reports it by one of several errors.
    for _ in range(20):
        sql(store_url, "DROP TABLE IF EXISTS later_reporting_rate_limit")
        asyncio.run(acquire_by_machines())
        assert sql(store_url, "SELECT count(*) FROM later_reporting_rate_limit") == [(1,)]


HOLDER = """
import asyncio, sys, time
from later_reporting_dagster.client.rate_limit_stores import shared_rate_limit_store

def hold(ledger, now):
    print("holding", flush=True)
    time.sleep(3600)

asyncio.run(shared_rate_limit_store(sys.argv[1], base_url="https://reporting.api.later.com").update(hold))
"""


@pytest.mark.services
@pytest.mark.parametrize("stop_signal", [signal.SIGKILL, signal.SIGSTOP])
def test_machine_that_dies_or_freezes_during_an_update_does_not_stop_others(
    store_url: str, stop_signal: signal.Signals
) -> None:
    command = [sys.executable, "-c", HOLDER, store_url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "holding\n"
        holder.send_signal(stop_signal)
        try:
            store = shared_rate_limit_store(store_url, base_url=API)
            asyncio.run(RateLimiter(requests=5, store=store).acquire())
            store.close()
        finally:
            holder.kill()
    assert len(Ledger.from_bytes(stored_ledger(store_url)).reserved) == 1


@pytest.mark.services
def test_connection_that_the_server_closed_is_opened_again(store_url: str) -> None:
    async def scenario() -> None:
        store = shared_rate_limit_store(store_url, base_url=API)
        limiter = RateLimiter(requests=5, store=store)
        await limiter.acquire()
        sql(store_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        await limiter.acquire()
        limiter.close()
        await limiter.acquire()  # after close(), too
        limiter.close()

    asyncio.run(scenario())


def test_unreachable_server_is_warned_of_once_and_each_process_counts_alone(caplog: pytest.LogCaptureFixture) -> None:
    port, time = free_port(), FakeTime()
    url = f"postgresql://some-user:some%40password@127.0.0.1:{port}/0"
    limiters = [
        RateLimiter(requests=1, store=rate_limit_store(url, base_url=API, clock=time), clock=time, sleep=time.sleep)
        for _ in range(2)
    ]
    for limiter in limiters:
        asyncio.run(limiter.acquire())
        asyncio.run(limiter.acquire())
        limiter.close()
    # Each limiter counts alone.
    assert 2 * 60 < sum(time.sleeps) < 3 * 60
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2, "one for each limiter, although each tried again after a minute"
    for warning in warnings:
        assert warning.startswith(
            f"the rate limit is not shared with other machines: postgresql://127.0.0.1:{port}/0: "
        )
        assert "some" not in warning
        assert "\n" not in warning


def test_server_that_does_not_respond_blocks_neither_the_event_loop_nor_the_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("later_reporting_dagster.client.rate_limit_stores.CONNECT_TIMEOUT_SECONDS", 2)  # libpq's least

    async def scenario(port: int) -> int:
        store = rate_limit_store(f"postgresql://127.0.0.1:{port}/db", base_url=API)
        acquired = asyncio.create_task(RateLimiter(requests=5, store=store).acquire())
        turns = 0
        while not acquired.done():
            turns += 1
            await asyncio.sleep(0.001)
        store.close()
        return turns

    with socket.create_server(("127.0.0.1", 0)) as silent:
        turns = asyncio.run(scenario(silent.getsockname()[1]))
    assert turns > 10
    assert "the rate limit is not shared with other machines: postgresql://127.0.0.1" in caplog.text


def test_error_of_the_server_that_is_not_utf8_fails_no_request(caplog: pytest.LogCaptureFixture) -> None:
    fields = b"SFATAL\0C28P01\0M" + "authentification échouée".encode("latin-1") + b"\0\0"

    def reject(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"E" + (len(fields) + 4).to_bytes(4) + fields)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=reject, args=(listener,))
        server.start()
        url = f"postgresql://127.0.0.1:{listener.getsockname()[1]}/db?sslmode=disable"
        asyncio.run(RateLimiter(requests=5, store=rate_limit_store(url, base_url=API)).acquire())
        server.join()
    assert "the rate limit is not shared with other machines: postgresql://127.0.0.1" in caplog.text


def test_fallback_counts_while_the_store_is_unavailable_and_the_store_is_tried_again(
    time: FakeTime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "shared"
    shared = FileRateLimitStore(folder / "rate", clock=lambda: time.now + 3600)  # its clock is an hour ahead
    store = FallbackRateLimitStore(shared, "machines", time)
    limiter = RateLimiter(requests=1, store=store, clock=time, sleep=time.sleep)
    asyncio.run(limiter.acquire())
    folder.chmod(0o777)  # a folder that others may write is not used
    asyncio.run(limiter.acquire())
    folder.chmod(0o700)
    start = time.now
    asyncio.run(limiter.acquire())
    assert time.now - start == pytest.approx(Rate(1, 60).padded_window_seconds)
    (warning,) = caplog.messages  # the store is tried again after a minute only
    assert warning.startswith(f"the rate limit is not shared with other machines: {folder}")
    asyncio.run(limiter.acquire())
    assert caplog.messages[1:] == ["the rate limit is shared with other machines again"]


@pytest.mark.parametrize(
    "url",
    [
        "file:///tmp/rate",
        "postgresql://:hidden@/0",
        "postgresql://:hid/den@host:5432",
        "postgresql://user:123/hidden@host:5432/db",
        "postgresql:///hidden",
        "host=hidden",
        "postgresql://host/db?hidden=1",
        "postgresql+psycopg2://u:hidden@host/db",
    ],
)
def test_invalid_url_is_rejected_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match="must be empty, or a URL such as postgresql://user") as raised:
        rate_limit_store(url, base_url=API)
    assert "hid" not in str(raised.value)


@pytest.mark.services
def test_errors_of_the_server_contain_no_secrets(postgres_url: str) -> None:
    for url, message in (
        (postgres_url.replace("//dagster@", "//absent:Zq7-hidden@"), 'role "absent" does not exist'),
        (postgres_url + "?sslmode=Zq7-hidden", "invalid sslmode value"),
    ):
        with pytest.raises(StoreUnavailable, match=message) as raised:
            asyncio.run(shared_rate_limit_store(url, base_url=API).update(lambda ledger, now: None))
        assert "Zq7-hidden" not in str(raised.value)
        assert raised.value.__context__ is None or raised.value.__suppress_context__
