"""The progress bar: shows files, requests and waits on the terminal."""

import pytest

from later_reporting_dagster.cli.progress_bar import progress_bar
from later_reporting_dagster.defs.progress import Progress


@pytest.mark.parametrize(
    ("waiting", "status"),
    [("", "120 requests, 11,900 rows"), ("waiting 40 s for the rate limit", "waiting 40 s for the rate limit")],
)
def test_progress_bar_shows_requests_or_the_reason_of_a_wait(
    waiting: str, status: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with progress_bar() as show:
        show(Progress("posts_published", partitions=10, written=4, requests=120, rows=11_900, status=waiting))
    _, printed = capfd.readouterr()
    words = " ".join(printed.split())
    assert words.startswith("posts_published")
    assert f" 4/10 {status} " in words
