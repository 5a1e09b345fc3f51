"""One run, many partitions: each is logged as it is finished, and what failed is raised at the end, by name.

The assets of this project are materialized by events that they log themselves, one a partition, because a run's own
output would mark all of its partitions as done, failed ones included.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.partitions import partition_key
from later_reporting_dagster.defs.runs.verdicts import Verdict
from later_reporting_dagster.lake import LakeUnavailable, Partition, PartitionDamaged

# A description is read by people; the metadata holds all of them.
DESCRIBED_FAILURES = 20
FAILED_PARTITIONS = "failed_partitions"


def log_materialization(
    context: AssetExecutionContext,
    partition: Partition | None,
    *,
    data_version: str,
    metadata: Mapping[str, Any],
    provenance: Mapping[str, str] | None = None,
    asset_key: dg.AssetKey | None = None,
) -> None:
    """Records that a partition is there, its content hash as data version and, for a rollup, what it was made from.

    A table without partitions has None; of a step that makes several assets, `asset_key` says which it is.
    """
    context.log_event(
        _materialization(
            asset_key or context.asset_key,
            partition,
            data_version=data_version,
            metadata=metadata,
            provenance=provenance,
        )
    )


def _materialization(
    asset_key: dg.AssetKey,
    partition: Partition | None,
    *,
    data_version: str,
    metadata: Mapping[str, Any],
    provenance: Mapping[str, str] | None = None,
) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset_key=asset_key,
        partition=None if partition is None else partition_key(partition),
        metadata=dict(metadata),
        tags={"dagster/data_version": data_version, **(provenance or {})},
    )


def provenance_tags(context: AssetExecutionContext, *upstream: dg.AssetKey) -> Mapping[str, str]:
    """Says up to which event of each `upstream` this run reads; to be asked for before anything is read.

    Without it the UI goes by time alone, and calls a rollup unsynced when its posts were fetched again unchanged.
    """
    tags = {"dagster/code_version": context.run.run_id}
    for key in upstream:
        newest = context.instance.fetch_materializations(key, limit=1).records
        name = key.to_user_string()
        # Dagster compares the versions of each upstream partition after the event; this one stands for all of them.
        tags[f"dagster/input_data_version/{name}"] = "by partition"
        tags[f"dagster/input_event_pointer/{name}"] = str(newest[0].storage_id) if newest else "NULL"
    return tags


def log_verdicts(
    context: AssetExecutionContext, verdicts: Iterable[Verdict], *, asset_key: dg.AssetKey | None = None
) -> None:
    """Records what the checks of a run say. One that cannot be asked is told in the log, and hides no other news."""
    try:
        for verdict in verdicts:
            context.log_event(verdict.evaluation(asset_key or context.asset_key))
    except (LakeUnavailable, PartitionDamaged) as error:
        context.log.warning(f"Not all checks could be asked: {error}")


def failure_of(failed: Mapping[str, str], *, landed: int) -> dg.Failure:
    """The one failure of a run: each partition key that failed, and why. Not retried whole, since the rest is done."""
    reasons = {str(key): failed[key] for key in sorted(failed)}
    lines = [f"{key}: {reason}" for key, reason in list(reasons.items())[:DESCRIBED_FAILURES]]
    if len(reasons) > len(lines):
        lines.append(f"… and {len(reasons) - len(lines)} more, in the metadata")
    count = len(reasons)
    headline = f"{count} partition{'s' * (count != 1)} failed and stayed as before; {landed} landed."
    return dg.Failure(
        "\n".join([headline, *lines]),
        metadata={FAILED_PARTITIONS: dg.MetadataValue.json(reasons)},
        allow_retries=False,
    )
