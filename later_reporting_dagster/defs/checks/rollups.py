"""The checks of the rollups: stored partitions and tables are compared with their raw rows."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from later_reporting_dagster.contract.days import due_day
from later_reporting_dagster.defs.checks.campaigns import SPEND_WITHIN_BOUNDS, evaluate_ad_spend
from later_reporting_dagster.defs.checks.check import (
    NEWEST_DUE_DAY,
    RECONCILES,
    WARN,
    Check,
    CheckScope,
    build_asset_checks,
    join_first,
)
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import CAMPAIGN_PERFORMANCE_TABLE, FileDamaged, Lake, schema_of
from later_reporting_dagster.rollups.lake_rollups import check_lake_periods, check_lake_windows, read_campaigns
from later_reporting_dagster.rollups.periods import Cadence, first_day_of
from later_reporting_dagster.rollups.rollup_columns import CHANNELS
from later_reporting_dagster.rollups.rollup_tables import (
    BY_PLATFORM,
    CAMPAIGN_RESULTS,
    COSTS_BY_CAMPAIGN,
    COSTS_OVERALL,
    PERIOD_TABLES,
    SINGLE_TABLES,
    Measures,
    RollupTable,
)

TOTALS_RECONCILE = Check(RECONCILES, "The totals equal the totals of the raw rows.")
DUE_PERIOD = Check(
    NEWEST_DUE_DAY,
    "There is a file for the newest day that is due, or for the week or month that contains it.",
    is_daily=True,
)
WINDOWS_RECONCILE = Check(
    RECONCILES, "The totals of each window and of the period before it equal the totals of the raw rows."
)
WINDOWS_DUE_DAY = Check(NEWEST_DUE_DAY, "The windows end with the newest day that is due, or later.", is_daily=True)
COSTS_AGREE = Check(
    "unit_costs_agree", "CPE and CPM of a post imply the same spend, in at least 99 % of posts.", severity=WARN
)
IMPRESSIONS_REPORTED = Check(
    "platforms_still_report_impressions",
    "A platform that reported impressions in the last 28 days also reports some in the last 7, if it has"
    " posts in them.",
    severity=WARN,
)
CAMPAIGNS_AGREE = Check(
    "campaigns_agree_on_their_posts", "A post of several campaigns has the same metrics in each.", severity=WARN
)
MAX_CONTRADICTORY_PERCENT = 1.0
_CHECKS_OF_TABLE: Mapping[str, Sequence[Check]] = {
    COSTS_OVERALL.name: [COSTS_AGREE],
    BY_PLATFORM.name: [IMPRESSIONS_REPORTED, CAMPAIGNS_AGREE],
    CAMPAIGN_RESULTS.name: [SPEND_WITHIN_BOUNDS],
}


def rollup_checks(settings: DefinitionSettings) -> list[dg.AssetChecksDefinition]:
    """Return the checks of the rollups that are defined: a step for each by period, and one for all others."""
    periods = settings.rollups(PERIOD_TABLES)
    windows = settings.rollups(SINGLE_TABLES)
    return [
        *(_period_checks(table, settings) for table in periods),
        *([_windows_checks(windows, settings)] if windows else []),
    ]


def _period_checks(table: RollupTable, settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()
        if scope.has(TOTALS_RECONCILE):
            days = [partition.day for partition in lake.partitions(table.name) if scope.includes(partition.day)]
            differences = check_lake_periods(lake, table, days, memory_gb=later.memory_gb)
            yield _evaluate_periods(differences, partitions=len(days), period=str(table.cadence))
        if scope.has(DUE_PERIOD):
            due = due_day(datetime.now(UTC), due_hour_utc=settings.due_hour_utc)
            present = bool(lake.partitions(table.name, days=[first_day_of(table.cadence, due)]))
            yield evaluate_newest_due_period(table.cadence, due, present=present)

    return build_asset_checks({table.name: [TOTALS_RECONCILE, DUE_PERIOD]}, evaluate=evaluate, settings=settings)


def _windows_checks(tables: Sequence[RollupTable], settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return one step for the checks of all window tables, because they read the same posts."""

    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()

        def is_selected(table: RollupTable, *checks: Check) -> bool:
            key = settings.asset_key(table.name)
            return any(dg.AssetCheckKey(key, check.name) in scope.selected for check in checks)

        checked = [table for table in tables if is_selected(table, *windows_checks(table))]
        stored, damaged = _read_stored(lake, checked)
        rows = {table.name: stored.get(table.name, schema_of(table.columns).empty_table()) for table in checked}
        compared = [
            table
            for table in checked
            if is_selected(table, CAMPAIGNS_AGREE) or (is_selected(table, WINDOWS_RECONCILE) and table.name in stored)
        ]
        differences, conflicts = dict[str, list[str]](), 0
        if compared:
            differences, conflicts = check_lake_windows(lake, compared, rows, memory_gb=later.memory_gb)
        for table in checked:
            name = table.name
            differing = differences.get(name, ()) if name in stored else ()
            for result in (
                _evaluate_windows(differing, rows=rows[name].num_rows, damage=damaged.get(name, "")),
                _evaluate_windows_due_day(rows[name], due_hour_utc=settings.due_hour_utc),
                *_evaluate_checks_of_table(lake, table, rows[name], conflicts=conflicts),
            ):
                yield result._replace(asset_key=settings.asset_key(name))

    step = f"{settings.op_name('organic_paid_by_window')}_checks"
    checks = {table.name: windows_checks(table) for table in tables}
    return build_asset_checks(checks, evaluate=evaluate, settings=settings, step=step)


