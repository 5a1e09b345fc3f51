"""What happened to each slice of a fetch, and what the fetch has done so far, for its log and whoever shows it."""

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from later_reporting_dagster.client import ClientEvent, InconsistentPages, LaterError, QueryRejected, RetriesExhausted
from later_reporting_dagster.ingest.decide import AskAgain, Decision, Newer, Reason, Received, Reject, RowDiff, Write
from later_reporting_dagster.ingest.slices import Slice
from later_reporting_dagster.lake import LakeUnavailable, WriteResult

# Shorter waits are normal under the rate limit and are not logged.
MIN_LOGGED_WAIT_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSlice:
    """A slice that is stored in the lake, complete and verified, or that of a period, which will be.

    `bad_rows`: number of its rows in quarantine. `diff`: None if nothing changed, or if there was no readable file.
    `is_newer`: whether what is stored was requested later than the response, so that it stays.
    """

    slice: Slice
    file: WriteResult
    rows: pa.Table
    bad_rows: int
    diff: RowDiff | None = None
    is_newer: bool = False

    @property
    def keeps_stored_rows(self) -> bool:
        """Whether a row that was stored before is left."""
        if self.diff is not None:
            return self.diff.removed < self.diff.rows_before
        return bool(self.rows.num_rows) and not self.file.changed


class RouteRefused(Exception):  # noqa: N818 - named for what happened
    """The API does not offer the route of a table to these credentials: HTTP 403 or 404."""


def refusal(error: Exception | None) -> RouteRefused | None:
    """Return the error to raise if the route itself is refused, which the refusal of one query does not show."""
    if isinstance(error, QueryRejected) and error.status in (403, 404):
        return RouteRefused(str(error))
    return None


# The API or the lake failed, stored rows must stay, or the instance id cannot be part of a path.
SliceError = LaterError | LakeUnavailable | Reject | ValueError


def is_temporary(error: Exception | Reject) -> bool:
    """Return whether it may suffice to run again later."""
    if isinstance(error, Reject):
        return error.reason is Reason.LAKE
    return isinstance(error, RetriesExhausted | InconsistentPages | LakeUnavailable)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedSlice:
    """A slice that was not replaced, and the reason.

    `rows`: how many its response has, not counting those in quarantine; 0 without a response.
    """

    slice: Slice
    error: SliceError
    rows: int = 0

    def __post_init__(self) -> None:
        # Results are kept until the end of a run, and the frames of a traceback keep whole pages in memory.
        if isinstance(self.error, Exception):
            self.error.__traceback__ = self.error.__context__ = self.error.__cause__ = None

    @property
    def reason(self) -> str:
        """The error without its query, which may be that of other days or instances, whose failure decided this one."""
        match self.error:
            case LaterError():
                return self.error.reason
            case Reject():
                return self.error.text
            case _:
                return str(self.error)


SliceResult = WrittenSlice | FailedSlice
# What is to be asked again has no result yet.
SliceOutcome = SliceResult | AskAgain


def outcome_of(each: Slice, decision: Decision, received: Received, file: WriteResult) -> SliceOutcome:
    """Return what becomes of a slice by a decision, if `file` is what is stored afterwards."""
    if isinstance(decision, AskAgain):
        return decision
    if isinstance(decision, Reject):
        return FailedSlice(slice=each, error=decision, rows=received.rows.num_rows)
    return WrittenSlice(
        slice=each,
        file=file,
        rows=received.rows,
        bad_rows=len(received.bad_rows),
        diff=decision.diff if isinstance(decision, Write) else None,
        is_newer=isinstance(decision, Newer),
    )


@dataclass(slots=True)
class Progress:
    """What a run has done so far: slices to fetch, written and failed, rows in files, and pages received.

    Attributes:
        newer: slices that stay, because what is stored was requested later than the response.
        temporary: slices of those that failed for which it may suffice to run again later.
        warnings: what the caller should know although the run succeeds.
        oddities: deviations of the responses from the documentation, by kind.
        rows_by_fate: rows that were received, and of these the rows that were written, are in quarantine, belong to
            files that failed or are newer, and are others: of days and instances that were not asked for.
        logged_attempts: how often a request had failed when that was last logged; 0 while pages arrive.
        status: the current wait, such as "waiting 30 s for the rate limit"; empty while pages arrive.
    """

    table_name: str
    slices: int = 0
    written: int = 0
    newer: int = 0
    failed: int = 0
    temporary: int = 0
    rows: int = 0
    requests: int = 0
    retries: int = 0
    rate_limit_waits: int = 0
    warnings: list[str] = field(default_factory=list)
    oddities: Counter[str] = field(default_factory=Counter)
    rows_by_fate: Counter[str] = field(default_factory=Counter)
    logged_attempts: int = 0
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

    def add(self, result: SliceResult) -> None:
        """Count a result, and the rows of its response."""
        if isinstance(result, FailedSlice):
            self.failed += 1
            self.temporary += is_temporary(result.error)
            self.rows_by_fate["failed"] += result.rows
            return
        self.newer += result.is_newer
        self.written += not result.is_newer
        self.rows_by_fate["newer" if result.is_newer else "written"] += result.rows.num_rows
        self.rows += result.file.rows

    def count(self, event: ClientEvent) -> str:
        """Count an event of the client, and return what to log about it; an empty text for nothing."""
        match event.kind:
            case "page":
                self.requests += 1
                self.status, self.logged_attempts = "", 0
            case "rate limit":
                self.rate_limit_waits += 1
                # Concurrent requests wait at the same time; one log line is enough for all of them.
                if event.seconds >= MIN_LOGGED_WAIT_SECONDS and not self.status.startswith("waiting"):
                    self.status = f"waiting {event.seconds:.0f} s for the rate limit"
                    return self.status.capitalize()
            case "retry":
                self.retries += 1
                self.status = f"retrying in {event.seconds:.0f} s"
                # In an outage, all concurrent requests fail.
                if event.attempts <= self.logged_attempts:
                    return ""
                self.logged_attempts = event.attempts
                failed = f", after {event.attempts} attempts at {event.host}" if event.is_serious else ""
                return f"Retrying in {event.seconds:.1f} s{failed}: {event.reason}"
            case "refetch":
                return f"Fetching again from the first page: {event.reason}"
        return ""
