"""Jobs: what the schedule, the sensor and people launch for a range of days × instances."""

import dagster as dg

from later_reporting_dagster.defs.organic_paid import ORGANIC_PAID_BY_PUBLISH_DAY, ORGANIC_PAID_DAILY
from later_reporting_dagster.defs.posts import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.defs.report import REPORT

POSTS_JOB = "later_posts"
ROLLUPS_JOB = "later_organic_paid"
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
