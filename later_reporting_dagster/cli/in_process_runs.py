"""Run assets in this process, each call as one run of the Dagster instance."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from later_reporting_dagster.cli.options import Interrupted
from later_reporting_dagster.cli.project import Project
from later_reporting_dagster.cli.run_progress import progress_bars, progress_lines
from later_reporting_dagster.contract.safe_line import one_line
from later_reporting_dagster.defs.component_base import ComponentBase
from later_reporting_dagster.defs.dagster_private import set_origin_of_runs
from later_reporting_dagster.defs.events import FAILED_PARTITIONS
from later_reporting_dagster.ingest.progress import Progress
from later_reporting_dagster.lake.tables import PERIODS_TABLES, RAW_NAMES
from later_reporting_dagster.rollups.rollup_tables import CADENCES, Cadence

# A daemon with `run_retries` would repeat a failed run, of which the command has listed what failed.
NO_RETRIES = {"dagster/max_retries": "0"}


@dataclass(frozen=True, slots=True)
class Written:
    """What a run has written of an asset. `partitions` is None if it has none, and `rows` if it is no table."""

    asset: str
    partitions: int | None
    changed: int
    rows: int | None

    def __str__(self) -> str:
        """Return it as a line."""
        rows = "" if self.rows is None else f"; {self.rows:,} rows"
        if self.partitions is None:
            return f"{self.asset}: {'changed' if self.changed else 'unchanged'}{rows}"
        period = CADENCES.get(self.asset.rpartition("/")[2], Cadence.DAY)
        periods = f"{self.partitions:,} {period}{'s' * (self.partitions != 1)}"
        return f"{self.asset}: {periods}, {self.changed:,} of them changed{rows}"


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The result of a run."""

    succeeded: bool
    failed: Mapping[tuple[str, str], str]  # reasons by asset and partition; for raw assets, by asset and "day instance"
    error: str | None  # the reason, if a whole step failed
    written: Sequence[Written]  # each asset of which something was written, also if the run failed
    checks: Sequence[dg.AssetCheckEvaluation]
    fetches: Sequence[Progress]  # the final progress of each table that was fetched


def dagster_home() -> str:
    """Return the value of `DAGSTER_HOME`."""
    if home := os.environ.get("DAGSTER_HOME"):
        return home
    raise click.ClickException(
        "DAGSTER_HOME is not set: create a folder for Dagster's runs and partitions, and set it to its absolute path"
    )


def dagster_instance() -> dg.DagsterInstance:
    """Return the Dagster instance of `DAGSTER_HOME`."""
    home = dagster_home()
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
    config: Mapping[str, Mapping[str, Any]] | None = None,
    verbose: bool = False,
) -> RunOutcome:
    """Materialize and check assets in one run, and show its progress. Failures are part of the returned outcome.

    All assets must have the same kind of partitions; `range_tags` selects some. `config` is the run config of
    assets, by name. An interrupted run raises a `ClickException`.
    """
    settings = project.settings
    job = project.definitions.resolve_implicit_global_asset_job_def()
    console = {"config": {"log_level": "DEBUG" if verbose else "CRITICAL"}}
    ops = {settings.op_name(asset): {"config": dict(of_asset)} for asset, of_asset in (config or {}).items()}
    earlier = len(project.later.fetches)
    set_origin_of_runs(instance, job, project.location)
    try:
        fetches, fetched = project.later.fetches, {*RAW_NAMES, *PERIODS_TABLES} & {*assets}
        has_bars = fetched and os.isatty(2)
        with progress_bars(fetches, earlier=earlier) if has_bars else progress_lines(assets, fetches, earlier=earlier):
            result = job.execute_in_process(
                instance=instance,
                raise_on_error=False,
                asset_selection=[settings.asset_key(asset) for asset in assets],  # the UI shows it as the run's target
                tags={**NO_RETRIES, **(tags or {})},
                run_config={"loggers": {"console": console}, "ops": ops},
            )
    except (SQLAlchemyError, OSError) as failure:  # of Dagster's storage, such as a full disk
        reason = getattr(failure, "orig", None) or failure
        raise click.ClickException(
            f"Dagster cannot store the run: {one_line(str(reason))}. What has been written to the lake stays. See that"
            f" DAGSTER_HOME={os.environ.get('DAGSTER_HOME')} has free space and can be written, and run again."
        ) from failure
    return _outcome(result, settings, instance=instance, fetches=project.later.fetches[earlier:])


def _outcome(
    result: dg.ExecuteInProcessResult,
    settings: ComponentBase,
    *,
    instance: dg.DagsterInstance,
    fetches: Sequence[Progress],
) -> RunOutcome:
    failed: dict[tuple[str, str], str] = {}
    error: str | None = None
    materializations: dict[dg.AssetKey, list[dg.AssetMaterialization]] = {}
    checks: list[dg.AssetCheckEvaluation] = []
    kind = dg.DagsterEventType
    # `result` lacks what steps have logged, and the check evaluations of a failed run.
    kinds = {kind.STEP_FAILURE, kind.ASSET_MATERIALIZATION, kind.ASSET_CHECK_EVALUATION}
    for entry in instance.all_logs(result.run_id, of_type=kinds):
        event = entry.get_dagster_event()
        if event.is_step_materialization:
            made = event.step_materialization_data.materialization
            materializations.setdefault(made.asset_key, []).append(made)
        elif not event.is_step_failure:
            checks.append(event.asset_check_evaluation_data)
        elif partition_failures := _partition_failures(event, settings):
            failed |= partition_failures
        else:
            data = event.step_failure_data
            cause = (data.error.cause or data.error) if data.error else None
            if cause and cause.cls_name == dg.DagsterExecutionInterruptedError.__name__:
                # Connections of Dagster stay open. On Python 3.13, SQLAlchemy logs an error for each at exit.
                logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
                raise Interrupted(
                    "interrupted: what was written is kept, and `backfill --only-missing` fetches the rest"
                )
            described = data.user_failure_data and data.user_failure_data.description
            raised = cause and cause.message.strip().removeprefix(f"{cause.cls_name}: ")
            error = described or raised or error
    if not result.success and not failed and error is None:
        error = f"Run {result.run_id} failed. See its log in the Dagster UI."
    return RunOutcome(
        succeeded=result.success,
        failed=failed,
        error=error,
        written=[_written(key, events) for key, events in materializations.items()],
        checks=checks,
        fetches=fetches,
    )


def _partition_failures(event: dg.DagsterEvent, settings: ComponentBase) -> dict[tuple[str, str], str]:
    """Return the reason of each failed partition in the metadata of a step failure, by asset and partition."""
    user_data = event.step_failure_data.user_failure_data
    entry = user_data.metadata.get(FAILED_PARTITIONS) if user_data else None
    if not isinstance(entry, dg.JsonMetadataValue) or not isinstance(entry.data, dict):
        return {}
    asset = str(event.step_key).removeprefix(settings.op_name(""))
    return {(asset, str(key)): str(reason) for key, reason in entry.data.items()}


def _written(key: dg.AssetKey, events: Sequence[dg.AssetMaterialization]) -> Written:
    metadata: list[dict[str, Any]] = [{name: each.value for name, each in event.metadata.items()} for event in events]
    row_counts = [each.get("dagster/partition_row_count", each.get("dagster/row_count")) for each in metadata]
    return Written(
        asset=key.to_user_string(),
        partitions=None if events[0].partition is None else len(events),
        changed=sum(bool(each.get("files_changed") or each.get("changed")) for each in metadata),
        rows=None if row_counts[0] is None else sum(count or 0 for count in row_counts),
    )
