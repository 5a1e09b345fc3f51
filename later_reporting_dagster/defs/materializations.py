"""Log one materialization per partition, and raise one failure for all failed partitions of a run.

Dagster would give all partitions of a run one data version, and mark failed ones as materialized, too. So the steps log
an `AssetMaterialization` per written partition, and at their end raise a `Failure` or yield `already_logged`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

# Not public in Dagster. tests/defs/test_same_run.py fails if it loses its effect.
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION
from dagster._utils.interrupts import capture_interrupts, pop_captured_interrupt

# Maximum number of failures in the description (kept readable) and in the metadata (the event log limits its size).
DESCRIBED_FAILURES = 20
RECORDED_FAILURES = 5_000
FAILED_PARTITIONS = "failed_partitions"
# Dagster's name of the data version of an asset without materializations, or without data versions in them.
_NEVER_MATERIALIZED = "INITIAL"


def log_materialization(
    context: AssetExecutionContext,
    day: date,
    *,
    data_version: str,
    metadata: Mapping[str, Any],
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Log the materialization of a partition.

    Args:
        context: the step's context.
        day: the first day of the partition.
        data_version: a hash of the content; downstream assets are updated when it changes.
        metadata: shown in the UI.
        provenance: the tags from `provenance_tags`, for a rollup.
    """
    key = context.asset_key
    materialization = dg.AssetMaterialization(
        asset_key=key,
        partition=day.isoformat(),
        metadata=dict(metadata),
        tags={
            **version_tags(data_version, code_version=context.assets_def.specs_by_key[key].code_version),
            **(provenance or {}),
        },
    )
    with interrupts_delayed():
        context.log_event(materialization)


@contextmanager
def interrupts_delayed() -> Iterator[None]:
    """Raise an interrupt that arrives while the block runs at its end.

    Within a write to Dagster's storage, it would leave the transaction open, and a SQLite database locked.
    """
    with capture_interrupts():
        yield
        is_interrupted = pop_captured_interrupt()
    if is_interrupted:
        raise dg.DagsterExecutionInterruptedError


def already_logged(context: AssetExecutionContext) -> dg.MaterializeResult[Any]:
    """Return the result of a step that has logged its materializations itself, or had none to log.

    Without a result, Dagster skips the checks of the asset and everything downstream of it in the same run. With this
    one, it executes them and logs no materialization.
    """
    return dg.MaterializeResult(
        asset_key=context.asset_key, metadata={SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
    )


def version_tags(data_version: str, *, code_version: str | None) -> dict[str, str]:
    """Return the tags of a materialization that record its data version and the code version of its asset."""
    return {"dagster/data_version": data_version, "dagster/code_version": str(code_version)}


def provenance_tags(context: AssetExecutionContext, *upstream: dg.AssetKey) -> Mapping[str, str]:
    """Return tags that name the newest materialization of each `upstream`; call it before reading any of them.

    Without these tags, the UI compares only times: it shows a rollup as unsynced after its posts were fetched again,
    even if they did not change.
    """
    tags: dict[str, str] = {}
    for key in upstream:
        newest = context.instance.fetch_materializations(key, limit=1).records
        name = key.to_user_string()
        # Dagster does not compare the data version of partitioned upstreams. It compares those of the upstream
        # partitions that were materialized after the event in `input_event_pointer`.
        tags[f"dagster/input_data_version/{name}"] = _data_version(newest[0]) if newest else _NEVER_MATERIALIZED
        tags[f"dagster/input_event_pointer/{name}"] = str(newest[0].storage_id) if newest else "NULL"
    return tags


def _data_version(record: dg.EventLogRecord) -> str:
    """Return the data version in a materialization of an unpartitioned asset; for others, a placeholder."""
    materialization = record.asset_materialization
    if materialization is None or materialization.partition is not None:
        return "by partition"
    return (materialization.tags or {}).get("dagster/data_version", _NEVER_MATERIALIZED)


def combined_failure(failed: Mapping[str, str], *, what: str, written: int) -> dg.Failure:
    """Return one failure for all failed partitions of a run; not retried, because the other partitions are written.

    Args:
        failed: reasons by partition, or by (day, instance) pair.
        what: a noun for what failed, in the singular.
        written: how many others were written.
    """
    reasons = {key: failed[key] for key in sorted(failed)}
    count = len(reasons)
    lines = [f"{key}: {reason}" for key, reason in list(reasons.items())[:DESCRIBED_FAILURES]]
    if count > len(lines):
        lines.append(f"… and {count - len(lines)} more, in the metadata")
    headline = (
        f"{count} {what} failed and was not changed" if count == 1 else f"{count} {what}s failed and were not changed"
    )
    return dg.Failure(
        "\n".join([f"{headline}; {written} written.", *lines]),
        metadata={FAILED_PARTITIONS: dg.MetadataValue.json(dict(list(reasons.items())[:RECORDED_FAILURES]))},
        allow_retries=False,
    )
