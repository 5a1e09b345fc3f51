"""The checks of the rollups: stored partitions and tables are compared with their raw rows."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date

import dagster as dg
import pyarrow as pa

from later_reporting_dagster.contract.days import newest_day
from later_reporting_dagster.defs.checks.check import WARN, Check, CheckScope, CheckStep, join_first
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import FileDamaged, LakeUnavailable, schema_of
from later_reporting_dagster.quality.outdated import describe_outdated, outdated
from later_reporting_dagster.rollups.rollup_tables import (
    BY_PLATFORM,
    DAILY_BY_CAMPAIGN,
    PERIOD_TABLES,
    POSTS,
    SINGLE_TABLES,
    WINDOW_TABLES,
    RollupTable,
    days_of,
)
from later_reporting_dagster.rollups.totals import check_period_totals, check_window_totals

TOTALS_RECONCILE = Check("reconciles_with_raw_rows", "The totals equal the totals of the raw rows.")
WINDOWS_RECONCILE = replace(TOTALS_RECONCILE, description="The totals of each window equal the totals of the raw rows.")
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
# The tables of one file whose totals equal those of raw rows.
_WITH_TOTALS = {POSTS.name, *(table.name for table in WINDOW_TABLES)}
# The highest probability, for a platform, that a warning is due to chance.
UNLIKELY = 0.001


def rollup_checks(component: ComponentBase) -> list[CheckStep]:
    """Return the checks of the rollups that are defined, in steps that read the raw rows once for all their tables.

    The table by campaign has a step of its own: a run writes it beside the other one by day, and if one of them fails,
    Dagster skips all checks of a step that reads it. Tables by day, week and month have other partitions, so nothing
    here writes two of them in one run.
    """
    periods, windows = component.rollups(PERIOD_TABLES), component.rollups(SINGLE_TABLES)
    by_campaign = [table for table in periods if table.name == DAILY_BY_CAMPAIGN.name]
    others = [table for table in periods if table not in by_campaign]
    return [
        *([_period_checks("organic_paid_over_time", others, component)] if others else []),
        *(_period_checks(table.name, [table], component) for table in by_campaign),
        *([_windows_checks(windows, component)] if windows else []),
    ]


def _period_checks(name: str, tables: Sequence[RollupTable], component: ComponentBase) -> CheckStep:
    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()
        compared: list[tuple[RollupTable, set[date]]] = []
        not_listed: list[LakeUnavailable] = []
        for table in _selected(tables, TOTALS_RECONCILE, scope, component):
            try:
                partitions = lake.partitions(table.name, days=scope.days)
            except LakeUnavailable as error:
                not_listed.append(error)
            else:
                compared.append((table, {partition.day for partition in partitions}))
        differences = check_period_totals(lake, compared, memory_gb=later.memory_gb) if compared else {}
        for table, days in compared:
            result = _evaluate_periods(differences[table.name], partitions=len(days), period=str(table.cadence))
            yield result._replace(asset_key=component.asset_key(table.name))
        for table in _selected(tables, IS_CURRENT, scope, component):
            days_of_scope = None
            if scope.days is not None:
                days_of_scope = {day for first_day in scope.days for day in days_of(table.cadence, first_day)}
            yield from _evaluate_outdated([table], component, later, days=days_of_scope)
        if not_listed:  # the other tables have their results
            raise not_listed[0]

    checks = {table.name: [TOTALS_RECONCILE, IS_CURRENT] for table in tables}
    return CheckStep(name=f"{component.op_name(name)}_checks", checks=checks, evaluate=evaluate)


def _windows_checks(tables: Sequence[RollupTable], component: ComponentBase) -> CheckStep:
    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()
        compared = _selected(tables, WINDOWS_RECONCILE, scope, component)
        of_platforms = _selected(tables, IMPRESSIONS_REPORTED, scope, component)
        stored, damaged = dict[str, pa.Table](), dict[str, str]()
        for table in dict.fromkeys([*compared, *of_platforms]):
            try:
                rows = lake.read_table(table.name, schema=schema_of(table.columns))
            except FileDamaged as error:
                rows, damaged[table.name] = None, str(error)
            if rows is not None:
                stored[table.name] = rows
        with_rows = [(table, stored[table.name]) for table in compared if table.name in stored]
        differences = check_window_totals(lake, with_rows, memory_gb=later.memory_gb) if with_rows else {}
        for table in compared:
            count = stored[table.name].num_rows if table.name in stored else 0
            result = _evaluate_windows(differences.get(table.name, ()), rows=count, damage=damaged.get(table.name, ""))
            yield result._replace(asset_key=component.asset_key(table.name))
        for table in of_platforms:
            rows = stored.get(table.name, schema_of(table.columns).empty_table())
            yield evaluate_impressions(rows)._replace(asset_key=component.asset_key(table.name))
        yield from _evaluate_outdated(_selected(tables, IS_CURRENT, scope, component), component, later)

    checks = {table.name: windows_checks(table) for table in tables}
    return CheckStep(name=f"{component.op_name('organic_paid_by_window')}_checks", checks=checks, evaluate=evaluate)


def _selected(
    tables: Sequence[RollupTable], check: Check, scope: CheckScope, component: ComponentBase
) -> list[RollupTable]:
    return [
        table for table in tables if dg.AssetCheckKey(component.asset_key(table.name), check.name) in scope.selected
    ]


def windows_checks(table: RollupTable) -> list[Check]:
    """Return the checks of a window table."""
    return [
        *([WINDOWS_RECONCILE] if table.name in _WITH_TOTALS else []),
        IS_CURRENT,
        *([IMPRESSIONS_REPORTED] if table.name == BY_PLATFORM.name else []),
    ]


def _evaluate_periods(
    differences: Mapping[date, Sequence[str]], *, partitions: int, period: str
) -> dg.AssetCheckResult:
    counted = f"{partitions} {period}{'s' * (partitions != 1)}"
    by_day = {str(day): [*differences[day]] for day in sorted(differences)}
    return TOTALS_RECONCILE.result(
        not differences,
        f"{len(differences)} of {counted} differ from their raw rows: materialize {join_first([*by_day])}",
        otherwise=f"{counted} equal{'s' * (partitions == 1)} {'its' if partitions == 1 else 'their'} raw rows",
        looked_at={f"{period}s": partitions},
        differences=dg.MetadataValue.json(by_day),
    )


def _evaluate_outdated(
    tables: Sequence[RollupTable],
    component: ComponentBase,
    later: LaterReportingResource,
    *,
    days: Collection[date] | None = None,
) -> Iterator[dg.AssetCheckResult]:
    if not tables:
        return
    newest = newest_day(component.now())
    found = outdated(later.lake(), tables, start_date=component.start_date, newest_day=newest, days=days)
    for table in tables:
        files = [file for file in found if file.table == table.name]
        result = IS_CURRENT.result(
            not files,
            f"Outdated: {describe_outdated(files)}. Materialize what is named, or run `later-reporting refresh`",
            otherwise="Made from the raw files in the lake, and unchanged since",
            outdated=dg.MetadataValue.json({str(file.first_day or file.table): file.reason for file in files}),
        )
        yield result._replace(asset_key=component.asset_key(table.name))


def _evaluate_windows(differences: Sequence[str], *, rows: int, damage: str) -> dg.AssetCheckResult:
    count = f"{len(differences)} difference{'s' * (len(differences) != 1)}"
    return WINDOWS_RECONCILE.result(
        not differences and not damage,
        damage or f"{count} from the raw rows, such as {join_first(differences[:1])}: materialize this table",
        otherwise="All windows equal their raw rows",
        looked_at={"rows": rows},
        differences=dg.MetadataValue.json([*differences]),
    )


def evaluate_impressions(rows: pa.Table) -> dg.AssetCheckResult:
    """Evaluate whether each platform that reported impressions in the last 28 days also did in the last 7.

    A platform passes if its posts in the last 7 days are so few that by chance none may report impressions. The days
    end with the newest day in the lake.
    """
    # By window, then by instance and platform: the number of posts, and the number of posts that report impressions.
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for row in rows.to_pylist():
        if row["scope"] == "instance":
            name = f"{row['platform'] or 'other'} of {row['instance_id']}"
            counts.setdefault(row["time_window"], {})[name] = row["posts"], row["organic_impressions_posts"]
    before = {name: (posts, reporting) for name, (posts, reporting) in counts.get("28d", {}).items() if reporting}
    stopped = []
    for name, (posts, reporting) in before.items():
        posts_now, reporting_now = counts.get("7d", {}).get(name, (0, 0))
        # The share of posts without impressions, estimated by Laplace's rule, because all of a few posts may have some.
        chance = ((posts - reporting + 1) / (posts + 2)) ** posts_now
        if not reporting_now and chance < UNLIKELY:
            stopped.append(name)
    return IMPRESSIONS_REPORTED.result(
        not stopped,
        f"No post of the last 7 days reports impressions on {join_first(stopped)}: ask Later why, or request views and"
        " paidViews, too (by cursor, in LATER_METRICS)",
        otherwise="Each platform with impressions in the last 28 days and enough posts in the last 7 days also has"
        " impressions in the last 7 days",
        looked_at={"platforms": len(before)},
        platforms_that_stopped=len(stopped),
    )
