"""What happened to each partition of a fetch, and what the fetch has done so far, for its log and whoever shows it."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from later_reporting_dagster.client import ClientEvent, LaterError, QueryRejected
from later_reporting_dagster.ingest.replacement import PartitionDiff, Unit
from later_reporting_dagster.lake import LakeUnavailable, ReplacementRejected, WriteResult

# Shorter waits are normal under the rate limit and are not logged.
MIN_LOGGED_WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenPartition:
    """A partition that is stored in the lake, complete and verified, or a period that will be.

    `bad_rows`: number of its rows in quarantine. `diff`: None if nothing changed, or if there was no readable file.
    `is_newer`: whether what is stored was requested later than the response, so that it stays.
    """

    partition: Unit
    file: WriteResult
    rows: pa.Table
    bad_rows: int
    diff: PartitionDiff | None = None
    is_newer: bool = False


class RouteRefused(Exception):  # noqa: N818 - named for what happened
    """The API does not offer the route of a table to these credentials: HTTP 403 or 404."""


def refusal(error: Exception | None) -> RouteRefused | None:
    """Return the error to raise if the route itself is refused, which the refusal of one query does not show."""
    if isinstance(error, QueryRejected) and error.status in (403, 404):
        return RouteRefused(str(error))
    return None


# The API, the lake or the write guard failed, or the instance id cannot be part of a path.
PartitionError = LaterError | LakeUnavailable | ReplacementRejected | ValueError


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPartition:
    """A partition or period that was not replaced, and the reason."""

    partition: Unit
    error: PartitionError

    def __post_init__(self) -> None:
        # Results are kept until the end of a run, and the frames of a traceback keep whole pages in memory.
        self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None

    @property
    def reason(self) -> str:
        """The error without its query, which may be that of other days or instances, whose failure decided this one."""
        return self.error.reason if isinstance(self.error, LaterError) else str(self.error)


PartitionResult = WrittenPartition | FailedPartition


@dataclass(slots=True)
class Progress:
    """What a run has done so far: partitions to fetch, written and failed, rows in files, and pages received.

    Attributes:
        newer: partitions that stay, because what is stored was requested later than the response.
        warnings: what the caller should know although the run succeeds.
        oddities: deviations of the responses from the documentation, by kind.
        rows_by_fate: rows that were received, and of these the rows that were written, are in quarantine, belong to
            files that failed or are newer, and are others: of days and instances that were not asked for.
        status: the current wait, such as "waiting 30 s for the rate limit"; empty while pages arrive.
    """

    table_name: str
    partitions: int = 0
    written: int = 0
    newer: int = 0
    failed: int = 0
    rows: int = 0
    requests: int = 0
    retries: int = 0
    rate_limit_waits: int = 0
    warnings: list[str] = field(default_factory=list)
    oddities: Counter[str] = field(default_factory=Counter)
    rows_by_fate: Counter[str] = field(default_factory=Counter)
    status: str = ""

    def check_conservation(self) -> None:
        """Raise if received rows are neither written nor accounted for otherwise."""
        fates = self.rows_by_fate
        if fates["received"] != sum(fates[name] for name in ("written", "newer", "quarantined", "failed", "others")):
            raise RuntimeError(
                f"received rows are neither written nor accounted for otherwise ({dict(fates)}): a defect, please"
                " report it"
            )

    @property
    def done(self) -> int:
        return self.written + self.newer + self.failed

    def rows_text(self) -> str:
        """Return what became of the received rows, and what was odd about them, for the log of a run."""
        fates = self.rows_by_fate
        odd = ", ".join(f"{kind} ({count})" for kind, count in self.oddities.most_common())
        return (
            f"{fates['received']} rows received: {fates['written']} written, {fates['quarantined']} in quarantine,"
            f" {fates['failed']} of failed files, {fates['others']} of other days or instances"
            + f", {fates['newer']} not written, because {self.newer} results were stored that were requested later"
            * bool(self.newer)
            + f"; read in spite of this: {odd}" * bool(odd)
        )

    def warn(self, warning: str) -> None:
        if warning not in self.warnings:
            self.warnings.append(warning)

    def add(self, result: PartitionResult) -> None:
        """Count a result."""
        if isinstance(result, FailedPartition):
            self.failed += 1
            return
        self.newer += result.is_newer
        self.written += not result.is_newer
        self.rows += result.file.rows

    def move(self, before: str, after: str, *, rows: int) -> None:
        """Count a result and its rows as `after`, such as "failed", which were counted as `before`."""
        for fate, sign in ((before, -1), (after, 1)):
            setattr(self, fate, getattr(self, fate) + sign)
            self.rows_by_fate[fate] += sign * rows

    def count(self, event: ClientEvent) -> str:
        """Count an event of the client, and return what to log about it; an empty text for nothing."""
        match event.kind:
            case "page":
                self.requests += 1
                self.status = ""
            case "rate limit":
                self.rate_limit_waits += 1
                # Concurrent requests wait at the same time; one log line is enough for all of them.
                if event.seconds >= MIN_LOGGED_WAIT_SECONDS and not self.status.startswith("waiting"):
                    self.status = f"waiting {event.seconds:.0f} s for the rate limit"
                    return self.status.capitalize()
            case "retry":
                self.retries += 1
                self.status = f"retrying in {event.seconds:.0f} s"
                return f"Retrying in {event.seconds:.1f} s: {event.reason}"
            case "refetch":
                return f"Fetching again from the first page: {event.reason}"
        return ""
