"""What is measured: a box of days × instances of a sandbox, landed by one of several means."""

from dataclasses import dataclass
from datetime import date, timedelta

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What landing a box took.

    `requests` include the token's, `refused` are those answered 429, `one_by_one` is what a query a partition costs.
    """

    requests: int
    rows: int
    one_by_one: int = 0
    refused: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_megabytes: float = 0.0
