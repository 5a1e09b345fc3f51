"""What is measured: boxes of days × instances of a sandbox, landed by one of several means."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Protocol

CREDENTIALS = {"clientId": "sandbox-client", "clientSecret": "sandbox-secret"}
SOURCES = {"post_date": "posts_published", "performance_date": "post_metrics_daily"}
SCATTERED_CELLS = 60


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


def scattered_cells(box: Box) -> Sequence[Box]:
    """Some cells of a box, always the same ones."""
    return random.Random(0).sample(box.cells, SCATTERED_CELLS)  # noqa: S311


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What landing boxes took.

    Attributes:
        rows: Rows that landed.
        requests: Requests that the sandbox answered, the token's and refused ones too.
        refused: Those that it answered 429.
        seconds: By the clock.
        cpu_seconds: Of the process.
        peak_megabytes: Of the process.
        creating_seconds: Of `seconds`, those before the Dagster run started.
        runs: The box of each run of a backfill.
    """

    rows: int
    requests: int = 0
    refused: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_megabytes: float = 0.0
    creating_seconds: float = 0.0
    runs: tuple[Box, ...] = ()


class Means(Protocol):
    """Lands a box of a sandbox in a folder, and gives how many rows."""

    def __call__(self, box: Box, *, base_url: str, date_basis: str, root: Path) -> Figures:
        """Raises whatever keeps it from landing all."""
        ...
