"""Runs a job over a range of partitions in this process, as one run of the Dagster instance."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import dagster as dg

from later_reporting_dagster.cli.text import in_one_line
from later_reporting_dagster.definitions import defs
from later_reporting_dagster.defs.jobs import (
    CHECKS_JOB,
    MONTHS_JOB,
    POSTS_JOB,
    REPORT_JOB,
    ROLLUPS_JOB,
    WEEKS_JOB,
    WINDOWS_JOB,
)
from later_reporting_dagster.defs.runs.materializations import FAILED_PARTITIONS
from later_reporting_dagster.defs.runs.progress import LISTENER, Progress
from later_reporting_dagster.rollups import Span


def later_posts() -> dg.JobDefinition:
    """The job over the raw assets, as a process finds it by name."""
    return defs.resolve_job_def(POSTS_JOB)


def later_organic_paid() -> dg.JobDefinition:
    """The job over the rollups, as a process finds it by name."""
    return defs.resolve_job_def(ROLLUPS_JOB)


def later_report() -> dg.JobDefinition:
    """The job over the report, as a process finds it by name."""
    return defs.resolve_job_def(REPORT_JOB)


def later_organic_paid_weekly() -> dg.JobDefinition:
    """The job over the rollup of weeks, as a process finds it by name."""
    return defs.resolve_job_def(WEEKS_JOB)


def later_organic_paid_monthly() -> dg.JobDefinition:
    """The job over the rollup of months, as a process finds it by name."""
    return defs.resolve_job_def(MONTHS_JOB)


def later_organic_paid_by_window() -> dg.JobDefinition:
    """The job over the tables of windows, as a process finds it by name."""
    return defs.resolve_job_def(WINDOWS_JOB)


def later_checks() -> dg.JobDefinition:
    """The job over all asset checks, as a process finds it by name."""
    return defs.resolve_job_def(CHECKS_JOB)


JOB_OF_SPAN: Mapping[Span, Callable[[], dg.JobDefinition]] = {
    Span.DAY: later_organic_paid,
    Span.WEEK: later_organic_paid_weekly,
    Span.MONTH: later_organic_paid_monthly,
}


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended. `failed` has each failed (asset, partition) and why; `error` is set when all of it failed."""

    run_id: str
    succeeded: bool
    failed: Mapping[tuple[str, str], str]
    error: str | None
    checks: Sequence[dg.AssetCheckEvaluation]


def dagster_instance() -> dg.DagsterInstance:
    """The instance of `DAGSTER_HOME`.

    Raises:
        click.ClickException: there is none; the message says how to make one.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        raise click.ClickException(
            "DAGSTER_HOME is not set: it is the folder where Dagster keeps runs and partitions. Make one and set it to"
            " its absolute path."
        )
    try:
        return dg.DagsterInstance.get()
    except Exception as error:
        raise click.ClickException(
            f"The Dagster instance in DAGSTER_HOME={home} does not open: {in_one_line(str(error))}"
        ) from error


def run(
    job: Callable[[], dg.JobDefinition],
    *,
    instance: dg.DagsterInstance,
    assets: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    configured: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    verbose: bool = False,
) -> RunOutcome:
    """Runs `job`, narrowed to `assets` where given, to its end. What fails is in the outcome, not raised.

    `configured` are fields of the resource `later` that are to be other than the environment has them.
    """
    console = {"config": {"log_level": "DEBUG" if verbose else "CRITICAL"}}
    listening = LISTENER.set(on_progress)
    try:
        with dg.execute_job(
            dg.reconstructable(job),
            instance=instance,
            asset_selection=[dg.AssetKey(["later", asset]) for asset in assets] if assets else None,
            tags=dict(tags or {}),
            run_config={
                "loggers": {"console": console},
                "resources": {"later": {"config": dict(configured or {})}},
            },
            raise_on_error=False,
        ) as result:
            return _outcome(result, instance=instance)
    finally:
        LISTENER.reset(listening)


def _outcome(result: dg.JobExecutionResult, *, instance: dg.DagsterInstance) -> RunOutcome:
    failed: dict[tuple[str, str], str] = {}
    error: str | None = None
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        data = event.step_failure_data
        named = data.user_failure_data.metadata.get(FAILED_PARTITIONS) if data.user_failure_data else None
        if isinstance(named, dg.JsonMetadataValue) and isinstance(named.data, dict):
            asset = str(event.step_key).removeprefix("later__")
            failed.update({(asset, str(key)): str(reason) for key, reason in named.data.items()})
        elif data.user_failure_data and data.user_failure_data.description:
            error = data.user_failure_data.description
        elif data.error:
            cause = data.error.cause or data.error
            error = cause.message.strip().removeprefix(f"{cause.cls_name}: ")
    if not result.success and not failed and error is None:
        error = f"run {result.run_id} failed: see it in the UI"
    return RunOutcome(
        run_id=result.run_id,
        succeeded=result.success,
        failed=failed,
        error=error,
        # A run that failed tells them in the instance's log alone.
        checks=[
            entry.dagster_event.asset_check_evaluation_data
            for entry in instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
            if entry.dagster_event
        ],
    )
