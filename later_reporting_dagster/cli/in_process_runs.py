"""Runs assets and checks in this process, each as one run of the Dagster instance."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import dagster as dg

from later_reporting_dagster.cli.terminal_text import in_one_line
from later_reporting_dagster.definitions import defs
from later_reporting_dagster.defs.jobs import CHECKS_JOB
from later_reporting_dagster.defs.materializations import FAILED_PARTITIONS
from later_reporting_dagster.ingest.progress import LISTENER, Progress


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended.

    `failed` has the reason of each failure, by asset and partition, or (day, instance) pair; `error` is set when all of
    it failed.
    """

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


def materialize(
    assets: Sequence[str],
    *,
    instance: dg.DagsterInstance,
    tags: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    verbose: bool = False,
) -> RunOutcome:
    """Materialize assets of one kind of partitions as one run. What fails is in the outcome, not raised.

    Args:
        assets: names of assets.
        instance: where the run is recorded.
        tags: the range of partitions, as `range_tags` has it.
        config: run config of each of these assets.
        on_progress: is called as a fetch proceeds.
        verbose: print the run's log.
    """
    configured = {f"later__{asset}": {"config": dict(config)} for asset in assets} if config else {}
    listening = LISTENER.set(on_progress)
    try:
        job = defs.resolve_implicit_global_asset_job_def().get_subset(
            asset_selection={dg.AssetKey(["later", asset]) for asset in assets},
            # Partitioned assets log their own check results. Dagster would plan a step per check and partition, and
            # skip it.
            asset_check_selection=set() if tags else None,
        )
        result = job.execute_in_process(
            instance=instance,
            tags=dict(tags or {}),
            run_config={**_loggers(verbose=verbose), "ops": configured},
            raise_on_error=False,
        )
    finally:
        LISTENER.reset(listening)
    return _outcome(result, instance=instance)


def evaluate_checks(*, instance: dg.DagsterInstance) -> RunOutcome:
    """Evaluate all asset checks as one run."""
    job = defs.resolve_job_def(CHECKS_JOB)
    result = job.execute_in_process(instance=instance, run_config=_loggers(verbose=False), raise_on_error=False)
    return _outcome(result, instance=instance)


def _loggers(*, verbose: bool) -> dict[str, Any]:
    return {"loggers": {"console": {"config": {"log_level": "DEBUG" if verbose else "CRITICAL"}}}}


def _outcome(result: dg.ExecuteInProcessResult, *, instance: dg.DagsterInstance) -> RunOutcome:
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
            if cause.cls_name == dg.DagsterExecutionInterruptedError.__name__:
                error = "interrupted: what is written stays. Run it again for the rest."
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
