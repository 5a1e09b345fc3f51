"""A run of the compaction job, and what it tells."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from later_reporting_dagster.defs.resource import LaterReportingResource
from later_reporting_dagster.lake import Lake, LakeUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """What compacting a table came to.

    Attributes:
        written: months of an instance that were copied anew.
        left_alone: those whose copy was up to date.
        removed: those whose copy was taken away, because it had nothing left to be a copy of.
        daily_files: how many daily files the copies stand for.
        daily_bytes: their size.
        bytes: the size of the copies.
        left_out: how many days of closed months stay with their daily file alone, by reason.
    """

    written: int
    left_alone: int
    removed: int
    daily_files: int
    daily_bytes: int
    bytes: int
    left_out: Mapping[str, int]

    @property
    def files(self) -> int:
        """How many files the copies are."""
        return self.written + self.left_alone


def compact_table(lake: Lake, asset: str, *, restate_days: int, now: datetime) -> Compaction:
    """Brings the copies of a table's closed months up to date: those that the daily schedule no longer restates.

    Raises:
        LakeUnavailable: the lake cannot be reached, read or written. What was done until then stays done.
        ValueError: the lake's filesystem does not tell one version of a file from another.
    """
    closed_before = now.astimezone(UTC).date() - timedelta(days=restate_days)
    months = list(lake.compact(asset, closed_before=closed_before, now=now))
    copies = [month for month in months if month.days]
    return Compaction(
        written=sum(month.changed for month in copies),
        left_alone=sum(not month.changed for month in copies),
        removed=sum(month.changed and not month.days for month in months),
        daily_files=sum(month.days for month in copies),
        daily_bytes=sum(month.daily_bytes for month in copies),
        bytes=sum(month.bytes for month in copies),
        left_out=dict(Counter(reason for month in months for reason in month.left_out.values())),
    )


def compact_and_tell(
    context: dg.OpExecutionContext, later: LaterReportingResource, *, asset: str, restate_days: int
) -> None:
    """Compacts a table, and tells in the log and in the output's metadata what came of it.

    Raises:
        Failure: the lake cannot be reached, read or written, or its filesystem does not lend itself to it.
    """
    try:
        done = compact_table(later.lake(), asset, restate_days=restate_days, now=datetime.now(UTC))
    except (LakeUnavailable, ValueError) as error:
        raise dg.Failure(str(error)) from error
    context.log.info(f"Compacted later/{asset}: {described(done)}")
    context.add_output_metadata(
        {
            "months_written": done.written,
            "months_left_alone": done.left_alone,
            "months_removed": done.removed,
            "daily_files": done.daily_files,
            "files": done.files,
            "daily_bytes": done.daily_bytes,
            "bytes": done.bytes,
            "days_left_out": dg.MetadataValue.json(dict(done.left_out)),
        }
    )


def described(done: Compaction) -> str:
    """What compacting a table came to, in a sentence."""
    removed = f", {done.removed} removed" * bool(done.removed)
    left_out = "".join(f"; {count} days left out: {reason}" for reason, count in sorted(done.left_out.items()))
    return (
        f"{done.written} months written, {done.left_alone} left alone{removed};"
        f" {done.daily_files:,} daily files of {done.daily_bytes:,} bytes"
        f" can be read as {done.files:,} of {done.bytes:,}{left_out}"
    )
