"""The code location: one `Definitions` object. It loads without a network and without secrets."""

import warnings
from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from later_reporting_dagster.defs.automation import build_automation_sensor
from later_reporting_dagster.defs.compaction_job import build_compaction_job, build_compaction_schedule
from later_reporting_dagster.defs.instances import build_instances_asset, build_instances_checks, build_instances_sensor
from later_reporting_dagster.defs.io_manager import LaterLake
from later_reporting_dagster.defs.jobs import build_checks_job, build_daily_schedule, posts_job
from later_reporting_dagster.defs.lake_tables import LAKE_IO_MANAGER, with_lake_io_manager
from later_reporting_dagster.defs.organic_paid_periods import build_rollup_asset, build_rollup_checks
from later_reporting_dagster.defs.organic_paid_windows import build_windows_asset, build_windows_checks
from later_reporting_dagster.defs.partitions import build_partitions_def
from later_reporting_dagster.defs.posts import build_posts_asset
from later_reporting_dagster.defs.posts_checks import build_posts_checks, build_settled_posts_check
from later_reporting_dagster.defs.report import build_report_asset
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.ingest.raw_tables import RAW_TABLES
from later_reporting_dagster.rollups.periods import Period
from later_reporting_dagster.rollups.rollup_tables import DAY_TABLES, WEEK_AND_MONTH_TABLES, WINDOW_TABLES, RollupTable


def build_definitions(settings: DefinitionSettings) -> dg.Definitions:
    """Return all definitions of this project for the given settings."""
    with warnings.catch_warnings():
        # These beta parameters are used on purpose. The warning filters of the host process stay as they are.
        for parameter in ("backfill_policy", "allow_nonexistent_upstream_partitions"):
            warnings.filterwarnings("ignore", message=f"Parameter `{parameter}`", category=dg.BetaWarning)
        return _build_definitions(settings)


def _build_definitions(settings: DefinitionSettings) -> dg.Definitions:
    start_date, due_hour_utc, restate_days = settings.start_date, settings.due_hour_utc, settings.restate_days
    rollups = [table.with_metrics(settings.metrics) for table in (*DAY_TABLES, *WEEK_AND_MONTH_TABLES)]
    windows = [table.with_metrics(settings.metrics) for table in WINDOW_TABLES]
    assets = _build_assets(settings, rollups=rollups, windows=windows)
    keys = [key for asset in assets for key in asset.keys]
    compaction = build_compaction_job(RAW_TABLES, restate_days=restate_days)
    return dg.Definitions(
        assets=assets,
        asset_checks=[
            build_instances_checks(due_hour_utc=due_hour_utc),
            *(build_posts_checks(raw_table, due_hour_utc=due_hour_utc) for raw_table in RAW_TABLES),
            build_settled_posts_check(settled_after_days=restate_days, due_hour_utc=due_hour_utc),
            *(build_rollup_checks(rollup, due_hour_utc=due_hour_utc) for rollup in rollups),
            *(build_windows_checks(table, due_hour_utc=due_hour_utc) for table in windows),
        ],
        resources={"later": LaterReportingResource.from_environment(), LAKE_IO_MANAGER: LaterLake()},
        jobs=[posts_job, build_checks_job(keys), compaction],
        schedules=[
            build_daily_schedule(start_date=start_date, restate_days=restate_days),
            build_compaction_schedule(compaction),
        ],
        sensors=[
            build_instances_sensor(start_date=start_date, restate_days=restate_days),
            build_automation_sensor(keys),
        ],
    )


def _build_assets(
    settings: DefinitionSettings, *, rollups: Sequence[RollupTable], windows: Sequence[RollupTable]
) -> Sequence[dg.AssetsDefinition]:
    start_date, due_hour_utc = settings.start_date, settings.due_hour_utc
    days = build_partitions_def(Period.DAY, start_date)
    # For the UI's health badge, which knows only when an asset was last materialized. The checks look at each instance.
    freshness = dg.FreshnessPolicy.cron(f"0 {due_hour_utc} * * *", lower_bound_delta=timedelta(hours=23))
    return with_lake_io_manager(
        [
            build_instances_asset(start_date=start_date, restate_days=settings.restate_days),
            *(
                build_posts_asset(
                    raw_table,
                    partitions_def=days,
                    freshness=freshness,
                    due_hour_utc=due_hour_utc,
                    metrics=settings.metrics,
                )
                for raw_table in RAW_TABLES
            ),
            *(
                build_rollup_asset(
                    rollup,
                    partitions_def=build_partitions_def(rollup.period, start_date),
                    freshness=freshness,
                    due_hour_utc=due_hour_utc,
                )
                for rollup in rollups
            ),
            build_windows_asset(windows, freshness=freshness, due_hour_utc=due_hour_utc),
            build_report_asset([rollup for rollup in rollups if rollup.period is Period.DAY], freshness=freshness),
        ]
    )


defs = build_definitions(DefinitionSettings.from_environment())
