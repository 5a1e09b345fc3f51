"""How far a run has come, for whoever wants to show it: the run's log always, a terminal when there is one."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from later_reporting_dagster.client import ClientEvent, PageFetched, Retried, Waited, WalkRepeated

# Waits shorter than this are the pace of the work, not news.
WORTH_TELLING_SECONDS = 5.0


@dataclass(slots=True)
class Progress:
    """What a run has done so far. Times are in seconds."""

    asset: str
    partitions: int
    landed: int = 0
    failed: int = 0
    rows: int = 0
    pages: int = 0
    retries: int = 0
    waited_seconds: float = 0.0


# Whoever runs an asset in its own process may listen; a run that the daemon launched has only its log.
LISTENER: ContextVar[Callable[[Progress], None] | None] = ContextVar("LISTENER", default=None)


class ProgressTeller:
    """Counts events into a `Progress`, and tells the log what would otherwise be a silence."""

    def __init__(self, progress: Progress, *, log: Callable[[str], None]) -> None:
        self.progress = progress
        self._log = log
        self._listener = LISTENER.get()

    def note(self, event: ClientEvent) -> None:
        """Takes what the client tells; called from the thread that fetches."""
        progress = self.progress
        match event:
            case PageFetched():
                progress.pages += 1
                progress.rows += event.rows
            case Waited():
                progress.waited_seconds += event.seconds
                if event.seconds >= WORTH_TELLING_SECONDS:
                    self._log(f"Waited {event.seconds:.0f} s: {event.reason}")
            case Retried():
                progress.retries += 1
                self._log(f"Asked again after {event.wait_seconds:.1f} s: {event.reason}")
            case WalkRepeated():
                self._log(f"Walked again from the first page: {event.reason}")
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
