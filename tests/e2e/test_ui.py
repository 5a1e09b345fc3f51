"""The Dagster UI in a browser, with a real webserver, daemon and API."""

import re

import pytest
from playwright.sync_api import expect

from tests.e2e.browser import GREEN, Ui
from tests.e2e.dagster_dev import REJECTED_INSTANCE, DagsterDev

pytestmark = pytest.mark.e2e

CONFIG = "ops:\n  later__post_metrics_daily:\n    config:\n      "


def test_ui_shows_a_rejected_instance_until_its_days_are_materialized_again(ui: Ui, dagster: DagsterDev) -> None:
    # At any hour, the newest due day is among the last three.
    days = dagster.days[-3:]
    dagster.reject(rejected=True)
    try:
        ui.launch("post_metrics_daily", days=days)
        ui.open_only_run(status="Failure")
    finally:
        dagster.reject(rejected=False)

    ui.expect_text(re.compile(r"3 files failed and were not changed; 9 written\."))
    for day in days:
        ui.expect_text(re.compile(f"{day} {REJECTED_INSTANCE}: .*HTTP 403"))

    ui.open_partition("post_metrics_daily", days[0])
    for day in days:
        ui.expect_colour(str(day), GREEN)
    expect(ui.page.get_by_role("row", name="instances 3", exact=True)).to_be_visible()
    missing = ui.page.get_by_role("row", name=re.compile("^missing_instances "))
    expect(missing).to_contain_text(REJECTED_INSTANCE)

    ui.open_check("post_metrics_daily", "every_instance_is_present", result="Failed")
    # Other days may be missing, too.
    ui.expect_text(re.compile(rf"^\d+ files are missing: .*\d days\): {REJECTED_INSTANCE}\."))
    ui.open_check("post_metrics_daily", "newest_due_day_is_present", result="Failed")
    ui.expect_text(re.compile(rf"^\d{{4}}-\d\d-\d\d is missing for {REJECTED_INSTANCE}: materialize it$"))

    requests = dagster.service.data_requests
    ui.launch("post_metrics_daily", days=days, config=f"{CONFIG}only_missing: true")
    ui.open_only_run(status="Success")

    assert dagster.service.data_requests - requests == len(days)
    ui.open_check("post_metrics_daily", "newest_due_day_is_present", result="Succeeded")
    ui.open_partition("post_metrics_daily", days[0])
    expect(ui.page.get_by_role("row", name="instances 4", exact=True)).to_be_visible()
    expect(missing).to_have_count(0)

    # A run of an asset checks only what it fetched. A run of a check reads the whole lake.
    ui.open_check("post_metrics_daily", "rows_unique_by_key", result="Succeeded")
    ui.page.get_by_role("button", name="execute Execute", exact=True).click()
    ui.open_launched_run()
    ui.expect_text(re.compile("^Success$"))
    ui.open_check("post_metrics_daily", "rows_unique_by_key", result="Succeeded")
    ui.expect_text(re.compile(rf"^All \d+ rows of {len(dagster.files('post_metrics_daily'))} files$"))
