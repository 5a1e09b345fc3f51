"""What the tables that are fetched day by day share: their run config, and the log of a fetch."""

from collections.abc import Callable, Sequence
from datetime import date
from hashlib import sha256
from itertools import chain

import dagster as dg
from pydantic import Field

from later_reporting_dagster.client import ClientEvent
from later_reporting_dagster.contract import Metric
from later_reporting_dagster.contract.days import newest_day, parse_day_ranges
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.events import combined_failure
from later_reporting_dagster.defs.partitions import partition_first_days
from later_reporting_dagster.ingest.campaign_performance import RouteRefused
from later_reporting_dagster.ingest.fetch_days import DayFetch, FetchedDay
from later_reporting_dagster.ingest.progress import Progress
from later_reporting_dagster.lake import Partition

MAX_RUNTIME_TAG = "dagster/max_runtime"
# At 120 requests a minute, of files with up to 400 posts. A history of 200 instances takes 0.25 s for each.
SECONDS_PER_FILE = 2


class FetchConfig(dg.Config):
    """Run config of a fetch; by default it fetches every selected day."""

    only_missing: bool = Field(default=False, description="Fetch only files that are missing, or stale, in the lake.")
    old_days: list[str] = Field(
        default_factory=list,
        description="Fetch these days besides the partitions of the run, such as [2024-01-03, 2024-01-05 to"
        " 2024-01-09]. The daily schedule names the old days here whose turn it is.",
    )
    accept_shrinking: bool = Field(
        default=False,
        description="Also replace files that lose more rows than LATER_SHRINK_LIMIT_PERCENT allows, or all values of"
        " their metrics. Use it if rows or values were really deleted.",
    )


def selected_days(context: dg.AssetExecutionContext, config: FetchConfig, component: ComponentBase) -> list[date]:
    """Return the days of a run: those of its partitions, and the old days in its config, which are partitions too."""
    days, newest = partition_first_days(context, now=component.now()), newest_day(component.now())
    try:
        old_days = {
            text: parse_day_ranges([text], earliest=component.start_date, latest=newest) for text in config.old_days
        }
    except ValueError as error:
        raise dg.Failure(f"Run config old_days: {error}", allow_retries=False) from None
    if unknown := [text for text, found in old_days.items() if not found]:
        raise dg.Failure(f"Run config old_days: there is no partition {unknown[0]}", allow_retries=False)
    return sorted({*days, *chain(*old_days.values())})


class FetchLog:
    """Logs the fetch of a run, and knows at its end what failed.

    Attributes:
        failed: reasons, by day and instance.
        expected: the instances that a complete day has; empty if a file has the rows of all.
    """

    def __init__(self, context: dg.AssetExecutionContext, component: ComponentBase, fetch: DayFetch) -> None:
        self.progress = Progress(fetch.table.name)
        self.failed: dict[str, str] = {}
        self.expected: Sequence[str] = ()
        self._context = context
        self._days = self._days_written = self._files_changed = 0
        component.later(context).fetches.append(self.progress)
        context.log.info(
            f"Fetching {len(fetch.days)} days since {min(fetch.days)}{', only missing files' * fetch.only_missing}"
            + f", without what run {fetch.continued_run} has fetched" * (fetch.continued_run is not None)
        )

    def add(self, day: FetchedDay) -> None:
        if not self._days:  # now the number of files is known
            _extend_time_limit(self._context, files=self.progress.partitions)
        self._days += 1
        self._days_written += bool(day.written)
        self._files_changed += sum(file.changed for file in day.written.values())
        self.expected = day.expected
        self.failed |= {str(Partition(day.day, name)): reason for name, reason in day.failed.items()}

    def end(self) -> None:
        progress, days = self.progress, self._days_written
        fates = progress.rows_by_fate
        for warning in progress.warnings:
            self._context.log.warning(warning)
        self._context.log.info(
            f"{progress.written} of {progress.partitions} files written, {self._files_changed} of them changed;"
            f" {days} day{'s' * (days != 1)} materialized; {fates['received']} rows received:"
            f" {fates['written']} written, {fates['quarantined']} in quarantine, {fates['failed']} of failed files,"
            f" {fates['others']} of other days or instances;"
            f" {progress.requests} requests, {progress.retries} retries,"
            f" {progress.rate_limit_waits} waits for the rate limit"
        )

    def failure(self) -> dg.Failure:
        return combined_failure(self.failed, what="file", written=self.progress.written)


def continued_run(context: dg.AssetExecutionContext, config: FetchConfig, metrics: tuple[Metric, ...]) -> str | None:
    """Return the run that a re-execution continues: the failed one before it, if it fetched the same metrics.

    Of a run that succeeded, or that had another config, everything is fetched again.
    """
    op_name = context.op_execution_context.op_handle.name
    tag = f"{op_name}/metrics"
    names = ",".join(sorted(metric.api_name for metric in metrics))
    fetched = sha256(names.encode()).hexdigest()[:16]
    context.instance.add_run_tags(context.run.run_id, {tag: fetched})
    parent_id = context.run.get_parent_run_id()
    parent = context.instance.get_run_by_id(parent_id) if parent_id else None
    if parent is None or parent.is_success or parent.tags.get(tag) != fetched:
        return None
    ops = parent.run_config.get("ops", {})
    before = type(config)(**ops.get(op_name, {}).get("config", {}))
    return parent_id if before == config else None


def event_log(context: dg.AssetExecutionContext, progress: Progress) -> Callable[[ClientEvent], None]:
    """Return what counts the events of a client, and logs those that users should know."""

    def log_event(event: ClientEvent) -> None:
        if line := progress.count(event):
            context.log.info(line)

    return log_event


def _extend_time_limit(context: dg.AssetExecutionContext, *, files: int) -> None:
    """Let Dagster's run monitoring, if it limits runs, end this one later: a long history takes more than a day."""
    run = context.instance.get_run_by_id(context.run.run_id)
    assert run is not None
    limit = run.tags.get(MAX_RUNTIME_TAG) or context.instance.run_monitoring_max_runtime_seconds
    if limit:
        seconds = float(limit) + files * SECONDS_PER_FILE
        context.instance.add_run_tags(run.run_id, {MAX_RUNTIME_TAG: f"{seconds:.0f}"})


def refusal_warning(context: dg.AssetExecutionContext, refused: RouteRefused) -> str:
    return (
        f"{context.asset_key.to_user_string()} was not updated, because the API refuses its route: {refused} All other"
        f" tables work without it. To request it no more, set LATER_TABLES (tables) to -{context.asset_key.path[-1]}."
    )
