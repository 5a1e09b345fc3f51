"""The rollups over rolling windows that end with the newest stored day: comparison, costs and campaign results."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from dagster import AssetCheckExecutionContext, AssetExecutionContext

from later_reporting_dagster.contract.days import due_day
from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.campaign_checks import SPEND_WITHIN_BOUNDS, evaluate_ad_spend
from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, RECONCILES, WARN, Check, join_first
from later_reporting_dagster.defs.materializations import combined_failure
from later_reporting_dagster.defs.metadata import (
    code_references,
    code_version,
    column_lineage,
    preview,
    table_metadata,
    written_metadata,
)
from later_reporting_dagster.defs.organic_paid_periods import PREVIEW_COLUMNS, ROLLUPS_GROUP, rollup_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.settings import DefinitionSettings
from later_reporting_dagster.lake import (
    CAMPAIGN_PERFORMANCE_TABLE,
    CAMPAIGNS_TABLE,
    FileDamaged,
    Lake,
    LakeUnavailable,
    schema_of,
)
from later_reporting_dagster.rollups.lake_rollups import (
    WindowRollups,
    check_lake_windows,
    read_campaigns,
    roll_up_lake_windows,
)
from later_reporting_dagster.rollups.periods import Period
from later_reporting_dagster.rollups.rollup_columns import CHANNELS
from later_reporting_dagster.rollups.rollup_tables import (
    BY_PLATFORM,
    CAMPAIGN_RESULTS,
    COSTS_BY_CAMPAIGN,
    COSTS_OVERALL,
    RAW_TABLE_NAMES,
    Measures,
    RollupTable,
)
from later_reporting_dagster.rollups.sql_engine import RollupFailed, rollup_sql

TOTALS_RECONCILE = Check(
    name=RECONCILES,
    description="The totals of each window and of the period before it equal the totals of the raw rows.",
)
DUE_DAY = Check(
    name=NEWEST_DUE_DAY, description="The windows end with the newest day that is due, or later.", is_daily=True
)
COSTS_AGREE = Check(
    name="unit_costs_agree",
    description="CPE and CPM of a post imply the same spend, in at least 99 % of posts.",
    severity=WARN,
)
IMPRESSIONS_REPORTED = Check(
    name="platforms_still_report_impressions",
    description="A platform that reported impressions in the last 28 days also reports some in the last 7, if it has"
    " posts in them.",
    severity=WARN,
)
CAMPAIGNS_AGREE = Check(
    name="campaigns_agree_on_their_posts",
    description="A post of several campaigns has the same metrics in each.",
    severity=WARN,
    nothing="Posts of several campaigns have the same metrics in each",
)
MAX_CONTRADICTORY_PERCENT = 1.0
_CHECKS_OF_TABLE: Mapping[str, Sequence[Check]] = {
    COSTS_OVERALL.name: [COSTS_AGREE],
    BY_PLATFORM.name: [IMPRESSIONS_REPORTED, CAMPAIGNS_AGREE],
    CAMPAIGN_RESULTS.name: [SPEND_WITHIN_BOUNDS],
}

_PREVIEW_WINDOW = "28d"


def windows_step(tables: Sequence[RollupTable], settings: DefinitionSettings) -> AssetStep:
    """Return one step for all window tables, because they read the same posts. Any subset can be materialized.

    The tables are updated when posts have changed and no fetch is in progress: once per backfill, not per day.
    """

    def run(context: AssetExecutionContext, later: LaterReportingResource) -> Iterator[dg.MaterializeResult[Any]]:
        selected = [table for table in tables if settings.asset_key(table.name) in context.selected_asset_keys]
        yield from _materialize(context, later, tables=selected, settings=settings)

    return AssetStep(
        name=settings.op_name("organic_paid_by_window"),
        specs=[
            dg.AssetSpec(
                settings.asset_key(table.name),
                deps=upstream_keys(table, settings),
                description=table.description,
                group_name=ROLLUPS_GROUP,
                kinds={"parquet"},
                tags=rollup_tags(table),
                metadata={
                    **table_metadata(settings.asset_key(table.name), table.columns),
                    **code_references(windows_step),
                    **windows_lineage(table, settings),
                },
                code_version=code_version(table.columns, rollup_sql()),
                automation_condition=when_upstream_changes(settings.asset_key(table.name)),
                freshness_policy=settings.freshness,
            )
            for table in tables
        ],
        run=run,
    )


def upstream_keys(table: RollupTable, settings: DefinitionSettings) -> list[dg.AssetKey]:
    """Return the keys of the tables that a window table is made from."""
    return settings.dependencies(*table.sources)


def windows_checks(table: RollupTable) -> list[Check]:
    """Return the checks of a window table."""
    return [
        # Posts are not sums over all raw rows of some days.
        *([TOTALS_RECONCILE] if table.period is not Period.POSTS else []),
        # Results have no rows if the API refuses campaigns, and end with the same day as the other tables.
        *([DUE_DAY] if table.measures is not Measures.CAMPAIGNS else []),
        *_CHECKS_OF_TABLE.get(table.name, []),
    ]


def build_windows_checks(tables: Sequence[RollupTable], settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return one step for the checks of all window tables, because they read the same posts. Any subset can be run.

    The stored tables are compared with their raw rows.
    """

    @dg.multi_asset_check(
        name=f"{settings.op_name('organic_paid_by_window')}_checks",
        specs=[check.spec(table.name, settings) for table in tables for check in windows_checks(table)],
        can_subset=True,
        required_resource_keys={settings.resource_key},
    )
    def check(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        later, selected = getattr(context.resources, settings.resource_key), context.selected_asset_check_keys
        lake = later.lake()

        def is_selected(table: RollupTable, check: Check) -> bool:
            return dg.AssetCheckKey(settings.asset_key(table.name), check.name) in selected

        checked = [table for table in tables if any(is_selected(table, each) for each in windows_checks(table))]
        stored, damaged = _read_stored(lake, checked)
        rows = {table.name: stored.get(table.name, schema_of(table.columns).empty_table()) for table in checked}
        compared = [
            table
            for table in checked
            if is_selected(table, CAMPAIGNS_AGREE) or (is_selected(table, TOTALS_RECONCILE) and table.name in stored)
        ]
        differences, conflicts = dict[str, list[str]](), 0
        if compared:
            differences, conflicts = check_lake_windows(lake, compared, rows, memory_gb=later.memory_gb)
        for table in checked:
            name = table.name
            results = [
                _evaluate_reconciliation(
                    differences.get(name, ()) if name in stored else (),
                    rows=rows[name].num_rows,
                    damage=damaged.get(name, ""),
                ),
                _evaluate_newest_due_day(rows[name], due_hour_utc=settings.due_hour_utc),
                *_evaluate_checks_of_table(lake, table, rows[name], conflicts=conflicts),
            ]
            selected_names = {each.name for each in windows_checks(table) if is_selected(table, each)}
            for result in results:
                if result.check_name in selected_names:
                    yield result._replace(asset_key=settings.asset_key(name))

    return check


def _read_stored(lake: Lake, tables: Sequence[RollupTable]) -> tuple[dict[str, pa.Table], dict[str, str]]:
    """Return the rows of the tables that are stored, and why others cannot be read, by name."""
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
    """Yield the results of the checks that only this table has."""
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


def windows_lineage(table: RollupTable, settings: DefinitionSettings) -> Mapping[str, dg.TableColumnLineage]:
    """Return the column lineage metadata of a window table."""
    return column_lineage({settings.asset_key(name): columns for name, columns in table.sources.items()})


def _materialize(
    context: AssetExecutionContext,
    later: LaterReportingResource,
    *,
    tables: Sequence[RollupTable],
    settings: DefinitionSettings,
) -> Iterator[dg.MaterializeResult[Any]]:
    """Compute all windows once, and write the tables.

    Raises:
        Failure: there are no posts, or a table could not be written.
    """
    lake = later.lake()
    windows = _compute_windows(context, lake, tables=tables, memory_gb=later.memory_gb)
    failed: dict[str, str] = {}
    for table in tables:
        key, rows = settings.asset_key(table.name), windows.tables[table.name]
        try:
            written = lake.write_table(table.name, rows)
        except LakeUnavailable as error:
            failed[table.name] = str(error)
            continue
        state = "changed" if written.changed else "unchanged"
        context.log.info(f"Rolled up {key.to_user_string()}: {written.rows:,} rows, {state}")
        yield dg.MaterializeResult(
            asset_key=key,
            data_version=dg.DataVersion(written.content_hash),
            metadata={
                **written_metadata(written, is_partition=False),
                "preview": _preview(table, rows),
                **_source_metadata(windows, table.sources),
                **windows_lineage(table, settings),
            },
        )
    if failed:
        raise combined_failure(failed, what="table", written=len(tables) - len(failed))


def _compute_windows(
    context: AssetExecutionContext, lake: Lake, *, tables: Sequence[RollupTable], memory_gb: float
) -> WindowRollups:
    """Compute the tables as of the newest stored day. Unreadable files are logged and count as missing.

    Raises:
        Failure: there are no posts, or the computation failed.
    """
    try:
        windows = roll_up_lake_windows(lake, tables, memory_gb=memory_gb)
    except RollupFailed as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    for raw_name in RAW_TABLE_NAMES.values():
        days = [partition.day for partition in windows.contents.partitions[raw_name]]
        context.log.info(
            f"Read {len(days):,} files of {raw_name}, {min(days)} to {max(days)}"
            if days
            else f"There are no files of {raw_name}"
        )
    for name, unreadable in windows.contents.unreadable.items():
        for partition, reason in unreadable.items():
            context.log.warning(f"Skipped {partition} of {name}: {reason}")
    if windows.campaigns.error:
        context.log.warning(f"Skipped {CAMPAIGNS_TABLE}: {windows.campaigns.error}")
    if not any(windows.contents.partitions[name] for name in RAW_TABLE_NAMES.values()):
        raise dg.Failure("There are no posts: materialize a raw table first.", allow_retries=False)
    return windows


def _evaluate_newest_due_day(rows: pa.Table, *, due_hour_utc: int) -> dg.AssetCheckResult:
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    newest = pc.max(rows["last_day"]).as_py()
    return DUE_DAY.result(
        f"The windows end before {due}: fetch that day, then materialize this table"
        if newest is None or newest < due
        else "",
        otherwise=f"All windows end with {due} or later",
        looked_at={"rows": rows.num_rows},
        metadata={"due_day": str(due), "newest_day": str(newest)},
    )


def _evaluate_reconciliation(differences: Sequence[str], *, rows: int, damage: str) -> dg.AssetCheckResult:
    """Evaluate whether all windows have the totals of their raw rows; a table that is damaged has not."""
    count = len(differences)
    return TOTALS_RECONCILE.result(
        f"{count} difference{'s' * (count != 1)} from the raw rows, such as {differences[0]}: materialize this table"
        if differences
        else damage,
        otherwise="All windows equal their raw rows",
        looked_at={"rows": rows},
        metadata={
            "differing_totals": count,
            **({"differences": dg.MetadataValue.json([*differences])} if differences else {}),
        },
    )


def _evaluate_unit_costs(rows: pa.Table) -> dg.AssetCheckResult:
    """Evaluate the percentage of posts whose CPE and CPM imply different spend."""
    to_date = rows.filter((pc.field("time_window") == "all") & pc.field("instance_id").is_null())
    consistent, contradictory = (
        sum(pc.sum(to_date[f"{channel}_{which}_posts"]).as_py() or 0 for channel in CHANNELS)
        for which in ("spend", "contradictory")
    )
    posts = consistent + contradictory
    percent = 100 * contradictory / max(posts, 1)
    counted = f"CPE and CPM contradict each other in {contradictory} of {posts} posts"
    return COSTS_AGREE.result(
        f"{counted}. The bounds of spend assume that both are rounded to two decimals"
        if percent > MAX_CONTRADICTORY_PERCENT
        else "",
        otherwise=counted,
        looked_at={"posts": posts},
        metadata={"contradictory_posts": contradictory, "percent": percent},
    )


def _evaluate_impressions(rows: pa.Table) -> dg.AssetCheckResult:
    """Evaluate whether each platform that reported impressions in the last 28 days also did in the last 7.

    A platform without posts in the last 7 days passes. The days end with the newest day in the lake.
    """
    # By window, then by instance and platform: the number of posts, and the number of posts that report impressions.
    counts: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
    for row in rows.to_pylist():
        key = row["instance_id"], row["platform"] or "other"
        counts.setdefault(row["time_window"], {})[key] = row["posts"] or 0, row["organic_impressions_posts"] or 0
    before = {key for key, (_, reporting) in counts.get("28d", {}).items() if reporting}
    stopped = [
        f"{platform} of {instance_id}"
        for (instance_id, platform), (posts, reporting) in counts.get("7d", {}).items()
        if posts and not reporting and (instance_id, platform) in before
    ]
    return IMPRESSIONS_REPORTED.result(
        f"No post of the last 7 days reports impressions on {join_first(stopped)}: request views (LATER_METRICS)"
        if stopped
        else "",
        otherwise="Each platform with impressions in the last 28 days and posts in the last 7 days also has impressions"
        " in the last 7 days",
        looked_at={"platforms": len(before)},
        metadata={"platforms_that_stopped": len(stopped)},
    )


def _evaluate_campaigns(disagreements: int) -> dg.AssetCheckResult:
    """Evaluate how often a post has different metrics in two of its campaigns, counted once per post and day."""
    return CAMPAIGNS_AGREE.result(
        f"Posts have different metrics in different campaigns on the same day, {disagreements} times. Tables that"
        " are not by campaign use the metrics of the lowest campaign id"
        if disagreements
        else "",
        otherwise="",
        looked_at={"posts_and_days": disagreements},
    )


def _source_metadata(windows: WindowRollups, sources: Collection[str]) -> dict[str, Any]:
    """Return metadata of the tables that a table is made from: days read, and unreadable files."""
    metadata: dict[str, Any] = {}
    for name in sorted({*sources} & windows.contents.partitions.keys()):
        days = {partition.day for partition in windows.contents.partitions[name]}
        unreadable = {str(partition): str(error) for partition, error in windows.contents.unreadable[name].items()}
        metadata |= {
            f"days/{name}": len(days),
            f"newest_day/{name}": str(max(days, default="none")),
            **({f"unreadable/{name}": dg.MetadataValue.json(unreadable)} if unreadable else {}),
        }
    if CAMPAIGNS_TABLE in sources:
        metadata[f"rows/{CAMPAIGNS_TABLE}"] = windows.campaigns.rows.num_rows
        if windows.campaigns.error:
            metadata[f"unreadable/{CAMPAIGNS_TABLE}"] = windows.campaigns.error
    return metadata


def _preview(table: RollupTable, rows: pa.Table) -> dg.MarkdownMetadataValue:
    """Return the groups with the largest results in the preview's window, or the first rows of posts."""
    if table.period is Period.POSTS:
        return preview(rows)
    columns = PREVIEW_COLUMNS[table.measures]
    largest = rows.filter(pc.field("time_window") == _PREVIEW_WINDOW).sort_by([(columns[1], "descending")])
    return preview(largest.select([*table.grain, *table.labels[:1], *columns]))
