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
from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, RECONCILES, checks_of, log_check_results
from later_reporting_dagster.defs.events import failure_of, log_materialization, provenance_tags
from later_reporting_dagster.defs.metadata import column_lineage, preview, table_metadata, written_metadata
from later_reporting_dagster.defs.organic_paid import RAW, ROLLUPS_GROUP, rollup_key, rollup_tags
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import Lake, LakeUnavailable, PartitionDamaged, schema_of
from later_reporting_dagster.reading.raw import AllRead, read_all
from later_reporting_dagster.rollups.periods import organic_paid_by, rows_schema
from later_reporting_dagster.rollups.reconciliation import window_totals_that_differ
from later_reporting_dagster.rollups.sums import SumOutOfRange
from later_reporting_dagster.rollups.tables import RolledUp

WINDOWS_CHECKS: Mapping[str, str] = {
    RECONCILES: "The totals of each window, and of the period before it, equal those of the raw rows of its days.",
    NEWEST_DUE_DAY: "Its windows end with the newest day that is due, or later.",
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
        lake = later.lake()
        try:
            found = lake.read_table(table.name, schema=schema_of(table.columns))
        except PartitionDamaged as error:
            yield _evaluate_reconciliation([str(error)])
            found = None
        else:
            if RECONCILES in selected and found is not None:
                read = _read(lake, [table])
                landed = {basis: each.landed for basis, each in read.items()}
                differing = window_totals_that_differ(landed, {table.name: found}, tables=[table])[table.name]
                unread = [str(error) for each in read.values() for error in each.unread.values()]
                yield _evaluate_reconciliation([*unread, *differing])
            elif RECONCILES in selected:
                yield _evaluate_reconciliation([], is_there=False)
        if NEWEST_DUE_DAY in selected:
            rows = schema_of(table.columns).empty_table() if found is None else found
            yield _evaluate_freshness(rows, due_hour_utc=due_hour_utc)

    return checks_of(
        rollup_key(table), WINDOWS_CHECKS, evaluate=evaluate, due_hour_utc=due_hour_utc, daily=[NEWEST_DUE_DAY]
    )


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
    read = _read(lake, tables)
    for basis, found in read.items():
        days = found.landed.all_days
        context.log.info(
            f"Read {found.landed.rows.num_rows:,} rows of {found.partitions:,} files of"
            f" later/{RAW[basis]}, {min(days)} to {max(days)}"
            if days
            else f"There are no files of later/{RAW[basis]}"
        )
        for partition, error in found.unread.items():
            context.log.warning(f"Left out {partition} of later/{RAW[basis]}: {error}")
    if not any(found.partitions for found in read.values()):
        raise dg.Failure("There are no posts: materialize a raw table first.", allow_retries=False)
    landed = {basis: found.landed for basis, found in read.items()}
    try:
        rolled_up = organic_paid_by(landed, tables=tables)
    except SumOutOfRange as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    differences = window_totals_that_differ(landed, rolled_up, tables=tables)
    failed: dict[str, str] = {}
    for table in tables:
        rows = rolled_up[table.name]
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
                **_read_metadata(read),
                **windows_lineage(table),
            },
        )
        context.log.info(
            f"Rolled up later/{table.name}: {written.rows:,} rows, {'changed' if written.changed else 'as they were'}"
        )
        results = [
            _evaluate_reconciliation(differences[table.name]),
            _evaluate_freshness(rows, due_hour_utc=due_hour_utc),
        ]
        log_check_results(context, results, asset_key=rollup_key(table))
    if failed:
        raise failure_of(failed, what="table", written=len(tables) - len(failed))


def _read(lake: Lake, tables: Sequence[RolledUp]) -> dict[DateBasis, AllRead]:
    schema = rows_schema(*tables, dated=True)
    return {basis: read_all(lake, asset, schema=schema) for basis, asset in RAW.items()}


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


def _read_metadata(read: Mapping[DateBasis, AllRead]) -> dict[str, Any]:
    """What the windows are made from: the days that are there, and the partitions between them that are not."""
    told: dict[str, Any] = {}
    for basis, found in read.items():
        days = found.landed.all_days
        name = RAW[basis]
        told |= {
            f"rows/{name}": found.landed.rows.num_rows,
            f"days/{name}": len(days),
            f"newest_day/{name}": str(max(days, default="none")),
        }
        span = (max(days) - min(days)).days + 1 if days else 0
        missing = {each: span - len(there) for each, there in found.landed.days.items() if len(there) < span}
        told[f"missing/{name}"] = sum(missing.values())
        if missing:
            told[f"missing_days/{name}"] = dg.MetadataValue.json(missing)
        if found.unread:
            reasons = {
                f"{partition.day} {partition.instance_id}": str(error) for partition, error in found.unread.items()
            }
            told[f"unread/{name}"] = dg.MetadataValue.json(reasons)
    return told


def _preview(table: RolledUp, rows: pa.Table) -> dg.MarkdownMetadataValue:
    """The groups of one window that were seen most."""
    seen = rows.filter(
        (pc.field("window") == _PREVIEWED_WINDOW) & (pc.field("date_basis") == str(DateBasis.PERFORMANCE_DATE))
    ).sort_by([("organic_impressions", "descending")])
    names = [*table.grain, *table.labels[:1], *_PREVIEW_COLUMNS]
    return preview(seen.select(names))
