"""What a fetch has done so far, for its log and for whoever shows it."""

from collections import Counter
from dataclasses import dataclass, field

from later_reporting_dagster.client import ClientEvent, PageFetched, PagesRefetched, RateLimitWait, RequestRetried
from later_reporting_dagster.ingest.partition_results import PartitionResult, WrittenPartition

# Shorter waits are normal under the rate limit and are not logged.
MIN_LOGGED_WAIT_SECONDS = 5.0


@dataclass(slots=True)
class Progress:
    """What a run has done so far: partitions to fetch, written and failed, rows in files, and pages received.

    Attributes:
        warnings: what the caller should know although the run succeeds.
        oddities: deviations of the responses from the documentation, by kind.
        rows_by_fate: rows that were received, and of these the rows that were written, are in quarantine, belong to
            files that failed, and are others: of days and instances that were not asked for.
        status: the current wait, such as "waiting 30 s for the rate limit"; empty while pages arrive.
    """

    table_name: str
    partitions: int = 0
    written: int = 0
    failed: int = 0
    rows: int = 0
    requests: int = 0
    retries: int = 0
    rate_limit_waits: int = 0
    warnings: list[str] = field(default_factory=list)
    oddities: Counter[str] = field(default_factory=Counter)
    rows_by_fate: Counter[str] = field(default_factory=Counter)
    status: str = ""

    @property
    def unaccounted_rows(self) -> int:
        """The number of received rows that are neither written nor accounted for otherwise: 0, or a defect."""
        fates = self.rows_by_fate
        return fates["received"] - sum(fates[name] for name in ("written", "quarantined", "failed", "others"))

    def add(self, result: PartitionResult) -> None:
        """Count a file that was written or failed."""
        if isinstance(result, WrittenPartition):
            self.written += 1
            self.rows += result.file.rows
        else:
            self.failed += 1

    def count(self, event: ClientEvent) -> str:
        """Count an event of the client, and return what to log about it; an empty text for nothing."""
        match event:
            case PageFetched():
                self.requests += 1
                self.status = ""
            case RateLimitWait():
                self.rate_limit_waits += 1
                # Concurrent requests wait at the same time; one log line is enough for all of them.
                if event.seconds >= MIN_LOGGED_WAIT_SECONDS and not self.status.startswith("waiting"):
                    self.status = f"waiting {event.seconds:.0f} s for the rate limit"
                    return self.status.capitalize()
            case RequestRetried():
                self.retries += 1
                self.status = f"retrying in {event.wait_seconds:.0f} s"
                return f"Retrying in {event.wait_seconds:.1f} s: {event.reason}"
            case PagesRefetched():
                return f"Fetching again from the first page: {event.reason}"
        return ""
