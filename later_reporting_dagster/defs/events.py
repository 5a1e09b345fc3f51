"""The events of a run: materializations with their metadata, and one failure for everything that failed.

Dagster would give all partitions of a run one data version, and mark failed ones as materialized, too. So partitioned
assets yield an `AssetMaterialization` per written partition, and at their end raise a `Failure` or yield
`nothing_to_log`. They yield and do not log, because Dagster delays interrupts only while it writes what is yielded.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster import AssetExecutionContext

from later_reporting_dagster.client import LaterError
from later_reporting_dagster.contract.days import contiguous_ranges, day_ranges
from later_reporting_dagster.defs.checks.check import join_first
from later_reporting_dagster.defs.dagster_private import NOTHING_TO_LOG, materializations, newest_materialization_ids
from later_reporting_dagster.ingest.decide import ALLOW_ROW_LOSS_COMMAND
from later_reporting_dagster.ingest.fetch_days import FetchedDay
from later_reporting_dagster.ingest.progress import is_temporary
from later_reporting_dagster.lake import FileDamaged, Lake, LakeUnavailable, WriteResult
from later_reporting_dagster.lake.coverage import day_version
from later_reporting_dagster.lake.file_metadata import FETCHED_AT, FileMetadata, instant_text
from later_reporting_dagster.rollups.sql_engine import RollupFailed

# Maximum number of failures in the description (kept readable) and in the metadata (the event log limits its size).
DESCRIBED_FAILURES = 20
RECORDED_FAILURES = 5_000
FAILED_PARTITIONS = "failed_partitions"
_DAY_AND_NAME = re.compile(r"(\d{4}-\d\d-\d\d)? ?(.*)", re.DOTALL)
RECORDS_PER_QUERY = 500
# Dagster keeps the preview of each day in its database, every time that the day is fetched: no names of creators.
PREVIEW_COLUMNS, PREVIEW_CHARACTERS = 12, 60
# The columns of posts, or of campaigns, that the preview of a day shows.
PREVIEWED = (
    *("instance_id", "post_id", "content_type", "campaign_id", "paid_ad_spend"),
    *("impressions", "engagements", "paid_impressions", "paid_engagements"),
)


@contextmanager
def failures() -> Iterator[None]:
    """Convert errors of the API and the lake to failures. The message is complete; a stack trace would hide it.

    The retry policy of a step retries those for which it may suffice to run again later.
    """
    try:
        yield
    except (LaterError, LakeUnavailable, FileDamaged, RollupFailed) as error:
        raise dg.Failure(str(error), allow_retries=is_temporary(error)) from None


def day_materialization(
    context: AssetExecutionContext,
    day: FetchedDay,
    *,
    files: Mapping[str | None, WriteResult | FileMetadata],
    lake: Lake,
) -> dg.AssetMaterialization:
    """Return the event of a fetched day.

    Its data version is a hash of the content of all files of the day, and of when that was fetched. `files` are all of
    them; what the metadata counts as changed are those of this run.
    """
    missing = [name for name in day.expected if name not in day.present]
    shown = [] if day.sample is None else [name for name in PREVIEWED if name in day.sample.column_names]
    failed = {str(name): reason for name, reason in day.failed.items()}
    return partition_materialization(
        context,
        day.day,
        data_version=day_version({name: content_of(file) for name, file in files.items()}),
        metadata={
            "dagster/partition_row_count": sum(file.rows for file in files.values()),
            "dagster/uri": lake.day_url(context.asset_key.path[-1], day.day),
            **({"instances": len(day.present)} if day.expected else {}),
            "files_changed": sum(file.changed for file in day.written.values()),
            **({"missing_instances": dg.MetadataValue.json(missing)} if missing else {}),
            **({"failed_instances": dg.MetadataValue.json(failed)} if failed else {}),
            **({"bad_rows": day.bad_rows} if day.bad_rows else {}),
            **{f"change/{name}": count for name, count in day.changes.items()},
            **({} if day.sample is None else {"preview": preview(day.sample.select(shown))}),
        },
    )


def partition_materialization(
    context: AssetExecutionContext,
    day: date,
    *,
    data_version: str,
    metadata: Mapping[str, Any],
    provenance: Mapping[str, str] | None = None,
) -> dg.AssetMaterialization:
    """Return the event of the partition that starts with `day`. `provenance` are tags from `provenance_tags`."""
    key = context.asset_key
    tags = version_tags(data_version, code_version=context.assets_def.get_asset_spec(key).code_version)
    return dg.AssetMaterialization(
        asset_key=key, partition=day.isoformat(), metadata=dict(metadata), tags={**tags, **(provenance or {})}
    )


def content_of(file: WriteResult | FileMetadata) -> tuple[str | None, str | None]:
    """Return what `day_version` needs of a file."""
    if isinstance(file, WriteResult):
        return file.content_hash, file.key_values.get(FETCHED_AT)
    return file.content_hash, instant_text(file.fetched_at) if file.fetched_at else None


def nothing_to_log(context: AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """Return the last result of a step that has yielded its materializations, or has none.

    Without a result, Dagster skips the checks of the asset and everything downstream of it in the same run. A result
    without this metadata would be logged for each partition of the run.
    """
    return dg.MaterializeResult(asset_key=context.asset_key, metadata={NOTHING_TO_LOG: True})


def version_tags(data_version: str, *, code_version: str | None) -> dict[str, str]:
    """Return the tags of a materialization that record its data version and the code version of its asset."""
    tags = {"dagster/data_version": data_version}
    return tags if code_version is None else tags | {"dagster/code_version": code_version}


def data_versions(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str | None, str | None]:
    """Return the newest data version of each partition; of an asset without partitions, that of None."""
    by_partition = newest_materialization_ids(instance, key)
    ids = by_partition or [record.storage_id for record in instance.fetch_materializations(key, limit=1).records]
    versions: dict[str | None, str | None] = {}
    for start in range(0, len(ids), RECORDS_PER_QUERY):
        filter_ = dg.AssetRecordsFilter(key, storage_ids=ids[start : start + RECORDS_PER_QUERY])
        for event in materializations(instance, filter_, limit=RECORDS_PER_QUERY):
            versions[event.partition] = (event.tags or {}).get("dagster/data_version")
    return versions


def provenance_tags(context: AssetExecutionContext, upstream: dg.AssetKey) -> dict[str, str]:
    """Return tags that name the newest materialization of a partitioned asset; call it before reading the asset.

    Without these tags, the UI compares only times: it shows a rollup as unsynced after its posts were fetched again,
    even if they did not change.
    """
    newest = context.instance.fetch_materializations(upstream, limit=1).records
    name = upstream.to_user_string()
    return {
        # Dagster does not compare this version of a partitioned upstream. It compares those of the upstream partitions
        # that were materialized after the event in `input_event_pointer`.
        f"dagster/input_data_version/{name}": "by partition" if newest else "INITIAL",
        f"dagster/input_event_pointer/{name}": str(newest[0].storage_id) if newest else "NULL",
    }


def table_result(
    written: WriteResult,
    metadata: Mapping[str, Any],
    *,
    key: dg.AssetKey | None = None,
    data_version: str | None = None,
) -> dg.MaterializeResult[Any]:
    """Return the result of an asset without partitions. By default, its data version is the hash of its content."""
    return dg.MaterializeResult(
        asset_key=key,
        data_version=dg.DataVersion(data_version or written.content_hash),
        metadata={"dagster/row_count": written.rows, **written_metadata(written), **metadata},
    )


def written_metadata(written: WriteResult) -> dict[str, Any]:
    """Return the metadata of a written file that `later-reporting` prints."""
    return {"dagster/uri": written.url, "changed": written.changed}


def combined_failure(
    failed: Mapping[str, str], *, asset: str, what: str, written: int, is_temporary: bool = False
) -> dg.Failure:
    """Return one failure for all failed partitions of a run.

    Args:
        failed: reasons by partition, (day, instance) pair or period.
        asset: the name of the asset.
        what: a noun for these, in the singular.
        is_temporary: whether a retry may make some of them.
    """
    reasons = {key: failed[key] for key in sorted(failed)}
    count = len(reasons)
    lines = [f"{subject}: {reason}" for subject, reason in describe_failures(failed, asset=asset, what=what)]
    if (more := len(lines) - DESCRIBED_FAILURES) > 0:
        lines[DESCRIBED_FAILURES:] = [f"… and {more} more reasons, in the metadata"]
    headline = f"{what} failed and was" if count == 1 else f"{what}s failed and were"
    return dg.Failure(
        "\n".join([f"{count} {headline} not changed; {written} written.", *lines]),
        metadata={FAILED_PARTITIONS: dg.MetadataValue.json(dict(list(reasons.items())[:RECORDED_FAILURES]))},
        allow_retries=is_temporary,
    )


def describe_failures(failed: Mapping[str, str], *, asset: str, what: str = "file") -> list[tuple[str, str]]:
    """Return each reason once, after what failed for it, such as `3 files, 2024-03-01 to 2024-03-03, instance_000`.

    `failed` are reasons by partition, (day, instance) pair or table. Where they advise to accept a loss, the command is
    one for these files.
    """
    keys: dict[str, list[str]] = {}
    for key in sorted(failed):
        keys.setdefault(failed[key], []).append(key)
    return [
        (_subject(of_reason, what), reason.replace(ALLOW_ROW_LOSS_COMMAND, _allow_row_loss(asset, of_reason)))
        for reason, of_reason in keys.items()
    ]


def _subject(keys: Sequence[str], what: str) -> str:
    if len(keys) == 1:
        return keys[0]
    days, names = _days_and_names(keys)
    return ", ".join([f"{len(keys)} {what}s", *(join_first(each) for each in (day_ranges(days), names) if each)])


def _days_and_names(keys: Sequence[str]) -> tuple[set[date], list[str]]:
    parts = [_DAY_AND_NAME.findall(key)[0] for key in keys]
    return {date.fromisoformat(day) for day, _ in parts if day}, sorted({name for _, name in parts if name})


def _allow_row_loss(asset: str, keys: Sequence[str]) -> str:
    """Return the commands that accept the loss of rows in these files: one for each range of days."""
    command = f"later-reporting backfill --asset {asset}"
    days, names = _days_and_names(keys)
    if not days:  # of periods, which have no partitions
        return f"`{command} --allow-row-loss`"
    instances = f" --instances {shlex.quote(','.join(names))}" if names else ""
    return join_first(
        [
            f"`{command} --start {first} --end {last}{instances} --allow-row-loss`"
            for first, last in contiguous_ranges(days)
        ]
    )


def preview(rows: pa.Table, *, limit: int = 5) -> dg.TableMetadataValue:
    """Return the first rows and columns. Long texts are cut, because a creator's name may have a megabyte."""
    names, records = rows.column_names[:PREVIEW_COLUMNS], []
    as_text = (date, str, list)
    for row in rows.slice(0, limit).select(names).to_pylist():
        texts = {name: str(value)[:PREVIEW_CHARACTERS] for name, value in row.items() if isinstance(value, as_text)}
        records.append(dg.TableRecord(row | texts))
    return dg.MetadataValue.table(records, dg.TableSchema([dg.TableColumn(name) for name in names]))
