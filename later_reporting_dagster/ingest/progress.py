"""How far a run has come, for whoever wants to show it: the run's log always, a terminal when there is one."""

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from later_reporting_dagster.client import ClientEvent, PageFetched, Retried, RevisionChanged, Waited, WalkRepeated

# Waits shorter than this are the pace of the work, not news.
WORTH_TELLING_SECONDS = 5.0


@dataclass(slots=True)
class Progress:
    """What a run has done so far.

    `waits` is how many requests had to wait for their turn under the rate limit. `waiting` says what the run waits for
    just now, when that is long enough to wonder; empty while pages come.
    """

    asset: str
    partitions: int = 0
    landed: int = 0
    failed: int = 0
    rows: int = 0
    pages: int = 0
    retries: int = 0
    waits: int = 0
    waiting: str = ""


# Whoever runs an asset in its own process may listen; a run that the daemon launched has only its log.
LISTENER: ContextVar[Callable[[Progress], None] | None] = ContextVar("LISTENER", default=None)


class ProgressTeller:
    """Counts events into a `Progress`, and tells the log what would otherwise be a silence.

    Args:
        progress: where it counts.
        log: takes what is good to know.
        warn: takes what somebody should know; `log` if None.
        clock: seconds.
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
        self._told_until = 0.0
        self._listener = LISTENER.get()

    def note(self, event: ClientEvent) -> None:
        """Takes what the client tells; called from the thread that fetches."""
        progress = self.progress
        match event:
            case PageFetched():
                progress.pages += 1
                progress.rows += event.rows
                progress.waiting = ""
            case Waited():
                progress.waits += 1
                now = self._clock()
                # Requests wait side by side: one of them tells for all.
                if event.seconds >= WORTH_TELLING_SECONDS and now >= self._told_until:
                    self._told_until = now + event.seconds
                    progress.waiting = f"waiting {event.seconds:.0f} s for the {event.reason}"
                    self._log(progress.waiting.capitalize())
            case Retried():
                progress.retries += 1
                progress.waiting = f"asking again in {event.wait_seconds:.0f} s"
                self._log(f"Asking again in {event.wait_seconds:.1f} s: {event.reason}")
            case WalkRepeated():
                self._log(f"Walking again from the first page: {event.reason}")
            case RevisionChanged():
                self._warn(f"The API has changed: {event}")
        self.tell()

    def landed(self) -> None:
        """One more partition lies in the lake."""
        self.progress.landed += 1
        self.tell()

    def failed(self) -> None:
        """One more partition stayed as it was."""
        self.progress.failed += 1
        self.tell()

    def tell(self) -> None:
        """Shows the listener where things stand."""
        if self._listener is not None:
            self._listener(self.progress)
