"""What is measured: boxes of days × instances of a sandbox, fetched by one of several means."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol

CREDENTIALS = {"clientId": "sandbox-client", "clientSecret": "sandbox-secret"}
SOURCES = {"post_date": "posts_published", "performance_date": "post_metrics_daily"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Days, both inclusive, × instances."""

    start: date
    end: date
    instance_ids: tuple[str, ...]

    @property
    def days(self) -> list[date]:
        """Each of its days."""
        return [self.start + timedelta(days=offset) for offset in range((self.end - self.start).days + 1)]

    @property
    def cells(self) -> "list[Box]":
        """Each day × instance alone."""
        return [
            Box(start=day, end=day, instance_ids=(instance_id,))
            for day in self.days
            for instance_id in self.instance_ids
        ]

    def queries(self, date_basis: str) -> "list[Box]":
        """The boxes that a query can hold: all of it, or each day where the day is in no row."""
        if date_basis == "post_date":
            return [self]
        return [replace(self, start=day, end=day) for day in self.days]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one measurement found.

    Attributes:
        rows: Rows written.
        requests: Requests that the sandbox answered, the token's and refused ones too.
        refused: Those that it answered 429.
        seconds: Wall time.
        cpu_seconds: Of the process.
        peak_megabytes: Of the process.
        creating_seconds: Of `seconds`, those before the Dagster run started.
        runs: Dagster runs of a backfill.
        ticks: Seconds of automation ticks, by what they found.
    """

    rows: int = 0
    requests: int = 0
    refused: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_megabytes: float = 0.0
    creating_seconds: float = 0.0
    runs: int = 0
    ticks: Mapping[str, float] = field(default_factory=dict)


class Means(Protocol):
    """Works on a box of a sandbox in a folder, and returns what it found."""

    def __call__(self, box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
        """Raises whatever keeps it from being complete."""
        ...
