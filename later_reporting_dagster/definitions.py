"""The code location: one `Definitions` object that loads offline and without secrets."""

import warnings
from datetime import timedelta

import dagster as dg

from later_reporting_dagster.defs.automation import automation_sensor
from later_reporting_dagster.defs.compaction_job import compaction_job, compaction_schedule
from later_reporting_dagster.defs.instances import instances_asset, instances_checks, instances_sensor
from later_reporting_dagster.defs.io_manager import LaterLake
from later_reporting_dagster.defs.jobs import checks_job, daily_schedule, posts_job
from later_reporting_dagster.defs.lake_tables import LAKE_IO_MANAGER, loadable
from later_reporting_dagster.defs.organic_paid_periods import rollup_asset, rollup_checks
from later_reporting_dagster.defs.organic_paid_windows import windows_assets, windows_checks
from later_reporting_dagster.defs.partitions import partitions_of
from later_reporting_dagster.defs.posts import posts_asset
from later_reporting_dagster.defs.posts_checks import posts_checks, settlement_checks
from later_reporting_dagster.defs.report import report_asset
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import LoadSettings
from later_reporting_dagster.ingest.raw_tables import SOURCES
from later_reporting_dagster.rollups.periods import Span
from later_reporting_dagster.rollups.rollup_tables import BY_DAY, BY_WINDOW, OVER_DAYS


def definitions(settings: LoadSettings) -> dg.Definitions:
    """Return all that Dagster shows of this project, shaped by `settings`."""
    with warnings.catch_warnings():
        # Beta parameters that are relied upon knowingly. The host's own warnings stay as they are.
        for parameter in ("backfill_policy", "allow_nonexistent_upstream_partitions"):
            warnings.filterwarnings("ignore", message=f"Parameter `{parameter}`", category=dg.BetaWarning)
        return _definitions(settings)


def _definitions(settings: LoadSettings) -> dg.Definitions:
    start_date, due_hour_utc, restate_days = settings.start_date, settings.due_hour_utc, settings.restate_days
    days = partitions_of(Span.DAY, start_date)
    rollups = [table.of(settings.metrics) for table in (*BY_DAY, *OVER_DAYS)]
    windows = [table.of(settings.metrics) for table in BY_WINDOW]
    # For the UI's health badge, which looks at the last materialization alone; the checks look at each instance.
    freshness = dg.FreshnessPolicy.cron(f"0 {due_hour_utc} * * *", lower_bound_delta=timedelta(hours=23))
    assets = loadable(
        [
            instances_asset(start_date=start_date, restate_days=restate_days),
            *(
                posts_asset(
                    source,
                    partitions_def=days,
                    freshness=freshness,
                    due_hour_utc=due_hour_utc,
                    metrics=settings.metrics,
                )
                for source in SOURCES
            ),
            *(
                rollup_asset(
                    rollup,
                    partitions_def=partitions_of(rollup.span, start_date),
                    freshness=freshness,
                    due_hour_utc=due_hour_utc,
                )
                for rollup in rollups
            ),
            windows_assets(windows, freshness=freshness, due_hour_utc=due_hour_utc),
            report_asset([rollup for rollup in rollups if rollup.span is Span.DAY], freshness=freshness),
        ]
    )
    keys = [key for asset in assets for key in asset.keys]
    compaction = compaction_job(SOURCES, restate_days=restate_days)
    return dg.Definitions(
        assets=assets,
        asset_checks=[
            instances_checks(due_hour_utc=due_hour_utc),
            *(posts_checks(source, due_hour_utc=due_hour_utc) for source in SOURCES),
            settlement_checks(settled_after_days=restate_days, due_hour_utc=due_hour_utc),
            *(rollup_checks(rollup, due_hour_utc=due_hour_utc) for rollup in rollups),
            *(windows_checks(table, due_hour_utc=due_hour_utc) for table in windows),
        ],
        resources={"later": LaterReportingResource.from_environment(), LAKE_IO_MANAGER: LaterLake()},
        jobs=[posts_job, checks_job(keys), compaction],
        schedules=[daily_schedule(start_date=start_date, restate_days=restate_days), compaction_schedule(compaction)],
        sensors=[instances_sensor(start_date=start_date, restate_days=restate_days), automation_sensor(keys)],
    )


defs = definitions(LoadSettings.from_environment())
