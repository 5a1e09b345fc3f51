"""Jobs: what the schedule, the sensor and people launch for a range of days × instances."""

import dagster as dg

from later_reporting_dagster.defs.organic_paid import (
    ORGANIC_PAID_BY_PUBLISH_DAY,
    ORGANIC_PAID_DAILY,
    ORGANIC_PAID_MONTHLY,
    ORGANIC_PAID_WEEKLY,
)
from later_reporting_dagster.defs.posts import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.defs.report import REPORT
from later_reporting_dagster.defs.windows import windows_key
from later_reporting_dagster.rollups import BY_WINDOW

POSTS_JOB = "later_posts"
ROLLUPS_JOB = "later_organic_paid"
WEEKS_JOB = "later_organic_paid_weekly"
MONTHS_JOB = "later_organic_paid_monthly"
WINDOWS_JOB = "later_organic_paid_by_window"
REPORT_JOB = "later_report"
CHECKS_JOB = "later_checks"


# One job a grid of partitions: assets of different partitions cannot share a run.
posts_job = dg.define_asset_job(
    POSTS_JOB,
    selection=dg.AssetSelection.assets(
        *(dg.AssetKey(["later", source.asset]) for source in (POST_METRICS_DAILY, POSTS_PUBLISHED))
    ),
    description="Fetches both raw tables for a range of days × instances.",
)
rollups_job = dg.define_asset_job(
    ROLLUPS_JOB,
    selection=dg.AssetSelection.assets(
        *(dg.AssetKey(["later", rollup.asset]) for rollup in (ORGANIC_PAID_DAILY, ORGANIC_PAID_BY_PUBLISH_DAY))
    ),
    description="Rolls both raw tables up, organic beside paid, for a range of days.",
)
weeks_job = dg.define_asset_job(
    WEEKS_JOB,
    selection=dg.AssetSelection.assets(dg.AssetKey(["later", ORGANIC_PAID_WEEKLY.asset])),
    description="Rolls up a range of weeks, each named by its Monday.",
)
months_job = dg.define_asset_job(
    MONTHS_JOB,
    selection=dg.AssetSelection.assets(dg.AssetKey(["later", ORGANIC_PAID_MONTHLY.asset])),
    description="Rolls up a range of months, each named by its first day.",
)
windows_job = dg.define_asset_job(
    WINDOWS_JOB,
    selection=dg.AssetSelection.assets(*map(windows_key, BY_WINDOW)),
    description="Rolls up the last 7, 28, 90 and 365 days and all time, by campaign, by creator and by platform.",
)
report_job = dg.define_asset_job(
    REPORT_JOB,
    selection=dg.AssetSelection.assets(dg.AssetKey(["later", REPORT])),
    description="Writes the report on all that has landed.",
)
checks_job = dg.define_asset_job(
    CHECKS_JOB,
    selection=dg.AssetSelection.all_asset_checks(),
    description="Asks all asset checks of all that lies in the lake.",
)