def windows_checks(table: RollupTable) -> list[Check]:
    """Return the checks of a window table."""
    return [
        # Posts are not sums over all raw rows of some days.
        *([WINDOWS_RECONCILE] if table.cadence is not Cadence.POSTS else []),
        # Results have no rows if the API refuses campaigns, and end with the same day as the other tables.
        *([WINDOWS_DUE_DAY] if table.measures is not Measures.CAMPAIGNS else []),
        *_CHECKS_OF_TABLE.get(table.name, []),
    ]


def _read_stored(lake: Lake, tables: Sequence[RollupTable]) -> tuple[dict[str, pa.Table], dict[str, str]]:
    stored, damaged = dict[str, pa.Table](), dict[str, str]()
    for table in tables:
        try:
            if (rows := lake.read_table(table.name, schema=schema_of(table.columns))) is not None:
                stored[table.name] = rows
        except FileDamaged as error:
            damaged[table.name] = str(error)
    return stored, damaged


def _evaluate_checks_of_table(
    lake: Lake, table: RollupTable, rows: pa.Table, *, conflicts: int
) -> Iterator[dg.AssetCheckResult]:
    if table.name == COSTS_OVERALL.name:
        yield _evaluate_unit_costs(rows)
    elif table.name == BY_PLATFORM.name:
        yield _evaluate_impressions(rows)
        yield _evaluate_campaigns(conflicts)
    elif table.name == CAMPAIGN_RESULTS.name:
        days = {partition.day for partition in lake.partitions(CAMPAIGN_PERFORMANCE_TABLE)}
        stored, _ = _read_stored(lake, [COSTS_BY_CAMPAIGN])
        costs = stored.get(COSTS_BY_CAMPAIGN.name, schema_of(COSTS_BY_CAMPAIGN.columns).empty_table())
        yield evaluate_ad_spend(rows, costs=costs, campaigns=read_campaigns(lake).rows, days=days)


def _evaluate_periods(
    differences: Mapping[date, Sequence[str]], *, partitions: int, period: str
) -> dg.AssetCheckResult:
    """Evaluate whether partitions have the totals of their raw rows; those with differences are given by first day."""
    counted = f"{partitions} {period}{'s' * (partitions != 1)}"
    by_day = {str(day): [*differences[day]] for day in sorted(differences)}
    return TOTALS_RECONCILE.result(
        not differences,
        f"{len(differences)} of {counted} differ from their raw rows: materialize {join_first([*by_day])}",
        otherwise=f"{counted} equal{'s' * (partitions == 1)} {'its' if partitions == 1 else 'their'} raw rows",
        looked_at={f"{period}s": partitions},
        differences=dg.MetadataValue.json(by_day),
    )


