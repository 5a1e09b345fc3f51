"""A run of a raw table: its progress, and the data version of a day."""

import pytest

from later_reporting_dagster.client import PageFetched, PagesRefetched, RateLimitWait, RequestRetried
from later_reporting_dagster.defs.assets.fetch_run import day_version
from later_reporting_dagster.ingest.result_stream import Progress


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

    # Of concurrent requests that wait for long, one is logged.
    lines = [progress.count(RateLimitWait(seconds=40.0)) for _ in range(3)]
    assert lines == ["Waiting 40 s for the rate limit", "", ""]
    assert progress.status == "waiting 40 s for the rate limit"
    progress.count(PageFetched(page=1, rows=100))
    assert progress.status == ""
    assert progress.count(RateLimitWait(seconds=20.0)) == "Waiting 20 s for the rate limit"


@pytest.mark.parametrize(
    ("one", "other"), [({"a": "b", "c": "d"}, {"a": "b c d"}), ({"a": "x"}, {"b": "x"}), ({"a\nb": "x"}, {"a": "x"})]
)
def test_day_version_distinguishes_instances_from_content(one: dict[str, str], other: dict[str, str]) -> None:
    assert day_version(one) != day_version(other)
