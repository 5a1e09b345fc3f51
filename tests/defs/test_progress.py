"""Progress counts the events of a run, and logs long waits, retries and changes of the API."""

from collections.abc import Callable

from later_reporting_dagster.client import PageFetched, PagesRefetched, RateLimitWait, RequestRetried
from later_reporting_dagster.defs.progress import Progress, ProgressReporter


def reporter(log: Callable[[str], None] = lambda line: None, *, time: list[float] | None = None) -> ProgressReporter:
    clock = [0.0] if time is None else time
    return ProgressReporter(Progress("posts_published", partitions=3), log=log, clock=lambda: clock[0])


def test_reporter_counts_events() -> None:
    counting = reporter()
    counting.on_event(PageFetched(page=1, rows=100))
    counting.on_event(PageFetched(page=2, rows=42))
    counting.on_event(RequestRetried(reason="HTTP 503", wait_seconds=0.5))
    counting.on_event(RateLimitWait(seconds=1.0))
    counting.partition_written(rows=100)
    counting.partition_written(rows=42)
    counting.partition_failed()
    assert counting.progress == Progress(
        "posts_published",
        partitions=3,
        written=2,
        failed=1,
        rows=142,
        requests=2,
        retries=1,
        rate_limit_waits=1,
        status="retrying in 0 s",
    )


def test_reporter_logs_a_long_wait_of_concurrent_requests_once() -> None:
    lines: list[str] = []
    time = [100.0]
    waiting = reporter(lines.append, time=time)
    for _ in range(8):
        waiting.on_event(RateLimitWait(seconds=40.0))
    assert lines == ["Waiting 40 s for the rate limit"]
    assert waiting.progress.status == "waiting 40 s for the rate limit"
    waiting.on_event(PageFetched(page=1, rows=100))
    assert waiting.progress.status == ""
    time[0] += 41
    waiting.on_event(RateLimitWait(seconds=20.0))
    assert lines[1:] == ["Waiting 20 s for the rate limit"]


def test_reporter_does_not_log_short_waits() -> None:
    lines: list[str] = []
    pacing = reporter(lines.append)
    pacing.on_event(RateLimitWait(seconds=0.5))
    assert lines == []
    assert pacing.progress.status == ""


def test_reporter_logs_retries_and_refetched_pages() -> None:
    lines: list[str] = []
    asking = reporter(lines.append)
    asking.on_event(RequestRetried(reason="HTTP 503", wait_seconds=0.5))
    asking.on_event(PagesRefetched(reason="3 rows are duplicates"))
    assert lines == ["Retrying in 0.5 s: HTTP 503", "Fetching again from the first page: 3 rows are duplicates"]