def evaluate_newest_due_period(period: Cadence, due: date, *, present: bool) -> dg.AssetCheckResult:
    """Evaluate whether the day `due`, or the week or month that contains it, has a file.

    A week or month has a file from its first rollup, so the check does not notice if later days of it are missing.
    """
    is_day = period is Cadence.DAY
    name = str(due) if is_day else f"The {period} of {first_day_of(period, due)}, which contains the due day {due},"
    return DUE_PERIOD.result(
        present,
        f"{name} has no file: make sure that the raw table has {due}, then materialize this {period}",
        otherwise=f"{name} has a file",
        looked_at={f"{period}s": 1},
        due_day=str(due),
    )


def _evaluate_windows_due_day(rows: pa.Table, *, due_hour_utc: int) -> dg.AssetCheckResult:
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    newest = pc.max(rows["last_day"]).as_py()
    return WINDOWS_DUE_DAY.result(
        newest is not None and newest >= due,
        f"The windows end before {due}: fetch that day, then materialize this table",
        otherwise=f"All windows end with {due} or later",
        looked_at={"rows": rows.num_rows},
        due_day=str(due),
        newest_day=str(newest),
    )


def _evaluate_windows(differences: Sequence[str], *, rows: int, damage: str) -> dg.AssetCheckResult:
    """Evaluate whether all windows have the totals of their raw rows; a table that is damaged has not."""
    count = f"{len(differences)} difference{'s' * (len(differences) != 1)}"
    return WINDOWS_RECONCILE.result(
        not differences and not damage,
        damage or f"{count} from the raw rows, such as {join_first(differences[:1])}: materialize this table",
        otherwise="All windows equal their raw rows",
        looked_at={"rows": rows},
        differences=dg.MetadataValue.json([*differences]),
    )


def _evaluate_unit_costs(rows: pa.Table) -> dg.AssetCheckResult:
    to_date = rows.filter((pc.field("time_window") == "all") & pc.field("instance_id").is_null())
    consistent, contradictory = (
        sum(pc.sum(to_date[f"{channel}_{which}_posts"]).as_py() or 0 for channel in CHANNELS)
        for which in ("spend", "contradictory")
    )
    posts = consistent + contradictory
    percent = 100 * contradictory / max(posts, 1)
    counted = f"CPE and CPM contradict each other in {contradictory} of {posts} posts"
    return COSTS_AGREE.result(
        percent <= MAX_CONTRADICTORY_PERCENT,
        f"{counted}. The bounds of spend assume that both are rounded to two decimals",
        otherwise=counted,
        looked_at={"posts": posts},
        contradictory_posts=contradictory,
        percent=percent,
    )


def _evaluate_impressions(rows: pa.Table) -> dg.AssetCheckResult:
    """Evaluate whether each platform that reported impressions in the last 28 days also did in the last 7.

    A platform without posts in the last 7 days passes. The days end with the newest day in the lake.
    """
    # By window, then by instance and platform: the number of posts, and the number of posts that report impressions.
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for row in rows.to_pylist():
        name = f"{row['platform'] or 'other'} of {row['instance_id']}"
        counts.setdefault(row["time_window"], {})[name] = row["posts"] or 0, row["organic_impressions_posts"] or 0
    before = {name for name, (_, reporting) in counts.get("28d", {}).items() if reporting}
    recent = counts.get("7d", {})
    stopped = [name for name, (posts, reporting) in recent.items() if posts and not reporting and name in before]
    return IMPRESSIONS_REPORTED.result(
        not stopped,
        f"No post of the last 7 days reports impressions on {join_first(stopped)}: request views (LATER_METRICS)",
        otherwise="Each platform with impressions in the last 28 days and posts in the last 7 days also has impressions"
        " in the last 7 days",
        looked_at={"platforms": len(before)},
        platforms_that_stopped=len(stopped),
    )


def _evaluate_campaigns(disagreements: int) -> dg.AssetCheckResult:
    """Evaluate how often a post has different metrics in two of its campaigns, counted once per post and day."""
    return CAMPAIGNS_AGREE.result(
        not disagreements,
        f"Posts have different metrics in different campaigns on the same day, {disagreements} times. Tables that"
        " are not by campaign use the metrics of the lowest campaign id",
        otherwise="Posts of several campaigns have the same metrics in each",
        posts_and_days=disagreements,
    )
