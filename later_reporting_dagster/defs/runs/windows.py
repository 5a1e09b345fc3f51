"""A run of the tables of windows: reads all posts once, and rolls each table up from them."""

from collections.abc import Iterator, Mapping, Sequence, Set
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
from dagster import AssetExecutionContext

from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.defs.checks import NEWEST_DUE_DAY, RECONCILES
from later_reporting_dagster.defs.partitions import partition_key
from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.defs.runs.landed import AllRead, read_all
from later_reporting_dagster.defs.runs.materializations import log_materialization, log_verdicts, provenance_tags
from later_reporting_dagster.defs.runs.metadata import preview, written_metadata
from later_reporting_dagster.defs.runs.verdicts import Verdict, due_day, windows_due_verdict, windows_verdict
from later_reporting_dagster.defs.windows import SOURCES, windows_key, windows_lineage
from later_reporting_dagster.lake import Lake, LakeUnavailable, PartitionDamaged, schema_of
from later_reporting_dagster.rollups import (
    WINDOWS,
    RolledUp,
    SumOutOfRange,
    organic_paid_by,
    rows_schema,
    window_totals_that_differ,
)

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


def roll_up_windows(
    context: AssetExecutionContext, later: LaterReportingResource, *, tables: Sequence[RolledUp], due_hour_utc: int
) -> Iterator[dg.MaterializeResult[Any]]:
    """Rolls up all windows as of the newest day that is there, and logs each table.

    A partition that cannot be read is left out, told in the log and the metadata, and counts as one that has not
    landed: one damaged file of an instance does not keep the tables from all others.

    Raises:
        Failure: no posts have landed, or a table stayed as it was.
    """
    lake = later.lake()
    provenance = provenance_tags(context, *(dg.AssetKey(["later", source.asset]) for source in SOURCES.values()))
    read = _read(lake, tables)
    for basis, found in read.items():
        days = found.landed.all_days
        context.log.info(
            f"Read {found.landed.rows.num_rows:,} rows of {found.partitions:,} partitions of"
            f" later/{SOURCES[basis].asset}, {min(days)} to {max(days)}"
            if days
            else f"Nothing has landed of later/{SOURCES[basis].asset}"
        )
        for partition, error in found.unread.items():
            context.log.warning(f"Left out {partition_key(partition)} of later/{SOURCES[basis].asset}: {error}")
    if not any(found.partitions for found in read.values()):
        raise dg.Failure("No posts have landed: materialize a raw table first.", allow_retries=False)
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
            asset_key=windows_key(table),
            data_version=written.content_hash,
            provenance=provenance,
            metadata={
                **written_metadata(written, preview=_preview(table, rows)),
                **_read_metadata(read),
                **_plotted(rows),
                **windows_lineage(table),
            },
        )
        context.log.info(
            f"Rolled up later/{table.name}: {written.rows:,} rows, {'changed' if written.changed else 'as they were'}"
        )

        def verdicts(table: RolledUp = table, rows: pa.Table = rows) -> Iterator[Verdict]:
            yield windows_verdict(differences[table.name])
            yield _newest_due_day(rows, due_hour_utc=due_hour_utc)

        log_verdicts(context, verdicts(), asset_key=windows_key(table))
    if failed:
        lines = [f"{name}: {reason}" for name, reason in failed.items()]
        raise dg.Failure("\n".join(["Stayed as before:", *lines]), allow_retries=False)
    yield from ()


def verdicts_on_windows(table: RolledUp, *, wanted: Set[str], lake: Lake, due_hour_utc: int) -> Iterator[Verdict]:
    """The verdicts on a table of windows as it lies in the lake, held against all raw rows."""
    try:
        found = lake.read_table(table.name, schema=schema_of(table.columns))
    except PartitionDamaged as error:
        yield windows_verdict([str(error)])
        found = None
    else:
        if RECONCILES in wanted and found is not None:
            read = _read(lake, [table])
            landed = {basis: each.landed for basis, each in read.items()}
            differing = window_totals_that_differ(landed, {table.name: found}, tables=[table])[table.name]
            unread = [str(error) for each in read.values() for error in each.unread.values()]
            yield windows_verdict([*unread, *differing])
        elif RECONCILES in wanted:
            yield windows_verdict([], is_there=False)
    if NEWEST_DUE_DAY in wanted:
        rows = schema_of(table.columns).empty_table() if found is None else found
        yield _newest_due_day(rows, due_hour_utc=due_hour_utc)


def _read(lake: Lake, tables: Sequence[RolledUp]) -> dict[DateBasis, AllRead]:
    schema = rows_schema(*tables, dated=True)
    return {basis: read_all(lake, source.asset, schema=schema) for basis, source in SOURCES.items()}


def _newest_due_day(rows: pa.Table, *, due_hour_utc: int) -> Verdict:
    due = due_day(datetime.now(UTC), due_hour_utc=due_hour_utc)
    newest: dict[str, date] = {}
    for basis in DateBasis:
        of_basis = rows.filter(pc.field("date_basis") == str(basis))
        if of_basis.num_rows:
            newest[str(basis)] = pc.max(of_basis["last_day"]).as_py()
    return windows_due_verdict(due, newest)


def _read_metadata(read: Mapping[DateBasis, AllRead]) -> dict[str, Any]:
    """What the windows are made from: the days that are there, and the partitions between them that are not."""
    told: dict[str, Any] = {}
    for basis, found in read.items():
        days = found.landed.all_days
        name = SOURCES[basis].asset
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
            reasons = {partition_key(partition): str(error) for partition, error in found.unread.items()}
            told[f"unread/{name}"] = dg.MetadataValue.json(reasons)
    return told


def _plotted(rows: pa.Table) -> dict[str, Any]:
    """The lift's verdicts, of the groups of each window by performance date: how many are more than noise."""
    of_basis = rows.filter(pc.field("date_basis") == str(DateBasis.PERFORMANCE_DATE))
    return {
        f"groups_with_a_verdict/{window}": len(verdicts) - verdicts.null_count
        for window in WINDOWS
        if (verdicts := of_basis.filter(pc.field("window") == window)["paid_lift_verdict"]) is not None
    }


def _preview(table: RolledUp, rows: pa.Table) -> dg.MarkdownMetadataValue:
    """The groups of one window that were seen most."""
    seen = rows.filter(
        (pc.field("window") == _PREVIEWED_WINDOW) & (pc.field("date_basis") == str(DateBasis.PERFORMANCE_DATE))
    ).sort_by([("organic_impressions", "descending")])
    names = [*table.grain, *table.labels[:1], *_PREVIEW_COLUMNS]
    return preview(seen.select(names))
