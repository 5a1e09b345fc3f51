"""What compacting a whole table comes to, for those who run it: the job and the command."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from later_reporting_dagster.lake.lake import Lake


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

    def __str__(self) -> str:
        removed = f", {self.removed} removed" * bool(self.removed)
        left_out = "".join(f"; {count} days left out: {reason}" for reason, count in sorted(self.left_out.items()))
        return (
            f"{self.written} months written, {self.left_alone} left alone{removed};"
            f" {self.daily_files:,} daily files of {self.daily_bytes:,} bytes"
            f" can be read as {self.files:,} of {self.bytes:,}{left_out}"
        )


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
