"""One run, many partitions: each is logged as it is finished, and what failed is raised at the end, by name.

The assets of this project are materialized by events that they log themselves, one a partition, because a run's own
output would mark all of its partitions as done, failed ones included.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from later_reporting_dagster.defs.partitions import partition_key
from later_reporting_dagster.lake import Partition

# A description is read by people; the metadata holds all of them.
DESCRIBED_FAILURES = 20
FAILED_PARTITIONS = "failed_partitions"


def log_materialization(
    context: AssetExecutionContext, partition: Partition, *, data_version: str, metadata: Mapping[str, Any]
) -> None:
    """Records that a partition is there, with its content hash as data version."""
    context.log_event(
        dg.AssetMaterialization(
            asset_key=context.asset_key,
            partition=partition_key(partition),
            metadata=dict(metadata),
            tags={"dagster/data_version": data_version},
        )
    )


def failure_of(failed: Mapping[Partition, str], *, landed: int) -> dg.Failure:
    """The one failure of a run: each partition that failed, and why. Not retried as a whole, since the rest is done."""
    reasons = {str(partition_key(partition)): failed[partition] for partition in sorted(failed)}
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
