"""Fixtures: a browser, and the data of a report with missing days and quarantined rows."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Browser

from later_reporting_dagster.report.report_data import METRICS_TABLE, QuarantinedRows, ReportData
from tests.e2e.browser import chromium
from tests.report.posts import (
    AS_OF,
    CAMPAIGNS,
    INSTANCES,
    campaign_row,
    day_before,
    own_campaign,
    random_files,
    random_performance,
    remove_day,
    report_data,
    with_own_campaigns,
)


# Not session-scoped: while Playwright's event loop runs in this thread, other tests cannot start one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless browser."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def incomplete() -> ReportData:
    """A report with missing days, an outdated instance, quarantined rows, and the names and totals of most campaigns.

    One day is missing for one instance, and one for all.
    """
    files = with_own_campaigns(random_files(5, days=56, most_posts=1))
    remove_day(files, day=day_before(9), instance_id=INSTANCES[0])
    for instance_id in INSTANCES:
        remove_day(files, day=day_before(14), instance_id=instance_id)
    for age in range(3):
        remove_day(files, day=AS_OF - timedelta(days=age), instance_id=INSTANCES[2])
    reason = "impressions: 8500.5 is not a whole number"
    names = ("Summer launch", "Back to school: creators and boosts, all markets", None)
    campaigns = [
        campaign_row(instance_id, own_campaign(instance_id, campaign_id), name, status=name and "live")
        for instance_id in INSTANCES
        for campaign_id, name in zip(CAMPAIGNS, names, strict=True)
    ]
    return report_data(
        files,
        quarantined=[QuarantinedRows(METRICS_TABLE, day_before(2), INSTANCES[1], reason, 3)],
        campaigns=campaigns,
        performance=random_performance(5, sorted({each["campaign_id"] for each in campaigns}), days=56),
    )
