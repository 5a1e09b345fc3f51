"""Events of a run that fills many partitions: one materialization per partition, and one failure at the end.

A run's own output would mark all of its partitions as materialized, the failed ones included. So the assets log an
`AssetMaterialization` for each partition that was filled, with `output_required=False`, and raise what failed last.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

# A description is read by people, and an event with a million failures by nobody.
DESCRIBED_FAILURES = 20
RECORDED_FAILURES = 5_000
FAILED_PARTITIONS = "failed_partitions"


def log_materialization(
    context: AssetExecutionContext,
    day: date | None,
    *,
    data_version: str,
    metadata: Mapping[str, Any],
    provenance: Mapping[str, str] | None = None,
    asset_key: dg.AssetKey | None = None,
) -> None:
    """Log that a partition is there.

    Args:
        context: the step's.
        day: the first day of the partition; None for a table without partitions.
        data_version: changes when the content does, which is what downstream assets follow.
        metadata: shown in the UI.
        provenance: `provenance_tags` of a rollup.
        asset_key: which asset, in a step that makes several.
    """
    context.log_event(
        dg.AssetMaterialization(
            asset_key=asset_key or context.asset_key,
            partition=None if day is None else day.isoformat(),
            metadata=dict(metadata),
            tags={"dagster/data_version": data_version, **(provenance or {})},
        )
    )


def provenance_tags(context: AssetExecutionContext, *upstream: dg.AssetKey) -> Mapping[str, str]:
    """Return tags that say up to which event of each `upstream` this run reads; call it before anything is read.

    Without them the UI goes by time alone, and calls a rollup unsynced when its posts were fetched again unchanged.
    """
    tags = {"dagster/code_version": context.run.run_id}
    for key in upstream:
        newest = context.instance.fetch_materializations(key, limit=1).records
        name = key.to_user_string()
        # Dagster compares the versions of each upstream partition after the event; this one stands for all of them.
        tags[f"dagster/input_data_version/{name}"] = "by partition"
        tags[f"dagster/input_event_pointer/{name}"] = str(newest[0].storage_id) if newest else "NULL"
    return tags


def failure_of(failed: Mapping[str, str], *, what: str, written: int) -> dg.Failure:
    """Return the one failure of a run, which is not retried whole, since the rest is done.

    Args:
        failed: the reason of each failure, by partition, or by day and instance.
        what: what failed, in the singular.
        written: how many of them were written.
    """
    reasons = {key: failed[key] for key in sorted(failed)}
    count = len(reasons)
    lines = [f"{key}: {reason}" for key, reason in list(reasons.items())[:DESCRIBED_FAILURES]]
    if count > len(lines):
        lines.append(f"… and {count - len(lines)} more, in the metadata")
    headline = f"{count} {what}{'s' * (count != 1)} failed and stayed as before; {written} written."
    return dg.Failure(
        "\n".join([headline, *lines]),
        metadata={FAILED_PARTITIONS: dg.MetadataValue.json(dict(list(reasons.items())[:RECORDED_FAILURES]))},
        allow_retries=False,
    )
