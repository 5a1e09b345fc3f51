"""The progress bar of a fetch. It works on a terminal although Dagster captures the output of a step."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import progress as rich_progress
from rich.console import Console

from later_reporting_dagster.defs.progress import Progress


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """Show one bar per table on standard error: files done, requests and rows or the reason of a wait, time left.

    Yields:
        A callback that updates the bar of the table that the given progress belongs to.
    """
    # Dagster redirects file descriptor 2 while a step runs. The duplicate still points to the terminal.
    with os.fdopen(os.dup(2), "w") as stream:
        bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(bar_width=12),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[status]}"),
            rich_progress.TimeRemainingColumn(),
            console=Console(file=stream),
        )
        task_ids: dict[str, rich_progress.TaskID] = {}

        def show(progress: Progress) -> None:
            bars.start()  # now, because without a bar it would print an empty line
            if progress.table_name not in task_ids:
                task_ids[progress.table_name] = bars.add_task(progress.table_name, total=None, status="")
            bars.update(
                task_ids[progress.table_name],
                total=progress.partitions or None,
                completed=progress.written + progress.failed,
                status=progress.status or f"{progress.requests:,} requests, {progress.rows:,} rows",
            )

        try:
            yield show
        finally:
            if task_ids:
                bars.stop()
