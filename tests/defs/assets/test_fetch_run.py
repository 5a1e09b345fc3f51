"""A run of a raw table: its progress, the data version of a day, and the thread that fetches."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.client import PageFetched, PagesRefetched, RateLimitWait, RequestRetried
from later_reporting_dagster.defs.assets import fetch_run
from later_reporting_dagster.defs.assets.fetch_run import QUEUE_SIZE, Progress, day_version, stream
from tests.services import WAIT_SECONDS


def test_progress_counts_events_and_tells_what_to_log() -> None:
    progress = Progress("posts_published")
    events = [
        PageFetched(page=1, rows=100),
        RequestRetried(reason="HTTP 503", wait_seconds=0.5),
        PagesRefetched(reason="3 rows are duplicates"),
        RateLimitWait(seconds=1.0),
    ]
    lines = [line for event in events if (line := progress.count(event))]
    assert lines == ["Retrying in 0.5 s: HTTP 503", "Fetching again from the first page: 3 rows are duplicates"]
    expected = Progress("posts_published", requests=1, retries=1, rate_limit_waits=1, status="retrying in 0 s")
    assert progress == expected


def test_long_wait_of_concurrent_requests_is_logged_once() -> None:
    progress = Progress("posts_published")
    lines = [progress.count(RateLimitWait(seconds=40.0)) for _ in range(3)]
    assert lines == ["Waiting 40 s for the rate limit", "", ""]
    assert progress.status == "waiting 40 s for the rate limit"
    progress.count(PageFetched(page=1, rows=100))
    assert progress.status == ""
    assert progress.count(RateLimitWait(seconds=20.0)) == "Waiting 20 s for the rate limit"


@given(st.dictionaries(st.text(max_size=4), st.text(max_size=4), min_size=1, max_size=5), st.data())
def test_day_version_depends_on_content_and_instances(hashes: dict[str, str], data: st.DataObject) -> None:
    version = day_version(hashes)
    assert day_version(dict(reversed(hashes.items()))) == version
    name = data.draw(st.sampled_from(sorted(hashes)))
    assert day_version({**hashes, name: hashes[name] + "x"}) != version
    assert day_version({each: hashes[each] for each in hashes if each != name}) != version


@pytest.mark.parametrize(
    ("one", "other"), [({"a": "b", "c": "d"}, {"a": "b c d"}), ({"a": "x"}, {"b": "x"}), ({"a\nb": "x"}, {"a": "x"})]
)
def test_day_version_distinguishes_instances_from_content(one: dict[str, str], other: dict[str, str]) -> None:
    assert day_version(one) != day_version(other)


def test_stream_yields_everything_to_a_slow_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    was_full = threading.Event()

    class RecordingQueue(queue.Queue[Any]):
        def put(self, *args: Any, **options: Any) -> None:
            try:
                super().put(*args, **options)
            except queue.Full:
                was_full.set()
                raise

    monkeypatch.setattr(fetch_run, "Queue", RecordingQueue)

    async def start(emit: Callable[[int], None]) -> None:
        for number in range(2 * QUEUE_SIZE):
            await asyncio.to_thread(emit, number)

    results = stream(start)
    received = [next(results)]
    assert was_full.wait(WAIT_SECONDS)
    assert [*received, *results] == list(range(2 * QUEUE_SIZE))


def test_stream_raises_an_error_after_the_results_before_it() -> None:
    async def start(emit: Callable[[int], None]) -> None:
        emit(1)
        raise LookupError("the rest is lost")

    results = stream(start)
    assert next(results) == 1
    with pytest.raises(LookupError, match="the rest is lost"):
        next(results)


def test_closing_the_stream_cancels_the_coroutine() -> None:
    cancelled = threading.Event()

    async def start(emit: Callable[[int], None]) -> None:
        emit(1)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    results: Any = stream(start)
    assert next(results) == 1
    results.close()
    assert cancelled.is_set()


def test_closing_the_stream_releases_a_thread_that_waits_to_emit() -> None:
    ended = threading.Event()

    def flood(emit: Callable[[int], None]) -> None:
        try:
            for number in range(10 * QUEUE_SIZE):
                emit(number)
        finally:
            ended.set()

    async def start(emit: Callable[[int], None]) -> None:
        await asyncio.to_thread(flood, emit)

    results = cast(Any, stream(start))
    assert next(results) == 0
    results.close()
    assert ended.wait(10)
