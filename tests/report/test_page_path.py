"""The shortest path through the page: it opens from a file, sums its rows, and follows its filters."""

from pathlib import Path

from playwright.sync_api import Browser

from tests.report.posts import INSTANCES, METRICS_TABLE, random_files, report_data
from tests.report.report_browser import open_report
from tests.report.report_reference import select_rows


def test_page_sums_the_rows_that_its_filters_select(browser: Browser, tmp_path: Path) -> None:
    files = random_files(5, days=28, most_posts=1)
    with open_report(browser, report_data(files), tmp_path) as report:
        for period, instance in ((28, None), (7, INSTANCES[1])):
            report.choose("period", f"Last {period} days")
            report.choose("instance", instance or "All")
            rows = select_rows(files, METRICS_TABLE, range(period), instance=instance)
            impressions = sum(row["impressions"] or 0 for row in rows)
            assert report.figure("organic_impressions") == impressions
            downloaded = {row[0]: row for row in report.download("kpis")}
            assert str(impressions) in downloaded["organic_impressions"]
            assert len(report.rows("days")) == period
            assert (report.misformatted(), report.cut_off()) == ([], [])
