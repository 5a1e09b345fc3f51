"""Values of the fetch workloads: the partitions to fetch, and the measurement of a method that fetches them."""

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path

CREDENTIALS = {"clientId": "sandbox-client", "clientSecret": "sandbox-secret"}
TABLE_NAMES = {"post_date": "posts_published", "performance_date": "post_metrics_daily"}
"""Raw tables by date basis."""


def peak_megabytes() -> float:
    """Return the peak memory of this process. On Linux, `ru_maxrss` begins with the peak of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (each for each in status.read_text().splitlines() if each.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRange:
    """The partitions of some days and instances.

    Attributes:
        start: First day.
        end: Last day, inclusive.
        instance_ids: Instances.
    """

    start: date
    end: date
    instance_ids: tuple[str, ...]

    @property
    def days(self) -> list[date]:
        """All days."""
        return [self.start + timedelta(days=offset) for offset in range((self.end - self.start).days + 1)]

    @property
    def partitions(self) -> "list[PartitionRange]":
        """A range for each day and instance."""
        return [
            PartitionRange(start=day, end=day, instance_ids=(instance_id,))
            for day in self.days
            for instance_id in self.instance_ids
        ]

    def queries(self, date_basis: str) -> "list[PartitionRange]":
        """Return the ranges of the fewest queries: one by `post_date`, one a day by `performance_date`.

        By `performance_date`, rows do not have the day of their metrics.
        """
        if date_basis == "post_date":
            return [self]
        return [replace(self, start=day, end=day) for day in self.days]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Result of one measurement.

    Attributes:
        rows: Rows written.
        failed: Files that were not written, each with its reason.
        requests: Requests to the sandbox, including token requests and rejected ones.
        rejected: Requests with a 429.
        seconds: Wall time.
        cpu_seconds: CPU time of the process.
        peak_megabytes: Peak memory of the process.
        creating_seconds: Part of `seconds` before the Dagster run started.
        runs: Dagster runs of a backfill.
        events: Events in the log of a backfill's runs.
        ticks: CPU seconds of ticks of the sensor of rollups, by kind of tick.
    """

    rows: int = 0
    failed: int = 0
    requests: int = 0
    rejected: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_megabytes: float = 0.0
    creating_seconds: float = 0.0
    runs: int = 0
    events: int = 0
    ticks: Mapping[str, float] = field(default_factory=dict)


Method = Callable[..., Measurement]
"""Fetches a `PartitionRange` with `base_url`, `date_basis` and `root`; raises an error if a partition is incomplete."""
