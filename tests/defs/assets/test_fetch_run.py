"""A run of a raw table: its progress, and the data version of a day."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
