"""The rollups over windows: by campaign, by creator and by platform, each a table as of the newest day there is."""

from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from dagster import AssetExecutionContext

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.contract.days import due_day
from later_reporting_dagster.defs.automation import when_upstream_changes
from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, RECONCILES, checks_of, first_of, log_check_results
from later_reporting_dagster.defs.materializations import failure_of, log_materialization, provenance_tags
from later_reporting_dagster.defs.metadata import column_lineage, preview, table_metadata, written_metadata
from later_reporting_dagster.defs.organic_paid_periods import ROLLUPS_GROUP, rollup_key, rollup_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import LakeUnavailable, PartitionDamaged, schema_of
from later_reporting_dagster.rollups.lake_rollups import Windows, check_windows_of, landed_days, roll_up_windows_of
from later_reporting_dagster.rollups.rollup_columns import COMPARED
from later_reporting_dagster.rollups.rollup_tables import BY_CAMPAIGN, BY_PLATFORM, RolledUp
from later_reporting_dagster.rollups.sql_engine import RAW, RollupFailed

WINDOWS_CHECKS: Mapping[str, str] = {
    RECONCILES: "The totals of each window, and of the period before it, equal those of the raw rows of its days.",
    NEWEST_DUE_DAY: "Its windows end with the newest day that is due, or later.",
}
COSTS_AGREE = "unit_costs_agree"
IMPRESSIONS_GO_ON = "platforms_still_report_impressions"
POSTS_AGREE = "campaigns_agree_on_their_posts"
CONTRADICTORY_PERCENT = 1.0
# By name the table that a check is of, and what it looks at.
DATA_CHECKS: Mapping[str, tuple[str, str]] = {
    COSTS_AGREE: (BY_CAMPAIGN.name, "CPE and CPM of a post imply the same spend, in all but 1 % of posts."),
    IMPRESSIONS_GO_ON: (BY_PLATFORM.name, "No platform stopped reporting impressions while its posts go on."),
    POSTS_AGREE: (BY_PLATFORM.name, "A post of several campaigns has the same numbers in each."),
}

_PREVIEWED_WINDOW = "28d"
_PREVIEW_COLUMNS = (
    "posts",
    "organic_impressions",
    "organic_impressions_change",
    "paid_impressions",
    "paid_impressions_change",
    "paid_lift",
    "paid_lift_low",
    "paid_lift_high",
    "paid_lift_verdict",
)


def windows_assets(
    tables: Sequence[RolledUp], *, freshness: dg.FreshnessPolicy, due_hour_utc: int
) -> dg.AssetsDefinition:
    """Return the assets of all windows, made in one step, because they read the same posts; any subset can be made.

    They follow when any posts changed and no run that fetches posts is under way: once per backfill, not per day.
    """

    @dg.multi_asset(
        name="organic_paid_by_window",
        specs=[
            dg.AssetSpec(
                rollup_key(table),
                deps=[dg.AssetKey(["later", asset]) for asset in RAW.values()],
                description=table.description,
                group_name=ROLLUPS_GROUP,
                kinds={"parquet"},
                tags=rollup_tags(table),
                metadata={**table_metadata(table.name, table.columns), **windows_lineage(table)},
                automation_condition=when_upstream_changes(),
                freshness_policy=freshness,
                skippable=True,
            )
            for table in tables
        ],
        can_subset=True,
    )
    def organic_paid_by_window(
        context: AssetExecutionContext, later: LaterReportingResource
    ) -> Iterator[dg.MaterializeResult[Any]]:
        wanted = [table for table in tables if rollup_key(table) in context.selected_asset_keys]
        _roll_up(context, later, tables=wanted, due_hour_utc=due_hour_utc)
        yield from ()

    return organic_paid_by_window


def windows_checks(table: RolledUp, *, due_hour_utc: int) -> dg.AssetChecksDefinition:
    """Return the checks of a table of windows: it is read back and held against the raw rows of its days."""

    def evaluate(later: LaterReportingResource, selected: Set[str]) -> Iterator[dg.AssetCheckResult]:
        lake, damage = later.lake(), list[str]()
        found: pa.Table | None = None
        try:
            found = lake.read_table(table.name, schema=schema_of(table.columns))
        except PartitionDamaged as error:
            damage.append(str(error))
        rows = schema_of(table.columns).empty_table() if found is None else found
        yield _evaluate_freshness(rows, due_hour_utc=due_hour_utc)
        yield from _evaluate_data(table, rows)
        differences, disagreeing = list[str](), 0
        if POSTS_AGREE in selected or (RECONCILES in selected and found is not None):
            differences, disagreeing = check_windows_of(lake, table, rows, memory_gb=later.memory_limit_gb())
        differences = damage or ([] if found is None else differences)
        yield _evaluate_reconciliation(differences, is_there=found is not None)
        yield _evaluate_campaigns(disagreeing)

    return checks_of(
        rollup_key(table),
        windows_checks_of(table),
        evaluate=evaluate,
        due_hour_utc=due_hour_utc,
        daily=[NEWEST_DUE_DAY],
    )


