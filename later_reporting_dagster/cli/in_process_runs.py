"""Run assets and checks in this process, each call as one run of the Dagster instance."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import click
import dagster as dg
from rich import progress as rich_progress
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from later_reporting_dagster.cli.interrupts import lost_interrupts_repeated
from later_reporting_dagster.cli.options import one_line
from later_reporting_dagster.cli.project import Project
from later_reporting_dagster.defs.assets.fetch_run import PROGRESS_LISTENER
from later_reporting_dagster.defs.automation import checks_job_name
from later_reporting_dagster.defs.definition_settings import DefinitionSettings
from later_reporting_dagster.defs.events import FAILED_PARTITIONS
from later_reporting_dagster.ingest.result_stream import Progress
from later_reporting_dagster.rollups.periods import Cadence
from later_reporting_dagster.rollups.rollup_tables import CADENCES


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The result of a run."""

    run_id: str
    succeeded: bool
    failed: Mapping[tuple[str, str], str]  # reasons by asset and partition; for raw assets, by asset and "day instance"
    error: str | None  # the reason, if a whole step failed
    written: Sequence[str]  # a line for each asset of which something was written, also if the run failed
    is_interrupted: bool  # by a signal
    checks: Sequence[dg.AssetCheckEvaluation]
    fetches: Sequence[Progress] = ()  # the final progress of each table that was fetched


def dagster_instance() -> dg.DagsterInstance:
    """Return the Dagster instance of `DAGSTER_HOME`."""
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise click.ClickException(
            "DAGSTER_HOME is not set. Create a folder for Dagster's runs and partitions, and set DAGSTER_HOME to its"
            " absolute path."
        )
    try:
        return dg.DagsterInstance.get()
    except Exception as error:
        raise click.ClickException(
            f"Cannot open the Dagster instance in DAGSTER_HOME={home}: {one_line(str(error))}"
        ) from error


def materialize(
    project: Project,
    assets: Sequence[str],
    *,
    instance: dg.DagsterInstance,
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    verbose: bool = False,
) -> RunOutcome:
    """Materialize assets in one run, with progress bars. Failures are part of the returned outcome.

    All assets must have the same kind of partitions; `range_tags` selects some. Each asset gets the config.
    """
    definitions, settings = project.definitions, project.settings
    op_config = {settings.op_name(asset): {"config": dict(config)} for asset in assets} if config else {}
    fetches: dict[str, Progress] = {}
    keys = [settings.asset_key(asset) for asset in assets]
    with progress_bars() as show:

        def listen(progress: Progress) -> None:
            fetches[progress.table_name] = progress
            show(progress)

        listener_token = PROGRESS_LISTENER.set(listen)
        try:
            outcome = _execute(
                definitions.resolve_implicit_global_asset_job_def(),
                settings,
                instance=instance,
                asset_selection=keys,  # recorded in the run: the UI shows it as the run's target
                tags=dict(tags or {}),
                run_config={**_logger_config(verbose=verbose), "ops": op_config},
            )
        finally:
            PROGRESS_LISTENER.reset(listener_token)
    return replace(outcome, fetches=tuple(fetches.values()))


@contextmanager
def progress_bars() -> Iterator[Callable[[Progress], None]]:
    """Yield a callback that shows a bar per fetched table on standard error.

    A bar shows files done, requests and rows or the reason of a wait, and the time left.
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


def evaluate_checks(project: Project, *, instance: dg.DagsterInstance) -> RunOutcome:
    """Evaluate all asset checks as one run."""
    job = project.definitions.resolve_job_def(checks_job_name(project.settings))
    return _execute(job, project.settings, instance=instance, run_config=_logger_config(verbose=False))


def _logger_config(*, verbose: bool) -> dict[str, Any]:
    return {"loggers": {"console": {"config": {"log_level": "DEBUG" if verbose else "CRITICAL"}}}}


def _execute(
    job: dg.JobDefinition, settings: DefinitionSettings, *, instance: dg.DagsterInstance, **options: Any
) -> RunOutcome:
    try:
        with lost_interrupts_repeated():
            result = job.execute_in_process(instance=instance, raise_on_error=False, **options)
    except (SQLAlchemyError, OSError) as failure:  # of Dagster's storage, such as a full disk
        reason = getattr(failure, "orig", None) or failure
        raise click.ClickException(
            f"Dagster cannot store the run: {one_line(str(reason))}. What has been written to the lake stays. See that"
            f" DAGSTER_HOME={os.environ.get('DAGSTER_HOME')} has free space and can be written, and run again."
        ) from failure
    failed: dict[tuple[str, str], str] = {}
    error: str | None = None
    is_interrupted = False
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            cause = (data.error.cause or data.error) if data.error else None
            is_interrupted |= cause is not None and cause.cls_name == dg.DagsterExecutionInterruptedError.__name__
            partition_failures = _partition_failures(event, settings)
            failed |= partition_failures
            if not partition_failures:
                described = data.user_failure_data and data.user_failure_data.description
                raised = cause and cause.message.strip().removeprefix(f"{cause.cls_name}: ")
                error = described or raised or error
    if is_interrupted:
        error = "Interrupted. Files written so far are kept; run the command again for the rest."
        # An interrupt leaves connections of Dagster open. On Python 3.13, SQLAlchemy logs an error for each at exit.
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    if not result.success and not failed and error is None:
        error = f"Run {result.run_id} failed. See its log in the Dagster UI."
    return RunOutcome(
        run_id=result.run_id,
        succeeded=result.success,
        failed=failed,
        error=error,
        written=_written_lines(result.run_id, instance),
        is_interrupted=is_interrupted,
        # `result` lacks the check evaluations of a failed run. The event log has them.
        checks=[
            entry.dagster_event.asset_check_evaluation_data
            for entry in instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
            if entry.dagster_event
        ],
    )


def _partition_failures(event: dg.DagsterEvent, settings: DefinitionSettings) -> dict[tuple[str, str], str]:
    """Return the reason of each failed partition in the metadata of a step failure, by asset and partition."""
    user_data = event.step_failure_data.user_failure_data
    entry = user_data.metadata.get(FAILED_PARTITIONS) if user_data else None
    if not isinstance(entry, dg.JsonMetadataValue) or not isinstance(entry.data, dict):
        return {}
    asset = str(event.step_key).removeprefix(settings.op_name(""))
    return {(asset, str(key)): str(reason) for key, reason in entry.data.items()}


def _written_lines(run_id: str, instance: dg.DagsterInstance) -> list[str]:
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    by_key: dict[dg.AssetKey, list[dg.AssetMaterialization]] = {}
    for event in (entry.asset_materialization for entry in entries):
        if event is not None:
            by_key.setdefault(event.asset_key, []).append(event)
    lines: list[str] = []
    for key, events in by_key.items():
        metadata: list[dict[str, Any]] = [
            {name: each.value for name, each in event.metadata.items()} for event in events
        ]
        changed = sum(bool(each.get("files_changed") or each.get("changed")) for each in metadata)
        row_counts = [each.get("dagster/partition_row_count", each.get("dagster/row_count")) for each in metadata]
        rows = "" if row_counts[0] is None else f"; {sum(count or 0 for count in row_counts):,} rows"
        if events[0].partition is None:
            lines.append(f"{key.to_user_string()}: {'changed' if changed else 'unchanged'}{rows}")
        else:
            periods = f"{CADENCES.get(key.path[-1], Cadence.DAY)}{'s' * (len(events) != 1)}"
            lines.append(f"{key.to_user_string()}: {len(events):,} {periods}, {changed:,} of them changed{rows}")
    return lines
