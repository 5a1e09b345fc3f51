"""The checks of the rollups: stored partitions and tables are compared with their raw rows."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date

import dagster as dg
import pyarrow as pa

from later_reporting_dagster.contract.days import days_between, newest_day
from later_reporting_dagster.defs.checks.check import WARN, Check, CheckScope, CheckStep, join_first
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import FileDamaged, schema_of
from later_reporting_dagster.quality.outdated import Outdated, describe_outdated, outdated
from later_reporting_dagster.rollups.rollup_tables import (
    BY_PLATFORM,
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
    """Return the checks of the rollups that are defined: a step for each by period, and one for all others."""
    periods = component.rollups(PERIOD_TABLES)
    windows = component.rollups(SINGLE_TABLES)
    return [
        *(_period_checks(table, component) for table in periods),
        *([_windows_checks(windows, component)] if windows else []),
    ]


def _period_checks(table: RollupTable, component: ComponentBase) -> CheckStep:
    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()
        if scope.has(TOTALS_RECONCILE):
            days = [partition.day for partition in lake.partitions(table.name) if scope.includes(partition.day)]
            differences = check_period_totals(lake, table, days, memory_gb=later.memory_gb)
            yield _evaluate_periods(differences, partitions=len(days), period=str(table.cadence))
        if scope.has(IS_CURRENT):
            first, last = scope.partitions or (None, None)
            of_scope = days_between(first, days_of(table.cadence, last)[-1]) if first and last else None
            yield _evaluate_outdated(_outdated(component, later, [table], days=of_scope))

    name = f"{component.op_name(table.name)}_checks"
    return CheckStep(name=name, checks={table.name: [TOTALS_RECONCILE, IS_CURRENT]}, evaluate=evaluate)


def _windows_checks(tables: Sequence[RollupTable], component: ComponentBase) -> CheckStep:
    """Return one step for the checks of all window tables, because they read the same posts."""

    def evaluate(later: LaterReportingResource, scope: CheckScope) -> Iterator[dg.AssetCheckResult]:
        lake = later.lake()

        def is_selected(table: RollupTable, check: Check) -> bool:
            return dg.AssetCheckKey(component.asset_key(table.name), check.name) in scope.selected

        stored, damaged = dict[str, pa.Table](), dict[str, str]()
        checked = [table for table in tables if any(is_selected(table, check) for check in windows_checks(table))]
        for table in checked:
            try:
                rows = lake.read_table(table.name, schema=schema_of(table.columns))
            except FileDamaged as error:
                rows, damaged[table.name] = None, str(error)
            if rows is not None:
                stored[table.name] = rows
        compared = [
            (table, stored[table.name])
            for table in checked
            if is_selected(table, WINDOWS_RECONCILE) and table.name in stored
        ]
        differences = check_window_totals(lake, compared, memory_gb=later.memory_gb) if compared else {}
        examined = [table for table in checked if is_selected(table, IS_CURRENT)]
        files = _outdated(component, later, examined) if examined else []
        for table in checked:
            name = table.name
            rows = stored.get(name, schema_of(table.columns).empty_table())
            results = [
                _evaluate_windows(differences.get(name, ()), rows=rows.num_rows, damage=damaged.get(name, "")),
                _evaluate_outdated([file for file in files if file.table == name]),
                *([evaluate_impressions(rows)] if name == BY_PLATFORM.name else []),
            ]
            yield from (result._replace(asset_key=component.asset_key(name)) for result in results)

    name = f"{component.op_name('organic_paid_by_window')}_checks"
    return CheckStep(name=name, checks={table.name: windows_checks(table) for table in tables}, evaluate=evaluate)


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


def _outdated(
    component: ComponentBase,
    later: LaterReportingResource,
    tables: Sequence[RollupTable],
    *,
    days: Collection[date] | None = None,
) -> list[Outdated]:
    newest = newest_day(component.now())
    return outdated(later.lake(), tables, start_date=component.start_date, newest_day=newest, days=days)


def _evaluate_outdated(files: Sequence[Outdated]) -> dg.AssetCheckResult:
    return IS_CURRENT.result(
        not files,
        f"Outdated: {describe_outdated(files)}. Materialize what is named, or run `later-reporting refresh`",
        otherwise="Made from the raw files in the lake, and unchanged since",
        outdated=dg.MetadataValue.json({str(file.first_day or file.table): file.reason for file in files}),
    )


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
