"""One browser for all tests of a file, and one report that most of them look at."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Browser

from later_reporting_dagster.report.report_data import METRICS_TABLE, ReportData, SetAside
from tests.e2e.browser import chromium
from tests.report.posts import AS_OF, INSTANCES, day_before, drawn_rows, report_data, without


# Not for longer than a file: while it is there, this thread has an event loop, and no test can start one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def incomplete() -> ReportData:
    """A day missing for one instance, another day for all, a stale instance, and quarantined rows."""
    cells = drawn_rows(5, days=56, most_posts=1)
    without(cells, day=day_before(9), instance_id=INSTANCES[0])
    for instance_id in INSTANCES:
        without(cells, day=day_before(14), instance_id=instance_id)
    for age in range(3):
        without(cells, day=AS_OF - timedelta(days=age), instance_id=INSTANCES[2])
    reason = "impressions: 8500.5 is not a whole number"
    return report_data(cells, set_aside=[SetAside(METRICS_TABLE, day_before(2), INSTANCES[1], reason, 3)])
