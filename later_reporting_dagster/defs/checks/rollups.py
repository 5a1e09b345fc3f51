"""The checks of the rollups: whether they are made from the raw files, and whether platforms report impressions."""

from collections.abc import Sequence
from datetime import date
from functools import partial
from itertools import groupby

import dagster as dg
import pyarrow as pa

from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.defs.checks.check import WARN, Check, CheckRun, CheckStep, Results, join_first
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.lake import schema_of
from later_reporting_dagster.quality.outdated import describe_outdated, outdated
from later_reporting_dagster.rollups.rollup_tables import (
    BY_PLATFORM,
    DAILY_BY_CAMPAIGN,
    PERIOD_TABLES,
    SINGLE_TABLES,
    Cadence,
    RollupTable,
    days_of,
)
from later_reporting_dagster.rollups.templates import render

IS_CURRENT = Check(
    "is_current",
    "Every file is made from the raw files in the lake, by the current definition, and has the rows that were written.",
    is_daily=True,
)
IMPRESSIONS_REPORTED = Check(
    "platforms_still_report_impressions",
    "A platform that reported impressions in the last 28 days also reports some in the last 7, if it has"
    " enough posts in them.",
    severity=WARN,
)


def rollup_checks(component: ComponentBase) -> list[CheckStep]:
    """Return the checks of the rollups that are defined, in steps that list the files once for all their tables.

    The table by campaign has a step of its own: a run writes it beside the other one by day, and if one of them fails,
    Dagster skips all checks of a step that reads it. Tables by day, week and month have other partitions, so nothing
    here writes two of them in one run.
    """
    periods = component.rollups(PERIOD_TABLES)
    steps = {
        "organic_paid_over_time": [table for table in periods if table.name != DAILY_BY_CAMPAIGN.name],
        DAILY_BY_CAMPAIGN.name: [table for table in periods if table.name == DAILY_BY_CAMPAIGN.name],
        "organic_paid_by_window": component.rollups(SINGLE_TABLES),
    }
    return [
        CheckStep(
            name=f"{name}_checks",
            checks={
                table.name: [IS_CURRENT, *([IMPRESSIONS_REPORTED] if table.name == BY_PLATFORM.name else [])]
                for table in tables
            },
            evaluate=partial(_evaluate_rollups, tables),
        )
        for name, tables in steps.items()
        if tables
    ]


def _evaluate_rollups(tables: Sequence[RollupTable], run: CheckRun) -> Results:
    later, component = run.later, run.component
    keys = {table.name: component.asset_key(table.name) for table in tables}

    def selected(check: Check) -> list[RollupTable]:
        return [table for table in tables if dg.AssetCheckKey(keys[table.name], check.name) in run.selected]

    def days_to_look_at(table: RollupTable) -> set[date] | None:
        days = run.days(table.name, IS_CURRENT)
        if days is None or table.cadence is Cadence.ALL:
            return None
        return {day for first_day in days for day in days_of(table.cadence, first_day)}

    for table in selected(IMPRESSIONS_REPORTED):
        schema = schema_of(table.columns)
        rows = later.lake().read_intact_table(table.name, schema=schema)
        result = evaluate_impressions(schema.empty_table() if rows is None else rows)
        yield result._replace(asset_key=keys[table.name])
    newest = newest_day(component.now())
    for days, group in groupby(selected(IS_CURRENT), key=days_to_look_at):
        of_days = [*group]
        found = outdated(later.lake(), of_days, start_date=component.start_date, newest_day=newest, days=days)
        for table in of_days:
            files = [file for file in found if file.table == table.name]
            result = IS_CURRENT.result(
                not files,
                f"Outdated: {describe_outdated(files)}. Materialize what is named, or run `later-reporting refresh`",
                otherwise="Made from the raw files in the lake, and unchanged since",
                failed_days=[file.first_day for file in files if file.first_day],
                outdated=dg.MetadataValue.json({str(file.first_day or file.table): file.reason for file in files}),
            )
            yield result._replace(asset_key=keys[table.name])


def evaluate_impressions(rows: pa.Table) -> dg.AssetCheckResult:
    """Evaluate whether each platform that reported impressions in the last 28 days also did in the last 7.

    A platform passes if its posts in the last 7 days are so few that by chance none may report impressions. The days
    end with the newest day in the lake.
    """
    import duckdb  # deferred: it takes 0.1 s, and loading the Dagster definitions does not need it

    with duckdb.connect() as connection:
        connection.register(BY_PLATFORM.name, rows)
        silent = connection.sql(render("silent_platforms.sql", {})).to_arrow_table().to_pylist()
    before = [
        row
        for row in rows.to_pylist()
        if (row["scope"], row["time_window"]) == ("instance", "28d") and row["organic_impressions_posts"]
    ]
    stopped = sorted(f"{row['platform'] or 'other'} of {row['instance_id']}" for row in silent)
    return IMPRESSIONS_REPORTED.result(
        not stopped,
        f"No post of the last 7 days reports impressions on {join_first(stopped)}: ask Later why, or request views and"
        " paidViews, too (by cursor, in LATER_METRICS)",
        otherwise="Each platform with impressions in the last 28 days and enough posts in the last 7 days also has"
        " impressions in the last 7 days",
        looked_at={"platforms": len(before)},
        platforms_that_stopped=len(stopped),
    )
