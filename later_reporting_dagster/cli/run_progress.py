"""What a command shows of a run in progress: bars in a terminal, else a line per table now and then."""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich import progress as rich_progress
from rich.console import Console, RenderableType

from later_reporting_dagster.ingest.progress import Progress

SECONDS_BETWEEN_LINES = 60.0
_POLL_SECONDS = 0.5


@contextmanager
def progress_bars(fetches: Sequence[Progress], *, earlier: int = 0) -> Iterator[None]:
    """Show a bar on standard error for each fetch after the `earlier` ones that begins while the block runs."""
    # Dagster redirects file descriptor 2 while a step runs. The duplicate still points to the terminal.
    with os.fdopen(os.dup(2), "w") as stream:
        bars = _FetchBars(fetches, earlier=earlier, console=Console(file=stream))
        bars.start()
        try:
            yield
        finally:
            bars.stop()


@contextmanager
def progress_lines(assets: Sequence[str], fetches: Sequence[Progress], *, earlier: int) -> Iterator[None]:
    """Print lines on standard error about a run that makes `assets`; see `ProgressLines`."""
    lines, stopped = ProgressLines(assets), threading.Event()
    with os.fdopen(os.dup(2), "w") as stream:

        def print_lines(*, is_over: bool = False) -> None:
            for line in lines.due(fetches[earlier:], time.monotonic(), is_over=is_over):
                print(line, file=stream, flush=True)

        def watch() -> None:
            while not stopped.wait(_POLL_SECONDS):
                print_lines()

        print_lines()
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stopped.set()
            watcher.join()
            print_lines(is_over=True)


class ProgressLines:
    """Lines about a run: for each fetch at its start, each minute and at its end; without any, what the run makes."""

    def __init__(self, assets: Sequence[str]) -> None:
        self._assets = assets
        self._begun: float | None = None
        self._next: dict[int | None, float] = {}  # when each fetch, or None for the run, has its next line
        self._ended: set[int] = set()

    def due(self, fetches: Sequence[Progress], now: float, *, is_over: bool = False) -> Iterator[str]:
        """Yield what is to be printed at a time, in seconds."""
        if self._begun is None:
            self._begun = self._next[None] = now
        if not fetches and not is_over and self._is_due(None, now):
            minutes = int((now - self._begun) / 60)
            yield f"Making {', '.join(self._assets)}" + (f": {minutes} min so far" if minutes else "")
        for index, fetch in enumerate(fetches):
            done = fetch.written + fetch.failed
            if index not in self._next:
                self._next[index] = now + SECONDS_BETWEEN_LINES
                yield f"{fetch.table_name}: fetching"
            is_at_end = is_over or 0 < fetch.partitions == done
            if index not in self._ended and (is_at_end or self._is_due(index, now)):
                yield f"{fetch.table_name}: {done:,} of {fetch.partitions:,} files, {_status(fetch)}"
                if is_at_end:
                    self._ended.add(index)

    def _is_due(self, index: int | None, now: float) -> bool:
        if now < self._next[index]:
            return False
        self._next[index] = now + SECONDS_BETWEEN_LINES
        return True


def _status(fetch: Progress) -> str:
    return fetch.status or f"{fetch.requests:,} requests, {fetch.rows:,} rows"


class _FetchBars(rich_progress.Progress):
    """A bar per fetch: files done, requests and rows or the reason of a wait, and the time left."""

    def __init__(self, fetches: Sequence[Progress], *, earlier: int, console: Console) -> None:
        self._fetches, self._earlier = fetches, earlier  # the parent's method asks for the bars already
        super().__init__(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(bar_width=12),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[status]}"),
            rich_progress.TimeRemainingColumn(),
            console=console,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bars as of now; called at each refresh."""
        for index, fetch in enumerate(self._fetches[self._earlier :]):
            task = rich_progress.TaskID(index)
            if task not in self.task_ids:
                self.add_task(fetch.table_name, total=None, status="")
            done = fetch.written + fetch.failed
            self.update(task, total=fetch.partitions or None, completed=done, status=_status(fetch))
        return super().get_renderables()
