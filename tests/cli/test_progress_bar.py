"""The progress bar: what a run logs of its progress reaches the terminal, waits included."""

import pytest

from later_reporting_dagster.cli.progress_bar import progress_bar
from later_reporting_dagster.ingest.progress import Progress


@pytest.mark.parametrize(
    ("waiting", "news"),
    [("", "120 pages, 11900 rows"), ("waiting 40 s for the rate limit", "waiting 40 s for the rate limit")],
)
def test_progress_bar_shows_pages_or_what_it_waits_for(
    waiting: str, news: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with progress_bar() as show:
        show(Progress("posts_published", partitions=10, landed=4, pages=120, rows=11_900, waiting=waiting))
    _, shown = capfd.readouterr()
    words = " ".join(shown.split())
    assert words.startswith("posts_published")
    assert f" 4/10 {news} " in words
