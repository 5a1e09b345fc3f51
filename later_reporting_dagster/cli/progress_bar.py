"""The progress bar of a fetch, on a terminal, while Dagster captures the output of the step."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from later_reporting_dagster.ingest.progress import Progress


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """Show one bar per table on standard error: files done, pages and rows or a wait, time left."""
    # Dagster redirects file descriptor 2 while a step runs; a duplicate still leads to the terminal.
    with os.fdopen(os.dup(2), "w") as stream:
        console = Console(file=stream)
        bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[news]}"),
            TimeRemainingColumn(),
            console=console,
        )
        tasks = {}

        def show(progress: Progress) -> None:
            if progress.asset not in tasks:
                tasks[progress.asset] = bars.add_task(progress.asset, total=None, news="")
            bars.update(
                tasks[progress.asset],
                total=progress.partitions or None,
                completed=progress.landed + progress.failed,
                news=progress.waiting or f"{progress.pages} pages, {progress.rows} rows",
            )

        with bars:
            yield show
