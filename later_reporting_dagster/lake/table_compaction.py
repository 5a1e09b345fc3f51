"""Compact all closed months of a table and summarize the result; used by the Dagster job and the command."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from later_reporting_dagster.lake.lake import Lake


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionSummary:
    """The result of compacting a table. A month counts once for each instance.

    Attributes:
        written: the number of months whose copy was written.
        unchanged: the number of months whose copy was up to date.
        removed: the number of months whose copy was removed, because too few days of the month can be copied now.
        daily_files: the number of copied daily files; readers read the copies instead.
        daily_bytes: the size of those daily files.
        bytes: the size of the copies.
        skipped: the number of days of closed months that were not copied, by reason.
    """

    written: int
    unchanged: int
    removed: int
    daily_files: int
    daily_bytes: int
    bytes: int
    skipped: Mapping[str, int]

    @property
    def files(self) -> int:
        """The number of copies."""
        return self.written + self.unchanged

    def __str__(self) -> str:
        removed = f", {self.removed} removed" if self.removed else ""
        skipped = "".join(f"; {count} days skipped: {reason}" for reason, count in sorted(self.skipped.items()))
        return (
            f"{self.written} months written, {self.unchanged} unchanged{removed};"
            f" readers read {self.files:,} monthly files ({self.bytes:,} bytes in total) instead of"
            f" {self.daily_files:,} daily files ({self.daily_bytes:,} bytes in total), which are kept{skipped}"
        )


def compact_table(lake: Lake, table_name: str, *, restate_days: int, now: datetime) -> CompactionSummary:
    """Update the copies of a table's closed months.

    Args:
        lake: the lake.
        table_name: the table.
        restate_days: the number of latest days that the daily schedule fetches again. A month is closed if it ended
            before the first of these days.
        now: the current time.

    Raises:
        LakeUnavailable: the lake cannot be reached, read or written. Months compacted before the error stay so.
        ValueError: the lake's filesystem reports no file versions; see `Lake.compact`.
    """
    closed_before = now.astimezone(UTC).date() - timedelta(days=restate_days)
    months = list(lake.compact(table_name, closed_before=closed_before, now=now))
    copies = [month for month in months if month.days]
    return CompactionSummary(
        written=sum(month.changed for month in copies),
        unchanged=sum(not month.changed for month in copies),
        removed=sum(month.changed and not month.days for month in months),
        daily_files=sum(month.days for month in copies),
        daily_bytes=sum(month.daily_bytes for month in copies),
        bytes=sum(month.bytes for month in copies),
        skipped=dict(Counter(reason for month in months for reason in month.skipped.values())),
    )
