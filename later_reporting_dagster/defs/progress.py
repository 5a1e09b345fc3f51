"""Count what a run has done; report waits and retries to its log and, if one is set, to a progress callback."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

from later_reporting_dagster.client import ClientEvent, PageFetched, PagesRefetched, RateLimitWait, RequestRetried

# Shorter waits are normal under the rate limit and are not logged.
MIN_LOGGED_WAIT_SECONDS = 5.0


@dataclass(slots=True)
class Progress:
    """What a run has done so far.

    Attributes:
        table_name: the raw table.
        partitions: number of partitions to fetch.
        written: partitions written.
        failed: partitions failed.
        rows: rows in the files written.
        requests: pages received. Some are not kept: pages of a query that was then split, and pages fetched again.
        retries: retries of failed requests; one request may be retried several times.
        rate_limit_waits: waits for the rate limit; one request may wait several times.
        warnings: what the caller should know although the run succeeds.
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
    status: str = ""


# Set by a caller that runs the asset inside the caller's process, such as the CLI; never set in a run that Dagster
# launches.
PROGRESS_LISTENER: ContextVar[Callable[[Progress], None] | None] = ContextVar("PROGRESS_LISTENER", default=None)


class ProgressReporter:
    """Counts events in a `Progress`, logs waits and retries, and calls `PROGRESS_LISTENER` after each change.

    Args:
        progress: updated in place.
        log: called with messages of level info.
        warn: called with warnings; default: `log`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        progress: Progress,
        *,
        log: Callable[[str], None],
        warn: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.progress = progress
        self._log = log
        self._warn = warn or log
        self._clock = clock
        self._waiting_until = 0.0
        self._listener = PROGRESS_LISTENER.get()

    def on_event(self, event: ClientEvent) -> None:
        """Count and log an event of the client; called from the thread that fetches."""
        progress = self.progress
        match event:
            case PageFetched():
                progress.requests += 1
                progress.status = ""
            case RateLimitWait():
                progress.rate_limit_waits += 1
                now = self._clock()
                # Concurrent requests wait at the same time; one log line is enough for all of them.
                if event.seconds >= MIN_LOGGED_WAIT_SECONDS and now >= self._waiting_until:
                    self._waiting_until = now + event.seconds
                    progress.status = f"waiting {event.seconds:.0f} s for the rate limit"
                    self._log(progress.status.capitalize())
            case RequestRetried():
                progress.retries += 1
                progress.status = f"retrying in {event.wait_seconds:.0f} s"
                self._log(f"Retrying in {event.wait_seconds:.1f} s: {event.reason}")
            case PagesRefetched():
                self._log(f"Fetching again from the first page: {event.reason}")
        self._notify()

    def partition_written(self, *, rows: int) -> None:
        """Count a written partition and its rows."""
        self.progress.written += 1
        self.progress.rows += rows
        self._notify()

    def partition_failed(self) -> None:
        """Count a failed partition."""
        self.progress.failed += 1
        self._notify()

    def warn(self, message: str) -> None:
        """Log a warning, and keep it for the caller."""
        self._warn(message)
        self.progress.warnings.append(message)
        self._notify()

    def _notify(self) -> None:
        if self._listener is not None:
            self._listener(self.progress)
