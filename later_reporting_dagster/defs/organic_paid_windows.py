"""The rollups over rolling windows that end with the newest stored day: comparison, costs and campaign results."""

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from dagster import AssetCheckExecutionContext, AssetExecutionContext

from later_reporting_dagster.contract.days import due_day
from later_reporting_dagster.defs.asset_steps import AssetStep
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.campaign_checks import SPEND_CHECK_DESCRIPTION, SPEND_WITHIN_BOUNDS, evaluate_ad_spend
from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, RECONCILES, build_check_specs, check_result, join_first
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

WINDOWS_CHECKS: Mapping[str, str] = {
    RECONCILES: "The totals of each window and of the period before it equal the totals of the raw rows.",
    NEWEST_DUE_DAY: "The windows end with the newest day that is due, or later.",
}
COSTS_AGREE = "unit_costs_agree"
IMPRESSIONS_REPORTED = "platforms_still_report_impressions"
CAMPAIGNS_AGREE = "campaigns_agree_on_their_posts"
MAX_CONTRADICTORY_PERCENT = 1.0
# By check name: the table that it checks, and its description.
TABLE_SPECIFIC_CHECKS: Mapping[str, tuple[str, str]] = {
    COSTS_AGREE: (COSTS_OVERALL.name, "CPE and CPM of a post imply the same spend, in at least 99 % of posts."),
    IMPRESSIONS_REPORTED: (
        BY_PLATFORM.name,
        "A platform that reported impressions in the last 28 days also reports some in the last 7, if it has posts in"
        " them.",
    ),
    CAMPAIGNS_AGREE: (BY_PLATFORM.name, "A post of several campaigns has the same metrics in each."),
    SPEND_WITHIN_BOUNDS: (CAMPAIGN_RESULTS.name, SPEND_CHECK_DESCRIPTION),
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


def build_windows_checks(tables: Sequence[RollupTable], settings: DefinitionSettings) -> dg.AssetChecksDefinition:
    """Return one step for the checks of all window tables, because they read the same posts. Any subset can be run.

    The stored tables are compared with their raw rows.
    """

    @dg.multi_asset_check(
        name=f"{settings.op_name('organic_paid_by_window')}_checks",
        specs=[
            spec
            for table in tables
            for spec in build_check_specs(
                table.name, windows_check_descriptions(table), settings=settings, daily=[NEWEST_DUE_DAY]
            )
        ],
        can_subset=True,
        required_resource_keys={settings.resource_key},
    )
    def check(context: AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        later, keys = getattr(context.resources, settings.resource_key), context.selected_asset_check_keys
        lake, memory_gb = later.lake(), later.memory_gb
        of_tables = [
            _StoredTable.read(lake, table, selected=selected)
            for table in tables
            if (selected := {key.name for key in keys if key.asset_key == settings.asset_key(table.name)})
        ]
        compared = [each for each in of_tables if each.is_compared]
        differences, conflicts = dict[str, list[str]](), 0
        if compared:
            rows = {each.table.name: each.rows for each in compared}
            differences, conflicts = check_lake_windows(
                lake, [each.table for each in compared], rows, memory_gb=memory_gb
            )
        for each in of_tables:
            name = each.table.name
            for result in _evaluate(lake, each, differences.get(name, ()), conflicts, settings=settings):
                if result.check_name in each.selected:
                    yield result._replace(asset_key=settings.asset_key(name))

    return check


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredTable:
    """A stored window table, and the names of the checks to evaluate.

    Attributes:
        rows: none if the table is not stored, or is damaged.
        is_stored: whether the table is stored and not damaged.
        damage: why the table cannot be read; otherwise empty.
    """

    table: RollupTable
    selected: Set[str]
    rows: pa.Table
    is_stored: bool
    damage: str

    @classmethod
    def read(cls, lake: Lake, table: RollupTable, *, selected: Set[str]) -> "_StoredTable":
        schema, stored, damage = schema_of(table.columns), None, ""
        try:
            stored = lake.read_table(table.name, schema=schema)
        except FileDamaged as error:
            damage = str(error)
        return cls(
            table=table,
            selected=selected,
            rows=schema.empty_table() if stored is None else stored,
            is_stored=stored is not None,
            damage=damage,
        )

    @property
    def is_compared(self) -> bool:
        """Whether the raw rows have to be read."""
        return CAMPAIGNS_AGREE in self.selected or (RECONCILES in self.selected and self.is_stored)


def _evaluate(
    lake: Lake, stored: _StoredTable, differences: Sequence[str], conflicts: int, *, settings: DefinitionSettings
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the selected checks of a table, and perhaps others."""
    rows = stored.rows
    yield _evaluate_newest_due_day(rows, due_hour_utc=settings.due_hour_utc)
    yield from _evaluate_table_specific_checks(stored.table, rows)
    if SPEND_WITHIN_BOUNDS in stored.selected:
        days = {partition.day for partition in lake.partitions(CAMPAIGN_PERFORMANCE_TABLE)}
        schema = schema_of(COSTS_BY_CAMPAIGN.columns)
        try:
            costs = lake.read_table(COSTS_BY_CAMPAIGN.name, schema=schema)
        except FileDamaged:
            costs = None
        yield evaluate_ad_spend(
            rows, costs=costs or schema.empty_table(), campaigns=read_campaigns(lake).rows, days=days
        )
    if stored.damage:
        yield dg.AssetCheckResult(check_name=RECONCILES, passed=False, description=stored.damage)
    else:
        yield _evaluate_reconciliation(differences if stored.is_stored else [], rows=rows.num_rows)
    yield _evaluate_campaigns(conflicts)


def windows_check_descriptions(table: RollupTable) -> Mapping[str, str]:
    """Return the descriptions of a table's checks, by check name."""
    checks = {**WINDOWS_CHECKS, **_table_specific_checks(table)}
    if table.period is Period.POSTS:
        del checks[RECONCILES]  # they are not sums over all raw rows of some days
    if table.measures is Measures.CAMPAIGNS:
        # It has no rows if the API refuses campaigns, and ends with the same day as the other tables.
        del checks[NEWEST_DUE_DAY]
    return checks


def _table_specific_checks(table: RollupTable) -> Mapping[str, str]:
    """Return the descriptions of the checks that are specific to a table."""
    return {
        name: description
        for name, (table_name, description) in TABLE_SPECIFIC_CHECKS.items()
        if table_name == table.name
    }


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
    return check_result(
        NEWEST_DUE_DAY,
        f"The windows end before {due}: fetch that day, then materialize this table"
        if newest is None or newest < due
        else "",
        otherwise=f"All windows end with {due} or later",
        looked_at={"rows": rows.num_rows},
        metadata={"due_day": str(due), "newest_day": str(newest)},
    )


def _evaluate_reconciliation(differences: Sequence[str], *, rows: int) -> dg.AssetCheckResult:
    """Evaluate whether all windows have the totals of their raw rows.

    Args:
        differences: one sentence for each total that differs, and for each raw file that cannot be read.
        rows: number of rows of the table.
    """
    count = len(differences)
    return check_result(
        RECONCILES,
        f"{count} difference{'s' * (count != 1)} from the raw rows, such as {differences[0]}: materialize this table"
        if differences
        else "",
        otherwise="All windows equal their raw rows",
        looked_at={"rows": rows},
        metadata={
            "differing_totals": count,
            **({"differences": dg.MetadataValue.json([*differences])} if differences else {}),
        },
    )


def _evaluate_table_specific_checks(table: RollupTable, rows: pa.Table) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the checks that need only the rows of the table."""
    if COSTS_AGREE in _table_specific_checks(table):
        yield _evaluate_unit_costs(rows)
    if IMPRESSIONS_REPORTED in _table_specific_checks(table):
        yield _evaluate_impressions(rows)


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
    return check_result(
        COSTS_AGREE,
        f"{counted}. The bounds of spend assume that both are rounded to two decimals"
        if percent > MAX_CONTRADICTORY_PERCENT
        else "",
        otherwise=counted,
        looked_at={"posts": posts},
        metadata={"contradictory_posts": contradictory, "percent": percent},
        severity=dg.AssetCheckSeverity.WARN,
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
    return check_result(
        IMPRESSIONS_REPORTED,
        f"No post of the last 7 days reports impressions on {join_first(stopped)}: request views (LATER_METRICS)"
        if stopped
        else "",
        otherwise="Each platform with impressions in the last 28 days and posts in the last 7 days also has impressions"
        " in the last 7 days",
        looked_at={"platforms": len(before)},
        metadata={"platforms_that_stopped": len(stopped)},
        severity=dg.AssetCheckSeverity.WARN,
    )


def _evaluate_campaigns(disagreements: int) -> dg.AssetCheckResult:
    """Evaluate how often a post has different metrics in two of its campaigns, counted once per post and day."""
    return dg.AssetCheckResult(
        check_name=CAMPAIGNS_AGREE,
        passed=not disagreements,
        description=(
            f"Posts have different metrics in different campaigns on the same day, {disagreements} times. Tables that"
            " are not by campaign use the metrics of the lowest campaign id"
            if disagreements
            else "Posts of several campaigns have the same metrics in each"
        ),
        metadata={"posts_and_days": disagreements},
        severity=dg.AssetCheckSeverity.WARN,
    )


def _source_metadata(windows: WindowRollups, sources: Collection[str]) -> dict[str, Any]:
    """Return metadata of the tables that a table is made from: days read, missing days, unreadable files.

    The missing days of an instance are counted from the oldest to the newest day of the table.
    """
    metadata: dict[str, Any] = {}
    for name in sorted({*sources} & windows.contents.partitions.keys()):
        instances: dict[str | None, set[date]] = {}
        for partition in windows.contents.partitions[name]:
            instances.setdefault(partition.instance_id, set()).add(partition.day)
        days = set[date]().union(*instances.values())
        length = (max(days) - min(days)).days + 1 if days else 0
        missing = {str(each): length - len(stored) for each, stored in instances.items() if len(stored) < length}
        metadata |= {
            f"days/{name}": len(days),
            f"newest_day/{name}": str(max(days, default="none")),
            f"missing/{name}": sum(missing.values()),
            **({f"missing_days/{name}": dg.MetadataValue.json(missing)} if missing else {}),
            **_unreadable_metadata(windows, name),
        }
    if CAMPAIGNS_TABLE in sources:
        metadata[f"rows/{CAMPAIGNS_TABLE}"] = windows.campaigns.rows.num_rows
        if windows.campaigns.error:
            metadata[f"unreadable/{CAMPAIGNS_TABLE}"] = windows.campaigns.error
    return metadata


def _unreadable_metadata(windows: WindowRollups, name: str) -> dict[str, Any]:
    """Return metadata of the files of a table that could not be read, with the reasons; empty if there are none."""
    reasons = {str(partition): str(reason) for partition, reason in windows.contents.unreadable[name].items()}
    return {f"unreadable/{name}": dg.MetadataValue.json(reasons)} if reasons else {}


def _preview(table: RollupTable, rows: pa.Table) -> dg.MarkdownMetadataValue:
    """Return the groups with the largest results in the preview's window, or the first rows of posts."""
    if table.period is Period.POSTS:
        return preview(rows)
    columns = PREVIEW_COLUMNS[table.measures]
    largest = rows.filter(pc.field("time_window") == _PREVIEW_WINDOW).sort_by([(columns[1], "descending")])
    return preview(largest.select([*table.grain, *table.labels[:1], *columns]))