def windows_checks_of(table: RolledUp) -> Mapping[str, str]:
    """Return the description of each check of a table, by name."""
    return {**WINDOWS_CHECKS, **_data_checks(table)}


def _data_checks(table: RolledUp) -> Mapping[str, str]:
    """What the numbers of a table warn of."""
    return {name: description for name, (of_table, description) in DATA_CHECKS.items() if of_table == table.name}


def windows_lineage(table: RolledUp) -> dict[str, dg.TableColumnLineage]:
    """Return the metadata that says from which raw columns each column is made."""
    return {**column_lineage({RAW[basis]: table.columns_from(basis) for basis in table.bases})}


def _roll_up(
    context: AssetExecutionContext, later: LaterReportingResource, *, tables: Sequence[RolledUp], due_hour_utc: int
) -> None:
    """Roll up all windows as of the newest day that is there, and log each table.

    A file that cannot be read is left out, named in the log and the metadata, and counts as one that is not there:
    one damaged file of an instance does not keep the tables from all others.

    Raises:
        Failure: no posts have landed, or a table stayed as it was.
    """
    lake = later.lake()
    provenance = provenance_tags(context, *(dg.AssetKey(["later", asset]) for asset in RAW.values()))
    try:
        made = roll_up_windows_of(lake, tables, memory_gb=later.memory_limit_gb())
    except RollupFailed as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    for basis, asset in RAW.items():
        days = [partition.day for partition in made.files.partitions[asset]]
        context.log.info(
            f"Read {made.raw_rows[basis]:,} rows of {len(days):,} files of later/{asset}, {min(days)} to {max(days)}"
            if days
            else f"There are no files of later/{asset}"
        )
        for partition, why in made.files.unreadable[asset].items():
            context.log.warning(f"Left out {partition} of later/{asset}: {why}")
    if not any(made.files.partitions.values()):
        raise dg.Failure("There are no posts: materialize a raw table first.", allow_retries=False)
    failed: dict[str, str] = {}
    for table in tables:
        rows = made.tables[table.name]
        try:
            written = lake.write_table(table.name, rows)
        except LakeUnavailable as error:
            failed[table.name] = str(error)
            continue
        log_materialization(
            context,
            None,
            asset_key=rollup_key(table),
            data_version=written.content_hash,
            provenance=provenance,
            metadata={
                **written_metadata(written, is_partition=False),
                "preview": _preview(table, rows),
                **_read_metadata(made),
                **windows_lineage(table),
            },
        )
        context.log.info(
            f"Rolled up later/{table.name}: {written.rows:,} rows, {'changed' if written.changed else 'as they were'}"
        )
        results = [
            _evaluate_reconciliation(made.differences[table.name]),
            _evaluate_freshness(rows, due_hour_utc=due_hour_utc),
            *_evaluate_data(table, rows),
        ]
        if POSTS_AGREE in _data_checks(table):
            results.append(_evaluate_campaigns(made.posts_that_disagree))
        log_check_results(context, results, asset_key=rollup_key(table))
    if failed:
        raise failure_of(failed, what="table", written=len(tables) - len(failed))


def _evaluate_freshness(rows: pa.Table, *, due_hour_utc: int) -> dg.AssetCheckResult:
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    by_basis = rows.group_by("date_basis").aggregate([("last_day", "max")])
    newest = dict(zip(by_basis["date_basis"].to_pylist(), by_basis["last_day_max"].to_pylist(), strict=True))
    behind = [basis for basis in DateBasis if newest.get(basis, date.min) < due]
    return dg.AssetCheckResult(
        check_name=NEWEST_DUE_DAY,
        passed=not behind,
        description=(
            f"{due} is not in it by {' and '.join(behind)}: materialize it, or see its raw day"
            if behind
            else f"All windows end with {due} or later"
        ),
        metadata={"due_day": str(due), **{f"newest_day/{basis}": str(day) for basis, day in newest.items()}},
    )


def _evaluate_reconciliation(differences: Sequence[str], *, is_there: bool = True) -> dg.AssetCheckResult:
    """Return whether all windows have the totals of their raw rows, and what differs."""
    count = len(differences)
    return dg.AssetCheckResult(
        check_name=RECONCILES,
        passed=not count,
        description=(
            f"{count} totals differ from their raw rows, as {differences[0]}: materialize it"
            if differences
            else "All windows equal their raw rows"
            if is_there
            else "It is not there yet"
        ),
        metadata={
            "differing_totals": count,
            **({"differences": dg.MetadataValue.json([*differences])} if differences else {}),
        },
    )


