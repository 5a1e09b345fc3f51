"""The code location: one `Definitions` object that loads offline and without secrets."""

import dagster as dg

from later_reporting_dagster.defs.checks import posts_checks, settlement_checks
from later_reporting_dagster.defs.compaction import compaction_job, compaction_schedule
from later_reporting_dagster.defs.jobs import (
    checks_job,
    months_job,
    posts_job,
    report_job,
    rollups_job,
    weeks_job,
    windows_job,
)
from later_reporting_dagster.defs.lake_io import LaterLake
from later_reporting_dagster.defs.organic_paid import (
    ORGANIC_PAID_BY_PUBLISH_DAY,
    ORGANIC_PAID_DAILY,
    ORGANIC_PAID_MONTHLY,
    ORGANIC_PAID_WEEKLY,
    rollup_asset,
    rollup_checks,
)
from later_reporting_dagster.defs.partitions import daily_instance_partitions, span_partitions
from later_reporting_dagster.defs.posts import POST_METRICS_DAILY, POSTS_PUBLISHED, posts_asset
from later_reporting_dagster.defs.report import report_asset
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.schedules import daily_schedule
from later_reporting_dagster.defs.sensors import automation_sensor, instances_sensor
from later_reporting_dagster.defs.settings import LoadSettings
from later_reporting_dagster.defs.tables import LAKE_IO_MANAGER, loadable
from later_reporting_dagster.defs.windows import windows_assets, windows_checks
from later_reporting_dagster.rollups import BY_WINDOW


def definitions(settings: LoadSettings) -> dg.Definitions:
    """All that Dagster shows of this project, shaped by `settings`."""
    sources = (POST_METRICS_DAILY, POSTS_PUBLISHED)
    by_day = (ORGANIC_PAID_DAILY, ORGANIC_PAID_BY_PUBLISH_DAY)
    rollups = tuple(rollup.of(settings.metrics) for rollup in (*by_day, ORGANIC_PAID_WEEKLY, ORGANIC_PAID_MONTHLY))
    windows = tuple(table.of(settings.metrics) for table in BY_WINDOW)
    grid = daily_instance_partitions(settings.start_date)
    spans = {span: span_partitions(span, settings.start_date) for span in {rollup.span for rollup in rollups}}
    due_hour_utc = settings.due_hour_utc
    compaction = compaction_job(sources, restate_days=settings.restate_days)
    return dg.Definitions(
        assets=loadable(
            [
                *(
                    posts_asset(source, partitions_def=grid, due_hour_utc=due_hour_utc, metrics=settings.metrics)
                    for source in sources
                ),
                *(rollup_asset(each, partitions_def=spans[each.span], due_hour_utc=due_hour_utc) for each in rollups),
                windows_assets(windows, due_hour_utc=due_hour_utc),
                report_asset(by_day),
            ]
        ),
        asset_checks=[
            *(posts_checks(source, due_hour_utc=due_hour_utc) for source in sources),
            settlement_checks(*sources, settled_after_days=settings.restate_days, due_hour_utc=due_hour_utc),
            *(rollup_checks(rollup, due_hour_utc=due_hour_utc) for rollup in rollups),
            *(windows_checks(table, due_hour_utc=due_hour_utc) for table in windows),
        ],
        resources={"later": LaterReportingResource.from_environment(), LAKE_IO_MANAGER: LaterLake()},
        jobs=[posts_job, rollups_job, weeks_job, months_job, windows_job, report_job, checks_job, compaction],
        schedules=[
            daily_schedule(start_date=settings.start_date, restate_days=settings.restate_days),
            compaction_schedule(compaction),
        ],
        sensors=[instances_sensor(start_date=settings.start_date), automation_sensor],
        # A run is one or two steps that wait for the network: a process for each would only cost its start.
        executor=dg.in_process_executor,
    )


defs = definitions(LoadSettings.from_environment())
