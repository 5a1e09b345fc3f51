"""What the tables that are fetched day by day share: their run config, and the events of their days."""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from later_reporting_dagster.client import ClientEvent
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.event_loop import iterate
from later_reporting_dagster.defs.events import combined_failure, logged_instances, partition_materialization, preview
from later_reporting_dagster.ingest.campaign_performance import RouteRefused
from later_reporting_dagster.ingest.fetch_days import DayFetch, FetchedDay, fetch_days, files_of_day
from later_reporting_dagster.ingest.progress import Progress
from later_reporting_dagster.lake import Lake, Partition, WriteResult
from later_reporting_dagster.lake.lake import FETCHED_AT
from later_reporting_dagster.lake.parquet_file import FileMetadata

# The columns of posts, or of campaigns, that a preview shows.
_PREVIEW_COLUMNS = (
    *("instance_id", "post_id", "content_type", "creator_handle_name", "campaign_id", "paid_ad_spend"),
    *("impressions", "engagements", "paid_impressions", "paid_engagements"),
)


class FetchConfig(dg.Config):
    """Run config of a fetch; by default it fetches every selected day."""

    only_missing: bool = Field(default=False, description="Fetch only files that are not in the lake.")
    accept_shrinking: bool = Field(
        default=False,
        description="Also replace files that lose more rows than LATER_SHRINK_LIMIT_PERCENT allows, or all values of"
        " their metrics. Use it if rows or values were really deleted.",
    )


@dataclass(slots=True)
class FetchOutcome:
    """What a fetch did, besides the days that it has yielded.

    Attributes:
        written: files with a result, whether or not they changed.
        failed: reasons, by day and instance.
        expected: the instances that a complete day has; empty if a file has the rows of all.
    """

    written: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    expected: Sequence[str] = ()

    def failure(self) -> dg.Failure:
        return combined_failure(self.failed, what="file", written=self.written)


def fetched(
    context: dg.AssetExecutionContext, component: ComponentBase, fetch: DayFetch
) -> Generator[dg.AssetMaterialization, None, FetchOutcome]:
    """Fetch days, yield the materialization of each, and return what failed.

    If the API refuses the route of campaigns, this is a warning.
    """
    later, progress, outcome = component.later(context), Progress(fetch.table.name), FetchOutcome()
    lake = later.lake()
    later.fetches.append(progress)
    context.log.info(
        f"Fetching {len(fetch.days)} days since {min(fetch.days)}{', only missing files' * fetch.only_missing}"
    )

    def log_event(event: ClientEvent) -> None:
        if line := progress.count(event):
            context.log.info(line)

    client = later.client(on_event=log_event)
    days = fetch_days(fetch, client=client, lake=lake, progress=progress, now=component.now)
    materialized = files_changed = 0
    logged: Mapping[str | None, Any] | None = None
    try:
        for day in later.until_end_of_run(iterate(days)):
            outcome.expected = day.expected
            outcome.failed |= {str(Partition(day.day, name)): reason for name, reason in day.failed.items()}
            if not day.written:
                # Files of the lake may be those of a run that was killed before it logged their day, or of an earlier
                # instance of Dagster.
                logged = logged_instances(context.instance, context.asset_key) if logged is None else logged
                if day.failed or len(day.present) <= logged.get(str(day.day), 0):
                    continue
            materialized += 1
            files_changed += sum(file.changed for file in day.written.values())
            yield _materialization(context, day, files=files_of_day(day, fetch.table, lake), lake=lake)
    except RouteRefused as refused:
        progress.warnings.append(refusal_warning(context, refused))
    for warning in progress.warnings:
        context.log.warning(warning)
    context.log.info(
        f"{progress.written} of {progress.partitions} files written, {files_changed} of them changed;"
        f" {materialized} days materialized; {progress.rows} rows; {progress.requests} requests,"
        f" {progress.retries} retries, {progress.rate_limit_waits} waits for the rate limit"
    )
    outcome.written = progress.written
    return outcome


def refusal_warning(context: dg.AssetExecutionContext, refused: RouteRefused) -> str:
    return (
        f"{context.asset_key.to_user_string()} was not updated, because the API refuses its route: {refused} All other"
        f" tables work without it. To request it no more, set LATER_TABLES (tables) to -{context.asset_key.path[-1]}."
    )


def _materialization(
    context: dg.AssetExecutionContext,
    day: FetchedDay,
    *,
    files: Mapping[str | None, WriteResult | FileMetadata],
    lake: Lake,
) -> dg.AssetMaterialization:
    """Return the event of a day. Its data version covers all of its files, its counts only what was fetched."""
    missing = [name for name in day.expected if name not in day.present]
    failed = {str(name): reason for name, reason in day.failed.items()}
    return partition_materialization(
        context,
        day.day,
        data_version=day_version(files),
        metadata={
            "dagster/partition_row_count": sum(file.rows for file in files.values()),
            "dagster/uri": lake.day_url(context.asset_key.path[-1], day.day),
            **({"instances": len(day.present)} if day.expected else {}),
            "files_changed": sum(file.changed for file in day.written.values()),
            **({"missing_instances": dg.MetadataValue.json(missing)} if missing else {}),
            **({"failed_instances": dg.MetadataValue.json(failed)} if failed else {}),
            **({"bad_rows": day.bad_rows} if day.bad_rows else {}),
            **{f"change/{name}": count for name, count in day.changes.items()},
            **({} if day.sample is None else {"preview": _preview(day.sample)}),
        },
    )


def _preview(rows: pa.Table) -> dg.TableMetadataValue:
    return preview(rows.select([name for name in _PREVIEW_COLUMNS if name in rows.column_names]))


def day_version(files: Mapping[str | None, WriteResult | FileMetadata]) -> str:
    """Return the data version of a day: a SHA-256 of the content of all its files, and of when that was fetched.

    The latter, because a file that was lost or damaged may be fetched again with its old rows, and what was computed
    without them has to follow.
    """
    lines = [f"{name!a} {file.content_hash} {file.key_values.get(FETCHED_AT)}\n" for name, file in files.items()]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()