def _evaluate_data(table: RolledUp, rows: pa.Table) -> Iterator[dg.AssetCheckResult]:
    """Yield what the numbers of a table warn of, from the table itself."""
    if COSTS_AGREE in _data_checks(table):
        yield _evaluate_costs(rows)
    if IMPRESSIONS_GO_ON in _data_checks(table):
        yield _evaluate_impressions(rows)


def _evaluate_costs(rows: pa.Table) -> dg.AssetCheckResult:
    of_all = rows.filter((pc.field("window") == "all") & (pc.field("date_basis") == str(DateBasis.POST_DATE)))
    bounded, contradictory = (
        sum(pc.sum(of_all[f"{channel}_spend_{which}posts"]).as_py() or 0 for channel in COMPARED)
        for which in ("", "contradictory_")
    )
    percent = 100 * contradictory / max(bounded + contradictory, 1)
    return dg.AssetCheckResult(
        check_name=COSTS_AGREE,
        passed=percent <= CONTRADICTORY_PERCENT,
        description=f"CPE and CPM contradict each other in {contradictory} of {bounded + contradictory} posts"
        + (
            ": the bounds of spend rest on both being rounded to two decimals"
            if percent > CONTRADICTORY_PERCENT
            else ""
        ),
        metadata={"posts": bounded + contradictory, "contradictory_posts": contradictory, "percent": percent},
        severity=dg.AssetCheckSeverity.WARN,
    )


def _evaluate_impressions(rows: pa.Table) -> dg.AssetCheckResult:
    """Return the platforms that reported impressions in 28 days, and none in the last 7 although they have posts."""
    recorded = rows.filter(pc.field("date_basis") == str(DateBasis.PERFORMANCE_DATE))
    reporting: dict[str, dict[tuple[str, str], tuple[int, int]]] = {}
    for row in recorded.select(["window", "instance_id", "platform", "posts", "organic_impressions_posts"]).to_pylist():
        of_window = reporting.setdefault(row["window"], {})
        key = row["instance_id"], row["platform"] or "other"
        posts, reports = of_window.get(key, (0, 0))
        of_window[key] = posts + (row["posts"] or 0), reports + (row["organic_impressions_posts"] or 0)
    before = {key for key, (_, reports) in reporting.get("28d", {}).items() if reports}
    vanished = [
        f"{platform} of {instance_id}"
        for (instance_id, platform), (posts, reports) in reporting.get("7d", {}).items()
        if posts and not reports and (instance_id, platform) in before
    ]
    return dg.AssetCheckResult(
        check_name=IMPRESSIONS_GO_ON,
        passed=not vanished,
        description=(
            f"No post of the last 7 days reports impressions on {first_of(vanished)}: request views (LATER_METRICS)"
            if vanished
            else "Every platform that reported impressions still does"
        ),
        metadata={"platforms": len(vanished)},
        severity=dg.AssetCheckSeverity.WARN,
    )


def _evaluate_campaigns(number: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=POSTS_AGREE,
        passed=not number,
        description=(
            f"{number} times a post has other numbers in one of its campaigns than in another on the same day. Where"
            " the grain has no campaign, those of its lowest campaign id count"
            if number
            else "Posts of several campaigns have the same numbers in each"
        ),
        metadata={"posts_and_days": number},
        severity=dg.AssetCheckSeverity.WARN,
    )


def _read_metadata(made: Windows) -> dict[str, Any]:
    """What the windows are made from: the days that are there, and the partitions between them that are not."""
    landed = landed_days(made.files)
    metadata: dict[str, Any] = {}
    for basis, name in RAW.items():
        instances = landed.get(basis, {})
        days = set[date]().union(*instances.values())
        metadata |= {
            f"rows/{name}": made.raw_rows[basis],
            f"days/{name}": len(days),
            f"newest_day/{name}": str(max(days, default="none")),
        }
        span = (max(days) - min(days)).days + 1 if days else 0
        missing = {each: span - len(there) for each, there in instances.items() if len(there) < span}
        metadata[f"missing/{name}"] = sum(missing.values())
        if missing:
            metadata[f"missing_days/{name}"] = dg.MetadataValue.json(missing)
        if unreadable := made.files.unreadable[name]:
            reasons = {f"{partition.day} {partition.instance_id}": str(why) for partition, why in unreadable.items()}
            metadata[f"unread/{name}"] = dg.MetadataValue.json(reasons)
    return metadata


def _preview(table: RolledUp, rows: pa.Table) -> dg.MarkdownMetadataValue:
    """The groups of one window that were seen most."""
    seen = rows.filter(
        (pc.field("window") == _PREVIEWED_WINDOW) & (pc.field("date_basis") == str(DateBasis.PERFORMANCE_DATE))
    ).sort_by([("organic_impressions", "descending")])
    names = [*table.grain, *table.labels[:1], *_PREVIEW_COLUMNS]
    return preview(seen.select(names))
