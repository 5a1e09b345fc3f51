"""Fixtures: a browser, and the data of a report with missing days and quarantined rows."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Browser

from later_reporting_dagster.report.report_data import METRICS_TABLE, QuarantinedRows, ReportData
from tests.e2e.browser import chromium
from tests.report.posts import AS_OF, INSTANCES, day_before, random_files, remove_day, report_data


# Not session-scoped: while Playwright's event loop runs in this thread, other tests cannot start one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless browser."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def incomplete() -> ReportData:
    """A report with one day missing for one instance, one for all, an outdated instance, and quarantined rows."""
    files = random_files(5, days=56, most_posts=1)
    remove_day(files, day=day_before(9), instance_id=INSTANCES[0])
    for instance_id in INSTANCES:
        remove_day(files, day=day_before(14), instance_id=instance_id)
    for age in range(3):
        remove_day(files, day=AS_OF - timedelta(days=age), instance_id=INSTANCES[2])
    reason = "impressions: 8500.5 is not a whole number"
    return report_data(files, quarantined=[QuarantinedRows(METRICS_TABLE, day_before(2), INSTANCES[1], reason, 3)])
